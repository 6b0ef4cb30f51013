//! `cw logs <session>`: what a session has printed, with or without its colours, to its end with `-f`.
//!
//! Our own client asks for raw frames; for one that does not, the text comes in `LogData`.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::Info;
use session::io::{From, Played, Sessions};

use super::{Call, Reply};
use crate::cli::{Cli, not_printed};
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;
use crate::rpc::Incoming;
use crate::term::{Screen, Strip};

mod cast;
pub(crate) mod pieces;

pub(in crate::verb) use pieces::take_text;
use pieces::{Form, Pieces};

/// How much of the end of the output is looked through for the last lines of a full-screen program.
const PAINTED: u64 = 1024 * 1024;

/// Show what a session has printed, also after its end.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Logs {
    /// The session: its name or number, or node:session.
    #[serde(flatten)]
    pub target: Locator,
    /// Go on until the session ends.
    #[arg(short, long)]
    #[serde(default)]
    pub follow: bool,
    /// Only the last N lines.
    #[arg(short, long, value_name = "N")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Only what was printed since then: 90s, 10m, 2h, 1d ago, or a time as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "tail")]
    #[serde(skip)]
    pub since: Option<String>,
    /// The session as an asciicast, to be played by asciinema and others.
    #[arg(long, conflicts_with_all = ["follow", "tail", "since", "raw"])]
    #[serde(default)]
    pub asciicast: bool,
    /// The bytes as they were printed, with colours and cursor movements.
    #[arg(long)]
    #[serde(skip)]
    pub raw: bool,
    /// The same on the wire.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_ansi: Option<bool>,
    /// Text as it was seen, rather than as it was written.
    #[arg(skip)]
    #[serde(default)]
    pub transcript: bool,
    /// The time since when, in unix milliseconds.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Begin at this byte of the output.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The most bytes in all, about; the rest is for another call.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Answer with raw frames instead of text in JSON.
    #[arg(skip)]
    #[serde(default)]
    pub frames: bool,
}

/// The answer, or a piece of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct LogData {
    /// Text; what is not UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Whether nothing more comes.
    pub done: bool,
    /// Where to go on, when the limit was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
}

impl LogData {
    fn done() -> Self {
        Self {
            done: true,
            ..Self::default()
        }
    }
}

impl Logs {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        let since = self.since.as_deref();
        self.since_ms = since
            .map(|text| moment(text, crate::show::now_ms()))
            .transpose()?;
        self.strip_ansi = Some(!self.raw);
        self.transcript = !self.raw;
        self.frames = true;
        let mut channel = cli.open().await?;
        channel.sender.send(&Call::Logs(self)).await?;
        let mut out = Screen::new();
        loop {
            match channel.receiver.next::<Reply>().await? {
                Some(Incoming::Data(bytes)) => {
                    out.show(&bytes).await.map_err(not_printed)?;
                }
                Some(Incoming::Control(Reply::LogData(data))) if data.done => return Ok(()),
                Some(Incoming::Control(other)) => return Err(other.unexpected()),
                None => return Err(Error::new("connection_lost", "connection lost")),
            }
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let info = super::find(context, &self.target.session)?;
        let sessions = &context.host.sessions;
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        if self.asciicast {
            cast::send(sessions.recording(info.id)?, &info, sender).await?;
            return Ok(Reply::LogData(LogData::done()));
        }
        let mut pieces = Pieces {
            form: self.form(sessions, &info)?,
            frames: self.frames,
            partial: Vec::new(),
        };
        let mut next_offset = None;
        let whole = self.offset.is_none() && self.since_ms.is_none() && self.tail.is_none();
        let from = if whole && self.transcript && self.limit.is_none() {
            // The sizes that the terminal had are part of what was seen.
            let recording = sessions.recording(info.id)?;
            From::Offset(pieces.replay(recording, info.output_start, sender).await?)
        } else {
            self.from(sessions, &info).await?
        };
        let mut reader = sessions.reader(info.id, from)?;
        if !self.follow {
            let end = info.output_end;
            // Of the last lines the first go, not those at the end.
            let limit = self.limit.filter(|_| self.tail.is_none());
            next_offset = pieces.dump(&mut reader, end, limit, sender).await?;
        } else {
            if let Form::Transcript(_, Some(_)) = &pieces.form {
                // The last lines first; then whatever comes.
                pieces
                    .dump(&mut reader, info.output_end, None, sender)
                    .await?;
                pieces.release_tail(sender).await?;
            }
            // A client that goes away ends it; anything it says meanwhile is beside the point.
            tokio::select! {
                followed = pieces.follow(&mut reader, sender) => followed?,
                _ = receiver.next_frame() => return Err(Error::new("connection_lost", "the client is gone")),
            }
        }
        Ok(Reply::LogData(LogData {
            data: pieces.finish(sender).await?,
            next_offset,
            ..LogData::done()
        }))
    }

    fn form(&self, sessions: &Sessions, info: &Info) -> Result<Form> {
        Ok(if self.transcript {
            Form::transcript(sessions.recording(info.id)?.size(), self.tail, self.limit)
        } else if self.strip_ansi.unwrap_or(true) {
            Form::Strip(Strip::default())
        } else {
            Form::Raw
        })
    }

    /// Where to begin.
    async fn from(&self, sessions: &Sessions, info: &Info) -> Result<From> {
        if let Some(offset) = self.offset {
            return Ok(From::Offset(offset));
        }
        if let Some(since) = self.since_ms {
            return Ok(From::Offset(offset_at(sessions, info, since).await?));
        }
        let Some(lines) = self.tail else {
            return Ok(From::Start);
        };
        let by_lines = From::TailLines(lines as usize);
        if !self.transcript {
            return Ok(by_lines);
        }
        // What a full-screen program paints has few line feeds; what is plain has enough.
        let by_lines = sessions.reader(info.id, by_lines)?.offset();
        let by_bytes = sessions.reader(info.id, From::TailBytes(PAINTED))?.offset();
        Ok(From::Offset(by_lines.min(by_bytes)))
    }
}

/// The first byte that was printed at this time or later.
async fn offset_at(sessions: &Sessions, info: &Info, since_ms: u64) -> Result<u64> {
    let (mut recording, mut offset) = (sessions.recording(info.id)?, info.output_start);
    while let Some(played) = recording.next().await? {
        match played {
            Played::Output { at_ms, .. } if at_ms >= since_ms => break,
            Played::Output { bytes, .. } => offset += bytes.len() as u64,
            Played::Resize { .. } => {}
        }
    }
    Ok(offset)
}

/// A time as people say it: `90s`, `10m`, `2h`, `1d` ago, or RFC 3339 in UTC.
///
/// # Errors
///
/// `usage`.
fn moment(text: &str, now_ms: u64) -> Result<u64> {
    if let Some(at) = session::time::parse(text) {
        return Ok(at);
    }
    let units = [
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    units
        .iter()
        .find_map(|(unit, ms)| {
            let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(now_ms.saturating_sub(count.checked_mul(*ms)?))
        })
        .ok_or_else(|| {
            Error::new("usage", format!("{text:?} is no time"))
                .hint("write 90s, 10m, 2h, 1d, or 2026-01-31T12:00:00Z")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_say_them() {
        let now = 1_800_000_000_000;
        assert_eq!(moment("10m", now).unwrap(), now - 600_000);
        assert_eq!(moment("1970-01-01T00:00:01Z", now).unwrap(), 1000);
        assert_eq!(moment("99999999999999d", now).unwrap_err().code, "usage");
        for text in ["", "m", "-5m", "yesterday", "10"] {
            assert_eq!(moment(text, now).unwrap_err().code, "usage", "{text:?}");
        }
    }
}
