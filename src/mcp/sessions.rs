//! Tools that start, read, steer and end sessions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::{Effect, Tool, Turn};
use super::who::Who;
use crate::error::{Error, Result};
use crate::rpc::Incoming;
use crate::rpc::codec::Base64;
use crate::verb::info::SessionInfo;
use crate::verb::kill::{KillByTags, KillOne};
use crate::verb::{self, Call, Reply};

/// Characters of output in one result unless the caller says otherwise, and at most.
const CHARACTERS: (u32, u32) = (50_000, 500_000);

/// Start a command in a new session: a terminal that goes on running whatever happens to you.
/// Returns at once; use codewire_wait_for to wait for its end and codewire_read_session_output to
/// read what it printed.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Launch {
    /// The program and its arguments, as a list of words.
    command: Vec<String>,
    /// Where to start it; where this server runs if left out.
    working_dir: Option<String>,
    /// A name for the session, by which it is addressed: letters, digits and hyphens.
    name: Option<String>,
    /// Labels, for acting on several sessions at once.
    #[serde(default)]
    tags: Vec<String>,
    /// The node to start it on; this machine if left out.
    node: Option<String>,
    /// Variables for it, each KEY=VALUE.
    #[serde(default)]
    env: Vec<String>,
    /// Text to type into it once it runs.
    prompt: Option<String>,
}

/// A new session.
#[derive(Serialize, JsonSchema)]
pub(super) struct Launched {
    /// Its number.
    session_id: u32,
    /// Its name.
    name: Option<String>,
    /// The node that it runs on, when that is another one.
    node: Option<String>,
}

impl Tool for Launch {
    type Output = Launched;
    const NAME: &'static str = "codewire_launch_session";
    const TITLE: &'static str = "Launch a session";
    const EFFECT: Effect = Effect::Adds;

    async fn call(self, turn: &Turn) -> Result<(String, Launched)> {
        let mut launch = verb::launch::Launch {
            name: self.name,
            dir: self.working_dir,
            tags: self.tags,
            env: self.env,
            command: self.command,
            node: self.node,
            stdin_data: self.prompt.map(|text| Base64(text.into_bytes())),
            ..verb::launch::Launch::default()
        };
        launch.bring_surroundings(&turn.cli);
        match turn.ask(Call::Launch(launch)).await? {
            Reply::Launched(launched) => {
                let text = format!("Launched session {}", launched.id);
                let (session_id, name, node) = (launched.id, launched.name, launched.node);
                Ok((
                    text,
                    Launched {
                        session_id,
                        name,
                        node,
                    },
                ))
            }
            other => Err(other.unexpected()),
        }
    }
}

/// List the sessions of this machine or of another node, with their state.
#[derive(Deserialize, JsonSchema)]
pub(super) struct List {
    /// all, running, completed or killed; all if left out.
    status_filter: Option<String>,
    /// Only sessions with one of these tags.
    #[serde(default)]
    tags: Vec<String>,
    /// The node; this machine if left out.
    node: Option<String>,
}

/// Sessions.
#[derive(Serialize, JsonSchema)]
pub(super) struct Listed {
    /// By number.
    sessions: Vec<SessionInfo>,
}

impl Tool for List {
    type Output = Listed;
    const NAME: &'static str = "codewire_list_sessions";
    const TITLE: &'static str = "List sessions";
    const EFFECT: Effect = Effect::Reads;

    async fn call(self, turn: &Turn) -> Result<(String, Listed)> {
        let list = verb::list::List {
            node: self.node,
            status: self.status_filter.unwrap_or_default(),
            tags: self.tags,
            json: false,
            table: false,
        };
        match turn.ask(Call::ListSessions(list)).await? {
            Reply::SessionList(list) => {
                let text = serde_json::to_string_pretty(&list.sessions).map_err(Error::internal)?;
                Ok((
                    text,
                    Listed {
                        sessions: list.sessions,
                    },
                ))
            }
            other => Err(other.unexpected()),
        }
    }
}

/// Read what a session has printed, as text without escape sequences, also after its end. What
/// does not fit is read by calling again with `offset` set to the `next_offset` of the answer.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ReadOutput {
    /// The session: its number, its name, or node:session.
    session_id: Who,
    /// Only the last so many lines.
    tail: Option<u32>,
    /// The most characters in the answer; 50000 if left out, at most 500000.
    max_chars: Option<u32>,
    /// Begin at this byte of the output; the beginning if left out.
    offset: Option<u64>,
}

/// A part of the output.
#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    /// Text.
    output: String,
    /// Where to go on; none when this was all there is now.
    next_offset: Option<u64>,
}

impl Tool for ReadOutput {
    type Output = Output;
    const NAME: &'static str = "codewire_read_session_output";
    const TITLE: &'static str = "Read a session's output";
    const EFFECT: Effect = Effect::Reads;

    async fn call(self, turn: &Turn) -> Result<(String, Output)> {
        let most = self
            .max_chars
            .unwrap_or(CHARACTERS.0)
            .clamp(1, CHARACTERS.1);
        let logs = verb::logs::Logs {
            target: self.session_id.locator()?,
            tail: self.tail,
            offset: self.offset,
            limit: Some(u64::from(most)),
            transcript: true,
            ..verb::logs::Logs::default()
        };
        let mut channel = turn.cli.open().await?;
        channel.sender.send(&Call::Logs(logs)).await?;
        let mut output = String::new();
        loop {
            match channel.receiver.next::<Reply>().await? {
                Some(Incoming::Control(Reply::LogData(piece))) => {
                    output += &piece.data;
                    if piece.done {
                        let mut text = output.clone();
                        if let Some(next) = piece.next_offset {
                            text += &format!("\n... [more: call again with offset {next}]");
                        }
                        let next_offset = piece.next_offset;
                        return Ok((
                            text,
                            Output {
                                output,
                                next_offset,
                            },
                        ));
                    }
                }
                Some(Incoming::Control(other)) => return Err(other.unexpected()),
                _ => return Err(Error::new("connection_lost", "connection lost")),
            }
        }
    }
}

/// Type text into a session, followed by Enter unless told otherwise. With `keys` the words are
/// names of keys, such as C-c, Enter, Up or F5.
#[derive(Deserialize, JsonSchema)]
pub(super) struct SendInput {
    /// The session: its number, its name, or node:session.
    session_id: Who,
    /// What to type.
    input: String,
    /// Whether a newline follows; true if left out. One that is there already is not doubled.
    auto_newline: Option<bool>,
    /// Whether the words of the input are names of keys.
    #[serde(default)]
    keys: bool,
}

/// What the session took.
#[derive(Serialize, JsonSchema)]
pub(super) struct Sent {
    /// Bytes.
    bytes: u64,
}

impl Tool for SendInput {
    type Output = Sent;
    const NAME: &'static str = "codewire_send_input";
    const TITLE: &'static str = "Type into a session";
    const EFFECT: Effect = Effect::Destroys;

    async fn call(self, turn: &Turn) -> Result<(String, Sent)> {
        let target = self.session_id.locator()?;
        let data = if self.keys {
            let words = self.input.split_whitespace();
            words.flat_map(crate::term::keys::bytes).collect()
        } else {
            let mut data = self.input.into_bytes();
            if self.auto_newline.unwrap_or(true) && !data.ends_with(b"\n") {
                data.push(b'\n');
            }
            data
        };
        let to = target.to_string();
        match turn
            .ask(Call::SendInput(verb::send::Send::bytes_to(target, data)))
            .await?
        {
            Reply::InputSent(sent) => {
                let text = format!("Sent {} bytes to session {to}", sent.bytes);
                Ok((text, Sent { bytes: sent.bytes }))
            }
            other => Err(other.unexpected()),
        }
    }
}

/// Show everything about one session: its state, exit code, age, size, and its last lines.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Status {
    /// The session: its number, its name, or node:session.
    session_id: Who,
}

impl Tool for Status {
    type Output = SessionInfo;
    const NAME: &'static str = "codewire_get_session_status";
    const TITLE: &'static str = "Show a session";
    const EFFECT: Effect = Effect::Reads;

    async fn call(self, turn: &Turn) -> Result<(String, SessionInfo)> {
        let (target, json) = (self.session_id.locator()?, false);
        match turn
            .ask(Call::GetStatus(verb::status::Status { target, json }))
            .await?
        {
            Reply::SessionStatus(status) => {
                let text = serde_json::to_string_pretty(&status.info).map_err(Error::internal)?;
                Ok((text, status.info))
            }
            other => Err(other.unexpected()),
        }
    }
}

/// End a session and everything it started, or all running sessions with one of some tags. Returns
/// when they have ended.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Kill {
    /// The session: its number, its name, or node:session.
    session_id: Option<Who>,
    /// Instead of a session: every running session with one of these tags.
    #[serde(default)]
    tags: Vec<String>,
    /// With tags: on this node; this machine if left out.
    node: Option<String>,
    /// Seconds between the polite signal and the last one; 10 if left out.
    grace_seconds: Option<u32>,
}

/// What was ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct Killed {
    /// How many sessions.
    count: u32,
}

impl Tool for Kill {
    type Output = Killed;
    const NAME: &'static str = "codewire_kill_session";
    const TITLE: &'static str = "End sessions";
    const EFFECT: Effect = Effect::Destroys;

    async fn call(self, turn: &Turn) -> Result<(String, Killed)> {
        let grace_seconds = self.grace_seconds;
        let call = match &self.session_id {
            Some(who) => Call::Kill(KillOne {
                target: who.locator()?,
                grace_seconds,
            }),
            None if self.tags.is_empty() => {
                return Err(Error::bad_request("either session_id or tags required"));
            }
            None => Call::KillByTags(KillByTags {
                node: self.node,
                tags: self.tags.clone(),
                grace_seconds,
            }),
        };
        match turn.ask(call).await? {
            Reply::Killed(killed) => {
                Ok((format!("Killed session {}", killed.id), Killed { count: 1 }))
            }
            Reply::KilledAll(killed) => {
                let tags = self.tags.join(" ");
                let text = format!("Killed {} session(s) matching tags [{tags}]", killed.count);
                Ok((
                    text,
                    Killed {
                        count: killed.count,
                    },
                ))
            }
            other => Err(other.unexpected()),
        }
    }
}
