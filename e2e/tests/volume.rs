//! Much at once: long logs, long messages, many callers, here and from the other machine, with
//! every byte where it belongs.

use std::time::Duration;

use e2e::processes::Processes;
use e2e::pty::Terminal;
use e2e::steps;
use e2e::substrate::{Host, Substrate, Way};
use e2e::{PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Lines of the long log: some 14 MB of it.
const LINES: usize = 2_000_000;

/// How long a long log may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Messages at the same time.
const CALLERS: usize = 20;

#[test]
fn processes_direct() {
    much(Way::Direct);
}

#[test]
fn processes_relayed() {
    much(Way::Relayed);
}

fn much(way: Way) {
    case(&Processes::new(CW, way) as &dyn Substrate, |substrate| {
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        let count = format!("seq 1 {LINES}; read -r x");
        steps::launch(&here, "dev-2:counter", &["sh", "-c", &count]);
        let _follower = here.start(&["logs", "-f", "dev-2:counter"]);
        let follower = here.start(&["logs", "-f", "--raw", "dev-2:counter"]);
        // A terminal that comes late sees the end of it, and types.
        wait_until("the counter is at the end", LONG, || {
            let last = there.ok(&["logs", "counter", "--tail", "1"]);
            let is_end = last == format!("{LINES}\n");
            is_end.then_some(()).ok_or(last)
        });
        let mut terminal = Terminal::run(&here, &["attach", "dev-2:counter"]);
        terminal.shows(&format!("{LINES}\r\n"), LONG);
        terminal.type_in("\r");
        assert_eq!(terminal.ends(PATIENCE), 0, "{}", terminal.text().len());

        let followed = follower.wait(LONG).ok();
        let expected: String = (1..=LINES).map(|line| format!("{line}\r\n")).collect();
        let same = followed.stdout.starts_with(&expected);
        assert!(
            same,
            "{} bytes, {} expected",
            followed.stdout.len(),
            expected.len()
        );
        let logs = here
            .run_with(&["logs", "--raw", "dev-2:counter"], b"", LONG)
            .ok();
        assert!(
            logs.stdout == followed.stdout,
            "{} bytes",
            logs.stdout.len()
        );
        many_messages(substrate);
    });
}

/// Many callers at once: each message arrives once, whole.
#[track_caller]
fn many_messages(substrate: &dyn Substrate) {
    let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
    steps::launch(&there, "coder", &steps::SLEEPER);
    let body = |caller: usize| format!("{caller}:{}", "x".repeat(10_000 * caller));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| here.start_with(&["msg", "dev-2:coder", "-"], body(caller).as_bytes()))
        .collect();
    for caller in callers {
        let _ = caller.wait(LONG).ok();
    }
    let mut inbox: Vec<String> = steps::inbox(&here, "dev-2:coder")
        .iter()
        .filter_map(|message| message["body"].as_str().map(str::to_owned))
        .collect();
    let mut expected: Vec<String> = (0..CALLERS).map(body).collect();
    inbox.sort();
    expected.sort();
    assert!(
        inbox == expected,
        "{} messages, {CALLERS} expected",
        inbox.len()
    );
}
