//! `cw watch <session|tag>`: sees what sessions print, as it happens, without touching them.
//!
//! One session is shown as it is, byte for byte. Several are shown line by line, each line behind
//! the name of its session; those that get the tag while one is watched join in. Each piece says
//! where in the session's output it stands, so that a client whose node was restarted goes on from
//! there. The last piece, `done`, comes when every watched session has ended.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};
use session::io::{Chunk, Filter, From, Notice, Reader, Sessions, Subscription};
use session::{EventType, Info, SessionId};
use tokio::sync::mpsc;

use super::Reply;
use super::info::{SessionInfo, status_text};
use super::logs::take_text;
use super::select::{Selected, Selection};
use crate::error::{Error, Result};
use crate::node::{Action, Context};
use crate::rpc::codec::Base64;

mod client;

/// How many lines of what was printed before are shown unless the caller says otherwise.
const HISTORY: u32 = 1000;
/// Pieces of all watched sessions that wait for a slow client; then their readers wait.
const AHEAD: usize = 16;

/// Watch what sessions print, without attaching.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Watch {
    /// Which.
    #[command(flatten)]
    #[serde(flatten)]
    pub select: Selection,
    /// Start with the last N lines.
    #[arg(long = "tail", value_name = "N")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_lines: Option<u32>,
    /// Show only what is printed from now on.
    #[arg(long, conflicts_with = "history_lines")]
    #[serde(skip)]
    pub no_history: bool,
    /// Stop after this many seconds; the sessions run on.
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip)]
    pub timeout: Option<u64>,
    /// Print the bytes as they come, with all that a terminal acts upon; of one session.
    #[arg(long, conflicts_with = "json")]
    #[serde(skip)]
    pub raw: bool,
    /// Print one JSON object for each line.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
    /// Whether to start with history; on the wire.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_history: Option<bool>,
    /// Send bytes rather than text.
    #[arg(skip)]
    #[serde(default)]
    pub frames: bool,
    /// Where to go on, for a client that has seen a part.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume: Vec<Position>,
}

/// How far a session has been seen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Position {
    /// The session.
    pub id: u32,
    /// Bytes since its start.
    pub offset: u64,
}

/// What a session has printed, or that it has ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct WatchUpdate {
    /// The session.
    pub id: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As in [`SessionInfo::status`].
    pub status: String,
    /// Text, for clients that did not ask for bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Bytes, for those that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Base64>,
    /// Where these bytes end, since the session's start.
    #[serde(default)]
    pub offset: u64,
    /// Bytes before these that are no longer kept.
    #[serde(default)]
    pub gap: bool,
    /// Whether nothing more comes: every watched session has ended.
    pub done: bool,
}

impl Watch {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let selected = self.select.select(context)?;
        let sessions = context.host.sessions.clone();
        let mut launched = sessions.subscribe(Filter {
            kinds: vec![EventType::Created],
            ..Filter::default()
        });
        let (pieces, mut coming) = mpsc::channel(AHEAD);
        let mut watched = Watched::default();
        for info in selected.some(context)? {
            let from = self.from(&info);
            watched.add(&info, sessions.reader(info.id, from)?, &pieces);
        }
        let judge = context.judge();
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        let show = async {
            loop {
                tokio::select! {
                    piece = coming.recv() => {
                        // Never none: one of the senders is ours.
                        let Some((id, chunk)) = piece else { continue };
                        if let Some(update) = watched.update(id, chunk?, self.frames) {
                            sender.send(&Reply::WatchUpdate(update)).await?;
                        }
                        if watched.running.is_empty() {
                            watched.last.done = true;
                            return Ok(Reply::WatchUpdate(watched.last));
                        }
                    }
                    info = joined(&selected, &mut launched, &sessions) => {
                        let may = judge.may(&Action::Watch, Some(info.id)).is_ok();
                        if may && !watched.running.contains_key(&info.id) {
                            watched.add(&info, sessions.reader(info.id, From::Start)?, &pieces);
                        }
                    }
                }
            }
        };
        tokio::select! {
            shown = show => shown,
            _ = receiver.next_frame() => Err(Error::new("connection_lost", "the client is gone")),
        }
    }

    fn from(&self, info: &Info) -> From {
        if let Some(seen) = self.resume.iter().find(|seen| seen.id == info.id.0) {
            return From::Offset(seen.offset);
        }
        if self.include_history == Some(false) {
            return From::End;
        }
        From::TailLines(self.history_lines.unwrap_or(HISTORY) as usize)
    }
}

/// The next session that gets a watched tag; only a tag gets new members.
async fn joined(selected: &Selected, launched: &mut Subscription, sessions: &Sessions) -> Info {
    let Selected::Tagged(tags) = selected else {
        return std::future::pending().await;
    };
    loop {
        let event = match launched.next().await {
            Some(Notice::Event(event)) => event,
            Some(_) => continue,
            None => return std::future::pending().await,
        };
        if let Ok(info) = sessions.find(&session::SessionRef::Id(event.session))
            && info.tags.iter().any(|tag| tags.contains(tag))
        {
            return info;
        }
    }
}

/// The sessions that are shown, and what is known of each.
#[derive(Default)]
struct Watched {
    running: BTreeMap<SessionId, One>,
    readers: tokio::task::JoinSet<()>,
    last: WatchUpdate,
}

struct One {
    name: Option<String>,
    status: String,
    /// The start of a character that the next piece completes.
    partial: Vec<u8>,
}

/// A piece of one session; none when its reader failed.
type Piece = (SessionId, Result<Chunk>);

impl Watched {
    fn add(&mut self, info: &Info, mut reader: Reader, pieces: &mpsc::Sender<Piece>) {
        let one = One {
            name: info.name.as_ref().map(ToString::to_string),
            status: SessionInfo::from(info).status,
            partial: Vec::new(),
        };
        self.running.insert(info.id, one);
        let (id, pieces) = (info.id, pieces.clone());
        self.readers.spawn(async move {
            loop {
                let chunk = reader.next().await.map_err(Error::from);
                let last = !matches!(chunk, Ok(Chunk::Bytes { .. } | Chunk::Gap { .. }));
                if pieces.send((id, chunk)).await.is_err() || last {
                    return;
                }
            }
        });
    }

    /// What the client is told of a piece. The end of the last session is kept back: it is the
    /// answer itself.
    fn update(&mut self, id: SessionId, chunk: Chunk, frames: bool) -> Option<WatchUpdate> {
        let one = self.running.get_mut(&id)?;
        let mut update = WatchUpdate {
            id: id.0,
            name: one.name.clone(),
            status: one.status.clone(),
            ..WatchUpdate::default()
        };
        match chunk {
            Chunk::Bytes { offset, bytes } => {
                update.offset = offset + bytes.len() as u64;
                if frames {
                    update.data = Some(Base64(bytes.to_vec()));
                } else {
                    one.partial.extend_from_slice(&bytes);
                    update.output = Some(take_text(&mut one.partial));
                }
            }
            Chunk::Gap { resume_at } => {
                update.offset = resume_at;
                update.gap = true;
            }
            Chunk::End { offset, status } => {
                let rest = std::mem::take(&mut one.partial);
                update.status = status_text(&status);
                update.offset = offset;
                update.output =
                    (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned());
                self.running.remove(&id);
                if self.running.is_empty() {
                    self.last = update;
                    return None;
                }
            }
        }
        Some(update)
    }
}
