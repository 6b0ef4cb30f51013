//! `cw logs <session>`: what a session has printed, with or without its colours, to its end with `-f`.
//!
//! Our own client asks for raw frames; for one that does not, the text comes in `LogData`.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::io::{Chunk, From, Reader};
use tokio::io::AsyncWriteExt;

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;
use crate::rpc::{Incoming, Sender};
use crate::term::Strip;

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
    /// The bytes as they were printed, with colours and cursor movements.
    #[arg(long)]
    #[serde(skip)]
    pub raw: bool,
    /// The same on the wire.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_ansi: Option<bool>,
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

impl Logs {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.strip_ansi = Some(!self.raw);
        self.frames = true;
        let mut channel = cli.open().await?;
        channel.sender.send(&Call::Logs(self)).await?;
        let mut out = tokio::io::stdout();
        loop {
            match channel.receiver.next::<Reply>().await? {
                Some(Incoming::Data(bytes)) => {
                    out.write_all(&bytes).await?;
                    out.flush().await?;
                }
                Some(Incoming::Control(Reply::LogData(data))) if data.done => return Ok(()),
                Some(Incoming::Control(other)) => return Err(other.unexpected()),
                None => return Err(Error::new("connection_lost", "connection lost")),
            }
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let info = super::find(context, &self.target.session)?;
        let from = match (self.offset, self.tail) {
            (Some(offset), _) => From::Offset(offset),
            (None, Some(lines)) => From::TailLines(lines as usize),
            (None, None) => From::Start,
        };
        let mut reader = context.host.sessions.reader(info.id, from)?;
        let strip = self.strip_ansi.unwrap_or(true).then(Strip::default);
        let mut pieces = Pieces {
            strip,
            frames: self.frames,
            partial: Vec::new(),
        };
        let mut next_offset = None;
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        if self.follow {
            // A client that goes away ends it; anything it says meanwhile is beside the point.
            tokio::select! {
                followed = pieces.follow(&mut reader, sender) => followed?,
                _ = receiver.next_frame() => return Err(Error::new("connection_lost", "the client is gone")),
            }
        } else {
            let end = info.output_end;
            next_offset = pieces.dump(&mut reader, end, self.limit, sender).await?;
        }
        Ok(Reply::LogData(LogData {
            data: pieces.rest(),
            done: true,
            next_offset,
        }))
    }
}

/// Turns chunks into the pieces that this client asked for.
struct Pieces {
    strip: Option<Strip>,
    frames: bool,
    /// The start of a character that the next chunk completes.
    partial: Vec<u8>,
}

impl Pieces {
    async fn follow(&mut self, reader: &mut Reader, sender: &mut Sender) -> Result<()> {
        loop {
            match reader.next().await? {
                Chunk::End { .. } => return Ok(()),
                chunk => self.send(chunk, sender).await?,
            }
        }
    }

    /// Everything up to `end`, the length at the time of the call, and not much more than `limit`
    /// bytes. Returns where to go on when that was not all.
    async fn dump(
        &mut self,
        reader: &mut Reader,
        end: u64,
        limit: Option<u64>,
        sender: &mut Sender,
    ) -> Result<Option<u64>> {
        let mut left = limit.unwrap_or(u64::MAX);
        while reader.offset() < end {
            match reader.next().await? {
                Chunk::End { .. } => break,
                Chunk::Bytes { offset, mut bytes } if bytes.len() as u64 > left => {
                    bytes.truncate(whole(&bytes, usize::try_from(left).unwrap_or(usize::MAX)));
                    let next = offset + bytes.len() as u64;
                    self.send(Chunk::Bytes { offset, bytes }, sender).await?;
                    return Ok(Some(next).filter(|next| *next < end));
                }
                chunk => {
                    if let Chunk::Bytes { bytes, .. } = &chunk {
                        left -= bytes.len() as u64;
                    }
                    self.send(chunk, sender).await?;
                }
            }
        }
        Ok(None)
    }

    async fn send(&mut self, chunk: Chunk, sender: &mut Sender) -> Result<()> {
        let bytes = match chunk {
            Chunk::Bytes { bytes, .. } => bytes.to_vec(),
            Chunk::Gap { resume_at } => {
                format!("\n[cw] output before byte {resume_at} is gone\n").into_bytes()
            }
            Chunk::End { .. } => return Ok(()),
        };
        let bytes = match &mut self.strip {
            Some(strip) => strip.feed(&bytes),
            None => bytes,
        };
        if bytes.is_empty() {
            return Ok(());
        }
        if self.frames {
            return sender.send_data(&bytes).await;
        }
        self.partial.extend_from_slice(&bytes);
        let data = take_text(&mut self.partial);
        let piece = LogData {
            data,
            ..LogData::default()
        };
        sender.send(&Reply::LogData(piece)).await
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned()
    }
}

/// How many of the first `most` bytes to take: up to the end of a line if there is one among them,
/// so that neither a character nor an escape sequence is cut; at least one.
fn whole(bytes: &[u8], most: usize) -> usize {
    let taken = bytes.get(..most).unwrap_or(bytes);
    let line = taken.iter().rposition(|byte| *byte == b'\n');
    line.map_or_else(|| taken.len().max(1), |at| at + 1)
}

/// Takes all whole characters; what may be the start of one more stays.
pub(super) fn take_text(bytes: &mut Vec<u8>) -> String {
    let keep = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.len() - error.valid_up_to(),
        // Broken in the middle: looking for a start of a character at the very end.
        _ => bytes
            .iter()
            .rev()
            .take(3)
            .position(|byte| byte & 0xc0 == 0xc0)
            .map_or(0, |at| {
                let tail = &bytes[bytes.len() - at - 1..];
                if std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none()) {
                    at + 1
                } else {
                    0
                }
            }),
    };
    let rest = bytes.split_off(bytes.len() - keep);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_cut_in_two() {
        let text = "aé€😀z".as_bytes();
        for cut in 0..=text.len() {
            let mut bytes = text[..cut].to_vec();
            let mut out = take_text(&mut bytes);
            bytes.extend_from_slice(&text[cut..]);
            out += &take_text(&mut bytes);
            assert_eq!(out, "aé€😀z", "{cut}");
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn what_is_not_text_passes_without_waiting() {
        let mut bytes = vec![b'a', 0xff, b'b', 0xc3];
        assert_eq!(take_text(&mut bytes), "a\u{fffd}b");
        assert_eq!(bytes, [0xc3]);
    }
}
