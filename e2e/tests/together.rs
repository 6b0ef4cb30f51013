//! Relays over a PostgreSQL database: what whoever keeps them finds, and two that serve one
//! network together.

use std::io::{Read as _, Write as _, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use e2e::case::{Setting, or_skip};
use e2e::home::Home;
use e2e::postgres::Server;
use e2e::relay::{Relay, TOKEN};
use e2e::running::Running;
use e2e::steps;
use e2e::{Cw, Local, PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// What is in the URL and must be nowhere else.
const SECRET: &str = "s3cr3t-of-the-database";

#[test]
fn the_doctor_and_the_backup_say_where_the_database_is() {
    let Some(server) = Server::shared() else {
        return;
    };
    case(&Local::new(CW), |local| {
        let url = server.database();
        let data = local.home().dir().join("relay");
        let file = local.home().dir().join("database-url");
        std::fs::write(&file, &url).expect("a directory of our own can be written");
        let file = file.display().to_string();
        let cw = local.cw().clone().env("CW_DATABASE_URL_FILE", &file);
        let relay = Relay::new(cw, &data, "127.0.0.1:0");
        relay.start();
        let admin = local.cw().clone().env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
        let admin = admin.env("CODEWIRE_RELAY_URL", relay.url());
        let _ = admin.run(&["network", "create", "demo"]).ok();
        assert!(
            relay.log().contains("[relay] database relay"),
            "{}",
            relay.log()
        );
        assert!(!data.join("relay.db").exists());

        let dir = data.display().to_string();
        let doctor = ["relay", "doctor", "--data-dir", &dir];
        let told = local.cw().run(&doctor);
        assert_eq!(told.status, Some(1), "{told}");
        assert!(told.stdout.contains("BAD database"), "{told}");
        assert!(told.stdout.contains("PostgreSQL") && told.stdout.contains("CW_DATABASE_URL"));
        let seen = local.cw().clone().env("CW_DATABASE_URL", &url).run(&doctor);
        let seen = seen.ok();
        assert!(seen.stdout.contains("ok  database"), "{seen}");
        assert!(
            seen.stdout.contains("1 networks, 0 nodes in PostgreSQL"),
            "{seen}"
        );

        let by = format!("used by {}", relay.url());
        assert!(seen.stdout.contains(&by), "{seen}");

        let saved = local.home().dir().join("saved").display().to_string();
        let backup = ["relay", "backup", "--data-dir", &dir, &saved];
        let refused = local.cw().run(&backup).fails("database_elsewhere");
        assert!(refused.stderr.contains("pg_dump"), "{refused}");
        assert!(!PathBuf::from(&saved).exists());
        relay.stop();
        // Without the URL it does not begin anew with an empty database.
        let serve = [
            "relay",
            "serve",
            "--base-url",
            "http://127.0.0.1:1",
            "--data-dir",
            &dir,
        ];
        let refused = local.cw().run(&serve).fails("config_invalid");
        assert!(refused.stderr.contains("CW_DATABASE_URL"), "{refused}");
        let wrong = url.replace("postgres://", "mysql://");
        let cw = local.cw().clone().env("CW_DATABASE_URL", wrong);
        let refused = cw.run(&serve).fails("config_invalid");
        let away = url.replace("host=/tmp", "host=/nowhere");
        let cw = local.cw().clone().env("CW_DATABASE_URL", away);
        let away = cw.run(&serve).fails("store_unavailable");
        for text in [
            refused.stderr,
            away.stderr,
            relay.log(),
            seen.stdout,
            told.stdout,
        ] {
            assert!(!text.contains(SECRET), "{text}");
        }
    });
}

/// Takes connections and passes them to the first relay that answers, as a load balancer does.
struct Front {
    url: String,
}

impl Front {
    fn before(relays: Arc<Mutex<Vec<String>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has room");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let relays = relays.lock().expect("nobody panics with it").clone();
                thread::spawn(move || {
                    let mut there = relays.iter().filter_map(|at| TcpStream::connect(at).ok());
                    if let Some(far) = there.next() {
                        pass_on(&near, &far);
                    }
                });
            }
        });
        Self {
            url: format!("http://{address}"),
        }
    }
}

/// Until both ends have ended.
fn pass_on(near: &TcpStream, far: &TcpStream) {
    let one_way = |mut from: &TcpStream, mut to: &TcpStream| {
        // However it ends, the other end hears of it.
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| one_way(near, far));
        one_way(far, near);
    });
}

/// Two relays over one database, and a node at each; both are reached by DERP alone. `dev-1` comes
/// to the first relay that answers.
struct Stage {
    relays: [Relay; 2],
    homes: [Home; 2],
    front: Front,
    dir: tempfile::TempDir,
}

impl Stage {
    /// Nodes know both relays.
    fn set() -> Option<Self> {
        Self::of(|relay| relay)
    }

    /// Each node knows one: what the relays say of themselves leads nowhere.
    fn apart() -> Option<Self> {
        Self::of(|relay| relay.called("http://127.0.0.1:1"))
    }

    fn of(change: impl Fn(Relay) -> Relay) -> Option<Self> {
        let url = Server::shared()?.database();
        let dir = tempfile::Builder::new().prefix("cw-two-").tempdir();
        let dir = dir.expect("there is a place for temporary files");
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("a directory of our own can be written");
            path
        };
        let program = PathBuf::from(CW);
        let relays = ["a", "b"].map(|name| {
            let home = make(name);
            let cw = Cw::new(&program, &home).env("CW_DATABASE_URL", &url);
            let cw = cw.env("CW_PEER_URL", "http://127.0.0.1:0");
            let relay = change(Relay::new(cw, &home.join("data"), "127.0.0.1:0"));
            relay.start();
            relay
        });
        let homes = ["1", "2"].map(|name| {
            let path = make(name);
            let settings = "[node]\nssh = \"relay\"\n";
            std::fs::write(path.join("config.toml"), settings).expect("it can be written");
            let cw = Cw::new(&program, &path).env("CODEWIRE_NODE_NAME", format!("dev-{name}"));
            Home::new(&path, cw.env("CODEWIRE_DIRECT", "0"))
        });
        let addresses = relays.iter().map(Relay::address).collect();
        let front = Front::before(Arc::new(Mutex::new(addresses)));
        Some(Self {
            relays,
            homes,
            front,
            dir,
        })
    }

    fn admin(&self, relay: &Relay) -> Cw {
        let cw = Cw::new(&PathBuf::from(CW), self.dir.path());
        cw.env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN)
            .env("CODEWIRE_RELAY_URL", at(relay))
    }

    /// Makes the network at one relay and lets the nodes in, each at its own.
    fn enrol(&self) {
        let [a, b] = &self.relays;
        let _ = self.admin(a).run(&["network", "create", "demo"]).ok();
        for (home, url) in self.homes.iter().zip([self.front.url.clone(), at(b)]) {
            // An invite of one relay is good at the other.
            let invite = ["network", "invite", "--mine", "--network", "demo"];
            let invite = self.admin(a).ok(&invite);
            let join = ["network", "join", "--relay-url", &url, invite.trim()];
            let _ = home.cw().run(&join).ok();
        }
        self.until_online();
    }

    fn until_online(&self) {
        for (home, peer) in self.homes.iter().zip(["dev-2", "dev-1"]) {
            wait_until("the node has a relay", PATIENCE, || {
                let done = home.cw().run(&["node", "list", "--json"]);
                let list: Value =
                    serde_json::from_str(&done.stdout).map_err(|_| done.to_string())?;
                let connected = list["relay_connected"] == true;
                connected.then_some(()).ok_or_else(|| list.to_string())
            });
            steps::wait_for_node(home.cw(), peer, "online", |node| node["online"] == true);
        }
    }
}

impl Setting for Stage {
    fn logs(&self) -> Vec<(String, String)> {
        let [a, b] = &self.relays;
        let [one, two] = &self.homes;
        let log = |name: &str, text: String| (name.to_owned(), text);
        vec![
            log("relay a", a.log()),
            log("relay b", b.log()),
            log("dev-1", one.log()),
            log("dev-2", two.log()),
        ]
    }

    fn tear_down(&self) {
        for home in &self.homes {
            home.tear_down();
        }
        for relay in &self.relays {
            relay.kill();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tear_down();
    }
}

/// The URL at which a relay listens.
fn at(relay: &Relay) -> String {
    format!("http://{}", relay.address())
}

/// A number that a relay has for whoever watches it.
fn metric(relay: &Relay, name: &str) -> u64 {
    let mut stream = TcpStream::connect(relay.address()).expect("the relay listens");
    let request = b"GET /metrics HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n";
    stream.write_all(request).expect("it takes requests");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let start = format!("codewire_relay_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    let number = line.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{name} in {text}"))
}

/// A message and a request from each of two nodes to the other's session.
fn talk(stage: &Stage, round: &str) {
    let [one, two] = &stage.homes;
    for (here, there, peer) in [(one, two, "dev-2"), (two, one, "dev-1")] {
        let to = format!("{peer}:coder");
        let body = format!("to {peer}, {round}");
        steps::wait_until_heard(here.cw(), &to, &body);
        let inbox = steps::inbox(there.cw(), "coder");
        assert!(
            inbox.iter().any(|message| message["body"] == body),
            "{inbox:?}"
        );
        let asked = here.cw().start(&["request", "-f", "coder", &to, "ready?"]);
        let request = steps::wait_for_request(there.cw(), "coder");
        let answer = ["reply", "-f", "coder", &request, round];
        let _ = there.cw().run(&answer).ok();
        let answer = asked.wait(PATIENCE).ok();
        assert!(answer.stdout.trim().ends_with(round), "{answer}");
    }
}

#[test]
fn s34_a_node_at_one_relay_talks_with_a_node_at_the_other() {
    let Some(stage) = Stage::apart() else { return };
    case(&stage, |stage| {
        stage.enrol();
        let [one, two] = &stage.homes;
        for home in &stage.homes {
            let _ = steps::launch(home.cw(), "coder", &steps::SLEEPER);
        }
        talk(stage, "first");
        // By the relays alone: each has handed on what its node sent.
        assert!(steps::path(one.cw(), "dev-2").starts_with("relay"));
        for relay in &stage.relays {
            assert!(metric(relay, "derp_forwarded_total") > 0);
            assert_eq!(metric(relay, "derp_links"), 1);
        }

        // The one is killed: its node goes to the other, which forwards for both then.
        let [a, b] = &stage.relays;
        a.kill();
        let killed = Instant::now();
        wait_until("both nodes are at one relay", PATIENCE, || {
            let nodes = metric(b, "nodes_connected");
            (nodes == 2).then_some(()).ok_or_else(|| nodes.to_string())
        });
        println!(
            "the node came to the other relay after {:?}",
            killed.elapsed()
        );
        talk(stage, "second");
        println!("and had talked with everybody after {:?}", killed.elapsed());

        // Who is revoked there cannot be reached any more, also not with the relay that is back.
        a.start();
        let revoke = ["network", "revoke", "dev-1", "--network", "demo"];
        let _ = stage.admin(a).run(&revoke).ok();
        wait_until("dev-1 cannot be reached", PATIENCE, || {
            let told = two
                .cw()
                .run(&["msg", "--no-queue", "dev-1:coder", "still there?"]);
            (told.status != Some(0))
                .then_some(())
                .ok_or_else(|| told.to_string())
        });
        let _ = stage
            .admin(b)
            .run(&["network", "revoke", "dev-1", "--network", "demo"])
            .fails("node_unknown");
    });
}

fn body_of(round: usize) -> String {
    format!("round {round}")
}

/// Both relays are there, and both nodes at both of them.
fn until_both_stand_by(stage: &Stage) {
    for home in &stage.homes {
        wait_until("a relay stands by", PATIENCE, || {
            let done = home.cw().run(&["node", "status", "--json"]);
            let told: Value = serde_json::from_str(&done.stdout).map_err(|_| done.to_string())?;
            let relay = &told["network"]["relay"];
            let both = relay["forwards"] == true && relay["standby"]["forwards"] == true;
            both.then_some(()).ok_or_else(|| told.to_string())
        });
    }
    stage.until_online();
}

#[test]
fn s34_nobody_waits_for_a_relay_that_is_killed_while_another_stands_by() {
    let Some(stage) = Stage::set() else { return };
    case(&stage, |stage| {
        stage.enrol();
        let [one, two] = &stage.homes;
        for home in &stage.homes {
            let _ = steps::launch(home.cw(), "coder", &steps::SLEEPER);
        }
        talk(stage, "before");
        for (round, relay) in [1, 0, 1, 0].into_iter().enumerate() {
            until_both_stand_by(stage);
            stage.relays[relay].kill();
            let killed = Instant::now();
            // Not one of them may fail, and none is queued.
            for (here, peer) in [(one, "dev-2"), (two, "dev-1")] {
                let body = body_of(round);
                let send = ["msg", "--no-queue", &format!("{peer}:coder"), &body];
                let _ = here.cw().run(&send).ok();
            }
            println!("both were heard after {:?}", killed.elapsed());
            // Who was at the one that is gone is seen at the other, and may do there what it did.
            stage.until_online();
            for home in &stage.homes {
                let _ = home.cw().run(&["kv", "set", "round", &body_of(round)]).ok();
            }
            talk(stage, &format!("after {round}"));
            let text = two.cw().ok(&["node", "status"]);
            assert!(text.contains("\nstandby   http://127.0.0.1:"), "{text}");
            stage.relays[relay].start();
        }
        // A node that starts while the relay is away where it joined knows the other one.
        until_both_stand_by(stage);
        stage.relays[1].kill();
        let _ = two.cw().run(&["node", "stop"]).ok();
        let _ = two.cw().run(&["list"]).ok();
        stage.until_online();
        let text = two.cw().ok(&["node", "status"]);
        assert!(text.contains("left for http://127.0.0.1:"), "{text}");
    });
}

#[test]
fn s34_a_relay_is_killed_and_its_node_goes_on_at_the_other() {
    let Some(stage) = Stage::set() else { return };
    case(&stage, |stage| {
        stage.enrol();
        let [a, b] = &stage.relays;
        let [one, two] = &stage.homes;
        a.kill();
        stage.until_online();
        let _ = one.cw().run(&["kv", "set", "after", "1"]).ok();
        assert_eq!(two.cw().ok(&["kv", "get", "after"]), "1");

        // What is decided at one relay holds at the other, also when that comes back.
        a.start();
        stage.until_online();
        let revoke = ["network", "revoke", "dev-1", "--network", "demo"];
        let _ = stage.admin(a).run(&revoke).ok();
        wait_until("dev-1 is withdrawn", PATIENCE, || {
            let told = two.cw().run(&["node", "list", "--json"]);
            let is_gone = told.status == Some(0) && !told.stdout.contains("dev-1");
            is_gone.then_some(()).ok_or_else(|| told.to_string())
        });
        let list = stage
            .admin(b)
            .ok(&["network", "members", "--network", "demo"]);
        assert!(list.contains("admin"), "{list}");
    });
}

#[test]
fn s09_s34_ssh_to_one_relay_gets_to_a_node_at_the_other() {
    let is_here = ["ssh", "ssh-keygen"].map(|program| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    });
    let clients = is_here.iter().all(|is| *is).then_some(());
    if or_skip(clients.ok_or_else(|| "ssh is not here".to_owned())).is_none() {
        return;
    }
    let Some(stage) = Stage::set() else { return };
    case(&stage, |stage| {
        stage.enrol();
        let file = |name: &str| stage.dir.path().join(name).display().to_string();
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &file("id")]);
        let _ = Running::start(keygen, b"").wait(PATIENCE).ok();
        let [a, b] = &stage.relays;
        let add = ["ssh-key", "add", &file("id.pub")];
        let _ = stage.admin(a).run(&add).ok();
        let ssh = |relay: &Relay, checking: &str, words: &[&str]| {
            let door = relay.ssh();
            let (_, port) = door.rsplit_once(':').expect("it has a front door");
            let settings = format!(
                "Host *\n  UserKnownHostsFile {}\n  StrictHostKeyChecking {checking}\n  \
                 HostKeyAlias relay\n  IdentitiesOnly yes\n  IdentityFile {}\n  \
                 IdentityAgent none\n  LogLevel ERROR\n  BatchMode yes\n",
                file("known_hosts"),
                file("id"),
            );
            std::fs::write(file("config"), settings).expect("it can be written");
            let mut command = Command::new("ssh");
            command.args(["-F", &file("config"), "-p", port, "dev-1@127.0.0.1"]);
            command.args(words);
            Running::start(command, b"").wait(PATIENCE)
        };
        // The node is at the first; both doors have one key.
        let first = ssh(a, "accept-new", &["echo here; exit 3"]);
        assert_eq!(
            (first.status, &first.stdout[..]),
            (Some(3), "here\n"),
            "{first}"
        );
        let other = ssh(b, "yes", &["echo there; exit 4"]);
        assert_eq!(
            (other.status, &other.stdout[..]),
            (Some(4), "there\n"),
            "{other}"
        );
        let long = ssh(b, "yes", &["head -c 3000000 /dev/zero | tr '\\0' x"]).ok();
        assert_eq!(long.stdout.len(), 3_000_000);
    });
}
