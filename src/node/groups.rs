//! Keeps the sessions of this node and the groups of the network together.
//!
//! A session of a group is marked as such here: it is closed by the mark even where the group is
//! not known, after a restart without the relay as much as before it. A session that has ended
//! leaves its groups and keeps its marks. What cannot be told to the relay now is told when it is
//! back.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use session::io::{Filter, Notice};
use session::{EventType, SessionId, SessionRef};
use tokio::sync::watch;

use super::judge::mark;
use super::{Action, Caller, Context, Host};
use crate::error::{Error, Result};
use crate::paper::GroupName;
use crate::uplink::{NetworkView, Rules};

/// How long a new member may take to be known here, where the relay has it already.
const KNOWN_AFTER: Duration = Duration::from_secs(10);

/// The pause before what the relay has refused is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A session of this node in a group.
type Seat = (GroupName, u32);

/// What a session is launched into, as the words of a call.
///
/// # Errors
///
/// `bad_request` for a word that is no name, `no_network`, `group_unknown`, and `group_forbids`
/// for a session that is not in the group itself.
pub(crate) fn to_enter(context: &Context<'_>, words: &[String]) -> Result<Vec<GroupName>> {
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let rules = Arc::clone(&context.host.network()?.view().rules);
    let key = context.host.identity.key();
    let names = words.iter().map(|word| {
        let name: GroupName = word
            .parse()
            .map_err(|error: crate::coord::Malformed| Error::bad_request(error.to_string()))?;
        let group = rules.groups.get(&name).ok_or_else(|| {
            Error::new(
                "group_unknown",
                format!("no group {word:?} in this network"),
            )
        })?;
        // The owner may, and what is of the owner in no session.
        let by_owner = context.may(&Action::Administer, None).is_ok()
            || context.from_afar() && context.party().session.is_none();
        let from = match &context.caller {
            Caller::Peer { key, .. } => *key,
            Caller::Owner | Caller::Session(..) => key,
        };
        let is_in = |(id, _): (SessionId, _)| group.has(&from, id.0);
        if by_owner || context.party().session.is_some_and(is_in) {
            Ok(name)
        } else {
            Err(Error::new(
                "group_forbids",
                format!("only a session of group {word:?}, or the owner, launches into it"),
            ))
        }
    });
    names.collect()
}

/// Enters a new session into its groups, and waits until that is known here.
///
/// # Errors
///
/// The relay's.
pub(crate) async fn enter(
    host: &Arc<Host>,
    groups: &[GroupName],
    session: SessionId,
    label: Option<String>,
) -> Result<()> {
    for group in groups {
        host.enter(group, session.0, label.clone()).await?;
    }
    let key = host.identity.key();
    let mut news = host.network()?.watch();
    let is_in = |view: &NetworkView| {
        groups.iter().all(|name| {
            let group = view.rules.groups.get(name);
            group.is_some_and(|group| group.has(&key, session.0))
        })
    };
    let known = tokio::time::timeout(KNOWN_AFTER, news.wait_for(|view| is_in(view))).await;
    match known {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Error::new(
            "timeout",
            "the relay does not say that the session is in its groups",
        )),
    }
}

/// Runs as long as the network is joined.
pub(super) async fn keep(mut view: watch::Receiver<Arc<NetworkView>>, host: Weak<Host>) {
    let Some(events) = host.upgrade().map(|host| {
        host.sessions.subscribe(Filter {
            kinds: vec![EventType::Status, EventType::Renamed],
            ..Filter::default()
        })
    }) else {
        return;
    };
    let mut events = events;
    let mut before: Option<BTreeSet<Seat>> = None;
    loop {
        let Some(strong) = host.upgrade() else { return };
        let now = view.borrow_and_update().clone();
        let seats = seats(&strong, &now.rules);
        if now.rules.known {
            settle(&strong, &seats, before.replace(seats.clone())).await;
        }
        let pending = now.connected && !tell(&strong, &now.rules, &seats).await;
        drop(strong);
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            notice = events.next() => match notice {
                Some(Notice::Event(_) | Notice::Gap { .. }) => {}
                None => return,
            },
            () = tokio::time::sleep(AGAIN), if pending => {}
        }
    }
}

fn seats(host: &Host, rules: &Rules) -> BTreeSet<Seat> {
    let key = host.identity.key();
    let groups = rules.groups.values();
    groups
        .flat_map(|group| {
            let mine = group.members.iter().filter(|member| member.node == key);
            mine.map(|member| (group.name.clone(), member.session))
        })
        .collect()
}

/// Marks the sessions that are in groups, and takes the marks from those that were taken out.
async fn settle(host: &Host, now: &BTreeSet<Seat>, before: Option<BTreeSet<Seat>>) {
    let before = before.unwrap_or_default();
    for (group, session) in now {
        retag(host, *session, group, true).await;
    }
    for (group, session) in before.difference(now) {
        // One that has ended left by itself, and stays closed.
        retag(host, *session, group, false).await;
    }
}

async fn retag(host: &Host, session: u32, group: &GroupName, closed: bool) {
    let id = SessionId(session);
    let Ok(info) = host.sessions.find(&SessionRef::Id(id)) else {
        return;
    };
    let tag = mark(group);
    if info.tags.contains(&tag) == closed || (!closed && !info.status.is_running()) {
        return;
    }
    let (add, remove) = if closed {
        (vec![tag], Vec::new())
    } else {
        (Vec::new(), vec![tag])
    };
    if let Err(error) = host.sessions.retag(id, add, remove).await {
        tracing::warn!(%error, %group, session, "a session cannot be marked as one of a group");
    }
}

/// Tells the relay of sessions that have ended or have another name; whether it has heard.
async fn tell(host: &Host, rules: &Rules, seats: &BTreeSet<Seat>) -> bool {
    let mut told = true;
    for (group, session) in seats {
        let found = host.sessions.find(&SessionRef::Id(SessionId(*session)));
        let running = found.ok().filter(|info| info.status.is_running());
        let done = match running {
            None => host.leave(group, *session).await,
            Some(info) => {
                let label = info.name.map(|name| name.to_string()).unwrap_or_default();
                let key = host.identity.key();
                let members = rules.groups.get(group).map(|group| &group.members);
                let mut members = members.into_iter().flatten();
                let is_new = members.any(|member| {
                    member.node == key && member.session == *session && member.label != label
                });
                if !is_new {
                    continue;
                }
                host.enter(group, *session, Some(label)).await
            }
        };
        match done {
            Ok(()) => {}
            Err(error) if error.code == "not_in_group" || error.code == "group_unknown" => {}
            Err(error) => {
                tracing::debug!(%error, %group, session, "the relay does not hear of a session");
                told = false;
            }
        }
    }
    told
}
