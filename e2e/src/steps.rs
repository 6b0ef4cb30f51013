//! What more than one scenario does.

use std::time::Duration;

use serde_json::Value;

use crate::cw::{Cw, Done};
use crate::substrate::{Host, Substrate, Way};
use crate::trace::Trace;
use crate::{PATIENCE, wait_until};

/// How long a node may need to be reached again after a fault is over.
pub const RECOVERY: Duration = Duration::from_secs(10);

/// A command that runs until it is killed.
pub const SLEEPER: [&str; 3] = ["sh", "-c", "sleep 1000"];

/// A command that answers each line that is typed with the same line after `got:`.
pub const ECHO: [&str; 3] = [
    "sh",
    "-c",
    "while read -r line; do echo \"got:$line\"; done",
];

/// Starts the relay, makes the network, and lets both nodes join with invites of their owner's.
#[track_caller]
pub fn join_both(substrate: &dyn Substrate) -> Trace {
    let network = substrate.network();
    let mut trace = Trace::new(&network);
    substrate.start_relay();
    let url = substrate.relay_url();
    let admin = substrate.admin();
    let done = admin
        .run(&["network", "create", &network, "--relay-url", &url])
        .ok();
    trace.step("admin: network create", &done.stderr);
    for host in Host::ALL {
        let done = admin
            .run(&["network", "invite", "--mine", "--relay-url", &url])
            .ok();
        assert_eq!(done.stdout.lines().count(), 1, "the invite alone: {done}");
        let invite = done.stdout.trim();
        assert!(invite.starts_with("CW-INV-"), "{done}");
        let done = join(substrate, host, invite).ok();
        trace.step(&format!("{}: network join", host.name()), &done.stderr);
    }
    trace
}

/// Starts the relay and makes the network, which nobody is in yet; returns `cw` of its owner.
#[track_caller]
pub fn network(substrate: &dyn Substrate) -> Cw {
    substrate.start_relay();
    let (admin, url, network) = (
        substrate.admin(),
        substrate.relay_url(),
        substrate.network(),
    );
    let _ = admin
        .run(&["network", "create", &network, "--relay-url", &url])
        .ok();
    admin
}

/// An ordinary command.
#[track_caller]
pub fn works(cw: &Cw) {
    let list = cw.run(&["list"]).ok();
    assert!(list.stderr.is_empty(), "{list}");
}

/// Joins a host to the network of an invite.
#[track_caller]
#[must_use]
pub fn join(substrate: &dyn Substrate, host: Host, invite: &str) -> Done {
    let url = substrate.relay_url_on(host);
    substrate
        .cw(host)
        .run(&["network", "join", "--relay-url", &url, invite])
}

/// An invite with some options, from the administrator.
#[track_caller]
#[must_use]
pub fn invite(substrate: &dyn Substrate, options: &[&str]) -> String {
    let url = substrate.relay_url();
    let arguments = [&["network", "invite", "--relay-url", &url], options].concat();
    substrate.admin().ok(&arguments).trim().to_owned()
}

/// Starts a session with a name on the node that is asked, or on the one before the colon.
#[track_caller]
pub fn launch(cw: &Cw, name: &str, command: &[&str]) -> Done {
    cw.run(&[&["launch", name, "--"], command].concat()).ok()
}

/// Waits until `of` sees `host` as it should be, and returns what `cw node list` says of it.
#[track_caller]
pub fn wait_for_node(cw: &Cw, node: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("{node} is {what}"), PATIENCE, || {
        let done = cw.run(&["node", "list", "--json"]);
        let list: Value = serde_json::from_str(&done.stdout).map_err(|_| done.to_string())?;
        let nodes = list["nodes"].as_array().cloned().unwrap_or_default();
        match nodes.into_iter().find(|entry| entry["name"] == node) {
            Some(entry) if holds(&entry) => Ok(entry),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Waits until each node sees the other online: by a relay that it is connected to, for without one
/// it tells what it last knew.
#[track_caller]
pub fn wait_until_online(substrate: &dyn Substrate) {
    for (here, there) in [(Host::Dev1, Host::Dev2), (Host::Dev2, Host::Dev1)] {
        wait_until(&format!("{} has a relay", here.name()), PATIENCE, || {
            let done = substrate.cw(here).run(&["node", "list", "--json"]);
            let list: Value = serde_json::from_str(&done.stdout).map_err(|_| done.to_string())?;
            let connected = list["relay_connected"] == true;
            connected.then_some(()).ok_or_else(|| list.to_string())
        });
        wait_for_node(&substrate.cw(here), there.name(), "online", |node| {
            node["online"] == true
        });
    }
}

/// How packets get from a host to a node that it reaches, as `cw node list` has it.
#[track_caller]
#[must_use]
pub fn path(cw: &Cw, node: &str) -> String {
    let reached = wait_for_node(cw, node, "reached", |entry| entry["path"] != "-");
    reached["path"].as_str().unwrap_or_default().to_owned()
}

/// Waits until they take this way.
#[track_caller]
pub fn wait_for_way(cw: &Cw, node: &str, way: Way, limit: Duration) {
    wait_until(&format!("{node} is {}", way.word()), limit, || {
        let path = path(cw, node);
        if path.starts_with(way.word()) {
            Ok(())
        } else {
            Err(path)
        }
    });
}

/// Waits until a message from one host reaches a session of the other without anybody's help.
#[track_caller]
pub fn wait_until_heard(cw: &Cw, session: &str, body: &str) {
    wait_until(&format!("a message reaches {session}"), RECOVERY, || {
        let done = cw.run(&["msg", "--no-queue", session, body]);
        if done.status == Some(0) {
            Ok(())
        } else {
            Err(done.to_string())
        }
    });
}

/// Waits until a node answers for its session again without anybody's help.
#[track_caller]
pub fn wait_until_reached(cw: &Cw, session: &str) {
    wait_until(&format!("{session} is reached"), RECOVERY, || {
        let done = cw.run(&["status", session]);
        (done.status == Some(0))
            .then_some(())
            .ok_or_else(|| done.to_string())
    });
}

/// The messages of a session.
#[track_caller]
#[must_use]
pub fn inbox(cw: &Cw, session: &str) -> Vec<Value> {
    let text = cw.ok(&["inbox", session, "--json", "--tail", "1000"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Waits until a session has a request to answer, and returns its id.
#[track_caller]
#[must_use]
pub fn wait_for_request(cw: &Cw, session: &str) -> String {
    wait_until(&format!("{session} is asked"), PATIENCE, || {
        let inbox = inbox(cw, session);
        // One that its sender waits for no longer may be replied to as well.
        let open = |state: &Value| state == "pending" || state == "expired";
        let asked = inbox.iter().find(|message| open(&message["state"]));
        let id = asked.and_then(|message| message["request_id"].as_str());
        id.map(str::to_owned).ok_or_else(|| format!("{inbox:?}"))
    })
}

/// The state of a session.
#[track_caller]
#[must_use]
pub fn status(cw: &Cw, session: &str) -> Value {
    let text = cw.ok(&["status", session, "--json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Waits until a session's log has `part`, and returns the log.
#[track_caller]
pub fn wait_for_output(cw: &Cw, session: &str, part: &str) -> String {
    wait_until(&format!("{session} prints {part:?}"), PATIENCE, || {
        let log = cw.ok(&["logs", session]);
        if log.contains(part) {
            Ok(log)
        } else {
            Err(log)
        }
    })
}

/// Waits until a session has ended, and returns its status.
#[track_caller]
pub fn wait_for_end(cw: &Cw, session: &str) -> Value {
    wait_until(&format!("{session} ends"), PATIENCE, || {
        let status = status(cw, session);
        if status["status"] == "running" {
            Err(status.to_string())
        } else {
            Ok(status)
        }
    })
}
