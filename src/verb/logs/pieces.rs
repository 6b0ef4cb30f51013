//! Chunks of output turned into what a client asked for: the bytes themselves, text without escape
//! sequences, or a transcript, which is what a human saw.

use std::collections::VecDeque;
use std::time::Duration;

use session::Size;
use session::io::{Chunk, Played, Reader, Recording};
use session::screen::Transcript;

use super::LogData;
use crate::error::Result;
use crate::rpc::Sender;
use crate::term::Strip;
use crate::verb::Reply;

/// After this long without output, a full-screen program is taken to have painted what it wanted.
const SETTLED: Duration = Duration::from_millis(500);
/// The most lines that a transcript's end is asked for; one more is not kept.
const TAIL_MAX: usize = 100_000;

/// The most bytes that they have.
const TAIL_ROOM: u64 = 16 * 1024 * 1024;

/// Turns chunks into pieces and sends them.
pub(super) struct Pieces {
    pub(super) form: Form,
    pub(super) frames: bool,
    /// The start of a character that the next piece completes.
    pub(super) partial: Vec<u8>,
}

/// What is made of output.
pub(crate) enum Form {
    /// Nothing.
    Raw,
    /// Text, line by line as it was written.
    Strip(Strip),
    /// Text as it was seen; with a number, only so many of the last lines.
    Transcript(Box<Transcript>, Option<Tail>),
}

/// The last lines so far.
pub(crate) struct Tail {
    most: usize,
    /// Bytes that they may have; of more, the first go.
    room: u64,
    bytes: u64,
    lines: VecDeque<String>,
}

impl Form {
    /// Text as it was seen on a terminal of this size.
    pub(crate) fn transcript(size: Size, tail: Option<u32>, room: Option<u64>) -> Self {
        let tail = tail.map(|most| Tail {
            most: (most as usize).min(TAIL_MAX),
            room: room.unwrap_or(TAIL_ROOM).min(TAIL_ROOM),
            bytes: 0,
            lines: VecDeque::new(),
        });
        Self::Transcript(Box::new(Transcript::new(size)), tail)
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Raw => bytes.to_vec(),
            Self::Strip(strip) => strip.feed(bytes),
            Self::Transcript(transcript, tail) => keep(transcript.feed(bytes), tail.as_mut()),
        }
    }

    fn resize(&mut self, size: Size) -> Vec<u8> {
        match self {
            Self::Raw | Self::Strip(_) => Vec::new(),
            Self::Transcript(transcript, tail) => keep(transcript.resize(size), tail.as_mut()),
        }
    }

    fn settle(&mut self) -> Vec<u8> {
        match self {
            Self::Raw | Self::Strip(_) => Vec::new(),
            Self::Transcript(transcript, tail) => keep(transcript.settle(), tail.as_mut()),
        }
    }

    /// What was kept back, when nothing more comes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let Self::Transcript(transcript, tail) = std::mem::replace(self, Self::Raw) else {
            return Vec::new();
        };
        let mut last = keep(transcript.finish(), None);
        let Some(mut tail) = tail else { return last };
        tail.push(
            String::from_utf8_lossy(&last)
                .lines()
                .map(str::to_owned)
                .collect(),
        );
        last.clear();
        for line in tail.lines {
            last.extend_from_slice(line.as_bytes());
            last.push(b'\n');
        }
        last
    }
}

/// The lines as bytes, or put by for the end. What the terminal has taken for characters and what
/// another would act upon stays out: a log is read on other terminals.
fn keep(lines: Vec<String>, tail: Option<&mut Tail>) -> Vec<u8> {
    let mut lines = lines;
    for line in &mut lines {
        // Most lines are plain, and there may be millions.
        if !line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            *line = session::harmless(line);
        }
    }
    match tail {
        Some(tail) => {
            tail.push(lines);
            Vec::new()
        }
        None => lines
            .into_iter()
            .flat_map(|line| (line + "\n").into_bytes())
            .collect(),
    }
}

impl Tail {
    fn push(&mut self, lines: Vec<String>) {
        for line in lines {
            self.bytes += line.len() as u64 + 1;
            self.lines.push_back(line);
            while self.lines.len() > self.most || self.bytes > self.room {
                let Some(first) = self.lines.pop_front() else {
                    return;
                };
                self.bytes -= first.len() as u64 + 1;
            }
        }
    }
}

impl Pieces {
    /// Everything, until the session ends.
    pub(super) async fn follow(&mut self, reader: &mut Reader, sender: &mut Sender) -> Result<()> {
        loop {
            let chunk = match tokio::time::timeout(SETTLED, reader.next()).await {
                Ok(chunk) => chunk?,
                Err(_) => {
                    let settled = self.form.settle();
                    self.put(settled, sender).await?;
                    reader.next().await?
                }
            };
            match chunk {
                Chunk::End { .. } => return Ok(()),
                chunk => self.send(chunk, sender).await?,
            }
        }
    }

    /// A recording to its end, with the sizes that the terminal had. Returns where it ends.
    pub(super) async fn replay(
        &mut self,
        mut recording: Recording,
        mut offset: u64,
        sender: &mut Sender,
    ) -> Result<u64> {
        while let Some(played) = recording.next().await? {
            let text = match played {
                Played::Output { bytes, .. } => {
                    offset += bytes.len() as u64;
                    self.form.feed(&bytes)
                }
                Played::Resize { size, .. } => self.form.resize(size),
            };
            self.put(text, sender).await?;
        }
        Ok(offset)
    }

    /// Everything up to `end`, the length at the time of the call, and not much more than `limit`
    /// bytes. Returns where to go on when that was not all.
    pub(super) async fn dump(
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
        let text = match chunk {
            Chunk::Bytes { bytes, .. } => self.form.feed(&bytes),
            Chunk::Gap { resume_at } => {
                let gap = format!("\n[cw] output before byte {resume_at} is gone\n");
                self.form.feed(gap.as_bytes())
            }
            Chunk::End { .. } => return Ok(()),
        };
        self.put(text, sender).await
    }

    /// Sends text, or bytes, if there is any.
    pub(super) async fn put(&mut self, bytes: Vec<u8>, sender: &mut Sender) -> Result<()> {
        // A whole transcript may be longer than a frame.
        for bytes in bytes.chunks(1024 * 1024) {
            if self.frames {
                sender.send_data(bytes).await?;
                continue;
            }
            self.partial.extend_from_slice(bytes);
            let piece = LogData {
                data: take_text(&mut self.partial),
                ..LogData::default()
            };
            sender.send(&Reply::LogData(piece)).await?;
        }
        Ok(())
    }

    /// Sends the last lines so far, and from now on every line.
    pub(super) async fn release_tail(&mut self, sender: &mut Sender) -> Result<()> {
        let Form::Transcript(transcript, tail) = &mut self.form else {
            return Ok(());
        };
        let Some(mut tail) = tail.take() else {
            return Ok(());
        };
        tail.push(transcript.settle());
        let lines = keep(tail.lines.into(), None);
        self.put(lines, sender).await
    }

    /// Sends what was kept back; what is left of a character is for the last answer.
    pub(super) async fn finish(&mut self, sender: &mut Sender) -> Result<String> {
        let rest = self.form.finish();
        self.put(rest, sender).await?;
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned())
    }
}

/// How many of the first `most` bytes to take: up to the end of a line if there is one among them,
/// so that neither a character nor an escape sequence is cut; at least one.
pub(crate) fn whole(bytes: &[u8], most: usize) -> usize {
    let taken = bytes.get(..most).unwrap_or(bytes);
    let line = taken.iter().rposition(|byte| *byte == b'\n');
    line.map_or_else(|| taken.len().max(1), |at| at + 1)
}

/// Takes all whole characters; what may be the start of one more stays.
pub(crate) fn take_text(bytes: &mut Vec<u8>) -> String {
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
