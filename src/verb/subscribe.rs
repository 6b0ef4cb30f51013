//! `cw subscribe [session|tag]`: follows what happens to sessions, one line an event.
//!
//! Every event has a cursor, a number that only grows on one node. Who gives the last cursor it has
//! seen gets everything after it, also what happened meanwhile; what is no longer kept is told as a
//! gap, never left out in silence. The command itself does so when the node is restarted under it.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::EventType;
use session::io::{Filter, Notice};

use super::event::Happened;
use super::select::{Selected, Selection};
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::node::{Action, Context};
use crate::rpc::{Channel, Incoming};
use crate::show;
use crate::verb::again::{Patience, until_done};

/// Follow what happens to sessions.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Subscribe {
    /// Which; all if left out. A word that is a node of the network means its sessions.
    #[command(flatten)]
    #[serde(flatten)]
    pub select: Selection,
    /// The same as naming the session.
    #[arg(long = "session", value_name = "SESSION", conflicts_with_all = ["target", "tags"], add = super::complete::sessions())]
    #[serde(skip)]
    pub only: Option<crate::locator::Locator>,
    /// Only events of this type; may be given several times.
    #[arg(short, long = "event", value_name = "TYPE", add = super::complete::events())]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<String>,
    /// Begin after this cursor; 0 is everything that is kept.
    #[arg(long, value_name = "CURSOR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Print whole JSON objects.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer; events follow.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Subscribed {
    /// There is one subscription on a connection.
    pub subscription_id: u64,
    /// Where it begins.
    #[serde(default)]
    pub cursor: u64,
}

impl Subscribe {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        if let Some(only) = self.only.take() {
            self.select.target = Some(only);
        }
        let json = self.json;
        self.select = self.select.settle()?;
        let mut cursor = self.since;
        let mut told = false;
        until_done(cli, async |channel, patience| {
            let call = Self {
                since: cursor,
                ..self.clone()
            };
            follow(cli, call, channel, patience, &mut cursor, &mut told, json).await
        })
        .await
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let selected = self.select.select(context)?;
        let kinds = self.kinds(context)?;
        let filter = Filter {
            session: selected.id(),
            tags: match selected {
                Selected::Tagged(tags) => tags,
                Selected::One(_) | Selected::All => Vec::new(),
            },
            kinds,
        };
        let sessions = &context.host.sessions;
        let cursor = self.since.unwrap_or_else(|| sessions.cursor());
        let mut events = sessions.subscribe_since(filter, cursor);
        let ack = Subscribed {
            subscription_id: 0,
            cursor,
        };
        context
            .channel
            .sender
            .send(&Reply::SubscribeAck(ack))
            .await?;
        let judge = context.judge();
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        loop {
            let notice = tokio::select! {
                notice = events.next() => notice,
                said = receiver.next::<Call>() => return match said? {
                    Some(Incoming::Control(Call::Unsubscribe)) => Ok(Reply::Unsubscribed),
                    _ => Err(Error::new("connection_lost", "the client is gone")),
                },
            };
            match notice {
                Some(Notice::Event(event)) => {
                    if judge.may(&Action::Watch, Some(event.session)).is_ok() {
                        sender.send(&Reply::Event(Happened::from(&*event))).await?;
                    }
                }
                Some(Notice::Gap { from, to }) => {
                    sender.send(&Reply::EventGap(Gap { from, to })).await?;
                }
                None => return Err(Error::new("connection_lost", "the node is stopping")),
            }
        }
    }

    /// The types that are asked for and may be had. A session that asks for everything gets
    /// everything but the messages of others.
    fn kinds(&self, context: &Context<'_>) -> Result<Vec<EventType>> {
        let messages = Action::Listen(self.select.session.clone());
        let about = self.select.session.as_ref();
        let target = about.and_then(|session| Some(super::find(context, session).ok()?.id));
        let may_read = context.may(&messages, target);
        if self.event_types.is_empty() {
            let all = EventType::ALL.into_iter();
            return Ok(all
                .filter(|kind| may_read.is_ok() || !kind.is_message())
                .collect());
        }
        let kinds = self.event_types.iter().map(|text| {
            EventType::parse(text).ok_or_else(|| {
                let known: Vec<_> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
                Error::new("usage", format!("no event type {text:?}"))
                    .hint(format!("one of: {}", known.join(", ")))
            })
        });
        let kinds = kinds.collect::<Result<Vec<_>>>()?;
        if kinds.iter().any(|kind| kind.is_message()) {
            may_read?;
        }
        Ok(kinds)
    }
}

/// Events that are no longer kept.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Gap {
    /// The cursor that was asked for.
    pub from: u64,
    /// Where it goes on.
    pub to: u64,
}

impl Gap {
    /// For people; `what` it is that is missing.
    pub(super) fn text(&self, what: &str) -> String {
        let Self { from, to } = self;
        if from > to {
            return format!(
                "[cw] there is no cursor {from} yet; {what} follow from the newest, {to}"
            );
        }
        format!("[cw] {what} from cursor {from} to {to} are no longer kept")
    }
}

async fn follow(
    cli: &Cli,
    call: Subscribe,
    mut channel: Channel,
    patience: &mut Patience,
    cursor: &mut Option<u64>,
    told: &mut bool,
    json: bool,
) -> Result<()> {
    channel.sender.send(&Call::Subscribe(call)).await?;
    loop {
        let reply = match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(reply)) => reply,
            Some(Incoming::Data(_)) => return Err(Error::bad_request("raw bytes among events")),
            None => return Err(Error::new("connection_lost", "connection lost")),
        };
        patience.heard();
        match reply {
            Reply::SubscribeAck(ack) => {
                cursor.get_or_insert(ack.cursor);
                if !std::mem::replace(told, true) {
                    cli.note(&format!("[cw] subscribed from cursor {}", ack.cursor));
                }
            }
            Reply::Event(happened) => {
                *cursor = Some(happened.event.cursor);
                cli.print(&line(&happened, json)?)?;
            }
            Reply::EventGap(gap) => {
                *cursor = Some(gap.to);
                if json {
                    let gap = serde_json::json!({"gap": gap});
                    cli.print(&format!("{gap}\n"))?;
                } else {
                    cli.note(&gap.text("events"));
                }
            }
            Reply::Unsubscribed => return Ok(()),
            other => return Err(other.unexpected()),
        }
    }
}

/// `[session 3] {"timestamp":…,"type":…,"data":…}`, or the whole as an object.
fn line(happened: &Happened, json: bool) -> Result<String> {
    let text = if json {
        serde_json::to_string(happened).map_err(Error::internal)?
    } else {
        let event = serde_json::to_string(&happened.event).map_err(Error::internal)?;
        format!("[session {}] {event}", happened.session_id)
    };
    Ok(show::clean(&text) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_does_not_exist_yet_is_not_called_lost() {
        let text = |from, to| Gap { from, to }.text("events");
        assert_eq!(
            text(3, 70),
            "[cw] events from cursor 3 to 70 are no longer kept"
        );
        assert_eq!(
            text(999_999, 70),
            "[cw] there is no cursor 999999 yet; events follow from the newest, 70"
        );
    }
}
