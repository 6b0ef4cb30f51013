//! One machine, no relay: everything that people do there, and what survives `kill -9`.

use e2e::home::Part;
use e2e::pty::Terminal;
use e2e::steps::{self, ECHO, SLEEPER};
use e2e::{Local, PATIENCE, case, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Counts until it is told to stop by SIGUSR1, then says so and returns 7.
const COUNTER: [&str; 3] = [
    "sh",
    "-c",
    "trap 'stop=1' USR1; i=0; while [ -z \"$stop\" ]; do echo \"$i\"; i=$((i+1)); done; \
     echo end; exit 7",
];

/// Waits for SIGUSR1 and returns 42.
const WAITER: [&str; 3] = [
    "sh",
    "-c",
    "trap 'exit 42' USR1; echo ready; while :; do read -r x; done",
];

/// How often a test kills the same thing.
const KILLS: usize = 3;

#[test]
fn a_node_starts_with_the_first_command() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        assert_eq!(local.home().processes(), []);
        assert_eq!(cw.ok(&["list"]), "No sessions\n");
        assert_eq!(cw.ok(&["list", "--json"]).trim(), "[]");
        assert_eq!(local.home().processes().len(), 2, "keeper and node");
        let again = cw.run(&["start"]).ok();
        assert_eq!(again.stderr, "[cw] node is running\n");

        let stopped = cw.run(&["stop"]).ok();
        assert_eq!(stopped.stderr, "[cw] node stopped\n");
        assert_eq!(local.home().processes(), []);
        cw.run(&["stop"]).fails("node_not_running");
    });
}

#[test]
fn a_node_holds_nothing_that_the_first_command_was_given() {
    case(&Local::new(CW), |local| {
        // The pipe of its output has one more number, and ends with the command.
        let keeps = r#"exec 9>&1 >/dev/null; exec "$@""#;
        let cw = local.cw().clone().behind(&["sh", "-c", keeps, "sh"]);
        assert_eq!(cw.ok(&["list"]), "");
        assert_eq!(local.home().processes().len(), 2, "keeper and node");
    });
}

#[test]
fn sessions_are_launched_listed_typed_into_and_killed() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let launched = cw
            .run(&["launch", "coder", "-t", "worker", "--", "sh", "-c", ECHO[2]])
            .ok();
        assert!(
            launched
                .stderr
                .starts_with("Session 1 (coder) launched: sh -c "),
            "{launched}"
        );
        assert_eq!(launched.stdout, "", "{launched}");
        steps::launch(cw, "sleeper", &SLEEPER);

        let list = cw.ok(&["list", "--tag", "worker"]);
        assert_eq!(list.lines().count(), 2, "{list}");
        assert!(list.contains("coder") && list.contains("running"), "{list}");

        let sent = cw.run(&["send", "coder", "hello"]).ok();
        assert_eq!(sent.stderr, "Sent 6 bytes to session coder\n");
        steps::wait_for_output(cw, "coder", "got:hello");
        let sent = cw
            .run_with(
                &["send", "@coder", "--stdin", "-n"],
                b"from a file\n",
                PATIENCE,
            )
            .ok();
        assert_eq!(sent.stderr, "Sent 12 bytes to session coder\n");
        steps::wait_for_output(cw, "1", "got:from a file");
        let last = cw.ok(&["logs", "coder", "--tail", "1"]);
        assert_eq!(last.trim_end(), "got:from a file");

        let killed = cw.run(&["kill", "coder"]).ok();
        assert_eq!(killed.stderr, "Session 1 killed\n");
        assert_eq!(steps::status(cw, "coder")["status"], "killed");
        assert!(cw.ok(&["logs", "coder"]).contains("got:hello"));
        cw.run(&["send", "coder", "too late"])
            .fails("session_not_running")
            .hints("cw status");

        let killed = cw.run(&["kill", "--all"]).ok();
        assert_eq!(killed.stderr, "Killed 1 session(s)\n");
        assert_eq!(cw.ok(&["list", "--status", "running"]), "No sessions\n");
        assert_eq!(cw.ok(&["list", "--status", "killed"]).lines().count(), 3);
    });
}

#[test]
fn a_session_has_the_callers_place_and_variables() {
    case(&Local::new(CW), |local| {
        let cw = local.cw().clone().env("FROM_CALLER", "yes");
        let show =
            "echo \"$FROM_CALLER $EXTRA $CW_SESSION_ID $CW_SESSION_NAME\"; pwd; stty size; exit 3";
        let words = [
            "launch",
            "--name",
            "shown",
            "-e",
            "EXTRA=a b",
            "-d",
            "/",
            "--",
            "sh",
            "-c",
            show,
        ];
        let _ = cw.run(&words).ok();
        let end = steps::wait_for_end(&cw, "shown");
        assert_eq!(end["status"], "completed (3)", "{end}");
        assert_eq!(end["exit_code"], 3, "{end}");
        let log = cw.ok(&["logs", "shown"]);
        assert_eq!(
            log.lines().collect::<Vec<_>>(),
            ["yes a b 1 shown", "/", "40 120"]
        );
    });
}

#[test]
fn a_name_is_free_again_and_means_the_one_that_runs() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &["sh", "-c", "echo first"]);
        steps::wait_for_end(cw, "coder");
        steps::launch(cw, "coder", &SLEEPER);
        assert_eq!(steps::status(cw, "coder")["id"], 2);
        assert!(cw.ok(&["logs", "1"]).contains("first"));
    });
}

#[test]
fn a_terminal_takes_over_and_is_left_as_it_was() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "shell", &["sh", "-c", "PS1='$ ' exec sh -i"]);
        let mut first = Terminal::run(cw, &["attach", "shell"]);
        first.type_in("echo one-$((40+2)); stty size\r");
        first.shows("one-42", PATIENCE);
        first.shows("30 100", PATIENCE);
        first.resize(90, 25);
        wait_until("the session has the new size", PATIENCE, || {
            first.type_in("stty size\r");
            let text = first.text();
            if text.contains("25 90") {
                Ok(())
            } else {
                Err(text)
            }
        });

        // A second one sees what was there, and both see what comes.
        let mut second = Terminal::run(cw, &["attach", "1"]);
        second.shows("one-42", PATIENCE);
        second.type_in("echo two-$((40+2))\r");
        first.shows("two-42", PATIENCE);
        second.type_in("\x02d");
        assert_eq!(second.ends(PATIENCE), 0);
        second.restored().unwrap();

        // The end of the session comes after its last byte.
        first.type_in("echo last-$((40+2)); exit 5\r");
        assert_eq!(first.ends(PATIENCE), 0);
        first.restored().unwrap();
        let text = first.text();
        let (last, end) = (
            text.find("last-42").unwrap(),
            text.find("completed (5)").unwrap(),
        );
        assert!(last < end, "{text}");
    });
}

#[test]
fn sessions_write_to_each_other() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        for (name, command) in [("planner", &SLEEPER), ("coder", &SLEEPER)] {
            steps::launch(cw, name, command);
        }
        // What is said within a session is said as that session.
        let inside = format!("{CW} msg coder 'from inside'; echo status=$?");
        steps::launch(cw, "worker", &["sh", "-c", &inside]);
        steps::wait_for_output(cw, "worker", "status=0");
        let _ = cw.run(&["msg", "coder", "from nobody"]).ok();
        let senders: Vec<_> = steps::inbox(cw, "coder")
            .iter()
            .map(|message| (message["from_name"].clone(), message["body"].clone()))
            .collect();
        assert_eq!(
            senders,
            [
                ("worker".into(), "from inside".into()),
                ("owner".into(), "from nobody".into())
            ]
        );

        let request = cw.start(&["request", "-f", "planner", "coder", "ready?"]);
        let id = steps::wait_for_request(cw, "coder");
        cw.run(&["reply", &id, "no"])
            .fails("sender_required")
            .hints("-f");
        let _ = cw.run(&["reply", &id, "yes", "-f", "coder"]).ok();
        assert_eq!(
            request.wait(PATIENCE).ok().stdout,
            "[reply from coder] yes\n"
        );
        cw.run(&["reply", &id, "again", "-f", "coder"])
            .fails("request_not_found");

        let asked = cw.run(&[
            "request",
            "-f",
            "planner",
            "coder",
            "anybody?",
            "--timeout",
            "1",
        ]);
        assert_eq!(asked.fails("timeout").status, Some(124));
    });
}

#[test]
fn a_killed_node_loses_no_byte() {
    case(&Local::new(CW), |local| {
        let (cw, home) = (local.cw(), local.home());
        steps::launch(cw, "counter", &COUNTER);
        let pid = steps::status(cw, "counter")["pid"].clone();
        for round in 0..KILLS {
            let before = home.kill(Part::Node);
            // The next command finds the next node.
            let body = format!("round {round}");
            let _ = cw.run(&["msg", "counter", &body]).ok();
            assert_ne!(home.wait_for(Part::Node, Some(before)), before);
            let status = steps::status(cw, "counter");
            assert_eq!(
                (&status["status"], &status["pid"]),
                (&"running".into(), &pid)
            );
            let size = |text: &serde_json::Value| text["output_bytes"].as_u64();
            wait_until("it goes on", PATIENCE, || {
                let now = steps::status(cw, "counter");
                if size(&now) > size(&status) {
                    Ok(())
                } else {
                    Err(now.to_string())
                }
            });
        }
        signal(&pid, Signal::USR1);
        assert_eq!(
            steps::wait_for_end(cw, "counter")["status"],
            "completed (7)"
        );
        assert_eq!(steps::inbox(cw, "counter").len(), KILLS);
        counts_without_a_gap(&cw.ok(&["logs", "--raw", "counter"]));
    });
}

/// The numbers are there, each once and in order.
#[track_caller]
fn counts_without_a_gap(log: &str) {
    let numbers = log
        .strip_suffix("end\r\n")
        .expect("it has said that it ends");
    let mut count = 0;
    for line in numbers.split_terminator("\r\n") {
        assert_eq!(line, count.to_string());
        count += 1;
    }
    assert!(count > 0, "it has not counted");
}

#[test]
fn who_follows_a_log_is_told_when_the_node_dies() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "echo", &ECHO);
        let follower = cw.start(&["logs", "-f", "echo"]);
        let _ = cw.run(&["send", "echo", "one"]).ok();
        let _ = follower.stdout.line("got:one", PATIENCE);
        local.home().kill(Part::Node);
        let done = follower.wait(PATIENCE);
        assert_eq!(done.status, Some(5), "{done}");
        assert!(done.stderr.contains("[connection_lost]"), "{done}");
    });
}

#[test]
fn a_killed_keeper_is_replaced() {
    case(&Local::new(CW), |local| {
        let (cw, home) = (local.cw(), local.home());
        steps::launch(cw, "echo", &ECHO);
        steps::launch(cw, "waiter", &WAITER);
        steps::wait_for_output(cw, "waiter", "ready");
        let pid = steps::status(cw, "waiter")["pid"].clone();
        for round in 0..KILLS {
            let before = home.kill(Part::Keeper);
            assert_ne!(home.wait_for(Part::Keeper, Some(before)), before);
            let text = format!("round-{round}");
            let _ = cw.run(&["send", "echo", &text]).ok();
            steps::wait_for_output(cw, "echo", &format!("got:{text}"));
            // New sessions and their ends are the new keeper's.
            let name = format!("new-{round}");
            steps::launch(cw, &name, &["sh", "-c", "exit 9"]);
            assert_eq!(steps::wait_for_end(cw, &name)["status"], "completed (9)");
        }
        signal(&pid, Signal::USR1);
        assert_eq!(
            steps::wait_for_end(cw, "waiter")["status"],
            "completed (42)"
        );
        let _ = cw.run(&["kill", "echo"]).ok();
    });
}

#[test]
fn racing_first_commands_start_one_node() {
    case(&Local::new(CW), |local| {
        let racers: Vec<_> = (0..6).map(|_| local.cw().start(&["list"])).collect();
        for racer in racers {
            assert_eq!(racer.wait(PATIENCE).ok().stdout, "No sessions\n");
        }
        wait_until("one keeper and one node are left", PATIENCE, || {
            let left = local.home().processes();
            if left.len() == 2 {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
    });
}

#[test]
fn sessions_and_messages_outlive_the_machine() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "done", &["sh", "-c", "echo printed; exit 4"]);
        steps::wait_for_end(cw, "done");
        steps::launch(cw, "alive", &SLEEPER);
        let _ = cw.run(&["msg", "alive", "before the crash"]).ok();
        local.home().kill_both();
        // What ran may have ended or not, but it is never said to have ended well.
        let done = steps::status(cw, "done");
        assert_eq!(done["status"], "completed (4)");
        assert_eq!(cw.ok(&["logs", "done"]), "printed\n");
        let alive = steps::status(cw, "alive");
        assert_eq!(alive["status"], "exited, status unknown", "{alive}");
        assert_eq!(steps::inbox(cw, "alive")[0]["body"], "before the crash");
        steps::launch(cw, "next", &SLEEPER);
        assert_eq!(steps::status(cw, "next")["id"], 3, "numbers go on");
    });
}

#[track_caller]
fn signal(pid: &serde_json::Value, signal: Signal) {
    let pid = pid
        .as_i64()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    kill_process(pid.expect("a session has a process"), signal).expect("it runs");
}

#[test]
fn a_message_that_is_sent_again_is_answered_as_before() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SLEEPER);
        let mut wire = e2e::wire::Wire::connect(&local.home().socket());
        let call = serde_json::json!({
            "type": "MsgSend", "to_name": "coder", "body": "once", "delivery": "inbox",
            "message_id": "msg_AAAAAAAAAAAAAAAAAAAAAA",
        });
        let mut ask = || wire.ask(&call, "MsgSent");
        let first = ask();
        let _ = cw.run(&["kill", "coder"]).ok();
        assert_eq!(ask(), first);
        // Nor does it go to whoever has the name since.
        steps::launch(cw, "coder", &SLEEPER);
        assert_eq!(ask(), first);
        assert_eq!(steps::inbox(cw, "coder").len(), 0);
    });
}
