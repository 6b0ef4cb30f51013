//! Values that all machines of a network share, as users and agents meet them.

use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{Cw, PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

fn json(cw: &Cw, words: &[&str]) -> Value {
    let text = cw.ok(words);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn two(test: impl FnOnce(&dyn Substrate)) {
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| {
            steps::network(substrate);
            for host in [Host::Dev1, Host::Dev2] {
                let invite = steps::invite(substrate, &[]);
                let _ = steps::join(substrate, host, &invite).ok();
            }
            test(substrate);
        },
    );
}

#[test]
fn a_value_is_set_here_and_read_there() {
    two(|substrate| {
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        assert_eq!(here.ok(&["kv", "list"]), "No keys found\n");
        let _ = here
            .run_with(&["kv", "set", "tasks/1", "-"], b"piped\n", PATIENCE)
            .ok();
        assert_eq!(there.ok(&["kv", "get", "tasks/1"]), "piped\n");
        let set = here
            .run(&["kv", "set", "tasks/2", "build it", "--ttl", "1h"])
            .ok();
        assert_eq!(set.stderr, "Set default/tasks/2\n");
        assert_eq!(there.ok(&["kv", "get", "tasks/2"]), "build it");
        let found = json(&there, &["kv", "get", "tasks/2", "--json"]);
        assert_eq!(found["value"], "build it");
        assert_eq!(found["changed_by"], "dev-1");
        assert!(found["expires_at"].is_string(), "{found}");
        let listed = json(&there, &["kv", "list", "tasks/", "--json"]);
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
        there
            .run(&["kv", "get", "tasks/2", "--ns", "other"])
            .fails("key_not_found");
        there
            .run(&["kv", "get", "x", "--ns", "relay.issuers"])
            .fails("namespace_reserved");
        there
            .run(&["kv", "set", "x", "y", "--ttl", "soon"])
            .fails("ttl_invalid");
        there
            .run(&["kv", "set", "tasks/2", "mine", "--if-absent"])
            .fails("conflict");
        let revision = found["revision"].to_string();
        let words = ["kv", "set", "tasks/2", "done", "--if-revision", &revision];
        let _ = there.run(&words).ok();
        here.run(&words).fails("conflict");
        let deleted = here.run(&["kv", "delete", "tasks/2"]).ok();
        assert_eq!(deleted.stderr, "Deleted default/tasks/2\n");
        here.run(&["kv", "delete", "tasks/2"])
            .fails("key_not_found");
    });
}

/// What a session writes is told as its; a value of hostile bytes harms no list.
#[test]
fn a_session_shares_as_itself() {
    two(|substrate| {
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        let script = format!("{CW} kv set from-inside \"$(printf 'a\\033[2Jb')\"; exec sleep 600");
        steps::launch(&here, "planner", &["sh", "-c", &script]);
        wait_until("the session has written", PATIENCE, || {
            let found = there.run(&["kv", "get", "from-inside"]);
            (found.status == Some(0))
                .then_some(())
                .ok_or_else(|| found.to_string())
        });
        let found = json(&there, &["kv", "get", "from-inside", "--json"]);
        assert_eq!(found["changed_by"], "dev-1:planner");
        assert_eq!(found["value"], "a\u{1b}[2Jb");
        let listed = there.ok(&["kv", "list"]);
        assert!(!listed.contains('\u{1b}'), "{listed:?}");
    });
}

#[test]
fn a_watcher_misses_nothing_while_the_relay_is_away() {
    two(|substrate| {
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        let _ = here.run(&["kv", "set", "short", "x", "--ttl", "1s"]).ok();
        let watch = there.start(&["kv", "watch", "--json"]);
        let _ = watch.stderr.line("watching from", PATIENCE);
        let _ = watch.stdout.line("\"deleted\":true", PATIENCE);
        let _ = here.run(&["kv", "set", "a", "1"]).ok();
        let _ = watch.stdout.line("\"value\":\"1\"", PATIENCE);
        substrate.restart_relay();
        wait_until("the relay is back", PATIENCE, || {
            let set = here.run(&["kv", "set", "a", "2"]);
            (set.status == Some(0))
                .then_some(())
                .ok_or_else(|| set.to_string())
        });
        let _ = watch.stdout.line("\"value\":\"2\"", PATIENCE);
        steps::launch(&there, "sleeper", &SLEEPER);
        assert_eq!(there.ok(&["kv", "get", "a"]), "2");
    });
}

#[test]
fn a_node_without_a_network_says_so() {
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| {
            let here = substrate.cw(Host::Dev1);
            here.run(&["kv", "list"]).fails("no_network");
            here.run(&["kv", "set", "a", "b"]).fails("no_network");
        },
    );
}

#[test]
fn w45_values_are_sorted_may_be_empty_and_newer_ones_outlive_older_times() {
    two(|substrate| {
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        for key in ["c", "a", "b"] {
            let _ = here.run(&["kv", "set", key, ""]).ok();
        }
        assert_eq!(
            there.ok(&["kv", "get", "a"]),
            "",
            "an empty value is a value"
        );
        there.run(&["kv", "get", "d"]).fails("key_not_found");
        let listed = json(&there, &["kv", "list", "--json"]);
        let keys = listed.as_array().cloned().unwrap_or_default();
        let keys: Vec<_> = keys.iter().map(|one| one["key"].clone()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        // The time of an older value is not that of the newer one.
        for key in ["kept", "gone"] {
            let _ = here.run(&["kv", "set", key, "old", "--ttl", "1s"]).ok();
        }
        let _ = here.run(&["kv", "set", "kept", "new"]).ok();
        wait_until("the other one is gone", PATIENCE, || {
            let done = there.run(&["kv", "get", "gone"]);
            (done.status == Some(3))
                .then_some(())
                .ok_or_else(|| done.to_string())
        });
        assert_eq!(there.ok(&["kv", "get", "kept"]), "new");
        // Nor is anything only in memory.
        substrate.stop_relay();
        substrate.start_relay();
        steps::wait_until_online(substrate);
        assert_eq!(there.ok(&["kv", "get", "kept"]), "new");
    });
}
