//! Groups and grants as their users meet them: closed to others by name and by number, here and
//! from another machine, with and without the relay.

use std::time::Instant;

use e2e::cw::Cw;
use e2e::processes::Processes;
use e2e::running::Running;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

fn processes() -> Processes {
    Processes::new(CW, Way::Relayed)
}

/// A group with a session on each node, and beside it one on each that is not in it.
fn mesh(substrate: &dyn Substrate) -> (Cw, Cw) {
    steps::join_both(substrate);
    steps::wait_until_online(substrate);
    let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
    let made = here.run(&["group", "create", "mesh"]).ok();
    assert!(
        made.stderr
            .contains("Policy: messages=internal-only debug=observe-only join=owners"),
        "{made}"
    );
    wait_until("both nodes know of the group", PATIENCE, || {
        let done = there.run(&["msg", "@group:mesh", "anybody?"]);
        if done.stderr.contains("session_not_found") {
            Ok(())
        } else {
            Err(done.to_string())
        }
    });
    for (cw, name) in [(&here, "agent-1"), (&there, "agent-2")] {
        let words = ["launch", "--name", name, "--group", "mesh", "--"];
        let _ = cw.run(&[&words[..], &SLEEPER].concat()).ok();
    }
    steps::launch(&here, "outsider", &SLEEPER);
    steps::launch(&there, "stranger", &SLEEPER);
    wait_until("both nodes know the members", PATIENCE, || {
        let sent = here.run(&["msg", "-f", "agent-1", "@group:mesh", "hi"]);
        let lines = sent.stdout.lines().count();
        if sent.status == Some(0) && lines == 1 {
            Ok(())
        } else {
            Err(sent.to_string())
        }
    });
    (here, there)
}

fn number(cw: &Cw, session: &str) -> String {
    steps::status(cw, session)["id"].to_string()
}

#[test]
fn s07_b09_a_group_is_closed_by_name_and_number_from_here_and_afar() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (here, there) = mesh(substrate);
        let id = number(&here, "agent-1");
        let far = format!("dev-1:{id}");
        for (cw, from, to) in [
            (&here, "outsider", "agent-1"),
            (&here, "outsider", id.as_str()),
            (&there, "stranger", "dev-1:agent-1"),
            (&there, "stranger", far.as_str()),
        ] {
            cw.run(&["msg", "-f", from, to, "let me in"])
                .fails("group_forbids");
            cw.run(&["request", "-f", from, to, "let me in", "--timeout", "10"])
                .fails("group_forbids");
        }
        // Nor may a session ask whom it could not hear.
        here.run(&["request", "-f", "agent-1", "outsider", "well?"])
            .fails("group_forbids");
        there
            .run(&["request", "-f", "agent-2", "dev-1:outsider", "well?"])
            .fails("group_forbids");
        // Among themselves, and from the owner.
        let _ = there
            .run(&["msg", "-f", "agent-2", "dev-1:agent-1", "from afar"])
            .ok();
        let _ = here.run(&["msg", "agent-1", "from the owner"]).ok();
        let request = here.start(&[
            "request",
            "-f",
            "agent-1",
            "dev-2:agent-2",
            "ready?",
            "--raw",
        ]);
        let asked = steps::wait_for_request(&there, "agent-2");
        let _ = there.run(&["reply", &asked, "yes", "-f", "agent-2"]).ok();
        assert_eq!(request.wait(PATIENCE).ok().stdout, "yes\n");
        let got = steps::inbox(&here, "agent-1");
        let bodies: Vec<_> = got.iter().filter_map(|one| one["body"].as_str()).collect();
        assert!(!bodies.contains(&"let me in"), "{bodies:?}");

        let _ = here
            .run(&["group", "policy", "mesh", "--messages", "open"])
            .ok();
        wait_until("the group is open", PATIENCE, || {
            let sent = there.run(&["msg", "-f", "stranger", "dev-1:agent-1", "hello"]);
            (sent.status == Some(0))
                .then_some(())
                .ok_or_else(|| sent.to_string())
        });
    });
}

#[test]
fn s07_b09_a_session_outside_looks_and_does_not_touch() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (here, there) = mesh(substrate);
        let tries = format!(
            "{CW} logs agent-1 >/dev/null && echo looked; \
             {CW} kill agent-1 || echo kill refused; \
             {CW} kill --all; \
             {CW} send agent-1 x || echo send refused; \
             {CW} tag agent-1 --remove group:mesh || echo tag refused; \
             {CW} group add mesh prober || echo add refused; \
             {CW} launch --group mesh -- true || echo launch refused; \
             {CW} kill dev-2:agent-2 || echo far refused; echo done; exec sleep 1000"
        );
        steps::launch(&here, "prober", &["sh", "-c", &tries]);
        let ended = wait_until("the prober is done or gone", PATIENCE, || {
            // In this order: what it prints between the two is in the log.
            let gone = steps::status(&here, "prober")["status"] != "running";
            let log = here.ok(&["logs", "prober"]);
            if log.contains("done") || gone {
                Ok(log)
            } else {
                Err(log)
            }
        });
        // By `kill --all` it has also ended itself, and others that are in no group.
        assert!(ended.contains("looked"), "{ended}");
        assert!(ended.contains("kill refused"), "{ended}");
        assert_eq!(steps::status(&here, "agent-1")["status"], "running");

        let rest = tries.replace(&format!("{CW} kill --all; "), "");
        steps::launch(
            &here,
            "second",
            &["sh", "-c", &rest.replace("prober", "second")],
        );
        let log = steps::wait_for_output(&here, "second", "done");
        for part in ["kill", "send", "tag", "add", "launch", "far"] {
            assert!(log.contains(&format!("{part} refused")), "{part}: {log}");
        }
        assert_eq!(steps::status(&here, "agent-1")["status"], "running");
        assert_eq!(steps::status(&there, "agent-2")["status"], "running");
        let _ = here
            .run(&["group", "policy", "mesh", "--debug", "none"])
            .ok();
        let blind = format!("{CW} logs agent-1 || echo blind; echo end; exec sleep 1000");
        wait_until("nobody looks in", PATIENCE, || {
            let _ = here.run(&["kill", "third"]);
            steps::launch(&here, "third", &["sh", "-c", &blind]);
            let log = steps::wait_for_output(&here, "third", "end");
            log.contains("blind").then_some(()).ok_or(log)
        });
    });
}

#[test]
fn s07_members_keep_their_place_by_another_name_and_lose_it_with_their_end() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (here, _there) = mesh(substrate);
        let members = || -> Vec<String> {
            let text = here.ok(&["group", "members", "mesh", "--json"]);
            let list: Vec<Value> = serde_json::from_str(&text).unwrap();
            let name = |seat: &Value| seat["session_name"].as_str().map(str::to_owned);
            list.iter().filter_map(name).collect()
        };
        assert_eq!(members(), ["agent-1", "agent-2"]);
        let _ = here.run(&["rename", "agent-1", "first"]).ok();
        here.run(&["msg", "-f", "outsider", "first", "x"])
            .fails("group_forbids");
        wait_until("the new name is known", PATIENCE, || {
            let now = members();
            (now == ["first", "agent-2"])
                .then_some(())
                .ok_or_else(|| format!("{now:?}"))
        });
        let _ = here.run(&["kill", "first"]).ok();
        wait_until("it has left", PATIENCE, || {
            let now = members();
            (now == ["agent-2"])
                .then_some(())
                .ok_or_else(|| format!("{now:?}"))
        });
        // One of the old name inherits nothing.
        steps::launch(&here, "first", &SLEEPER);
        let _ = here.run(&["msg", "-f", "outsider", "first", "x"]).ok();
        let _ = here.run(&["group", "add", "mesh", "first"]).ok();
        here.run(&["msg", "-f", "outsider", "first", "y"])
            .fails("group_forbids");
        let _ = here.run(&["group", "remove", "mesh", "dev-1:first"]).ok();
        wait_until("it is out again", PATIENCE, || {
            let sent = here.run(&["msg", "-f", "outsider", "first", "z"]);
            (sent.status == Some(0))
                .then_some(())
                .ok_or_else(|| sent.to_string())
        });
        let _ = here.run(&["group", "delete", "mesh"]).ok();
        here.run(&["group", "members", "mesh"])
            .fails("group_unknown");
    });
}

#[test]
fn w33_s27_b09_without_the_relay_a_group_stays_closed() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (here, there) = mesh(substrate);
        substrate.stop_relay();
        here.run(&["msg", "-f", "outsider", "agent-1", "x"])
            .fails("group_forbids");
        let _ = here.run(&["node", "restart"]).ok();
        steps::works(&here);
        here.run(&["msg", "-f", "outsider", "agent-1", "x"])
            .fails("group_forbids");
        let _ = here.run(&["msg", "agent-1", "from the owner"]).ok();
        // Even if what was heard of groups is lost: the session is marked.
        let netmap = here.home().join("netmap.json");
        let _ = std::fs::remove_file(netmap);
        let _ = here.run(&["node", "restart"]).ok();
        steps::works(&here);
        here.run(&["msg", "-f", "outsider", "agent-1", "x"])
            .fails("group_forbids");
        here.run(&["launch", "--group", "mesh", "--", "true"])
            .fails("group_unknown");
        substrate.start_relay();
        steps::wait_until_online(substrate);
        there
            .run(&["msg", "-f", "stranger", "dev-1:agent-1", "x"])
            .fails("group_forbids");
        steps::wait_until_heard(&there, "dev-1:agent-1", "the owner again");
    });
}

/// An owner's node and a guest's.
fn owner_and_guest(substrate: &dyn Substrate) -> (Cw, Cw) {
    steps::network(substrate);
    let _ = steps::join(
        substrate,
        Host::Dev1,
        &steps::invite(substrate, &["--mine"]),
    )
    .ok();
    let _ = steps::join(substrate, Host::Dev2, &steps::invite(substrate, &[])).ok();
    steps::wait_until_online(substrate);
    let (owner, guest) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
    steps::launch(&owner, "planner", &SLEEPER);
    steps::launch(&owner, "other", &SLEEPER);
    (owner, guest)
}

#[test]
fn s08_a_grant_lets_one_look_at_one_session_for_a_while() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, guest) = owner_and_guest(substrate);
        let _ = owner.run(&["msg", "planner", "for your eyes"]).ok();
        let given = owner
            .run(&[
                "access", "grant", "planner", "--to", "dev-2", "--read", "--listen",
            ])
            .ok();
        let token = given.stdout.trim().to_owned();
        guest.run(&["inbox", "dev-1:planner"]).fails("denied");
        wait_until("the grant is known there", PATIENCE, || {
            let seen = guest.run(&["inbox", "dev-1:planner", "--grant", &token]);
            (seen.stdout.contains("for your eyes"))
                .then_some(())
                .ok_or_else(|| seen.to_string())
        });
        // Not another session, another verb, another token.
        guest
            .run(&["inbox", "dev-1:other", "--grant", &token])
            .fails("denied");
        guest
            .run(&["listen", "--node", "dev-1", "--grant", &token])
            .fails("denied");
        guest.run(&["logs", "dev-1:planner"]).fails("denied");
        let mut wrong = token.clone();
        let last = if wrong.ends_with('x') { 'y' } else { 'x' };
        wrong.pop();
        wrong.push(last);
        guest
            .run(&["inbox", "dev-1:planner", "--grant", &wrong])
            .fails("denied");
        guest
            .run(&["inbox", "dev-1:planner", "--grant", "CW-GRANT-x"])
            .fails("grant_invalid");
        owner
            .run(&["inbox", "planner", "--grant", &token])
            .fails("usage");
        // Accepted once, it is shown by itself.
        let _ = guest.run(&["access", "accept", &token]).ok();
        assert!(
            guest
                .ok(&["inbox", "dev-1:planner"])
                .contains("for your eyes")
        );
        let listed = guest.ok(&["access", "list", "--accepted", "--session", "planner"]);
        assert!(
            listed.contains("dev-1:planner") && !listed.contains("CW-GRANT"),
            "{listed}"
        );
        assert!(guest.ok(&["access", "list", "--mine"]).contains("active"));
        // Who does not own the session gives nothing away, and nobody unknown gets anything.
        guest
            .run(&["access", "grant", "dev-1:planner", "--to", "dev-2"])
            .fails("forbidden");
        owner
            .run(&["access", "grant", "planner", "--to", "nobody"])
            .fails("bad_request");
        owner
            .run(&[
                "access", "grant", "planner", "--to", "dev-2", "--for", "25h",
            ])
            .fails("bad_request");
    });
}

/// What has gone on until now is refused, whatever it has shown before.
#[track_caller]
fn cut(command: Running) {
    let done = command.wait(PATIENCE);
    assert_eq!(done.status, Some(4), "{done}");
    assert!(done.stderr.contains("[denied]"), "{done}");
}

#[test]
fn s26_b08_u24_a_revoked_grant_ends_what_goes_on_by_it_and_stays_revoked() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, guest) = owner_and_guest(substrate);
        let given = owner
            .run(&[
                "access", "grant", "planner", "--to", "dev-2", "--watch", "--listen", "--json",
            ])
            .ok();
        let grant: Value = serde_json::from_str(&given.stdout).unwrap();
        let (id, token) = (
            grant["grant_id"].as_str().unwrap(),
            grant["delegation"].as_str().unwrap(),
        );
        let _ = guest.run(&["access", "accept", token]).ok();
        let watch = guest.start(&["access", "watch"]);
        let _ = watch.stderr.line("Watching", PATIENCE);
        wait_until("the grant is known there", PATIENCE, || {
            let seen = guest.run(&["logs", "dev-1:planner"]);
            (seen.status == Some(0))
                .then_some(())
                .ok_or_else(|| seen.to_string())
        });
        let listener = guest.start(&["listen", "--session", "dev-1:planner"]);
        let _ = listener.stderr.line("listening", PATIENCE);
        let follower = guest.start(&["logs", "-f", "dev-1:planner"]);
        let _ = owner.run(&["msg", "planner", "before"]).ok();
        let _ = listener.stdout.line("before", PATIENCE);
        let begin = Instant::now();
        let _ = owner.run(&["access", "revoke", id]).ok();
        cut(listener);
        println!("the listener was cut after {:?}", begin.elapsed());
        cut(follower);
        println!("the follower was cut after {:?}", begin.elapsed());
        let _ = watch.stderr.line("Removed accepted grant", PATIENCE);
        assert_eq!(guest.ok(&["access", "list", "--accepted"]), "No grants\n");
        guest
            .run(&["inbox", "dev-1:planner", "--grant", token])
            .fails("denied");
        guest
            .run(&["access", "accept", token])
            .fails("grant_invalid");
        // Twice says the same.
        let _ = owner.run(&["access", "revoke", id]).ok();
        // After restarts of everything, with the relay and without.
        substrate.restart_relay();
        let _ = owner.run(&["node", "restart"]).ok();
        steps::wait_until_online(substrate);
        guest
            .run(&["listen", "--session", "dev-1:planner", "--grant", token])
            .fails("denied");
        assert!(owner.ok(&["access", "inspect", id]).contains("revoked"));
    });
}

#[test]
fn s03_b06_s23_an_enrolment_brings_one_node_of_one_name() {
    case(&processes() as &dyn Substrate, |substrate| {
        steps::network(substrate);
        let (admin, url) = (substrate.admin(), substrate.relay_url());
        let words = [
            "network",
            "enroll",
            "create",
            "--node-name",
            "dev-1",
            "--relay-url",
            &url,
        ];
        let token = admin.ok(&words).trim().to_owned();
        steps::join(substrate, Host::Dev2, &token).fails("name_bound");
        let _ = steps::join(substrate, Host::Dev1, &token).ok();
        steps::join(substrate, Host::Dev2, &token).fails("invite_used_up");
        let invites = admin.ok(&["network", "invite", "list", "--json", "--relay-url", &url]);
        assert!(!invites.contains("CW-INV-"), "{invites}");
        let invite = steps::invite(substrate, &[]);
        let list = admin.ok(&["network", "invite", "list", "--json", "--relay-url", &url]);
        let list: Vec<Value> = serde_json::from_str(&list).unwrap();
        let open = list.iter().find(|one| one["uses_remaining"] == 1).unwrap();
        let id = open["id"].as_str().unwrap();
        let _ = admin
            .run(&["network", "invite", "revoke", id, "--relay-url", &url])
            .ok();
        steps::join(substrate, Host::Dev2, &invite).fails("invite_invalid");
        let members = admin.ok(&["network", "members", "--relay-url", &url]);
        assert!(
            members.contains("admin") && members.contains("owner"),
            "{members}"
        );
        admin
            .run(&["network", "remove", "admin", "--relay-url", &url])
            .fails("last_owner");
        let listed = admin.ok(&["node", "list", "--all"]);
        assert!(listed.contains("dev-1"), "{listed}");
        // The network is gone, and with it everybody in it.
        let network = substrate.network();
        let _ = admin
            .run(&["network", "delete", &network, "--relay-url", &url])
            .ok();
        admin
            .run(&[
                "network",
                "members",
                "--network",
                &network,
                "--relay-url",
                &url,
            ])
            .fails("network_unknown");
    });
}
