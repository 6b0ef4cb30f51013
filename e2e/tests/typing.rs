//! Messages typed into programs that take input in the ways that agents and editors do.

use std::path::{Path, PathBuf};

use e2e::case::or_skip;
use e2e::steps;
use e2e::{Cw, Local, PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// The programs, in `programs/box.py`, and whether they take marked pastes.
const BOXES: [(&str, bool); 5] = [
    ("readline", true),
    ("raw", false),
    ("claude", true),
    ("codex", false),
    ("codex-marked", true),
];

/// Submissions to each of them in the recorded run.
const RECORDED: usize = 50;

/// The program `box.py`, if there is what runs it.
fn python() -> Result<String, String> {
    let found = std::process::Command::new("python3")
        .arg("--version")
        .output();
    found.map_err(|error| format!("python3: {error}"))?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/box.py");
    Ok(program.display().to_string())
}

fn installed(program: &str) -> Result<(), String> {
    let found = std::process::Command::new(program)
        .arg("--version")
        .output();
    found
        .map(drop)
        .map_err(|error| format!("{program}: {error}"))
}

/// Starts a model, and waits until it can be typed into.
fn start(local: &Local, program: &str, model: &str) -> PathBuf {
    let file = local.home().dir().join(format!("{model}.out"));
    let path = file.display().to_string();
    steps::launch(local.cw(), model, &["python3", program, model, &path]);
    let shows = match model {
        "claude" => "shortcuts",
        "codex" | "codex-marked" => "\u{203a}",
        "dialog" => "No",
        "password" => "Password",
        "deaf" => "deaf",
        _ => "$ ",
    };
    wait_until(&format!("{model} has begun"), PATIENCE, || {
        let log = local.cw().ok(&["logs", "--raw", model]);
        log.contains(shows).then_some(()).ok_or(log)
    });
    file
}

/// What a program has taken.
fn taken(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn send(cw: &Cw, session: &str, body: &str) -> Value {
    let words = ["msg", "--delivery", "both", "--json", session, body];
    let done = cw.run(&words).ok();
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error} in {done}"))
}

/// A message, different each time, and what of it arrives.
fn message(round: usize, marked: bool) -> (String, String) {
    let body = match round % 5 {
        0 => format!("run the tests {round}"),
        1 => format!("first {round}\nsecond\n\nfourth"),
        2 => format!("\x1b[201~\rq {round} \x03\x1b[A grün ✓"),
        3 => format!("{round} {}", "long ".repeat(if marked { 400 } else { 15 })),
        _ => format!("is it 1. or 2. (y/n) {round}?"),
    };
    let visible = |ch: char| match ch {
        '\0'..='\u{1f}' if ch != '\n' => char::from_u32(0x2400 + ch as u32).unwrap_or('?'),
        _ => ch,
    };
    let text: String = format!("Message from owner: {body}")
        .chars()
        .map(visible)
        .collect();
    if marked {
        // Lines after the first are set in: none looks like the head of a message.
        let text = text.replace('\n', "\n  ").replace("\n  \n", "\n\n");
        return (body, text);
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    (body.clone(), lines.join(" / "))
}

fn submissions(local: &Local, rounds: usize) {
    let Some(program) = or_skip(python()) else {
        return;
    };
    let mut wrong = Vec::new();
    for (model, marked) in BOXES {
        let file = start(local, &program, model);
        let mut expected = Vec::new();
        for round in 0..rounds {
            let (body, text) = message(round, marked);
            expected.push(text);
            let sent = send(local.cw(), model, &body);
            if sent["state"] != "submitted" {
                wrong.push(format!("{model} {round}: {sent}"));
            }
            wait_until(&format!("{model} takes message {round}"), PATIENCE, || {
                let taken = taken(&file);
                (taken.len() > round)
                    .then_some(())
                    .ok_or_else(|| format!("{taken:?}"))
            });
        }
        assert_eq!(taken(&file), expected, "{model}");
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn input_boxes_take_messages_whole() {
    case(&Local::new(CW), |local| submissions(local, 5));
}

#[test]
#[ignore = "takes minutes; its figures are recorded"]
fn input_boxes_take_fifty_messages_each() {
    case(&Local::new(CW), |local| submissions(local, RECORDED));
}

#[test]
fn a_request_says_how_to_reply() {
    case(&Local::new(CW), |local| {
        let Some(program) = or_skip(python()) else {
            return;
        };
        let cw = local.cw();
        let file = start(local, &program, "readline");
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
            taken(&file).first().cloned().ok_or_else(String::new)
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
        let Some(program) = or_skip(python()) else {
            return;
        };
        let cw = local.cw();
        for (model, why) in [("dialog", "dialog"), ("password", "password")] {
            let file = start(local, &program, model);
            let refused = cw
                .run(&["msg", "--delivery", "both", model, "hello"])
                .fails("not_typed");
            assert!(refused.stderr.contains(why), "{refused}");
            assert_eq!(taken(&file), [""; 0]);
            // It is in the inbox, with what became of it.
            let inbox = steps::inbox(cw, model);
            assert_eq!(inbox[0]["typed"], "refused", "{inbox:?}");
        }
        let _ = start(local, &program, "deaf");
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
            if or_skip(installed(program)).is_none() {
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
