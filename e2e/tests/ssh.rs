//! The SSH front door, with clients that others have written: OpenSSH, and dropbear where it is.
//!
//! `dev-1` takes terminals from the relay, `dev-2` only keys of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use e2e::front::{Front, is_here};
use e2e::pty::Terminal;
use e2e::running::Running;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate as _};
use e2e::{Cw, PATIENCE, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

#[test]
fn s37_commands_run_on_the_node_and_say_how_they_ended() {
    let Some(stage) = Front::set(CW, "[node]\nssh = \"relay\"\n") else {
        return;
    };
    stage.play(|stage| {
        stage.register();
        let done = stage.at("dev-1", &["echo out; echo err >&2; exit 7"]);
        assert_eq!(
            (done.status, done.stdout.as_str()),
            (Some(7), "out\n"),
            "{done}"
        );
        assert!(done.stderr.contains("err"), "{done}");
        // A signal is no status.
        assert_eq!(stage.at("dev-1", &["sh -c 'kill -9 $$'"]).status, Some(255));

        // Every byte, both ways, and the end of the input.
        let bytes: Vec<u8> = (0..1_000_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let port = stage.port();
        let network = stage.processes.network();
        let target = format!("{network}/dev-1@127.0.0.1");
        let there = ["-p", &port, &target, "sha256sum; echo done"];
        let sum = stage.ssh("id", &there, &bytes).ok().stdout;
        let mut local = Command::new("sha256sum");
        local.arg("-");
        let expected = Running::start(local, &bytes).wait(PATIENCE).ok().stdout;
        assert_eq!(sum, format!("{expected}done\n"));
        let loud = stage
            .at("dev-1", &["head -c 3000000 /dev/zero | tr '\\0' x"])
            .ok();
        assert_eq!(loud.stdout.len(), 3_000_000);

        // Verbs of cw are cw.
        let cw = stage.processes.cw(Host::Dev1);
        steps::launch(&cw, "planner", &SLEEPER);
        let list = stage.at("dev-1", &["list", "--json"]).ok().stdout;
        assert!(list.contains("\"planner\""), "{list}");
        // Some variables come along, others do not.
        let port = stage.port();
        let set = "SetEnv=LANG=C LC_NAME=x LD_PRELOAD=x PATH=x CW_SESSION_ID=7 FOO=x";
        let show = "/bin/echo \"$LANG|$LC_NAME|$LD_PRELOAD|$CW_SESSION_ID|$FOO\"; id >/dev/null";
        let there = ["-p", &port, "-o", set, "dev-1@127.0.0.1", show];
        assert_eq!(stage.ssh("id", &there, b"").ok().stdout, "C|x|||\n");
    });
}

#[test]
fn s37_a_terminal_has_its_size_and_attaches_to_a_session() {
    let Some(stage) = Front::set(CW, "[node]\nssh = \"relay\"\n") else {
        return;
    };
    stage.play(|stage| {
        stage.register();
        let cw = stage.processes.cw(Host::Dev1);
        let echo = [
            "sh",
            "-c",
            "echo ready; while read line; do echo \"got:$line\"; done",
        ];
        steps::launch(&cw, "echo", &echo);
        steps::wait_for_output(&cw, "echo", "ready");
        let port = stage.port();
        let config = stage.settings("id");
        let client = Cw::new(Path::new("ssh"), &stage.dir);
        let words = ["-F", &config, "-tt", "-p", &port, "dev-1@127.0.0.1"];
        // By its number, as somebody reads it off a list.
        let number = steps::status(&cw, "echo")["id"].to_string();
        let mut screen = Terminal::run(&client, &[&words[..], &["attach", &number]].concat());
        screen.shows("ready", PATIENCE);
        screen.type_in("hello\r");
        screen.shows("got:hello", PATIENCE);
        screen.type_in("\u{2}d");
        assert_eq!(screen.ends(PATIENCE), 0);
        assert_eq!(steps::status(&cw, "echo")["status"], "running");

        let mut screen = Terminal::run(&client, &words);
        screen.type_in("echo $((6 * 7)); stty size; tty\r");
        screen.shows("/dev/pts/", PATIENCE);
        assert!(screen.text().contains("30 100"), "{}", screen.text());
        screen.resize(77, 33);
        screen.type_in("clear; stty size\r");
        screen.shows("33 77", PATIENCE);
        screen.type_in("exit 3\r");
        assert_eq!(screen.ends(PATIENCE), 3);
    });
}

#[test]
fn s09_who_is_not_known_does_not_come_in() {
    let Some(stage) = Front::set(CW, "[node]\nssh = \"relay\"\n") else {
        return;
    };
    stage.play(|stage| {
        let denied = stage.at("dev-1", &["true"]);
        assert_eq!(denied.status, Some(255));
        assert!(denied.stderr.contains("Permission denied"), "{denied}");
        stage.register();
        let _ = stage.at("dev-1", &["true"]).ok();
        for (node, part) in [
            ("nobody", "there is no node nobody of yours"),
            ("other/dev-1", "there is no node dev-1 of yours"),
            ("dev-2", "takes no terminals from a relay"),
            ("../dev-1", "say which node"),
        ] {
            let done = stage.at(node, &["true"]);
            assert_eq!(done.status, Some(255), "{node}");
            assert!(done.stderr.contains(part), "{node}: {done}");
        }

        // A key is out as soon as it is taken away.
        let user = stage.processes.admin();
        let list = user.ok(&["ssh-key", "list"]);
        let fingerprint = list.lines().nth(1).unwrap().split(' ').next().unwrap();
        let _ = user.run(&["ssh-key", "rm", fingerprint]).ok();
        assert_eq!(stage.at("dev-1", &["true"]).status, Some(255));
        user.run(&["ssh-key", "rm", fingerprint]).fails("not_found");
        let private = stage.dir.join("id").display().to_string();
        user.run(&["ssh-key", "add", &private]).fails("usage");

        // Who is gone is said to be gone; the relay has the same key when it comes back.
        stage.register();
        stage.processes.home(Host::Dev1).tear_down();
        wait_until("the node is seen as gone", PATIENCE, || {
            let done = stage.at("dev-1", &["true"]);
            done.stderr
                .contains("node not connected")
                .then_some(())
                .ok_or(done.stderr)
        });
        let known = || std::fs::read_to_string(stage.dir.join("known_hosts")).unwrap();
        let before = known();
        stage.processes.relay().stop();
        stage.processes.relay().start();
        assert!(
            stage
                .at("dev-1", &["true"])
                .stderr
                .contains("node not connected")
        );
        assert_eq!(known(), before);
    });
}

#[test]
fn a_jump_is_end_to_end_and_by_the_nodes_own_keys() {
    let Some(stage) = Front::set(CW, "[node]\nssh_forward = true\n") else {
        return;
    };
    stage.play(|stage| {
        stage.register();
        let relay = format!("127.0.0.1:{}", stage.port());
        let go = |words: &[&str]| {
            let mut arguments = vec!["-J", &relay];
            arguments.extend(words);
            stage.ssh("id", &arguments, b"")
        };
        // The relay lets the key in, the node does not know it.
        let denied = go(&["dev-1", "true"]);
        assert!(denied.stderr.contains("Permission denied"), "{denied}");
        let owner = stage.processes.cw(Host::Dev1);
        stage.authorize(Host::Dev1);
        assert!(owner.ok(&["ssh-key", "list", "--here"]).contains("me@e2e"));
        assert_eq!(go(&["dev-1", "echo over; exit 5"]).status, Some(5));
        // Another's key, and a node that does not exist.
        stage.make_key("other");
        let other = stage.ssh("other", &["-J", &relay, "dev-1", "true"], b"");
        assert_eq!(other.status, Some(255), "{other}");
        assert_eq!(go(&["nobody", "true"]).status, Some(255));

        // Ports of the node's loopback, and no others; where it is not allowed, none.
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = service.local_addr().unwrap().to_string();
        let answers = std::thread::spawn(move || {
            let (mut stream, _) = service.accept().unwrap();
            let mut heard = String::new();
            let _ = stream.read_to_string(&mut heard).unwrap();
            stream
                .write_all(format!("heard {heard}").as_bytes())
                .unwrap();
        });
        let forward = ["-J", &relay, "-W", &http, "dev-1"];
        let done = stage.ssh("id", &forward, b"a question");
        assert_eq!(done.stdout, "heard a question", "{done}");
        answers.join().unwrap();
        assert_eq!(go(&["-W", "192.0.2.1:80", "dev-1"]).status, Some(255));
        stage.authorize(Host::Dev2);
        let _ = go(&["dev-2", "true"]).ok();
        assert_eq!(go(&["-W", &http, "dev-2"]).status, Some(255));
    });
}

#[test]
fn a_jump_ends_at_the_nodes_own_host_key() {
    let Some(stage) = Front::set(CW, "") else {
        return;
    };
    stage.play(|stage| {
        stage.register();
        stage.authorize(Host::Dev1);
        let relay = format!("127.0.0.1:{}", stage.port());
        let go = |words: &[&str]| stage.ssh("id", &[&["-J", &relay][..], words].concat(), b"");
        assert_eq!(go(&["dev-1", "exit 5"]).status, Some(5));
        let owner = stage.processes.cw(Host::Dev1);
        // It is the node that has shown its key, which only the node has; it keeps it.
        let known = || std::fs::read_to_string(stage.dir.join("known_hosts")).unwrap();
        let host_key = |file: std::path::PathBuf| {
            let mut command = Command::new("ssh-keygen");
            command.arg("-y").arg("-f").arg(file);
            let shown = Running::start(command, b"").wait(PATIENCE).ok().stdout;
            shown.split(' ').nth(1).unwrap().trim().to_owned()
        };
        let before = known();
        let shown = |key: &str| before.lines().find(|line| line.contains(key));
        let node = host_key(stage.home(Host::Dev1).join("ssh_host_ed25519"));
        assert!(shown(&node).unwrap().starts_with("dev-1 "), "{before}");
        let door = host_key(stage.processes.dirs()[2].join("ssh_host_ed25519"));
        assert!(
            shown(&door).unwrap().starts_with("[127.0.0.1]:"),
            "{before}"
        );
        let _ = owner.run(&["node", "restart"]).ok();
        steps::wait_until_online(&stage.processes);
        assert_eq!(go(&["dev-1", "exit 6"]).status, Some(6));
        assert_eq!(known(), before);
    });
}

#[test]
fn ssh_gets_there_by_the_block_of_config_ssh() {
    let Some(stage) = Front::set(CW, "") else {
        return;
    };
    stage.play(|stage| {
        stage.register();
        stage.authorize(Host::Dev1);
        let owner = stage.processes.cw(Host::Dev1);
        let file = stage.dir.join("ssh_config").display().to_string();
        std::fs::write(&file, "Host kept\n").unwrap();
        let _ = owner.run(&["config-ssh", "--file", &file]).ok();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("Host dev-2.cw\n") && text.ends_with("Host kept\n"),
            "{text}"
        );
        // ssh takes it, and gets there by it.
        let both = format!("Include {}\n{text}", stage.settings("id"));
        let both_file = stage.file("both");
        std::fs::write(&both_file, both).unwrap();
        let mut command = Command::new("ssh");
        command.args(["-F", &both_file, "dev-1.cw", "echo by its name"]);
        let done = Running::start(command, b"").wait(PATIENCE).ok();
        assert_eq!(done.stdout, "by its name\n", "{done}");
        let _ = owner.run(&["config-ssh", "--file", &file, "--remove"]).ok();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "Host kept\n");
    });
}

#[test]
fn s09_a_password_is_good_for_one_login_to_one_node() {
    let Some(stage) = Front::set(CW, "[node]\nssh = \"relay\"\n") else {
        return;
    };
    if !is_here("dbclient") {
        return;
    }
    stage.play(|stage| {
        let owner = stage.processes.cw(Host::Dev1);
        // It needs no person's token: the node speaks for itself, and for no other.
        let password = owner.ok(&["node", "qr"]);
        owner.run(&["node", "qr", "dev-2"]).fails("node_unknown");
        let enter = |password: &str, node: &str| {
            let mut command = Command::new("dbclient");
            command
                .args(["-y", "-y", "-p", &stage.port()])
                .args([format!("{node}@127.0.0.1").as_str(), "echo in; exit 4"])
                .env("DROPBEAR_PASSWORD", password.trim())
                .env("HOME", &stage.dir);
            Running::start(command, b"").wait(PATIENCE)
        };
        assert_ne!(enter("wrong-wrong-wrong", "dev-1").status, Some(4));
        let done = enter(&password, "dev-1");
        assert_eq!(
            (done.status, done.stdout.as_str()),
            (Some(4), "in\n"),
            "{done}"
        );
        assert_ne!(enter(&password, "dev-1").status, Some(4));
        let another = owner.ok(&["node", "qr"]);
        assert_ne!(enter(&another, "dev-2").status, Some(4));
    });
}
