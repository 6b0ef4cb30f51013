//! What the shell offers when it completes a word: names of sessions, tags and nodes.
//!
//! The node is asked if it runs; it is not started for this, and one that takes long is not waited
//! for.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use super::errand::Errand;
use super::info::SessionInfo;
use super::list::List;
use super::{Call, Reply, node};
use crate::cli::Cli;

/// The longest that a user waits for a completion.
const PATIENCE: Duration = Duration::from_millis(800);

/// Names and numbers of sessions, also behind a node and a colon.
pub(crate) fn sessions() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| words(current, false))
}

/// The same, and tags.
pub(crate) fn sessions_and_tags() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| words(current, true))
}

/// Tags of sessions.
pub(crate) fn tags() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        offer(
            current,
            ask_sessions(None)
                .iter()
                .flat_map(|info| info.tags.clone())
                .map(|tag| (tag, String::new())),
        )
    })
}

/// Nodes of the network.
pub(crate) fn nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        offer(
            current,
            ask_nodes().into_iter().map(|name| (name, String::new())),
        )
    })
}

/// Groups of the network.
pub(crate) fn groups() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| offer(current, names("groups", "name").into_iter()))
}

/// Networks: the one that was joined.
pub(crate) fn networks() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let joined = match ask(Call::RunErrand(Errand::default())) {
            Some(Reply::ErrandRun(done)) => Some(done.network),
            _ => None,
        };
        offer(
            current,
            joined.into_iter().map(|name| (name, String::new())),
        )
    })
}

/// Types of events.
pub(crate) fn events() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let kinds = session::EventType::ALL.into_iter();
        offer(
            current,
            kinds.map(|kind| (kind.as_str().to_owned(), String::new())),
        )
    })
}

fn words(current: &OsStr, tags: bool) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    if let Some((node, _)) = text.split_once(':') {
        let found = ask_sessions(Some(node.to_owned()));
        let found = found.iter().flat_map(|info| spellings(info, tags));
        return offer(
            current,
            found.map(|(word, help)| (format!("{node}:{word}"), help)),
        );
    }
    let mut found: Vec<_> = ask_sessions(None)
        .iter()
        .flat_map(|info| spellings(info, tags))
        .collect();
    found.extend(
        ask_nodes()
            .into_iter()
            .map(|name| (format!("{name}:"), "node".to_owned())),
    );
    offer(current, found.into_iter())
}

fn spellings(info: &SessionInfo, tags: bool) -> Vec<(String, String)> {
    let help = format!("{}, {}", crate::show::cut(&info.prompt, 40), info.status);
    let tags = info
        .tags
        .iter()
        .filter(|_| tags)
        .map(|tag| (tag.clone(), "tag".to_owned()));
    let name = info.name.iter().map(|name| (name.clone(), help.clone()));
    name.chain([(info.id.to_string(), help.clone())])
        .chain(tags)
        .collect()
}

fn offer(
    current: &OsStr,
    words: impl Iterator<Item = (String, String)>,
) -> Vec<CompletionCandidate> {
    let start = current.to_string_lossy().into_owned();
    let mut seen = std::collections::HashSet::new();
    words
        .filter(|(word, _)| word.starts_with(&start) && seen.insert(word.clone()))
        .map(|(word, help)| {
            CompletionCandidate::new(word).help((!help.is_empty()).then(|| help.into()))
        })
        .collect()
}

fn ask_sessions(node: Option<String>) -> Vec<SessionInfo> {
    let status = "all".to_owned();
    match ask(Call::ListSessions(List {
        node,
        status,
        ..List::default()
    })) {
        Some(Reply::SessionList(list)) => list.sessions,
        _ => Vec::new(),
    }
}

fn ask_nodes() -> Vec<String> {
    match ask(Call::ListNodes(node::List::default())) {
        Some(Reply::NodeList(nodes)) => nodes.nodes.into_iter().map(|node| node.name).collect(),
        _ => Vec::new(),
    }
}

/// A field of what the relay lists about the joined network, by the node in its name.
fn names(what: &str, field: &str) -> Vec<(String, String)> {
    let Some(Reply::ErrandRun(joined)) = ask(Call::RunErrand(Errand::default())) else {
        return Vec::new();
    };
    let errand = Errand {
        method: "GET".to_owned(),
        path: format!("/api/v1/{what}?network_id={}", joined.network),
        body: None,
    };
    let Some(Reply::ErrandRun(done)) = ask(Call::RunErrand(errand)) else {
        return Vec::new();
    };
    let listed: Vec<serde_json::Value> = serde_json::from_str(&done.answer).unwrap_or_default();
    let words = listed.iter().filter_map(|one| one[field].as_str());
    words.map(|word| (word.to_owned(), String::new())).collect()
}

/// Ids of grants.
pub(crate) fn grants() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        offer(current, names("access-grants", "grant_id").into_iter())
    })
}

/// A node that is not there, or anything else that goes wrong, completes to nothing.
fn ask(call: Call) -> Option<Reply> {
    let cli = Cli::from_env().ok()?;
    let runtime = crate::cli::one_thread().ok()?;
    let asked = async {
        let mut channel = cli.reopen().await?;
        channel.call(&call).await
    };
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, asked).await })
        .ok()?
        .ok()
}
