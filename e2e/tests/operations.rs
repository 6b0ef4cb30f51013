//! Whoever keeps a relay: its service, its backups, and what is wrong with it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::case::or_skip;
use e2e::relay::{Relay, TOKEN};
use e2e::{Cw, Local, PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    std::fs::read_to_string(path.join("codewire-relay.service")).expect("the unit is there")
}

/// The values of a key of the unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let line = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(line).collect()
}

/// A relay of a local test, and `cw` as its administrator.
fn relay(local: &Local) -> (Relay, PathBuf) {
    let data = local.home().dir().join("relay");
    let relay = Relay::new(local.cw().clone(), &data, "127.0.0.1:0");
    relay.start();
    (relay, data)
}

fn admin(local: &Local, relay: &Relay) -> Cw {
    let cw = local.cw().clone().env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
    cw.env("CODEWIRE_RELAY_URL", relay.url())
}

#[test]
fn the_service_starts_the_relay_and_is_told_when_it_is_ready() {
    case(&Local::new(CW), |local| {
        let unit = unit();
        let state = local.home().dir().join("state");
        let mut variables = vec![("STATE_DIRECTORY".to_owned(), state.display().to_string())];
        let defaults = values(&unit, "Environment").join(" ");
        let defaults = defaults.split(' ').filter_map(|one| one.split_once('='));
        variables.extend(defaults.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for (key, value) in [("CW_LISTEN", "127.0.0.1:0"), ("CW_STUN_LISTEN", "")] {
            variables.retain(|(name, _)| name != key);
            variables.push((key.to_owned(), value.to_owned()));
        }
        let mut words: Vec<String> = values(&unit, "ExecStart")[0]
            .split(' ')
            .map(str::to_owned)
            .collect();
        assert_eq!(words.remove(0), "/usr/local/bin/cw");
        for (key, value) in &variables {
            for word in &mut words {
                *word = word.replace(&format!("${{{key}}}"), value);
            }
        }
        assert!(words.iter().all(|word| !word.contains('$')), "{words:?}");
        // What the environment file says, and nothing of it is among the arguments.
        let notified = local.home().dir().join("notify");
        let manager = UnixDatagram::bind(&notified).expect("a socket");
        manager.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let cw = local.cw().clone();
        let cw = cw
            .env("CW_BASE_URL", "http://127.0.0.1:1")
            .env("CW_AUTH_TOKEN", TOKEN);
        let cw = cw.env("NOTIFY_SOCKET", notified.display().to_string());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let relay = cw.start(&words);
        let mut said = [0; 64];
        let length = manager.recv(&mut said).expect("it says that it is ready");
        assert_eq!(String::from_utf8_lossy(&said[..length]).trim(), "READY=1");
        let line = relay.stderr.line("HTTP listening on ", PATIENCE);
        let address = line.split_whitespace().nth(4).expect("an address");
        let url = format!("http://{address}");
        let admin = local.cw().clone().env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
        let _ = admin
            .run(&["network", "create", "demo", "--relay-url", &url])
            .ok();
        let mode = std::fs::metadata(&state)
            .expect("its directory")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(!state.join("auth-token").exists());
    });
}

#[test]
fn the_service_may_do_little() {
    let verified = (|| {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = dir.path().join("codewire-relay.service");
        let text = unit().replace("/usr/local/bin/cw", CW);
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
        let analyze = |arguments: &[&str]| {
            let mut command = Command::new("systemd-analyze");
            let done = command.args(arguments).arg(&path).output();
            done.map_err(|error| format!("systemd-analyze: {error}"))
        };
        Ok((
            analyze(&["verify", "--man=no"])?,
            analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"])?,
        ))
    })();
    let Some((verify, security)) = or_skip(verified) else {
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(!said.contains("codewire-relay.service"), "{said}");
    let table = String::from_utf8_lossy(&security.stdout);
    assert!(security.status.success(), "{table}");
    assert!(table.contains("Overall exposure level"), "{table}");
}

#[test]
fn a_backup_brings_a_relay_back() {
    case(&Local::new(CW), |local| {
        let (relay, data) = relay(local);
        let admin = admin(local, &relay);
        let _ = admin.run(&["network", "create", "demo"]).ok();
        let invite = admin
            .run(&["network", "invite", "--mine", "--json", "--network", "demo"])
            .ok();
        let saved = local.home().dir().join("saved");
        let (from, to) = (data.display().to_string(), saved.display().to_string());
        let backup = ["relay", "backup", "--data-dir", &from, &to];
        let told = local.cw().run(&backup).ok();
        assert!(told.stderr.contains("Saved 1 network, 0 nodes"), "{told}");
        let _ = local
            .cw()
            .run(&backup)
            .fails("conflict")
            .hints("does not exist yet");
        for entry in std::fs::read_dir(&saved).expect("it is there") {
            let entry = entry.expect("it can be read");
            let mode = entry.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{entry:?}");
        }

        // The machine is lost; another one takes its place.
        let restore = ["relay", "restore", "--data-dir", &from, &to];
        let _ = local.cw().run(&restore).fails("locked");
        let _ = admin.run(&["network", "create", "later"]).ok();
        relay.kill();
        let _ = local
            .cw()
            .run(&restore)
            .fails("conflict")
            .hints("--replace");
        let mut replace = restore.to_vec();
        replace.push("--replace");
        let told = local.cw().run(&replace).ok();
        assert!(
            told.stderr.contains("Restored 1 network, 0 nodes"),
            "{told}"
        );
        relay.start();
        let list = admin.ok(&["network", "list", "--json"]);
        assert!(list.contains("demo") && !list.contains("later"), "{list}");
        let invite: serde_json::Value = serde_json::from_str(&invite.stdout).expect("JSON");
        let token = invite["token"].as_str().expect("an invite");
        let url = relay.url();
        let _ = local
            .cw()
            .run(&["network", "join", "--relay-url", &url, token])
            .ok();

        // What it has replaced is not gone, and can itself be brought back.
        relay.kill();
        let aside = std::fs::read_dir(&data).expect("its directory").flatten();
        let aside = aside.map(|entry| entry.path().display().to_string());
        let aside = aside
            .into_iter()
            .find(|path| path.contains("before-restore-"));
        let aside = aside.expect("it was kept");
        let back = ["relay", "restore", "--replace", "--data-dir", &from, &aside];
        let told = local.cw().run(&back).ok();
        assert!(
            told.stderr.contains("Restored 2 networks, 0 nodes"),
            "{told}"
        );
    });
}

#[test]
fn what_is_no_backup_replaces_nothing() {
    case(&Local::new(CW), |local| {
        let (relay, data) = relay(local);
        let _ = admin(local, &relay)
            .run(&["network", "create", "demo"])
            .ok();
        relay.kill();
        let from = data.display().to_string();
        let bad = local.home().dir().join("bad");
        std::fs::create_dir(&bad).expect("it can be made");
        let path = bad.display().to_string();
        let restore = ["relay", "restore", "--replace", "--data-dir", &from, &path];
        let _ = local
            .cw()
            .run(&restore)
            .fails("not_found")
            .hints("--data-dir");
        let good = std::fs::read(data.join("relay.db")).expect("a database");
        let mut torn = good.clone();
        torn.truncate(good.len() / 2);
        let strange = b"SQLite format 3\0".repeat(40);
        for damage in [b"nothing".to_vec(), torn, strange, Vec::new()] {
            std::fs::write(bad.join("relay.db"), damage).expect("it can be written");
            let _ = local.cw().run(&restore).fails("database_invalid");
        }
        let names = std::fs::read_dir(&data).expect("its directory").flatten();
        let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        let left = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            name.contains("restore") || name.contains("partial")
        };
        assert!(!names.iter().any(left), "{names:?}");
        relay.start();
        let list = admin(local, &relay).ok(&["network", "list"]);
        assert!(list.contains("demo"), "{list}");
    });
}

/// The report of a doctor who has found something.
fn unwell(done: e2e::Done) -> e2e::Done {
    assert_eq!(done.status, Some(1), "{done}");
    assert!(done.stderr.contains("[unwell]"), "{done}");
    done
}

#[test]
fn the_doctor_of_a_relay_finds_what_is_wrong() {
    case(&Local::new(CW), |local| {
        let (relay, data) = relay(local);
        let (from, url) = (data.display().to_string(), relay.url());
        let stun = relay.log();
        let stun = stun
            .lines()
            .find_map(|line| line.split("STUN listening on ").nth(1));
        let port = stun
            .and_then(|at| at.rsplit(':').next())
            .expect("a port")
            .to_owned();
        let doctor = |more: &[&str]| {
            let mut words = vec!["relay", "doctor", "--data-dir", &from, "--url", &url];
            words.extend(more);
            local.cw().run(&words)
        };
        let well = doctor(&["--stun-port", &port]).ok();
        for what in [
            "directory",
            "database",
            "used by",
            "ready",
            "derp",
            "clock",
            "stun",
        ] {
            assert!(
                well.stdout.contains(&format!("ok  {what}")),
                "{what}: {well}"
            );
        }
        let found = unwell(doctor(&["--stun-port", "1"]));
        assert!(found.stdout.contains("BAD stun"), "{found}");
        let key = data.join("derp-key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("ours");
        let found = unwell(doctor(&["--stun-port", &port, "--json"]));
        let report: serde_json::Value = serde_json::from_str(&found.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("a list").iter();
        let bad: Vec<_> = checks.filter(|check| check["ok"] == false).collect();
        assert_eq!(bad.len(), 1, "{report}");
        assert!(
            bad[0]["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains("chmod"))
        );
        relay.kill();
        wait_until("the relay is told to be gone", PATIENCE, || {
            let gone = unwell(doctor(&["--stun-port", "0"]));
            let told = gone.stdout.contains("BAD relay") && gone.stdout.contains("nobody");
            told.then_some(()).ok_or_else(|| gone.to_string())
        });
    });
}
