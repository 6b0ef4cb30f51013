//! What is found when all is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::End;
use super::listener::Listener;
use super::traffic::{Run, SESSIONS, lock, text};
use crate::PATIENCE;
use crate::history::{Line, Seen};
use crate::home::Home;
use crate::substrate::Host;
use crate::wait::within;

/// How long everything may take to arrive once all is well.
const ARRIVES: Duration = Duration::from_secs(120);

/// Waits until no letter and no request waits.
///
/// # Errors
///
/// What waits still.
pub(super) fn drain(run: &Run<'_>) -> Result<(), String> {
    // Those of sessions that have crashed are never answered.
    let settled = || {
        for host in Host::ALL {
            let letters = ask(
                run,
                host,
                &json!({"type": "MsgOutbox", "queued": true, "tail": 10}),
            )?;
            if letters["letters"]
                .as_array()
                .is_none_or(|all| !all.is_empty())
            {
                return Err(format!("{}: {letters}", host.name()));
            }
            for number in 0..SESSIONS {
                let read = json!({"type": "MsgRead", "to_name": run.name(number), "since": 0});
                let inbox = ask(run, host, &read)?;
                let mut messages = inbox["messages"].as_array().into_iter().flatten();
                let open = |state: &Value| state == "pending" || state == "expired";
                let pending =
                    |one: &&Value| open(&one["state"]) && one["to_name"] == run.name(number);
                if let Some(one) = messages.find(|one| pending(one) && one["to"] != 0) {
                    return Err(format!("{}: {one}", host.name()));
                }
            }
        }
        Ok(())
    };
    // Twice: a reply may be put into the outbox while the other node is looked at.
    for _ in 0..2 {
        within(ARRIVES, || {
            settled().inspect_err(|_| run.rest(Duration::from_millis(100)))
        })?;
    }
    Ok(())
}

fn ask(run: &Run<'_>, host: Host, call: &Value) -> Result<Value, String> {
    match run.client(host).call(call, PATIENCE) {
        End::Answer(answer) => Ok(answer),
        End::Refused(why, _) | End::Lost(why) => Err(format!("{}: {call}: {why}", host.name())),
    }
}

/// Everything that is there, as lines of the history.
///
/// # Errors
///
/// What cannot be read.
pub(super) fn collect(run: &Run<'_>, listeners: &[Listener; 2]) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (host, listener) in Host::ALL.into_iter().zip(listeners) {
        let mut last = listener.since();
        for (id, name) in sessions(run, host)? {
            let messages = inbox(run, host, id)?;
            last = messages.iter().map(|seen| seen.cursor).fold(last, u64::max);
            lines.push(Line::Inbox {
                session: format!("{}:{name}", host.name()),
                id,
                messages,
            });
        }
        let caught_up = within(PATIENCE, || {
            let heard = listener.last();
            (heard >= last)
                .then_some(())
                .ok_or_else(|| heard.to_string())
        });
        // What it has not heard is found missing.
        drop(caught_up);
        lines.push(Line::Heard {
            node: host.name().to_owned(),
            since: listener.since(),
            events: listener.heard(),
        });
        lines.push(outbox(run, host)?);
        lines.extend(files(run.world.home(host), host));
    }
    let requests = lock(&run.requests).clone();
    for (request, from, _) in requests {
        let host = Host::ALL
            .into_iter()
            .find(|host| from.starts_with(&format!("{}:", host.name())));
        let call = json!({"type": "MsgResume", "request_id": request, "timeout_seconds": 1});
        let answer = ask(run, host.unwrap_or(Host::Dev1), &call);
        let body = answer.ok().map(|answer| text(&answer["reply_body"]));
        lines.push(Line::Resumed { request, body });
    }
    Ok(lines)
}

/// The sessions of this run, dead or alive.
fn sessions(run: &Run<'_>, host: Host) -> Result<Vec<(u32, String)>, String> {
    let list = ask(run, host, &json!({"type": "ListSessions"}))?;
    let prefix = format!("r{}-", run.number);
    let sessions = list["sessions"].as_array().into_iter().flatten();
    let ours = sessions.filter_map(|one| {
        let name = one["name"].as_str()?;
        let id = u32::try_from(one["id"].as_u64()?).ok()?;
        name.starts_with(&prefix).then(|| (id, name.to_owned()))
    });
    Ok(ours.collect())
}

fn inbox(run: &Run<'_>, host: Host, id: u32) -> Result<Vec<Seen>, String> {
    let read = json!({"type": "MsgRead", "id": id, "since": 0});
    let answer = ask(run, host, &read)?;
    let messages = answer["messages"].as_array().into_iter().flatten();
    let received = messages.filter(|one| one["to"] == id);
    Ok(received
        .map(|one| {
            let from = text(&one["from_name"]);
            Seen {
                id: text(&one["message_id"]),
                from: if from.contains(':') {
                    from
                } else {
                    format!("{}:{from}", host.name())
                },
                body: text(&one["body"]),
                reply_to: (one["type"] == "message.reply").then(|| text(&one["request_id"])),
                cursor: one["cursor"].as_u64().unwrap_or_default(),
            }
        })
        .collect())
}

fn outbox(run: &Run<'_>, host: Host) -> Result<Line, String> {
    let answer = ask(run, host, &json!({"type": "MsgOutbox", "tail": 10_000}))?;
    let letters = answer["letters"].as_array().into_iter().flatten();
    let letters = letters.map(|one| {
        let state = format!("{} {}", text(&one["state"]), text(&one["code"]));
        (text(&one["message_id"]), state)
    });
    Ok(Line::Outbox {
        node: host.name().to_owned(),
        letters: letters.collect(),
    })
}

/// The files of a node, each with what is wrong with it.
fn files(home: &Home, host: Host) -> Vec<Line> {
    let mut found = BTreeMap::new();
    let dir = home.dir();
    let sessions = std::fs::read_dir(dir.join("sessions"));
    for session in sessions.into_iter().flatten().flatten() {
        let path = session.path().join("events.jsonl");
        found.insert(path.clone(), lines_are_json(&path));
    }
    let outbox = dir.join("outbox.jsonl");
    found.insert(outbox.clone(), lines_are_json(&outbox));
    for name in ["sessions.json", "membership.json", "netmap.json"] {
        let path = dir.join(name);
        let Ok(text) = std::fs::read(&path) else {
            continue;
        };
        let read = serde_json::from_slice::<Value>(&text);
        found.insert(path, read.err().map(|error| error.to_string()));
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".corrupt.") || name.ends_with(".damaged") {
            found.insert(entry.path(), Some("a file was put aside".to_owned()));
        }
    }
    let log = home.log();
    if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
        found.insert(dir.join("node.log"), Some(line.to_owned()));
    }
    let line = |(path, problem): (std::path::PathBuf, Option<String>)| {
        let path = path
            .strip_prefix(dir)
            .unwrap_or(&path)
            .display()
            .to_string();
        Line::State {
            file: format!("{}:{path}", host.name()),
            problem,
        }
    };
    found.into_iter().map(line).collect()
}

/// What is wrong with the first line that is no JSON. A node writes while it is looked: a last line
/// that has no end yet is none.
fn lines_are_json(path: &Path) -> Option<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let whole = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let mut lines = text[..whole].split(|byte| *byte == b'\n').zip(1..);
    lines.find_map(|(line, number)| {
        if line.is_empty() {
            return None;
        }
        let error = serde_json::from_slice::<Value>(line).err()?;
        Some(format!("line {number}: {error}"))
    })
}
