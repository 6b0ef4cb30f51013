//! Secrets stay where they belong: not in logs, errors, URLs, arguments of processes or files of
//! others' reading, however much is logged and whatever goes wrong; and another user of the machine
//! gets nowhere.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use e2e::case::or_skip;
use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate};
use e2e::{Cw, Done, case, relay};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Somebody who has nothing on this machine.
const NOBODY: u32 = 65_534;

/// Every file below `dir`, directories too.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Fails if `text` has one of `secrets`.
#[track_caller]
fn tells_none(what: &str, text: &[u8], secrets: &[String]) {
    for secret in secrets {
        let found = text
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "{what} tells {secret:?}");
    }
}

/// The arguments of every process of ours that still runs.
fn arguments(dirs: &[&Path]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let ours = dirs
            .iter()
            .any(|dir| environment.contains(&dir.display().to_string()));
        if ours {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((entry.path().display().to_string(), words));
        }
    }
    found
}

/// A grant that nobody has accepted: its secret is nowhere but in the answer that made it.
fn grant(here: &Cw, there: &Cw, told: &mut Vec<Done>) -> String {
    let granted = here.ok(&["access", "grant", "planner", "--to", "dev-2", "--json"]);
    let granted: serde_json::Value = serde_json::from_str(&granted).unwrap_or_default();
    let token = granted["delegation"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(token.len() > 30, "{granted}");
    let id = granted["grant_id"].as_str().unwrap_or_default();
    told.push(here.run(&["access", "inspect", id]).ok());
    told.push(here.run(&["access", "list"]).ok());
    told.push(there.run(&["access", "list", "--mine"]).ok());
    told.push(there.run(&["access", "accept", &format!("{token}x")]));
    token
}

#[test]
fn b13_u18_u23_nothing_tells_a_secret() {
    let processes = Processes::traced(CW);
    case(&processes as &dyn Substrate, |substrate| {
        steps::network(substrate);
        let mut secrets = vec![relay::TOKEN.to_owned()];
        let url = substrate.relay_url();
        let mut told = Vec::new();
        for host in Host::ALL {
            let invite = steps::invite(substrate, &["--mine"]);
            told.push(steps::join(substrate, host, &invite).ok());
            secrets.push(invite);
        }
        let unused = steps::invite(substrate, &["--uses", "3"]);
        steps::wait_until_online(substrate);
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        steps::launch(&here, "planner", &SLEEPER);
        steps::launch(&there, "coder", &SLEEPER);
        let _ = here
            .run(&["msg", "-f", "planner", "dev-2:coder", "hello"])
            .ok();
        let _ = here.run(&["kv", "set", "a", "b"]).ok();
        secrets.push(grant(&here, &there, &mut told));
        // What goes wrong is told without what it went wrong with.
        let canary = "canary-of-a-token-that-is-wrong";
        let wrong = substrate.admin().env("CODEWIRE_RELAY_AUTH_TOKEN", canary);
        told.push(
            wrong
                .run(&["network", "invite", "--relay-url", &url])
                .fails("unauthorized"),
        );
        told.push(here.run(&["network", "join", "--relay-url", &url, &secrets[1]]));
        let spoilt = unused.replacen("CW-INV-", "CW-INV-x", 1);
        told.push(here.run(&["network", "join", "--relay-url", &url, &spoilt]));
        let absent = "http://127.0.0.1:1";
        told.push(here.run(&["network", "join", "--relay-url", absent, &unused]));
        told.push(here.run(&["doctor", "--json"]));
        told.push(substrate.admin().run(&["doctor"]));
        told.push(here.run(&["node", "list", "--json"]));
        secrets.extend([unused, canary.to_owned()]);
        for home in [processes.home(Host::Dev1), processes.home(Host::Dev2)] {
            let seed = fs::read(home.dir().join("seed")).unwrap_or_default();
            assert_eq!(seed.len(), 32, "the seed is where it is looked for");
            secrets.push(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&seed));
            secrets.push(seed.iter().map(|byte| format!("{byte:02x}")).collect());
        }

        for done in &told {
            tells_none("an answer", done.stdout.as_bytes(), &secrets);
            tells_none("an error", done.stderr.as_bytes(), &secrets);
        }
        let log = substrate.relay_log();
        assert!(
            log.contains("TRACE") || log.contains("DEBUG"),
            "nothing is logged: {log}"
        );
        tells_none("the relay's log", log.as_bytes(), &secrets);
        let dirs = processes.dirs();
        let running = arguments(&dirs);
        assert!(running.len() >= 5, "{running:?}");
        for (process, words) in running {
            tells_none(&process, &words, &secrets);
        }
        for dir in dirs {
            for file in files(dir) {
                let text = fs::read(&file).unwrap_or_default();
                tells_none(&file.display().to_string(), &text, &secrets);
            }
        }
    });
}

/// Only what the modes of our own files say keeps others out: everything above them is open, and
/// everything was started with a mask that takes nothing away.
#[test]
fn u17_another_user_gets_nowhere() {
    let root = rustix::process::geteuid().is_root();
    let why = "another user can be tried by root alone".to_owned();
    if or_skip(root.then_some(()).ok_or(why)).is_none() {
        return;
    }
    let processes = Processes::unmasked(CW);
    case(&processes as &dyn Substrate, |substrate| {
        let _ = steps::join_both(substrate);
        let here = substrate.cw(Host::Dev1);
        steps::launch(&here, "planner", &SLEEPER);
        let _ = here.run(&["msg", "planner", "a secret"]).ok();
        let _ = here.run(&["kv", "set", "a", "b"]).ok();
        for dir in processes.dirs() {
            open_the_way_to(dir);
            for file in files(dir).into_iter().filter(|file| file != dir) {
                let Ok(meta) = fs::symlink_metadata(&file) else {
                    continue;
                };
                let link = meta.file_type().is_symlink();
                let open = meta.permissions().mode() & 0o077;
                assert!(link || open == 0, "{}: {:o}", file.display(), meta.mode());
            }
            let home = dir.display();
            let script = format!(
                "ls {home}/; cat {home}/* {home}/*/*; touch {home}/x; mkdir {home}/y; rm -rf {home}"
            );
            let tried = as_nobody(Command::new("sh").args(["-c", &script]));
            assert!(tried.stdout.is_empty(), "{tried:?}");
        }
        let home = processes.home(Host::Dev1);
        let tried = as_nobody(
            Command::new(CW)
                .arg("list")
                .env("CODEWIRE_HOME", home.dir())
                .env("HOME", "/nonexistent"),
        );
        assert!(
            !tried.status.success() && tried.stdout.is_empty(),
            "{tried:?}"
        );
        // All is as it was.
        assert_eq!(steps::status(&here, "planner")["status"], "running");
    });
}

/// Lets everybody into the directories above `dir`.
fn open_the_way_to(dir: &Path) {
    let above = dir.ancestors().skip(1);
    for dir in above.take_while(|dir| dir.parent().is_some()) {
        let Ok(meta) = fs::metadata(dir) else {
            continue;
        };
        let mode = meta.permissions().mode() | 0o055;
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(mode));
    }
}

fn as_nobody(command: &mut Command) -> std::process::Output {
    let done = command.uid(NOBODY).gid(NOBODY).current_dir("/").output();
    done.unwrap_or_else(|error| panic!("{error}"))
}
