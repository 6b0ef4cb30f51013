//! `cw kv watch [prefix]`: follows the changes of shared values.
//!
//! The node asks the relay for changes since a revision, which the relay holds until there are some;
//! so nothing is missed while either is away. Deletions are told for a day.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Call, Cli, Context, Entry, Error, Reply, Result, readable, show};
use crate::rpc::{Channel, Incoming};
use crate::uplink::kv::Changes;
use crate::verb::again::{Patience, until_done};

/// Between two tries while the relay is away.
const PAUSE: Duration = Duration::from_millis(500);

/// Follow what changes.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Watch {
    /// Only keys that start with this.
    #[arg(default_value = "")]
    #[serde(default, rename = "key")]
    pub prefix: String,
    /// The namespace.
    #[arg(long = "ns", value_name = "NAMESPACE", default_value = "default")]
    #[serde(default = "super::default_space")]
    pub namespace: String,
    /// Go on after this revision; from now on if left out.
    #[arg(long, value_name = "REVISION")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Print JSON lines.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// Changes, in their order; none in the first answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Changed {
    /// A key that changed twice may be there once.
    pub changes: Vec<Entry>,
    /// Where to go on.
    pub upto: u64,
    /// Deletions may be missing; what there is comes again.
    pub gap: bool,
}

impl Watch {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let (mut cursor, mut told) = (self.since, false);
        until_done(cli, async |channel, patience| {
            let call = Self {
                since: cursor,
                ..self.clone()
            };
            follow(cli, call, channel, patience, (&mut cursor, &mut told)).await
        })
        .await
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let network = context.host.network()?;
        let shared = network.shared();
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        let (mut since, mut is_first) = (self.since, true);
        loop {
            let asked = shared.changes(&self.namespace, &self.prefix, since);
            let answer = tokio::select! {
                answer = asked => answer,
                _ = receiver.next_frame() => return Err(gone()),
            };
            let told = match answer {
                Ok(changes) => changes,
                // It was there, and comes back.
                Err(error) if !is_first && error.code == "relay_unreachable" => {
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => continue,
                        _ = receiver.next_frame() => return Err(gone()),
                    }
                }
                Err(error) => return Err(error),
            };
            let is_news = is_first || told.gap || !told.changes.is_empty();
            let upto = told.upto;
            if is_news {
                sender.send(&Reply::KvChanged(told.into())).await?;
            }
            is_first = false;
            since = Some(upto);
        }
    }
}

fn gone() -> Error {
    Error::new("connection_lost", "the client is gone")
}

impl From<Changes> for Changed {
    fn from(changes: Changes) -> Self {
        Self {
            changes: changes.changes,
            upto: changes.upto,
            gap: changes.gap,
        }
    }
}

async fn follow(
    cli: &Cli,
    call: Watch,
    mut channel: Channel,
    patience: &mut Patience,
    (cursor, told): (&mut Option<u64>, &mut bool),
) -> Result<()> {
    let json = call.json;
    channel.sender.send(&Call::KvWatch(call)).await?;
    loop {
        let changed = match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(Reply::KvChanged(changed))) => changed,
            Some(Incoming::Control(other)) => return Err(other.unexpected()),
            Some(Incoming::Data(_)) => return Err(Error::bad_request("raw bytes among changes")),
            None => return Err(Error::new("connection_lost", "connection lost")),
        };
        patience.heard();
        if !std::mem::replace(told, true) {
            cli.note(&format!("[cw] watching from revision {}", changed.upto));
        }
        if changed.gap {
            cli.note("[cw] deletions may be missing: too long ago");
        }
        for entry in &changed.changes {
            cli.print(&line(entry, json))?;
        }
        *cursor = Some(changed.upto);
    }
}

/// `set tasks/1 by dev-1:planner: value`, `deleted tasks/1 by dev-2`.
fn line(entry: &Entry, json: bool) -> String {
    if json {
        let mut shown = readable(entry, entry.value.as_ref());
        shown["deleted"] = entry.value.is_none().into();
        return format!("{shown}\n");
    }
    let (key, by) = (&entry.key, &entry.changed_by);
    let text = match &entry.value {
        Some(value) => {
            let value = String::from_utf8_lossy(&value.0);
            format!("set {key} by {by}: {}", show::cut(&value, 80))
        }
        None => format!("deleted {key} by {by}"),
    };
    show::clean(&text) + "\n"
}
