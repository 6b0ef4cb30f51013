//! Messages typed into programs that take input in the ways that agents and editors do.

use e2e::boxes;
use e2e::case::or_skip;
use e2e::steps;
use e2e::{Cw, Local, PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

fn send(cw: &Cw, session: &str, body: &str) -> Value {
    let words = ["msg", "--delivery", "both", "--json", session, body];
    let done = cw.run(&words).ok();
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error} in {done}"))
}

#[test]
fn s49_a_request_says_how_to_reply() {
    case(&Local::new(CW), |local| {
        let Some(program) = or_skip(boxes::program()) else {
            return;
        };
        let cw = local.cw();
        let file = boxes::start(cw, &program, "readline", "readline");
        let asked = cw.start(&[
            "request",
            "--delivery",
            "pty",
            "readline",
            "ready?",
            "--raw",
        ]);
        let id = steps::wait_for_request(cw, "readline");
        let text = wait_until("it is typed", PATIENCE, || {
            boxes::taken(&file).first().cloned().ok_or_else(String::new)
        });
        let expected =
            format!("Request {id} from owner: ready?\n\nReply with: cw reply {id} \"<response>\"");
        assert_eq!(text, expected);
        let _ = cw.run(&["reply", &id, "yes", "-f", "readline"]).ok();
        assert_eq!(asked.wait(PATIENCE).ok().stdout, "yes\n");
    });
}

#[test]
fn what_is_no_input_box_is_not_typed_into() {
    case(&Local::new(CW), |local| {
        let Some(program) = or_skip(boxes::program()) else {
            return;
        };
        let cw = local.cw();
        for (model, why) in [("dialog", "dialog"), ("password", "password")] {
            let file = boxes::start(cw, &program, model, model);
            let refused = cw
                .run(&["msg", "--delivery", "both", model, "hello"])
                .fails("not_typed");
            assert!(refused.stderr.contains(why), "{refused}");
            assert_eq!(boxes::taken(&file), [""; 0]);
            // It is in the inbox, with what became of it.
            let inbox = steps::inbox(cw, model);
            assert_eq!(inbox[0]["typed"], "refused", "{inbox:?}");
        }
        let _ = boxes::start(cw, &program, "deaf", "deaf");
        let sent = send(cw, "deaf", "hello");
        assert_eq!(sent["typed"], "unverified", "{sent}");
    });
}

#[test]
fn editors_and_pagers_are_left_alone() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let text = local.home().dir().join("text");
        std::fs::write(&text, "text\n".repeat(500)).unwrap();
        let path = text.display().to_string();
        for (program, words) in [
            ("vim", &["vim", "-u", "NONE", "-n", &path][..]),
            ("less", &["less", &path]),
        ] {
            if or_skip(boxes::installed(program)).is_none() {
                continue;
            }
            steps::launch(cw, program, words);
            steps::wait_for_output(cw, program, "text");
            let before = cw.ok(&["logs", "--raw", program]);
            cw.run(&["msg", "--delivery", "pty", program, "dd:wq"])
                .fails("not_typed");
            assert_eq!(cw.ok(&["logs", "--raw", program]), before);
        }
        assert_eq!(
            std::fs::read_to_string(&text).unwrap(),
            "text\n".repeat(500)
        );
    });
}

#[test]
fn auto_types_when_a_session_sends() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &steps::ECHO);
        steps::launch(cw, "planner", &steps::SLEEPER);
        let _ = cw.run(&["msg", "coder", "from nobody"]).ok();
        let _ = cw.run(&["msg", "-f", "planner", "coder", "from one"]).ok();
        let log = steps::wait_for_output(cw, "coder", "got:Message from planner: from one");
        assert!(!log.contains("from nobody"), "{log}");
        let inbox = steps::inbox(cw, "coder");
        assert_eq!(
            (&inbox[0]["state"], &inbox[1]["state"]),
            (&"delivered".into(), &"submitted".into())
        );
    });
}
