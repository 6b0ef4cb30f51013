//! `cw wait <session|tag>`: blocks until sessions end, fall silent, or print something.
//!
//! The exit status tells what happened: 0 when what was waited for came about, 8 when a session
//! failed (it ended with another status than 0, or without printing what was waited for), 124 when
//! the time was up. Waiting goes on over a restart of the node.

use std::time::Duration;

use clap::Args;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use session::io::{Chunk, From, Sessions};
use session::{Info, SessionRef};
use tokio::task::JoinSet;

use super::info::SessionInfo;
use super::select::Selection;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::node::Context;
use crate::rpc::{Channel, Incoming};
use crate::show;
use crate::term::Strip;
use crate::verb::again::{Patience, seconds_until, until_done};

/// The silence that counts as idle unless the caller says otherwise, in seconds.
const IDLE: u64 = 5;
/// The longest line that a pattern is looked for in, in bytes; of a longer one, its end.
const LINE_MAX: usize = 64 * 1024;
/// The memory that a pattern may take once compiled, in bytes.
const PATTERN_MAX: usize = 1024 * 1024;
/// How much of the end of the output is given as the result: 200 lines, 64 KiB.
const RESULT: (usize, usize) = (200, 64 * 1024);

/// Block until sessions end, fall silent or print something.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Wait {
    /// Which.
    #[command(flatten)]
    #[serde(flatten)]
    pub select: Selection,
    /// With several: wait for all of them, or for any one.
    #[arg(short, long, value_parser = ["all", "any"], default_value = "all")]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub condition: String,
    /// Wait no longer than this many seconds.
    #[arg(long, value_name = "SECONDS")]
    #[serde(
        rename = "timeout_seconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<u64>,
    /// What to wait for: exit, idle (nothing printed for a while), or output and a regular
    /// expression that a line has to match.
    #[arg(long, value_names = ["exit|idle|output", "REGEX"], num_args = 1..=2)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<String>,
    /// With --until idle: the silence that counts, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = IDLE)]
    #[serde(default = "idle_default")]
    pub idle_seconds: u64,
    /// With --until output: only what is printed from now on counts.
    #[arg(long)]
    #[serde(default)]
    pub new: bool,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

fn idle_default() -> u64 {
    IDLE
}

/// What to wait for.
#[derive(Clone, Debug)]
enum Until {
    Exit,
    Idle(Duration),
    Output { pattern: Regex, new: bool },
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct WaitResult {
    /// The sessions that are done, each with the end of its output in `last_output_snippet`.
    pub sessions: Vec<SessionInfo>,
    /// Those of them that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u32>,
}

/// How it went for one session.
struct Done {
    info: Info,
    failed: bool,
    /// The line that matched.
    line: Option<String>,
}

impl Wait {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.tidy()?;
        if self.select.is_all() {
            return Err(Error::new("usage", "say which session to wait for")
                .hint("give its name, its number or a tag"));
        }
        let (json, timeout) = (self.json, self.timeout);
        self.select = self.select.settle()?;
        let deadline =
            timeout.map(|seconds| std::time::Instant::now() + Duration::from_secs(seconds));
        let result = until_done(cli, async |channel, patience| {
            let mut call = self.clone();
            call.timeout = deadline.map(seconds_until);
            ask(call, channel, patience).await
        })
        .await?;
        if json {
            cli.print_json(&result.sessions)?;
        } else {
            result
                .sessions
                .iter()
                .try_for_each(|info| cli.print(&text(info)))?;
        }
        match result.failed.first() {
            None => Ok(()),
            Some(id) => Err(failed(&result, *id)),
        }
    }

    /// `--until idle 3` means session 3: the second word belongs to output alone.
    fn tidy(&mut self) -> Result<()> {
        let takes_two = self.until.first().is_some_and(|what| what == "output");
        if self.until.len() == 2 && !takes_two {
            if self.select.target.is_some() {
                return Err(Error::new(
                    "usage",
                    "--until exit and --until idle take no value",
                ));
            }
            self.select.target = self.until.pop().map(|word| word.parse()).transpose()?;
        }
        Ok(())
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        if self.select.is_all() {
            return Err(Error::bad_request("neither a session nor tags to wait for"));
        }
        let any = match self.condition.as_str() {
            "any" => true,
            "" | "all" => false,
            other => return Err(Error::bad_request(format!("unknown condition {other:?}"))),
        };
        let until = self.until()?;
        let sessions = context.host.sessions.clone();
        let mut waits = JoinSet::new();
        for info in self.select.select(context)?.some(context)? {
            waits.spawn(one(sessions.clone(), info, until.clone()));
        }
        // The client learns that its call was taken, and calls again if the node is lost now.
        if context.modern {
            context.channel.sender.send(&Reply::Waiting).await?;
        }
        let all = async {
            let mut done = Vec::new();
            while let Some(one) = waits.join_next().await {
                done.push(one.map_err(Error::internal)??);
                if any {
                    break;
                }
            }
            Ok::<_, Error>(done)
        };
        let limit = match self.timeout.unwrap_or(0) {
            0 => Duration::from_secs(365 * 24 * 60 * 60),
            seconds => Duration::from_secs(seconds),
        };
        let mut done = tokio::select! {
            done = tokio::time::timeout(limit, all) => done.map_err(|_| {
                Error::new("timeout", "wait timed out").hint("the sessions run on")
            })??,
            _ = context.channel.receiver.next_frame() => {
                return Err(Error::new("connection_lost", "the client is gone"));
            }
        };
        done.sort_by_key(|done| done.info.id);
        let failed = done
            .iter()
            .filter(|done| done.failed)
            .map(|done| done.info.id.0);
        Ok(Reply::WaitResult(WaitResult {
            failed: failed.collect(),
            sessions: done
                .into_iter()
                .map(|done| {
                    let mut info = SessionInfo::from(&done.info);
                    info.last_output_snippet = done.line.or_else(|| snippet(&sessions, &done.info));
                    info
                })
                .collect(),
        }))
    }

    fn until(&self) -> Result<Until> {
        let words: Vec<_> = self.until.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] | ["exit"] => Ok(Until::Exit),
            ["idle"] => Ok(Until::Idle(Duration::from_secs(
                self.idle_seconds.clamp(1, 86_400),
            ))),
            ["output", pattern] => regex::bytes::RegexBuilder::new(pattern)
                .size_limit(PATTERN_MAX)
                .build()
                .map(|pattern| Until::Output {
                    pattern,
                    new: self.new,
                })
                .map_err(|error| Error::new("usage", format!("not a regular expression: {error}"))),
            ["output"] => Err(Error::new(
                "usage",
                "--until output needs a regular expression",
            )),
            _ => Err(Error::new(
                "usage",
                format!("unknown condition {:?}", self.until.join(" ")),
            )
            .hint("--until exit, --until idle, or --until output <regex>")),
        }
    }
}

/// One try, until the node is lost.
async fn ask(call: Wait, mut channel: Channel, patience: &mut Patience) -> Result<WaitResult> {
    channel.sender.send(&Call::Wait(call)).await?;
    loop {
        match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(Reply::Waiting)) => patience.heard(),
            Some(Incoming::Control(Reply::WaitResult(result))) => return Ok(result),
            Some(Incoming::Control(other)) => return Err(other.unexpected()),
            Some(Incoming::Data(_)) => return Err(Error::bad_request("raw bytes as an answer")),
            None => return Err(Error::new("connection_lost", "connection lost")),
        }
    }
}

/// Waits for one session.
async fn one(sessions: Sessions, info: Info, until: Until) -> Result<Done> {
    let from = match &until {
        Until::Output { new: false, .. } => From::Start,
        _ => From::End,
    };
    let mut reader = sessions.reader(info.id, from)?;
    let mut lines = Lines::default();
    loop {
        let chunk = match &until {
            Until::Idle(silence) => {
                let heard = sessions.find(&SessionRef::Id(info.id))?;
                let since = heard.last_output_ms.unwrap_or(heard.created_ms);
                let left = silence
                    .saturating_sub(Duration::from_millis(show::now_ms().saturating_sub(since)));
                match tokio::time::timeout(left, reader.next()).await {
                    Ok(chunk) => chunk?,
                    Err(_) => return done(&sessions, &info, false, None),
                }
            }
            _ => reader.next().await?,
        };
        match (chunk, &until) {
            (Chunk::End { .. }, Until::Output { pattern, .. }) => {
                let line = lines.rest(pattern);
                return done(&sessions, &info, line.is_none(), line);
            }
            (Chunk::End { .. }, _) => return done(&sessions, &info, false, None),
            (Chunk::Bytes { bytes, .. }, Until::Output { pattern, .. }) => {
                if let Some(line) = lines.find(&bytes, pattern) {
                    return done(&sessions, &info, false, Some(line));
                }
            }
            _ => {}
        }
    }
}

fn done(sessions: &Sessions, info: &Info, missed: bool, line: Option<String>) -> Result<Done> {
    let info = sessions.find(&SessionRef::Id(info.id))?;
    let wire = SessionInfo::from(&info);
    // What was waited for came about, whatever came of the session afterwards.
    let bad_end = wire.status != "running" && wire.exit_code != Some(0) && line.is_none();
    Ok(Done {
        failed: missed || bad_end,
        info,
        line,
    })
}

/// The lines of a text that comes in pieces. A line counts as soon as it matches, finished or not:
/// a prompt has no newline.
#[derive(Default)]
struct Lines {
    strip: Strip,
    line: Vec<u8>,
}

impl Lines {
    fn find(&mut self, bytes: &[u8], pattern: &Regex) -> Option<String> {
        let text = self.strip.feed(bytes);
        let mut pieces = text.split_inclusive(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.line.extend_from_slice(piece);
            let whole = self.line.last() == Some(&b'\n');
            if whole || pieces.peek().is_none() {
                let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
                if pattern.is_match(line) {
                    return Some(String::from_utf8_lossy(line).into_owned());
                }
            }
            if whole {
                self.line.clear();
            } else if self.line.len() > LINE_MAX {
                let cut = self.line.len() - LINE_MAX;
                self.line.drain(..cut);
            }
        }
        None
    }

    fn rest(&mut self, pattern: &Regex) -> Option<String> {
        pattern
            .is_match(&self.line)
            .then(|| String::from_utf8_lossy(&self.line).into_owned())
    }
}

/// The end of a session's output as text.
pub(super) fn snippet(sessions: &Sessions, info: &Info) -> Option<String> {
    last_lines(sessions, info, RESULT.0)
}

/// At most this many of the last lines, and at most 64 KiB.
pub(super) fn last_lines(sessions: &Sessions, info: &Info, count: usize) -> Option<String> {
    let mut reader = sessions.reader(info.id, From::TailLines(count)).ok()?;
    if info.output_end.saturating_sub(reader.offset()) > 4 * RESULT.1 as u64 {
        reader = sessions
            .reader(info.id, From::TailBytes(4 * RESULT.1 as u64))
            .ok()?;
    }
    let (mut strip, mut text) = (Strip::default(), Vec::new());
    while reader.offset() < info.output_end {
        match reader.try_next() {
            Ok(Some(Chunk::Bytes { bytes, .. })) => text.extend(strip.feed(&bytes)),
            Ok(Some(Chunk::Gap { .. })) => {}
            _ => break,
        }
    }
    let cut = text.len().saturating_sub(RESULT.1);
    let text = String::from_utf8_lossy(&text[cut..]).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

/// `=== name (exit_code=0) ===` and the result.
fn text(info: &SessionInfo) -> String {
    let label = info
        .name
        .as_ref()
        .map_or_else(|| info.id.to_string(), |name| show::clean(name));
    let code = info
        .exit_code
        .map_or_else(|| "n/a".to_owned(), |code| code.to_string());
    let result = show::clean(info.last_output_snippet.as_deref().unwrap_or_default());
    format!("=== {label} (exit_code={code}) ===\n{result}\n\n")
}

fn failed(result: &WaitResult, id: u32) -> Error {
    let info = result.sessions.iter().find(|info| info.id == id);
    let status = info.map_or("failed", |info| info.status.as_str());
    let more = match result.failed.len() {
        1 => String::new(),
        count => format!(", and {} more failed", count - 1),
    };
    Error::new("session_failed", format!("session {id}: {status}{more}"))
        .hint(format!("see 'cw logs {id}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_whatever_the_pieces() {
        let pattern = Regex::new("^READY [0-9]+$").unwrap();
        let bytes = b"starting\r\n\x1b[1mREADY 42\x1b[0m\r\nmore\n";
        for cut in 0..bytes.len() {
            let mut lines = Lines::default();
            let found = lines
                .find(&bytes[..cut], &pattern)
                .or_else(|| lines.find(&bytes[cut..], &pattern));
            assert!(found.unwrap().starts_with("READY 4"), "{cut}");
        }
    }

    #[test]
    fn a_prompt_without_a_newline_counts() {
        let pattern = Regex::new("> $").unwrap();
        let mut lines = Lines::default();
        assert_eq!(
            lines.find(b"a\nwhat now> ", &pattern).unwrap(),
            "what now> "
        );
        assert_eq!(Lines::default().find(b"nothing\n", &pattern), None);
    }

    #[test]
    fn a_line_without_end_takes_little_memory() {
        let pattern = Regex::new("never").unwrap();
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.find(&vec![b'x'; LINE_MAX], &pattern);
        }
        assert!(lines.line.len() <= LINE_MAX);
    }
}
