//! Following sessions: watch, wait and subscribe, also over a killed node.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use e2e::home::Part;
use e2e::pty::Terminal;
use e2e::steps::{self, ECHO, SLEEPER};
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Prints a number as often as it is told a line, then ends with status 3 at the line `end`.
const SCRIPT: [&str; 3] = [
    "sh",
    "-c",
    "echo begin; while read -r x; do [ \"$x\" = end ] && exit 3; echo \"out:$x\"; done",
];

#[track_caller]
fn lines(text: &str) -> Vec<Value> {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"));
    lines.collect()
}

#[test]
fn waiting_tells_success_failure_and_time_by_its_status() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "good", &["sh", "-c", "echo fine; read -r x"]);
        steps::launch(cw, "bad", &SCRIPT);
        let wait = cw.start(&["wait", "good"]);
        let _ = cw.run(&["send", "good", "go"]).ok();
        let done = wait.wait(PATIENCE).ok();
        assert!(
            done.stdout
                .starts_with("=== good (exit_code=0) ===\nfine\n"),
            "{done}"
        );
        // A session that has ended long ago is waited for just as well.
        let again = cw.run(&["wait", "good", "--json"]).ok();
        let sessions: Value = serde_json::from_str(&again.stdout).expect("JSON");
        assert_eq!(sessions[0]["exit_code"], 0);
        assert!(
            sessions[0]["last_output_snippet"]
                .as_str()
                .is_some_and(|text| text.contains("fine"))
        );

        let begun = Instant::now();
        let late = cw.run(&["wait", "bad", "--timeout", "2"]);
        assert_eq!(late.status, Some(124), "{late}");
        assert!(begun.elapsed() >= Duration::from_secs(2), "not before");
        late.fails("timeout").hints("run on");
        let _ = cw.run(&["send", "bad", "end"]).ok();
        let failed = cw.run(&["wait", "bad"]);
        assert_eq!(failed.status, Some(8), "{failed}");
        assert!(
            failed
                .stdout
                .starts_with("=== bad (exit_code=3) ===\nbegin\n"),
            "{failed}"
        );
        assert!(failed.stderr.contains("[session_failed]"), "{failed}");
        cw.run(&["wait", "nobody"]).fails("session_not_found");
        cw.run(&["wait"]).fails("usage");
    });
}

#[test]
fn waiting_for_words_and_for_silence() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SCRIPT);
        let done = cw
            .run(&["wait", "coder", "--until", "output", "^be.in$"])
            .ok();
        assert_eq!(done.stdout, "=== coder (exit_code=n/a) ===\nbegin\n\n");
        let mut new = cw.start(&["wait", "coder", "--until", "output", "out:[0-9]+", "--new"]);
        // It may begin to wait before or after a line; one of them comes after.
        wait_until("a new line is seen", PATIENCE, || {
            let _ = cw.run(&["send", "coder", "7"]).ok();
            if new.runs() {
                Err("it waits".to_owned())
            } else {
                Ok(())
            }
        });
        assert!(new.wait(PATIENCE).ok().stdout.contains("out:7"));
        let idle = cw
            .run(&["wait", "--until", "idle", "coder", "--idle-seconds", "1"])
            .ok();
        assert!(
            idle.stdout.starts_with("=== coder (exit_code=n/a) ==="),
            "{idle}"
        );
        cw.run(&["wait", "coder", "--until", "output", "("])
            .fails("usage");
        cw.run(&["wait", "coder", "--until", "output"])
            .fails("usage");
        cw.run(&["wait", "coder", "--until", "nonsense"])
            .fails("usage");
        let _ = cw.run(&["send", "coder", "end"]).ok();
        let missed = cw.run(&["wait", "coder", "--until", "output", "never"]);
        assert_eq!(missed.status, Some(8), "{missed}");
    });
}

#[test]
fn waiting_for_all_or_for_any_with_a_tag() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        for name in ["one", "two"] {
            let _ = cw
                .run(&[
                    "launch",
                    name,
                    "-t",
                    "worker",
                    "--",
                    "sh",
                    "-c",
                    "read -r x",
                ])
                .ok();
        }
        let any = cw.start(&["wait", "--tag", "worker", "--condition", "any"]);
        let all = cw.start(&["wait", "worker"]);
        let _ = cw.run(&["send", "one", "x"]).ok();
        let done = any.wait(PATIENCE).ok();
        assert!(done.stdout.contains("=== one (exit_code=0)"), "{done}");
        let _ = cw.run(&["send", "two", "x"]).ok();
        let done = all.wait(PATIENCE).ok();
        assert_eq!(done.stdout.matches("exit_code=0").count(), 2, "{done}");
        cw.run(&["wait", "--tag", "nobody"])
            .fails("session_not_found");
    });
}

#[test]
fn w04_w05_watching_gets_the_last_byte_and_the_end() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        for round in 0..10 {
            let _ = cw
                .run(&[
                    "launch",
                    "--",
                    "sh",
                    "-c",
                    "read -r x; seq 1 500; printf last",
                ])
                .ok();
            let id = (round + 1).to_string();
            let watch = cw.start(&["watch", &id]);
            let _ = cw.run(&["send", &id, "go"]).ok();
            let done = watch.wait(PATIENCE).ok();
            assert!(done.stdout.ends_with("500\nlast"), "{done}");
            assert!(
                done.stderr.ends_with("[cw] session completed (0)\n"),
                "{done}"
            );
        }
        // A session that is over is shown and left.
        let done = cw.run(&["watch", "1", "--tail", "2"]).ok();
        assert_eq!(done.stdout, "500\nlast");
        let done = cw.run(&["watch", "1", "--tail", "2", "--raw"]).ok();
        assert_eq!(done.stdout, "500\r\nlast");
        let done = cw.run(&["watch", "1", "--no-history"]).ok();
        assert_eq!(done.stdout, "");
    });
}

#[test]
fn watching_ends_when_its_time_is_up() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "sleeper", &SLEEPER);
        let done = cw.run(&["watch", "sleeper", "--timeout", "1"]).ok();
        assert!(
            done.stderr.ends_with("[cw] watch timeout reached\n"),
            "{done}"
        );
        assert!(cw.ok(&["list", "--status", "running"]).contains("sleeper"));
        cw.run(&["watch"]).fails("usage");
        cw.run(&["watch", "99"]).fails("session_not_found");
    });
}

#[test]
fn w39_a_tag_is_watched_by_lines_and_takes_in_newcomers() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let launch = |name: &str| {
            let script = "read -r x; echo \"I am $CW_SESSION_NAME\"";
            let _ = cw
                .run(&["launch", name, "-t", "worker", "--", "sh", "-c", script])
                .ok();
        };
        launch("one");
        let watch = cw.start(&["watch", "--tag", "worker"]);
        let _ = cw.run(&["send", "one", "x"]).ok();
        let _ = watch.stdout.line("[one] I am one", PATIENCE);
        assert!(
            watch
                .wait(PATIENCE)
                .ok()
                .stdout
                .contains("[one] [cw] session completed (0)")
        );

        launch("two");
        let watch = cw.start(&["watch", "worker", "--json"]);
        launch("three");
        for name in ["two", "three"] {
            let _ = cw.run(&["send", name, "x"]).ok();
            let _ = watch.stdout.line(&format!("I am {name}"), PATIENCE);
        }
        let objects = lines(&watch.wait(PATIENCE).ok().stdout);
        let said = |name: &str| {
            objects
                .iter()
                .any(|line| line["name"] == name && line["text"] == format!("I am {name}"))
        };
        assert!(said("two") && said("three"), "{objects:?}");
    });
}

#[test]
fn watching_waiting_and_subscribing_outlive_the_node() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "counter",
            &[
                "sh",
                "-c",
                "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); [ $((i%100)) = 0 ] && sleep 0.1; done",
            ],
        );
        let watch = cw.start(&["watch", "counter"]);
        let wait = cw.start(&["wait", "counter"]);
        let events = cw.start(&["subscribe", "counter", "--since", "0", "--json"]);
        let _ = watch.stdout.line("100", PATIENCE);
        let _ = events.stdout.line("session.created", PATIENCE);
        for _ in 0..3 {
            let before = local.home().kill(Part::Node);
            let _ = local.home().wait_for(Part::Node, Some(before));
        }
        let watched = watch.wait(PATIENCE).ok();
        let numbers: Vec<u32> = watched
            .stdout
            .lines()
            .map(|line| line.trim().parse().expect("a number"))
            .collect();
        assert!(
            numbers.iter().copied().eq(0..3000),
            "{} numbers",
            numbers.len()
        );
        assert!(wait.wait(PATIENCE).ok().stdout.contains("exit_code=0"));
        let _ = events.stdout.line("session.status", PATIENCE);
        let text = events.stdout.text();
        let cursors: Vec<u64> = lines(&text)
            .iter()
            .filter_map(|line| line["event"]["cursor"].as_u64())
            .collect();
        assert!(cursors.is_sorted_by(|a, b| a < b), "{cursors:?}");
    });
}

#[test]
fn subscriptions_choose_and_continue() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw
            .run(&["launch", "one", "-t", "worker", "--", "true"])
            .ok();
        let _ = cw.run(&["launch", "two", "--", "true"]).ok();
        for name in ["one", "two"] {
            let _ = cw.run(&["wait", name]).ok();
        }
        let heard = cw.start(&[
            "subscribe",
            "--tag",
            "worker",
            "--event",
            "session.status",
            "--since",
            "0",
            "--json",
        ]);
        let first = heard.stdout.line("session.status", PATIENCE);
        let event: Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!(event["session_id"], 1);
        assert_eq!(event["event"]["data"]["exit_code"], 0);
        let cursor = event["event"]["cursor"].to_string();
        // Launched later, with the tag, while the subscription stands.
        let _ = cw
            .run(&[
                "launch", "three", "-t", "worker", "--", "sh", "-c", "exit 4",
            ])
            .ok();
        let next = heard.stdout.line("\"exit_code\":4", PATIENCE);
        assert!(next.contains("\"session_id\":3"), "{next}");
        // Whoever comes back with a cursor is told the rest and nothing twice.
        let rest = cw.start(&[
            "subscribe",
            "--event",
            "session.status",
            "--since",
            &cursor,
            "--json",
        ]);
        let _ = rest.stdout.line("\"session_id\":3", PATIENCE);
        assert!(!rest.stdout.text().contains("\"session_id\":1"));
        let plain = cw.start(&["subscribe", "--session", "two", "--since", "0"]);
        let line = plain.stdout.line("session.created", PATIENCE);
        assert!(line.starts_with("[session 2] {\"timestamp\":"), "{line}");
        cw.run(&["subscribe", "--event", "session.nonsense"])
            .fails("usage")
            .hints("session.status");
        cw.run(&["subscribe", "nobody"]).fails("session_not_found");
    });
}

#[test]
fn all_types_of_events_are_told() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "one", &ECHO);
        steps::launch(cw, "two", &SLEEPER);
        let mut terminal = Terminal::run(cw, &["attach", "one"]);
        terminal.shows("attached to one", PATIENCE);
        terminal.type_in("typed\n");
        terminal.shows("got:typed", PATIENCE);
        terminal.type_in("\u{2}d");
        assert_eq!(terminal.ends(PATIENCE), 0);
        let _ = cw.run(&["msg", "-f", "one", "two", "hello"]).ok();
        let request = cw.start(&["request", "-f", "one", "two", "ready?"]);
        let inbox = || cw.ok(&["inbox", "two", "--json"]);
        let id = wait_until("the request is in the inbox", PATIENCE, || {
            let text = inbox();
            let messages: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let found = messages.as_array().and_then(|all| {
                all.iter()
                    .find_map(|one| one["request_id"].as_str().map(str::to_owned))
            });
            found.ok_or(text)
        });
        let _ = cw.run(&["reply", "-f", "two", &id, "yes"]).ok();
        let _ = request.wait(PATIENCE).ok();
        let _ = cw.run(&["rename", "one", "first"]).ok();
        let _ = cw.run(&["tag", "first", "new"]).ok();
        let _ = cw.run(&["kill", "--all"]).ok();
        // The machine fails while an event is written: what is left of it is cut off and told.
        local.home().kill_both();
        let events = local.home().dir().join("sessions/1/events.jsonl");
        let mut text = std::fs::read(&events).expect("it is there");
        text.extend_from_slice(b"{\"timestamp\": \"20");
        std::fs::write(&events, text).expect("it is ours");
        let heard = cw.start(&["subscribe", "--since", "0", "--json"]);
        for kind in [
            "session.created",
            "session.input",
            "session.attached",
            "session.detached",
            "session.output_summary",
            "session.renamed",
            "session.tagged",
            "session.killed",
            "session.restored",
            "session.status",
            "direct.message",
            "message.request",
            "message.reply",
        ] {
            let _ = heard.stdout.line(&format!("\"type\":\"{kind}\""), PATIENCE);
        }
    });
}

#[test]
fn nobody_shows_a_session_in_itself() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script = format!(
            "for verb in attach watch; do {CW} $verb coder; echo $verb=$?; done; \
             {CW} attach; echo bare=$?"
        );
        steps::launch(cw, "coder", &["sh", "-c", &script]);
        let shown = steps::wait_for_output(cw, "coder", "bare=");
        for part in ["attach=2", "watch=2", "bare=3"] {
            assert!(shown.contains(part), "{shown}");
        }
        let told = shown.matches("this is the session you are in").count();
        assert_eq!(told, 2, "{shown}");
    });
}

#[test]
fn who_reads_no_more_of_a_log_is_told_nothing() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "long", &["sh", "-c", "seq 200000"]);
        let _ = cw.run(&["wait", "long"]).ok();
        let script = format!("({CW} logs long; echo status=$? >&2) | head -c 1; echo over");
        steps::launch(cw, "reader", &["sh", "-c", &script]);
        let _ = cw.run(&["wait", "reader"]).ok();
        let shown = cw.ok(&["logs", "reader"]);
        assert!(shown.contains("status=141"), "{shown}");
        assert!(!shown.contains("Broken pipe"), "{shown}");
    });
}

#[test]
fn cursors_mean_what_they_say() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SLEEPER);
        let both = cw.run(&["inbox", "coder", "--since", "0", "--tail", "3"]);
        assert_eq!(both.status, Some(2), "{both}");
        for verb in ["listen", "subscribe"] {
            let ahead = cw.start(&[verb, "--since", "999999"]);
            let _ = ahead.stderr.line("there is no cursor 999999 yet", PATIENCE);
        }
    });
}

/// A node that is lost as soon as it is listened to, and comes back without a word.
fn falls_silent(listener: &UnixListener) -> std::io::Result<UnixStream> {
    let hello = json!({"type": "Hello", "version": 1, "release": "9", "node": "x", "pid": 1});
    let ack = json!({"type": "MsgListenAck", "cursor": 0});
    let mut lost = listener.accept()?.0;
    answer(&mut lost, &hello)?;
    answer(&mut lost, &ack)?;
    drop(lost);
    let mut silent = listener.accept()?.0;
    answer(&mut silent, &hello)?;
    Ok(silent)
}

/// Takes a frame, whatever it says, and answers it.
fn answer(stream: &mut UnixStream, answer: &Value) -> std::io::Result<()> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [_, length @ ..] = head;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body)?;
    let text = answer.to_string();
    let length = u32::try_from(text.len()).unwrap_or_default();
    stream.write_all(&[&[0][..], &length.to_be_bytes(), text.as_bytes()].concat())
}

#[test]
fn a_try_that_takes_long_is_told_while_it_lasts() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw.run(&["start"]).ok();
        let _ = cw.run(&["stop"]).ok();
        let socket = local.home().socket();
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let node = std::thread::spawn(move || falls_silent(&listener));
        let listen = cw.start(&["listen"]);
        let _ = listen.stderr.line("trying again", PATIENCE);
        let silent = node.join().expect("it does not panic");
        assert!(silent.is_ok(), "it was called again: {silent:?}");
        drop(listen);
        let _ = std::fs::remove_file(&socket);
    });
}
