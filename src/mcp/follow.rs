//! Tools that take long: watch, subscribe, wait.
//!
//! Each ends when there is something to tell, or when its time is up, which for a client that hears
//! nothing meanwhile is less than a minute. The answer then says how to go on, in a number that the
//! node can do something with: an offset in the output, a cursor among the events, or simply to
//! call again. Nothing is kept for a client that does not come back.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::{Effect, Tool, Turn};
use super::who::{Who, optional};
use crate::error::{Error, Result};
use crate::rpc::{Channel, Incoming};
use crate::term::Strip;
use crate::verb::event::Happened;
use crate::verb::info::SessionInfo;
use crate::verb::select::Selection;
use crate::verb::watch::{Position, Watch as WatchCall};
use crate::verb::{Call, Reply, subscribe, wait};

/// Bytes of output in one answer, at most.
const OUTPUT_MAX: usize = 500_000;
/// Events in one answer, at most.
const EVENTS_MAX: usize = 500;
/// After the first event, how long others may join it.
const GATHER: Duration = Duration::from_millis(100);

/// Which sessions.
fn selection(who: Option<&Who>, tags: Vec<String>, node: Option<String>) -> Result<Selection> {
    let target = optional(who)?;
    Selection {
        target,
        tags,
        node,
        session: None,
    }
    .settle()
}

/// The next answer, or none when the time is up.
async fn next(channel: &mut Channel, until: Instant) -> Result<Option<Reply>> {
    let left = until.saturating_duration_since(Instant::now());
    match tokio::time::timeout(left, channel.receiver.next::<Reply>()).await {
        Err(_) => Ok(None),
        Ok(Ok(Some(Incoming::Control(reply)))) => Ok(Some(reply)),
        Ok(Ok(Some(Incoming::Data(_)))) => Err(Error::bad_request("raw bytes as an answer")),
        Ok(Ok(None)) => Err(Error::new("connection_lost", "connection lost")),
        Ok(Err(error)) => Err(error),
    }
}

/// Watch what a session prints, for some seconds or until it ends. Call again with `after_offset`
/// set to the `next_offset` of the answer to miss nothing in between.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Watch {
    /// The session: its number, its name, or node:session.
    session_id: Who,
    /// Whether to begin with what was printed before; true if left out.
    include_history: Option<bool>,
    /// How many lines of that.
    history_lines: Option<u32>,
    /// How long to watch, in seconds; 30 if left out.
    max_duration_seconds: Option<u64>,
    /// Go on after this byte of the output.
    after_offset: Option<u64>,
}

/// What was seen.
#[derive(Serialize, JsonSchema)]
pub(super) struct Watched {
    /// Text without escape sequences.
    output: String,
    /// running, completed (N), killed or signal N.
    status: String,
    /// Whether the session has ended.
    done: bool,
    /// Where to go on.
    next_offset: u64,
}

impl Tool for Watch {
    type Output = Watched;
    const NAME: &'static str = "codewire_watch_session";
    const TITLE: &'static str = "Watch a session";
    const EFFECT: Effect = Effect::Reads;
    const LONG: bool = true;

    async fn call(self, turn: &Turn) -> Result<(String, Watched)> {
        let asked = Duration::from_secs(self.max_duration_seconds.unwrap_or(30));
        let until = Instant::now() + turn.patience(asked);
        let mut call = WatchCall {
            select: selection(Some(&self.session_id), Vec::new(), None)?,
            include_history: self.include_history,
            history_lines: self.history_lines,
            frames: true,
            ..WatchCall::default()
        };
        if let Some(offset) = self.after_offset {
            // The node has to know the number; the name is enough to ask for it.
            let id = id_of(turn, &self.session_id).await?;
            call.resume = vec![Position { id, offset }];
        }
        let mut channel = turn.cli.open().await?;
        channel.sender.send(&Call::WatchSession(call)).await?;
        let (mut strip, mut seen) = (Strip::default(), Vec::new());
        let mut watched = Watched {
            output: String::new(),
            status: "running".to_owned(),
            done: false,
            next_offset: self.after_offset.unwrap_or(0),
        };
        while seen.len() < OUTPUT_MAX
            && let Some(reply) = next(&mut channel, until).await?
        {
            let Reply::WatchUpdate(update) = reply else {
                return Err(reply.unexpected());
            };
            if let Some(data) = &update.data {
                seen.extend(strip.feed(&data.0));
            }
            watched.next_offset = watched.next_offset.max(update.offset);
            watched.status = update.status;
            watched.done = update.done;
            if update.done {
                break;
            }
        }
        watched.output = String::from_utf8_lossy(&seen).into_owned();
        let end = if watched.done {
            format!("\n[Session {}]\n", watched.status)
        } else {
            format!(
                "\n[Watch timeout; go on with after_offset {}]\n",
                watched.next_offset
            )
        };
        Ok((watched.output.clone() + &end, watched))
    }
}

async fn id_of(turn: &Turn, who: &Who) -> Result<u32> {
    let (target, json) = (who.locator()?, false);
    match turn
        .ask(Call::GetStatus(crate::verb::status::Status {
            target,
            json,
        }))
        .await?
    {
        Reply::SessionStatus(status) => Ok(status.info.id),
        other => Err(other.unexpected()),
    }
}

/// Wait for something to happen to sessions: launches, ends, input, attachments, messages. Returns
/// as soon as there is something to tell. Call again with `after_cursor` set to the `cursor` of the
/// answer to miss nothing in between.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Subscribe {
    /// Only this session: its number, its name, or node:session.
    session_id: Option<Who>,
    /// Only sessions with one of these tags.
    #[serde(default)]
    tags: Vec<String>,
    /// Only these types, for example session.status or message.request.
    #[serde(default)]
    event_types: Vec<String>,
    /// How long to wait, in seconds; 30 if left out.
    max_duration_seconds: Option<u64>,
    /// Go on after this cursor; from now on if left out, 0 is everything that is kept.
    after_cursor: Option<u64>,
    /// The node; this machine if left out.
    node: Option<String>,
}

/// What happened.
#[derive(Serialize, JsonSchema)]
pub(super) struct Events {
    /// Oldest first; none when the time was up.
    events: Vec<Happened>,
    /// Where to go on.
    cursor: u64,
    /// Events that were asked for and are no longer kept.
    gap: bool,
}

impl Tool for Subscribe {
    type Output = Events;
    const NAME: &'static str = "codewire_subscribe";
    const TITLE: &'static str = "Follow events";
    const EFFECT: Effect = Effect::Reads;
    const LONG: bool = true;

    async fn call(self, turn: &Turn) -> Result<(String, Events)> {
        let asked = Duration::from_secs(self.max_duration_seconds.unwrap_or(30));
        let mut until = Instant::now() + turn.patience(asked);
        let call = subscribe::Subscribe {
            select: selection(self.session_id.as_ref(), self.tags, self.node)?,
            event_types: self.event_types,
            since: self.after_cursor,
            ..subscribe::Subscribe::default()
        };
        let mut channel = turn.cli.open().await?;
        channel.sender.send(&Call::Subscribe(call)).await?;
        let mut found = Events {
            events: Vec::new(),
            cursor: 0,
            gap: false,
        };
        while found.events.len() < EVENTS_MAX
            && let Some(reply) = next(&mut channel, until).await?
        {
            match reply {
                Reply::SubscribeAck(ack) => found.cursor = ack.cursor,
                Reply::EventGap(gap) => {
                    found.gap = true;
                    found.cursor = gap.to;
                }
                Reply::Event(happened) => {
                    found.cursor = happened.event.cursor;
                    found.events.push(happened);
                    until = until.min(Instant::now() + GATHER);
                }
                other => return Err(other.unexpected()),
            }
        }
        let text = serde_json::to_string_pretty(&found.events).map_err(Error::internal)?;
        Ok((text, found))
    }
}

/// Wait until sessions have ended, fallen silent, or printed something. A session that fails is no
/// error of this tool: look at `failed`. When `done` is false the time was up before; call again to
/// go on waiting.
#[derive(Deserialize, JsonSchema)]
pub(super) struct WaitFor {
    /// The session: its number, its name, or node:session.
    session_id: Option<Who>,
    /// Instead of a session: all sessions with one of these tags.
    #[serde(default)]
    tags: Vec<String>,
    /// With tags: all or any; all if left out.
    condition: Option<String>,
    /// How long to wait, in seconds; 300 if left out. A single call may return earlier.
    timeout_seconds: Option<u64>,
    /// exit, idle or output; exit if left out.
    until: Option<String>,
    /// With until output: a regular expression that a line of the output has to match.
    pattern: Option<String>,
    /// With until idle: the silence that counts, in seconds; 5 if left out.
    idle_seconds: Option<u64>,
    /// The node; this machine if left out.
    node: Option<String>,
}

/// How it went.
#[derive(Serialize, JsonSchema)]
pub(super) struct Waited {
    /// Whether what was waited for has come about.
    done: bool,
    /// The sessions it came about for, each with the end of its output.
    sessions: Vec<SessionInfo>,
    /// Those of them that failed.
    failed: Vec<u32>,
}

impl Tool for WaitFor {
    type Output = Waited;
    const NAME: &'static str = "codewire_wait_for";
    const TITLE: &'static str = "Wait for sessions";
    const EFFECT: Effect = Effect::Reads;
    const LONG: bool = true;

    async fn call(self, turn: &Turn) -> Result<(String, Waited)> {
        let asked = Duration::from_secs(self.timeout_seconds.unwrap_or(300).max(1));
        let call = wait::Wait {
            select: selection(self.session_id.as_ref(), self.tags, self.node)?,
            condition: self.condition.unwrap_or_default(),
            until: self.until.into_iter().chain(self.pattern).collect(),
            idle_seconds: self.idle_seconds.unwrap_or(5),
            ..wait::Wait::default()
        };
        let until = Instant::now() + turn.patience(asked);
        let mut channel = turn.cli.open().await?;
        channel.sender.send(&Call::Wait(call)).await?;
        let mut waited = Waited {
            done: false,
            sessions: Vec::new(),
            failed: Vec::new(),
        };
        while let Some(reply) = next(&mut channel, until).await? {
            match reply {
                Reply::Waiting => {}
                Reply::WaitResult(result) => {
                    waited = Waited {
                        done: true,
                        sessions: result.sessions,
                        failed: result.failed,
                    };
                    let text = serde_json::to_string_pretty(&waited).map_err(Error::internal)?;
                    return Ok((text, waited));
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok((
            "It has not come about yet; call again to go on waiting.".to_owned(),
            waited,
        ))
    }
}
