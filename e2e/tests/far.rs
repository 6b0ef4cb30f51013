//! A session on another machine, used as one here.

use std::time::Duration;

use e2e::processes::Processes;
use e2e::pty::Terminal;
use e2e::steps;
use e2e::substrate::{Host, Substrate, Way};
use e2e::wire::Wire;
use e2e::{PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// How long a long history may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Lines that were printed before anybody came: some 1.4 MB.
const LINES: usize = 200_000;

#[test]
fn s28_a_far_session_is_attached_to_as_one_here() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::join_both(substrate);
            steps::wait_until_online(substrate);
            let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
            let script = format!(
                "seq 1 {LINES}; while read -r line; do echo \"got:$line\"; stty size; done"
            );
            steps::launch(&here, "dev-2:coder", &["sh", "-c", &script]);
            wait_until("the history is there", LONG, || {
                let last = there.ok(&["logs", "coder", "--tail", "1"]);
                let is_end = last == format!("{LINES}\n");
                is_end.then_some(()).ok_or(last)
            });
            let id = steps::status(&there, "coder")["id"].to_string();

            let mut one = Terminal::run(&here, &["attach", "dev-2:coder"]);
            one.shows(&LINES.to_string(), LONG);
            let mut other = Terminal::run(&here, &["attach", &format!("dev-2:{id}")]);
            other.shows(&LINES.to_string(), LONG);
            one.type_in("first\r");
            one.shows("got:first", PATIENCE);
            other.shows("got:first", PATIENCE);
            // Who types leads the size.
            other.resize(90, 20);
            other.type_in("second\r");
            one.shows("got:second", PATIENCE);
            other.shows("20 90", PATIENCE);

            one.type_in("\u{2}d");
            assert_eq!(one.ends(PATIENCE), 0, "{}", one.text());
            if let Err(left) = one.restored() {
                panic!("the terminal was not given back: {left}");
            }
            other.type_in("third\r");
            other.shows("got:third", PATIENCE);
            let mut again = Terminal::run(&here, &["attach", "dev-2:coder"]);
            again.shows("got:third", PATIENCE);
            again.type_in("fourth\r");
            other.shows("got:fourth", PATIENCE);

            let log = here
                .run_with(&["logs", "--raw", "dev-2:coder"], b"", LONG)
                .ok()
                .stdout;
            let history: String = (1..=LINES).map(|line| format!("{line}\r\n")).collect();
            assert!(log.len() > 1 << 20, "{}", log.len());
            assert!(log.starts_with(&history), "{}", log.len());
        },
    );
}

#[test]
fn a_message_that_was_taken_is_known_when_its_node_is_not() {
    let processes = Processes::new(CW, Way::Relayed);
    case(&processes as &dyn Substrate, |substrate| {
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        let here = substrate.cw(Host::Dev1);
        steps::launch(&substrate.cw(Host::Dev2), "coder", &steps::SLEEPER);
        let mut wire = Wire::connect(&processes.home(Host::Dev1).socket());
        let mut send = |id: &str, kind: &str| {
            let call = serde_json::json!({
                "type": "MsgSend", "to_name": "coder", "node": "dev-2", "body": "once",
                "delivery": "inbox", "message_id": id,
            });
            wire.ask(&call, kind)
        };
        let first = send("msg_AAAAAAAAAAAAAAAAAAAAAA", "MsgSent");
        assert_eq!(first["state"], "delivered");
        let admin = substrate.admin();
        let url = substrate.relay_url();
        let _ = admin
            .run(&["network", "revoke", "dev-2", "--relay-url", &url])
            .ok();
        wait_until("dev-2 is known no more", PATIENCE, || {
            let list = here.ok(&["node", "list"]);
            (!list.contains("dev-2")).then_some(()).ok_or(list)
        });
        assert_eq!(send("msg_AAAAAAAAAAAAAAAAAAAAAA", "MsgSent"), first);
        let error = send("msg_AAAAAAAAAAAAAAAAAAAAAQ", "Error");
        assert_eq!(error["code"], "node_unknown", "{error}");
    });
}
