//! What people type about sessions: names and tags, attach in all its ways, keys and pastes, a
//! node spoken to over WebSocket or restarted, what is set, and completion.

use e2e::home::Part;
use e2e::pty::Terminal;
use e2e::steps::{self, ECHO, SLEEPER};
use e2e::{Cw, Local, PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

#[test]
fn names_and_tags_are_changed() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw
            .run(&["launch", "one", "-t", "worker", "--", "sleep", "600"])
            .ok();
        steps::launch(cw, "two", &SLEEPER);
        let told = cw.run(&["rename", "one", "first"]).ok();
        assert_eq!(told.stderr, "Session 1 is first now\n");
        cw.run(&["rename", "two", "first"]).fails("name_taken");
        cw.run(&["rename", "two", "a b"]).fails("name_invalid");
        cw.run(&["status", "one"]).fails("session_not_found");
        let _ = cw.run(&["rename", "two", "one"]).ok();
        assert_eq!(
            cw.ok(&["tag", "first", "a", "b c"])
                .lines()
                .collect::<Vec<_>>(),
            ["worker", "a", "b c"]
        );
        assert_eq!(
            cw.ok(&["tag", "first", "--remove", "worker", "-r", "a"]),
            "b c\n"
        );
        let before = local.home().kill(Part::Node);
        let _ = local.home().wait_for(Part::Node, Some(before));
        assert_eq!(cw.ok(&["tag", "first"]), "b c\n");
        let _ = cw.run(&["tag", "one", "worker"]).ok();
        let killed = cw.run(&["kill", "worker"]).ok();
        assert_eq!(killed.stderr, "Killed 1 session(s)\n");
        assert!(cw.ok(&["list", "--status", "running"]).contains("first"));
        let _ = cw.run(&["rename", "first", "--none"]).ok();
        assert!(cw.ok(&["list", "--status", "running"]).contains("1    -"));
    });
}

#[test]
fn w44_s26_attach_without_a_name_takes_the_oldest_free_one() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let mut nobody = Terminal::run(cw, &["attach"]);
        nobody.shows("no running unattached sessions available", PATIENCE);
        assert_ne!(nobody.ends(PATIENCE), 0);
        let _ = cw.run(&["launch", "--", "true"]).ok();
        let _ = cw.run(&["wait", "1"]).ok();
        steps::launch(cw, "first", &ECHO);
        steps::launch(cw, "second", &ECHO);
        let mut first = Terminal::run(cw, &["attach"]);
        first.shows("attached to 2", PATIENCE);
        let mut second = Terminal::run(cw, &["attach"]);
        second.shows("attached to 3", PATIENCE);
        for terminal in [&mut first, &mut second] {
            terminal.type_in("\u{2}d");
            assert_eq!(terminal.ends(PATIENCE), 0);
        }
    });
}

#[test]
fn who_only_reads_changes_nothing() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &ECHO);
        let mut reader = Terminal::run(cw, &["attach", "coder", "--read-only"]);
        reader.shows("to look only", PATIENCE);
        reader.type_in("not this\r");
        let _ = cw.run(&["send", "coder", "this"]).ok();
        reader.shows("got:this", PATIENCE);
        reader.type_in("\u{2}d");
        assert_eq!(reader.ends(PATIENCE), 0);
        reader.restored().expect("the terminal is as it was");
        assert!(!cw.ok(&["logs", "coder"]).contains("not this"));
    });
}

/// Whether a process has the side of a terminal open that programs have: of its sessions a node has
/// the other.
#[cfg(target_os = "linux")]
fn holds_a_terminal(pid: rustix::process::Pid) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("it runs");
    fds.flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .any(|file| file.starts_with("/dev/pts") && !file.ends_with("ptmx"))
}

#[test]
fn attach_goes_on_where_it_was_when_the_node_is_killed() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &ECHO);
        let mut terminal = Terminal::run(cw, &["attach", "coder"]);
        terminal.shows("attached to coder", PATIENCE);
        for round in 0..3 {
            let before = local.home().kill(Part::Node);
            let node = local.home().wait_for(Part::Node, Some(before));
            terminal.type_in(&format!("round {round}\n"));
            terminal.shows(&format!("got:round {round}"), PATIENCE);
            #[cfg(target_os = "linux")]
            assert!(holds_a_terminal(node), "the client has lent its own");
            #[cfg(not(target_os = "linux"))]
            let _ = node;
        }
        let _ = cw.run(&["send", "coder", "still here"]).ok();
        terminal.shows("got:still here", PATIENCE);
        let screen = terminal.screen();
        let shown = screen.matches("got:round 0").count();
        assert_eq!(shown, 1, "nothing is shown twice: {screen}");
        // And the end is told, though the node was away when it came.
        let _ = local.home().kill(Part::Node);
        let _ = cw.run(&["kill", "coder"]).ok();
        terminal.shows("[cw] session killed", PATIENCE);
        assert_eq!(terminal.ends(PATIENCE), 0);
        terminal.restored().expect("the terminal is as it was");
    });
}

#[test]
fn a_literal_prefix_key_can_be_typed() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "keys",
            &[
                "sh",
                "-c",
                "stty raw -echo; echo ready; dd bs=1 count=3 2>/dev/null | od -An -tx1; echo",
            ],
        );
        steps::wait_for_output(cw, "keys", "ready");
        let mut terminal = Terminal::run(cw, &["attach", "keys"]);
        terminal.shows("attached", PATIENCE);
        terminal.type_in("\u{2}\u{2}\u{1b}x");
        terminal.shows("02 1b 78", PATIENCE);
        assert_eq!(terminal.ends(PATIENCE), 0);
    });
}

#[test]
fn keys_and_pastes_are_sent() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "keys",
            &[
                "sh",
                "-c",
                "stty raw -echo; echo ready; dd bs=1 count=5 2>/dev/null | od -An -tx1; dd bs=1 count=16 2>/dev/null | od -An -c",
            ],
        );
        steps::wait_for_output(cw, "keys", "ready");
        let _ = cw.run(&["send", "keys", "--keys", "C-c", "Up", "q"]).ok();
        steps::wait_for_output(cw, "keys", "03 1b 5b 41 71");
        let _ = cw.run(&["send", "keys", "--paste", "a\nb"]).ok();
        steps::wait_for_output(cw, "keys", "[   2   0   1   ~  \\r");
        // The limit of a message is another one.
        let more = vec![b'x'; 8 * 1024 * 1024 + 1];
        let done = cw.run_with(&["send", "keys", "--stdin"], &more, PATIENCE);
        let done = done.fails("body_too_large").hints("in parts");
        assert!(!done.stderr.contains("1 MiB"), "{done}");
    });
}

#[test]
fn s27_a_node_is_spoken_to_over_websocket() {
    case(&Local::new(CW), |local| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let served = local.cw().clone().env("CODEWIRE_LISTEN", &address);
        let _ = served.run(&["start"]).ok();
        steps::launch(&served, "coder", &ECHO);
        let token = wait_until("the node has made a token", PATIENCE, || {
            std::fs::read_to_string(local.home().dir().join("token"))
                .map_err(|error| error.to_string())
        });

        let elsewhere = tempfile::tempdir().expect("a directory");
        let cw = local.cw().clone().env("CODEWIRE_HOME", elsewhere.path());
        let add = ["server", "add", "gpu", &address];
        let added = cw.run_with(&add, token.as_bytes(), PATIENCE).ok();
        assert_eq!(added.stderr, "Server \"gpu\" added\n");
        let list = cw.ok(&["server", "list"]);
        assert!(
            list.contains("gpu") && list.contains(&address) && !list.contains(&token),
            "{list}"
        );

        assert!(cw.ok(&["--server", "gpu", "list"]).contains("coder"));
        let _ = cw
            .run(&["--server", "gpu", "send", "coder", "over there"])
            .ok();
        steps::wait_for_output(&served, "coder", "got:over there");
        let _ = cw
            .run(&[
                "-s",
                "gpu",
                "launch",
                "there",
                "--",
                "sh",
                "-c",
                "echo here; exit 3",
            ])
            .ok();
        let wait = cw.run(&["-s", "gpu", "wait", "there"]);
        assert_eq!(wait.status, Some(8), "{wait}");
        let mut terminal = Terminal::run(&cw, &["-s", "gpu", "attach", "coder"]);
        terminal.shows("got:over there", PATIENCE);
        terminal.type_in("typed\n");
        terminal.shows("got:typed", PATIENCE);
        // The node is killed and comes back; the way is the same, so is the client.
        let before = local.home().kill(Part::Node);
        let _ = local.home().wait_for(Part::Node, Some(before));
        terminal.type_in("again\n");
        terminal.shows("got:again", PATIENCE);
        terminal.type_in("\u{2}d");
        assert_eq!(terminal.ends(PATIENCE), 0);

        refused(&cw, &address);
        let _ = cw.run(&["server", "remove", "gpu"]).ok();
        cw.run(&["server", "remove", "gpu"]).fails("not_found");
        assert!(
            local
                .home()
                .log()
                .lines()
                .all(|line| !line.contains(&token))
        );
    });
}

/// What cannot be said to a server, or not by everybody.
#[track_caller]
fn refused(cw: &Cw, address: &str) {
    let wrong = cw
        .clone()
        .env("CODEWIRE_SERVER_TOKEN", "not the token at all");
    wrong
        .run(&["-s", &format!("ws://{address}"), "list"])
        .fails("unauthorized");
    cw.run(&["-s", address, "list"])
        .fails("usage")
        .hints("--token-file");
    cw.run(&["-s", "nowhere", "list"])
        .fails("not_found")
        .hints("cw server list");
    cw.run(&["-s", "gpu", "stop"])
        .fails("usage")
        .hints("leave out --server");
}

#[test]
fn a_node_is_restarted_under_its_sessions() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &ECHO);
        let before = local.home().pid(Part::Node);
        let told = cw.run(&["node", "restart"]).ok();
        assert!(
            told.stderr.starts_with("[cw] node restarted; it runs "),
            "{told}"
        );
        assert_ne!(local.home().pid(Part::Node), before);
        let _ = cw.run(&["send", "coder", "still here"]).ok();
        steps::wait_for_output(cw, "coder", "got:still here");
        // Onto another program: both processes run it, and the keeper is still the same process.
        let keeper = local.home().pid(Part::Keeper).expect("it runs");
        let copy = local.home().dir().join("new-cw");
        std::fs::copy(CW, &copy).expect("a copy");
        let _ = cw
            .run(&["node", "restart", "--program", copy.to_str().expect("text")])
            .ok();
        assert_eq!(local.home().pid(Part::Keeper), Some(keeper));
        for part in [Part::Keeper, Part::Node] {
            let pid = local.home().pid(part).expect("it runs").as_raw_nonzero();
            let runs = std::fs::read_link(format!("/proc/{pid}/exe")).expect("a program");
            assert_eq!(runs, copy);
        }
        let _ = cw.run(&["send", "coder", "new"]).ok();
        steps::wait_for_output(cw, "coder", "got:new");
        let refused = cw.run(&["node", "restart", "--program", "/bin/true"]);
        refused.fails("not_found").hints("runs on as it was");
        let _ = cw.run(&["send", "coder", "unharmed"]).ok();
        steps::wait_for_output(cw, "coder", "got:unharmed");
    });
}

#[test]
fn the_doctor_says_what_is_set_and_what_is_wrong() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(local.home().dir(), private).expect("it is ours");
        let well = cw.run(&["doctor"]).ok();
        assert!(well.stdout.contains("node       does not run"), "{well}");
        assert_eq!(local.home().processes(), [], "the doctor starts nothing");
        std::fs::write(
            local.home().dir().join("config.toml"),
            "[node]\nrelay_url = \"http://file\"\nname = \"file\"\n",
        )
        .expect("a file");
        let cw = cw.clone().env("CODEWIRE_NODE_NAME", "variable");
        let told = cw.ok(&["doctor"]);
        let line = |key: &str| {
            told.lines()
                .find(|line| line.starts_with(key))
                .unwrap_or_default()
                .to_owned()
        };
        assert!(
            line("node.name").contains("variable")
                && line("node.name").ends_with("CODEWIRE_NODE_NAME"),
            "{told}"
        );
        assert!(
            line("relay_url").ends_with("config.toml: node.relay_url"),
            "{told}"
        );
        std::fs::write(
            local.home().dir().join("config.toml"),
            "[node]\nsync = \"maybe\"\n",
        )
        .expect("a file");
        let ill = cw.run(&["doctor"]);
        assert_eq!(ill.status, Some(1), "{ill}");
        assert!(ill.stdout.contains("BAD config"), "{ill}");
        std::fs::remove_file(local.home().dir().join("config.toml")).expect("it was there");
    });
}

#[test]
fn words_are_completed_by_asking_the_node() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        assert!(cw.ok(&["completion", "bash"]).contains("COMPLETE"));
        let _ = cw
            .run(&["launch", "planner", "-t", "worker", "--", "sleep", "600"])
            .ok();
        let complete = |words: &[&str]| {
            let mut line = vec!["--", "cw"];
            line.extend(words);
            let index = words.len().to_string();
            let cw = cw
                .clone()
                .env("COMPLETE", "bash")
                .env("_CLAP_COMPLETE_INDEX", index);
            cw.ok(&line)
        };
        assert!(complete(&["attach", "pl"]).contains("planner"));
        assert!(complete(&["wait", "wor"]).contains("worker"), "a tag");
        assert!(complete(&["subscribe", "--event", "session.st"]).contains("session.status"));
        assert!(complete(&["ren"]).contains("rename"));
    });
}

#[test]
fn logs_are_what_was_seen() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script = "for i in 1 2 3 4 5 6 7 8 9; do printf '\\rstep %s' $i; done; echo; \
                      printf '\\033[?1049h\\033[2J\\033[1;1Hmenu\\033[3;5Hitem\\033[?1049l'; printf 'end\\n'";
        let _ = cw.run(&["launch", "tui", "--", "sh", "-c", script]).ok();
        let _ = cw.run(&["wait", "tui"]).ok();
        let text = cw.ok(&["logs", "tui"]);
        assert_eq!(text, "step 9\nmenu\n    item\nend\n", "{text:?}");
        assert_eq!(cw.ok(&["logs", "tui", "--tail", "2"]), "    item\nend\n");
        assert_eq!(cw.ok(&["logs", "tui", "-f"]), text);
        assert_eq!(cw.ok(&["logs", "tui", "-f", "--tail", "1"]), "end\n");
        assert!(cw.ok(&["logs", "tui", "--raw"]).contains("\u{1b}[?1049h"));
        assert_eq!(cw.ok(&["logs", "tui", "--since", "1h"]), text);
        assert_eq!(
            cw.ok(&["logs", "tui", "--since", "2999-01-01T00:00:00Z"]),
            ""
        );
        cw.run(&["logs", "tui", "--since", "yesterday"])
            .fails("usage");
        let screen = cw.ok(&["screen", "tui"]);
        assert_eq!(screen, "step 9\nend\n");
    });
}

#[test]
fn a_session_is_told_as_an_asciicast() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script = "echo first; read -r x; echo second é";
        let _ = cw
            .run(&[
                "launch", "cast", "--size", "100x30", "--", "sh", "-c", script,
            ])
            .ok();
        steps::wait_for_output(cw, "cast", "first");
        let _ = cw.run(&["send", "cast", "go"]).ok();
        let _ = cw.run(&["wait", "cast"]).ok();
        let cast = cw.ok(&["logs", "cast", "--asciicast"]);
        let mut lines = cast
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let header = lines.next().expect("a header");
        assert_eq!(
            (&header["version"], &header["width"], &header["height"]),
            (&2.into(), &100.into(), &30.into())
        );
        let (mut text, mut last) = (String::new(), 0.0);
        for event in lines {
            let at = event[0].as_f64().expect("a time");
            assert!(at >= last, "{cast}");
            last = at;
            if event[1] == "o" {
                text += event[2].as_str().unwrap_or_default();
            }
        }
        assert!(
            text.starts_with("first\r\n") && text.ends_with("second é\r\n"),
            "{text:?}"
        );
    });
}

#[test]
fn who_types_leads_the_size() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "shell",
            &["sh", "-c", "while read -r x; do stty size; done"],
        );
        let mut first = Terminal::run(cw, &["attach", "shell"]);
        first.shows("attached", PATIENCE);
        first.resize(90, 30);
        let mut second = Terminal::run(cw, &["attach", "shell"]);
        second.shows("attached", PATIENCE);
        second.resize(101, 33);
        first.type_in("x\n");
        first.shows("30 90", PATIENCE);
        second.type_in("x\n");
        second.shows("33 101", PATIENCE);
        second.type_in("\u{2}d");
        assert_eq!(second.ends(PATIENCE), 0);
        first.type_in("x\n");
        first.type_in("\u{2}d");
        assert_eq!(first.ends(PATIENCE), 0);
    });
}
