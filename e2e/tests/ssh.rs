//! The SSH front door, with clients that others have written: OpenSSH, and dropbear where it is.
//!
//! `dev-1` takes terminals from the relay, `dev-2` only keys of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::case::or_skip;
use e2e::processes::Processes;
use e2e::pty::Terminal;
use e2e::running::Running;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{Cw, Done, PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// A relay with a front door, two nodes of one owner, and the owner's key.
struct Stage {
    processes: Processes,
    dir: PathBuf,
}

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        let _: Option<()> = or_skip(Err(format!("{program} is not here")));
    }
    found
}

impl Stage {
    /// Enrols both nodes; `settings` is the configuration of `dev-1`.
    fn set(settings: &str) -> Option<Self> {
        if !is_here("ssh") || !is_here("ssh-keygen") {
            return None;
        }
        let processes = Processes::new(CW, Way::Relayed);
        let dir = processes.dirs()[2]
            .parent()
            .expect("the stage is set")
            .to_owned();
        Some(Self { processes, dir }).inspect(|stage| {
            let config = stage.processes.home(Host::Dev1).dir().join("config.toml");
            std::fs::write(config, settings).expect("the stage is set");
        })
    }

    fn play(self, test: impl FnOnce(&Self)) {
        case(&self.processes as &dyn Substrate, |substrate| {
            steps::network(substrate);
            for host in [Host::Dev1, Host::Dev2] {
                let invite = steps::invite(substrate, &["--mine"]);
                let _ = steps::join(substrate, host, &invite).ok();
            }
            steps::wait_until_online(substrate);
            self.make_key("id");
            test(&self);
        });
    }

    fn make_key(&self, name: &str) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "me@e2e", "-f"]);
        let _ = Running::start(
            {
                command.arg(self.dir.join(name));
                command
            },
            b"",
        )
        .wait(PATIENCE)
        .ok();
    }

    fn public(&self, name: &str) -> String {
        self.dir.join(format!("{name}.pub")).display().to_string()
    }

    /// The key may come in through the relay.
    fn register(&self) {
        let user = self.processes.admin();
        let _ = user.run(&["ssh-key", "add", &self.public("id")]).ok();
    }

    fn port(&self) -> String {
        let ssh = self.processes.relay().ssh();
        ssh.rsplit_once(':').expect("the stage is set").1.to_owned()
    }

    /// OpenSSH with the key `key`, and nothing of this machine's settings.
    fn ssh(&self, key: &str, arguments: &[&str], input: &[u8]) -> Done {
        Running::start(self.command(key, arguments), input).wait(PATIENCE)
    }

    fn command(&self, key: &str, arguments: &[&str]) -> Command {
        let file = |name: &str| self.dir.join(name).display().to_string();
        // The jump host is started by ssh itself and reads only a file.
        let settings = format!(
            "Host *\n  UserKnownHostsFile {}\n  StrictHostKeyChecking accept-new\n  \
             IdentitiesOnly yes\n  IdentityFile {}\n  IdentityAgent none\n  LogLevel ERROR\n  \
             BatchMode yes\n",
            file("known_hosts"),
            file(key),
        );
        let config = file(&format!("config-{key}"));
        std::fs::write(&config, settings).expect("the stage is set");
        let mut command = Command::new("ssh");
        command.args(["-F", &config]).args(arguments);
        command
    }

    fn at(&self, node: &str, words: &[&str]) -> Done {
        let port = self.port();
        let target = format!("{node}@127.0.0.1");
        let mut arguments = vec!["-p", &port, &target];
        arguments.extend(words);
        self.ssh("id", &arguments, b"")
    }
}

#[test]
fn s37_commands_run_on_the_node_and_say_how_they_ended() {
    let Some(stage) = Stage::set("[node]\nssh = \"relay\"\n") else {
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
        let here = stage.at(
            "dev-1",
            &["echo \"$HOME|$LANG|$LD_PRELOAD|$CW_SESSION_ID\""],
        );
        assert!(here.ok().stdout.ends_with("|\n"));
    });
}

#[test]
fn s37_a_terminal_has_its_size_and_attaches_to_a_session() {
    let Some(stage) = Stage::set("[node]\nssh = \"relay\"\n") else {
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
        let _ = stage.command("id", &[]);
        let config = stage.dir.join("config-id").display().to_string();
        let client = Cw::new(Path::new("ssh"), &stage.dir);
        let words = ["-F", &config, "-tt", "-p", &port, "dev-1@127.0.0.1"];
        let mut screen = Terminal::run(&client, &[&words[..], &["attach", "echo"]].concat());
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
    let Some(stage) = Stage::set("[node]\nssh = \"relay\"\n") else {
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
    let Some(stage) = Stage::set("[node]\nssh_forward = true\n") else {
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
        let _ = owner
            .run(&["ssh-key", "add", "--here", &stage.public("id")])
            .ok();
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
        let second = stage.processes.cw(Host::Dev2);
        let _ = second
            .run(&["ssh-key", "add", "--here", &stage.public("id")])
            .ok();
        let _ = go(&["dev-2", "true"]).ok();
        assert_eq!(go(&["-W", &http, "dev-2"]).status, Some(255));

        // The block for ssh's own settings.
        let file = stage.dir.join("ssh_config").display().to_string();
        std::fs::write(&file, "Host kept\n").unwrap();
        let _ = owner.run(&["config-ssh", "--file", &file]).ok();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("Host dev-2.cw\n") && text.ends_with("Host kept\n"),
            "{text}"
        );
        let _ = owner.run(&["config-ssh", "--file", &file, "--remove"]).ok();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "Host kept\n");
    });
}

#[test]
fn s09_a_password_is_good_for_one_login_to_one_node() {
    let Some(stage) = Stage::set("[node]\nssh = \"relay\"\n") else {
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
