//! What can be read and followed: `cw://sessions/{id}/log`, `…/screen` and `…/inbox`, where the id
//! is a number, a name, or `node:session`.
//!
//! A log is its last part; the tool codewire_read_session_output reads the rest. Who follows one is
//! told that it has changed, not what; several changes within a moment are one.

use std::str::FromStr;
use std::time::Duration;

use rmcp::model::{Resource, ResourceContents, ResourceTemplate, ResourceUpdatedNotificationParam};
use rmcp::service::{Peer, RoleServer, SubscriptionSink};

use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::rpc::Incoming;
use crate::verb::list::List;
use crate::verb::logs::Logs;
use crate::verb::screen::Screen;
use crate::verb::select::Selection;
use crate::verb::{Call, Reply, subscribe, watch};

/// How many lines of a log are in the resource, and at most how many bytes.
const LOG: (u32, u64) = (2000, 500_000);
/// Changes within this time are told as one.
const GATHER: Duration = Duration::from_millis(250);
/// Sessions that are listed, the newest.
const LISTED: usize = 200;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    session: Locator,
    view: View,
}

/// What of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Log,
    Screen,
    Inbox,
}

impl View {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (
            Self::Log,
            "log",
            "The last lines that a session has printed",
        ),
        (Self::Screen, "screen", "What a session shows now"),
        (Self::Inbox, "inbox", "The messages of a session, as JSON"),
    ];

    fn mime(self) -> &'static str {
        match self {
            Self::Log | Self::Screen => "text/plain",
            Self::Inbox => "application/json",
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self> {
        let unknown = || Error::new("not_found", format!("no resource {uri:?}"));
        let rest = uri.strip_prefix("cw://sessions/").ok_or_else(unknown)?;
        let (session, view) = rest.rsplit_once('/').ok_or_else(unknown)?;
        let view = View::ALL.iter().find(|(_, name, _)| *name == view);
        Ok(Self {
            session: session.replace("%3A", ":").parse()?,
            view: view.ok_or_else(unknown)?.0,
        })
    }
}

/// The resources of the sessions of this node, the newest first.
pub(super) async fn list(cli: &Cli) -> Result<Vec<Resource>> {
    let Reply::SessionList(list) = cli.ask(Call::ListSessions(List::default())).await? else {
        return Err(Error::internal("no list"));
    };
    let newest = list.sessions.iter().rev().take(LISTED);
    Ok(newest
        .flat_map(|info| {
            View::ALL.iter().map(move |(view, name, what)| {
                let label = info.name.clone().unwrap_or_else(|| info.id.to_string());
                Resource::new(
                    format!("cw://sessions/{}/{name}", info.id),
                    format!("{label} {name}"),
                )
                .with_description(format!("{what}: {}", crate::show::cut(&info.prompt, 60)))
                .with_mime_type(view.mime())
            })
        })
        .collect())
}

/// The forms of their names.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    View::ALL
        .iter()
        .map(|(view, name, what)| {
            ResourceTemplate::new(format!("cw://sessions/{{id}}/{name}"), *name)
                .with_description(format!(
                    "{what}; the id is a number, a name, or node:session"
                ))
                .with_mime_type(view.mime())
        })
        .collect()
}

/// Reads one.
pub(super) async fn read(cli: &Cli, place: &Place) -> Result<ResourceContents> {
    let target = place.session.clone();
    let text = match place.view {
        View::Log => log(cli, target).await?,
        View::Screen => match cli
            .ask(Call::Screen(Screen {
                target,
                json: false,
            }))
            .await?
        {
            Reply::ScreenShown(shown) => shown.lines.join("\n"),
            other => return Err(other.unexpected()),
        },
        View::Inbox => {
            let (id, name) = match target.session {
                Session::Id(id) => (Some(id), None),
                Session::Name(name) => (None, Some(name)),
            };
            let call = serde_json::json!({"type": "MsgRead", "id": id, "to_name": name, "node": target.node});
            let call = serde_json::from_value(call).map_err(Error::internal)?;
            match cli.ask(call).await? {
                Reply::MsgReadResult(read) => {
                    serde_json::to_string_pretty(&read.messages).map_err(Error::internal)?
                }
                other => return Err(other.unexpected()),
            }
        }
    };
    let name = View::ALL
        .iter()
        .find(|(view, ..)| *view == place.view)
        .map_or("", |view| view.1);
    let uri = format!("cw://sessions/{}/{name}", place.session);
    Ok(ResourceContents::text(text, uri).with_mime_type(place.view.mime()))
}

async fn log(cli: &Cli, target: Locator) -> Result<String> {
    let logs = Logs {
        target,
        tail: Some(LOG.0),
        limit: Some(LOG.1),
        transcript: true,
        ..Logs::default()
    };
    let mut channel = cli.open().await?;
    channel.sender.send(&Call::Logs(logs)).await?;
    let mut text = String::new();
    loop {
        match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(Reply::LogData(piece))) => {
                text += &piece.data;
                if piece.done {
                    return Ok(text);
                }
            }
            Some(Incoming::Control(other)) => return Err(other.unexpected()),
            _ => return Err(Error::new("connection_lost", "connection lost")),
        }
    }
}

/// Who is told that a resource has changed, in the ways of older and newer clients.
pub(super) enum Teller {
    /// One that has subscribed to it.
    Peer(Peer<RoleServer>, String),
    /// One that listens to several.
    Sink(SubscriptionSink, String),
}

impl Teller {
    /// Whether somebody has heard it.
    async fn tell(&self) -> bool {
        match self {
            Self::Peer(peer, uri) => {
                let changed = ResourceUpdatedNotificationParam::new(uri.clone());
                peer.notify_resource_updated(changed).await.is_ok()
            }
            Self::Sink(sink, uri) => sink.notify_resource_updated(uri.clone()).await.is_ok(),
        }
    }
}

/// Tells of each change, until nobody listens or the session has ended.
pub(super) async fn changes(cli: &Cli, place: &Place, teller: &Teller) -> Result<()> {
    let select = Selection {
        node: place.session.node.clone(),
        session: Some(place.session.session.clone()),
        ..Selection::default()
    };
    let call = match place.view {
        View::Inbox => Call::Subscribe(subscribe::Subscribe {
            select,
            event_types: ["direct.message", "message.request", "message.reply"]
                .map(str::to_owned)
                .to_vec(),
            ..subscribe::Subscribe::default()
        }),
        View::Log | View::Screen => Call::WatchSession(watch::Watch {
            select,
            include_history: Some(false),
            frames: true,
            ..watch::Watch::default()
        }),
    };
    let mut channel = cli.open().await?;
    channel.sender.send(&call).await?;
    loop {
        match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(Reply::SubscribeAck(_))) => continue,
            Some(Incoming::Control(Reply::WatchUpdate(update))) if update.done => {
                teller.tell().await;
                return Ok(());
            }
            Some(Incoming::Control(
                Reply::WatchUpdate(_) | Reply::Event(_) | Reply::EventGap(_),
            )) => {}
            Some(Incoming::Control(other)) => return Err(other.unexpected()),
            _ => return Err(Error::new("connection_lost", "connection lost")),
        }
        tokio::time::sleep(GATHER).await;
        if !teller.tell().await {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_resources() {
        let place: Place = "cw://sessions/dev-1:coder/log".parse().unwrap();
        assert_eq!(place.session.to_string(), "dev-1:coder");
        assert_eq!(
            "cw://sessions/3/inbox".parse::<Place>().unwrap().view,
            View::Inbox
        );
        assert_eq!(
            "cw://sessions/dev-1%3A3/screen"
                .parse::<Place>()
                .unwrap()
                .session
                .to_string(),
            "dev-1:3"
        );
        for uri in [
            "",
            "cw://sessions/",
            "cw://sessions/3",
            "cw://sessions/3/odd",
            "file:///etc/passwd",
            "cw://sessions//log",
        ] {
            assert!(uri.parse::<Place>().is_err(), "{uri}");
        }
    }
}
