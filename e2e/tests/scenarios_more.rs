//! More of what existing clients do, by number: people at terminals, environments, names, and what
//! several commands do together. The first ones are in `scenarios`.

use e2e::home::Part;
use e2e::pty::Terminal;
use e2e::steps::{self, ECHO, SLEEPER};
use e2e::wire::Wire;
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// What programs that fill the screen switch on: the other screen, no cursor, mouse, focus, marked
/// pastes, the kitty keyboard.
const SWITCHED_ON: &str =
    "\\033[?1049h\\033[?25l\\033[?1000h\\033[?1006h\\033[?1004h\\033[?2004h\\033[>1u";

/// The objects of lines.
fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn s24_a_supervisor_looks_types_and_lists() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        for name in ["one", "two"] {
            steps::launch(cw, name, &ECHO);
        }
        assert_eq!(steps::status(cw, "one")["status"], "running");
        let _ = cw.run(&["send", "two", "do this"]).ok();
        steps::wait_for_output(cw, "two", "got:do this");
        assert!(!cw.ok(&["logs", "one"]).contains("do this"));
        let list: Value = serde_json::from_str(&cw.ok(&["list", "--json"])).expect("JSON");
        let list = list.as_array().cloned().unwrap_or_default();
        let names: Vec<_> = list.iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["one", "two"]);
    });
}

#[test]
fn w22_s28_a_terminal_is_left_as_it_was_whatever_was_switched_on() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script = format!("printf '{SWITCHED_ON}full screen'; read -r x; exit 0");
        for (round, ends) in [("detached", false), ("ended", true)] {
            steps::launch(cw, round, &["sh", "-c", &script]);
            let mut terminal = Terminal::run(cw, &["attach", round]);
            terminal.shows("full screen", PATIENCE);
            terminal.type_in(if ends { "\r" } else { "\u{2}d" });
            assert_eq!(terminal.ends(PATIENCE), 0);
            terminal.restored().expect(round);
            let text = terminal.text();
            for off in ["\x1b[?1006l", "\x1b[<99u"] {
                assert!(text.contains(off), "{off:?} in {text:?}");
            }
            let screen = text.rfind("full screen").expect("it was shown");
            let last = text.rfind("\x1b[?1049l").expect("it was left");
            assert!(screen < last, "{text:?}");
        }
    });
}

#[test]
fn s29_the_chord_of_a_kitty_keyboard_lets_go() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script = "stty raw -echo; echo ready; while :; do dd bs=1 count=1 2>/dev/null | od -An -tx1; done";
        steps::launch(cw, "keys", &["sh", "-c", script]);
        steps::wait_for_output(cw, "keys", "ready");
        for chord in [
            "\x1b[98;5u\x1b[100u",
            "\x1b[98;5ud",
            "\x1b[98;5u\x1b[I\x1b[100;1u",
        ] {
            let mut terminal = Terminal::run(cw, &["attach", "keys"]);
            terminal.shows("attached to keys", PATIENCE);
            terminal.type_in(chord);
            assert_eq!(terminal.ends(PATIENCE), 0, "{chord:?}");
        }
        // The report between the keys went through; another key is no prefix and goes through too.
        let mut terminal = Terminal::run(cw, &["attach", "keys"]);
        terminal.shows("attached to keys", PATIENCE);
        terminal.type_in("\x1b[2;5ud");
        wait_until("the keys came through", PATIENCE, || {
            let log = cw.ok(&["logs", "keys"]);
            let bytes: Vec<&str> = log.split_whitespace().skip(1).collect();
            let all = bytes.concat();
            (all == "1b5b491b5b323b357564").then_some(()).ok_or(all)
        });
        terminal.type_in("\u{2}d");
        assert_eq!(terminal.ends(PATIENCE), 0);
    });
}

#[test]
fn s51_s52_s55_names_change_are_free_again_and_are_told() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let words = [
            "launch",
            "first",
            "-t",
            "worker",
            "--",
            "sh",
            "-c",
            "read -r x",
        ];
        let _ = cw.run(&words).ok();
        let same = cw.run(&["rename", "first", "first"]).ok();
        assert_eq!(same.stderr, "Session 1 is first now\n");
        let _ = cw.run(&["rename", "first", "second"]).ok();
        steps::launch(cw, "first", &SLEEPER);
        assert_eq!(steps::status(cw, "first")["id"], 2);
        assert_eq!(steps::status(cw, "second")["id"], 1);
        let _ = cw.run(&["send", "second", "go"]).ok();
        steps::wait_for_end(cw, "second");

        let heard = cw.start(&["subscribe", "1", "--since", "0", "--json"]);
        let _ = heard.stdout.line("session.status", PATIENCE);
        let events = lines(&heard.stdout.text());
        let of = |kind: &str| {
            let found = events.iter().filter(|one| one["event"]["type"] == kind);
            found
                .map(|one| one["event"]["data"].clone())
                .collect::<Vec<_>>()
        };
        let created = of("session.created");
        assert_eq!(created[0]["name"], "first", "{events:?}");
        assert_eq!(created[0]["tags"], json!(["worker"]));
        let renamed = of("session.renamed");
        let last = renamed.last().expect("it was renamed");
        assert_eq!(
            (&last["name"], &last["previous"]),
            (&json!("second"), &json!("first"))
        );
        assert_eq!(of("session.status").len(), 1, "the end is told once");
    });
}

#[test]
fn s56_the_environment_is_cleaned_and_completed() {
    case(&Local::new(CW), |local| {
        let shared = local.home().dir().join("environment.json");
        let _ = local.cw().run(&["start"]).ok();
        std::fs::write(&shared, r#"{"SHARED": "all", "WINS": "file"}"#).expect("a file");
        let cw = local
            .cw()
            .clone()
            .env("CLAUDECODE", "1")
            .env("CLAUDE_CODE_ENTRYPOINT", "cli")
            .env("KEPT", "mine")
            .env("WINS", "caller")
            .env("CW_SESSION_ID", "99")
            .env("TERM", "dumb");
        let words = ["launch", "plain", "-t", "cohort", "--", "env"];
        let _ = cw.run(&words).ok();
        let words = [
            "launch",
            "told",
            "-e",
            "CLAUDECODE=2",
            "-e",
            "WINS=flag",
            "--",
            "env",
        ];
        let _ = cw.run(&words).ok();
        let variables = |name: &str| {
            steps::wait_for_end(&cw, name);
            let log = cw.ok(&["logs", name]);
            log.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let plain = variables("plain");
        for there in [
            "KEPT=mine",
            "SHARED=all",
            "WINS=file",
            "TERM=xterm-256color",
            "CW_SESSION_ID=1",
            "CW_SESSION_NAME=plain",
            "CW_COHORT_TAG=cohort",
        ] {
            assert!(plain.iter().any(|one| one == there), "{there} in {plain:?}");
        }
        assert!(
            !plain.iter().any(|one| one.starts_with("CLAUDE")),
            "{plain:?}"
        );
        let told = variables("told");
        for there in ["CLAUDECODE=2", "WINS=flag", "CW_SESSION_ID=2"] {
            assert!(told.iter().any(|one| one == there), "{there} in {told:?}");
        }
    });
}

#[test]
fn s60_a_session_has_the_whole_terminal() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "shell", &["sh", "-c", "PS1='$ ' exec sh -i"]);
        let mut terminal = Terminal::run(cw, &["attach", "shell"]);
        terminal.shows("attached", PATIENCE);
        // No line of it is taken for a bar, and a very small one is one too.
        for (cols, rows) in [(80, 24), (80, 3), (100, 30)] {
            terminal.resize(cols, rows);
            wait_until("the session has this size", PATIENCE, || {
                terminal.type_in("stty size\r");
                let text = terminal.text();
                let there = text.contains(&format!("\n{rows} {cols}\r"));
                there.then_some(()).ok_or(text)
            });
        }
        terminal.type_in("\u{2}d");
        assert_eq!(terminal.ends(PATIENCE), 0);
    });
}

/// Calls, the type of the answer to each, and fields that it has.
fn calls() -> Vec<(Value, &'static str, &'static [&'static str])> {
    vec![
        (
            json!({"type": "SendInput", "id": 1, "data": "eA=="}),
            "InputSent",
            &["bytes", "type"],
        ),
        (
            json!({"type": "GetStatus", "id": 1}),
            "SessionStatus",
            &["info", "output_size", "type"],
        ),
        (
            json!({"type": "MsgSend", "to_id": 1, "body": "x"}),
            "MsgSent",
            &["message_id"],
        ),
        (
            json!({"type": "MsgRead", "id": 1}),
            "MsgReadResult",
            &["messages"],
        ),
        (json!({"type": "MsgListen"}), "MsgListenAck", &["type"]),
        (
            json!({"type": "Subscribe"}),
            "SubscribeAck",
            &["subscription_id"],
        ),
        (
            json!({"type": "Resize", "cols": 80, "rows": 24}),
            "Resized",
            &["type"],
        ),
        (json!({"type": "Detach"}), "Detached", &["type"]),
        (
            json!({"type": "Logs", "id": 1}),
            "LogData",
            &["done", "type"],
        ),
        (json!({"type": "Kill", "id": 1}), "Killed", &["id", "type"]),
        (json!({"type": "KillAll"}), "KilledAll", &["count", "type"]),
        (
            json!({"type": "Wait", "id": 1}),
            "WaitResult",
            &["sessions", "type"],
        ),
        (
            json!({"type": "WatchSession", "id": 1}),
            "WatchUpdate",
            &["done", "status", "type"],
        ),
        (
            json!({"type": "Kill", "id": 99}),
            "Error",
            &["code", "message", "type"],
        ),
    ]
}

#[test]
fn w37_s62_calls_and_answers_have_the_fields_that_clients_know() {
    case(&Local::new(CW), |local| {
        let _ = local.cw().run(&["start"]).ok();
        let ask = |call: Value, kind: &str| {
            let answer = Wire::connect(&local.home().socket()).ask(&call, kind);
            let fields = answer.as_object().cloned().unwrap_or_default();
            let names: Vec<String> = fields.keys().cloned().collect();
            (answer, names)
        };
        // Without a directory it starts where its user is at home.
        let launch =
            json!({"type": "Launch", "command": ["sh", "-c", "pwd; read -r x"], "name": "a"});
        assert_eq!(ask(launch, "Launched").1, ["id", "name", "type"]);
        let (list, names) = ask(json!({"type": "ListSessions"}), "SessionList");
        assert_eq!(names, ["sessions", "type"]);
        let info = list["sessions"][0].as_object().cloned().unwrap_or_default();
        for field in [
            "attached",
            "attached_count",
            "created_at",
            "id",
            "name",
            "output_bytes",
            "output_lines",
            "output_size_bytes",
            "pid",
            "prompt",
            "status",
            "working_dir",
        ] {
            assert!(info.contains_key(field), "{field} in {info:?}");
        }
        assert_eq!(
            info["working_dir"],
            local.home().dir().to_str().expect("text")
        );
        for (call, kind, fields) in calls() {
            let (answer, names) = ask(call, kind);
            for field in fields {
                assert!(
                    names.iter().any(|name| name == field),
                    "{field} in {answer}"
                );
            }
        }
    });
}

#[test]
fn s64_watching_gives_an_object_for_each_line() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script =
            "read -r x; printf 'plain\\r\\n{\"a\": 1}\\n\\033[31mred\\033[0m\\nunfinished'";
        steps::launch(cw, "coder", &["sh", "-c", script]);
        let watch = cw.start(&["watch", "coder", "--json"]);
        let _ = cw.run(&["send", "coder", "go"]).ok();
        let seen = lines(&watch.wait(PATIENCE).ok().stdout);
        let texts: Vec<&str> = seen
            .iter()
            .filter_map(|line| line["text"].as_str())
            .collect();
        let rest = texts.iter().skip_while(|text| **text != "plain");
        assert!(
            rest.copied()
                .eq(["plain", "{\"a\": 1}", "red", "unfinished"]),
            "{texts:?}"
        );
        for line in &seen {
            assert_eq!(
                (&line["session_id"], &line["name"]),
                (&json!(1), &json!("coder"))
            );
            assert!(line["timestamp"].is_string(), "{line}");
        }
        assert_eq!(
            seen.last().map(|end| end["status"].clone()),
            Some(json!("completed (0)"))
        );
    });
}

#[test]
fn s66_s68_what_needs_a_network_says_so() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        for words in [
            &["logs", "dev-2:coder"][..],
            &["attach", "-r", "dev-2:coder"],
            &["kill", "dev-2:coder"],
            &["send", "dev-2:coder", "x"],
            &["wait", "dev-2:coder"],
            &["inbox", "dev-2:coder"],
            &["listen", "--session", "dev-2:coder"],
            &["launch", "dev-2:coder", "--", "true"],
            &["launch", "--group", "mesh", "--", "true"],
            &["list", "dev-2"],
        ] {
            let done = cw.run(words);
            if words[0] == "attach" {
                done.fails("not_a_terminal");
            } else {
                assert_eq!(
                    done.fails("no_network").hints("cw network join").status,
                    Some(5)
                );
            }
        }
    });
}

#[test]
fn s69_three_agents_work_together() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        for (name, tag) in [
            ("planner", "lead"),
            ("coder", "worker"),
            ("tester", "worker"),
        ] {
            let _ = cw
                .run(&[
                    "launch", name, "--tag", tag, "--tag", "demo", "--", ECHO[0], ECHO[1], ECHO[2],
                ])
                .ok();
        }
        let heard = cw.start(&[
            "subscribe",
            "--tag",
            "worker",
            "--event",
            "session.status",
            "--json",
        ]);
        let list = cw.ok(&["list"]);
        assert!(list.contains("planner") && list.contains("coder") && list.contains("tester"));
        let _ = cw
            .run(&["msg", "-f", "planner", "coder", "start with auth"])
            .ok();
        assert!(
            cw.ok(&["inbox", "coder"])
                .contains("planner → coder: start with auth")
        );
        let request = cw.start(&["request", "-f", "planner", "coder", "ready?"]);
        let id = steps::wait_for_request(cw, "coder");
        let _ = cw.run(&["reply", &id, "yes", "-f", "coder"]).ok();
        assert_eq!(
            request.wait(PATIENCE).ok().stdout,
            "[reply from coder] yes\n"
        );
        let _ = cw.run(&["send", "tester", "run"]).ok();
        steps::wait_for_output(cw, "tester", "got:run");
        let waiting = cw.start(&["wait", "--tag", "worker", "--condition", "all"]);
        let killed = cw.run(&["kill", "--tag", "worker", "--grace", "1"]).ok();
        assert_eq!(
            killed.stderr,
            "Killed 2 session(s) matching tags [worker]\n"
        );
        assert_eq!(waiting.wait(PATIENCE).status, Some(8));
        for id in ["\"session_id\":2", "\"session_id\":3"] {
            let _ = heard.stdout.line(id, PATIENCE);
        }
        let list = cw.ok(&["list", "--status", "running"]);
        assert!(
            list.contains("planner") && !list.contains("coder"),
            "{list}"
        );
        let _ = cw.run(&["stop", "--grace", "0"]).ok();
        assert_eq!(local.home().pid(Part::Node), None);
    });
}

#[test]
fn tags_may_have_commas_between_them_and_dashes_are_missed() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw
            .run(&["launch", "a", "-t", "x,y", "--", "sleep", "1000"])
            .ok();
        assert_eq!(steps::status(cw, "a")["tags"], json!(["x", "y"]));
        assert_eq!(cw.ok(&["list", "--tag", "z,y"]).lines().count(), 2);
        for words in [
            &["launch", "make", "test"][..],
            &["launch", "claude", "-p", "fix it"],
            &["run", "x"],
            &["launch", "x", "--"],
        ] {
            let done = cw
                .run(words)
                .fails("usage")
                .hints("cw launch [name] -- <command>");
            assert_eq!(done.status, Some(2));
        }
    });
}
