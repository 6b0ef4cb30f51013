//! The client's half of `cw watch`: one session's bytes as they are, several sessions' lines
//! behind their names, or an object for each line.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use serde::Serialize;

use super::{Position, Watch, WatchUpdate};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::rpc::{Channel, Incoming};
use crate::show;
use crate::term::Strip;
use crate::verb::again::{Patience, until_done};
use crate::verb::logs::take_text;
use crate::verb::own::{own_session, shows_itself};
use crate::verb::{Call, Reply};

/// A line that is longer than this is shown in parts, in bytes.
const LINE_MAX: usize = 64 * 1024;

impl Watch {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        if self.select.is_all() {
            return Err(Error::new("usage", "say which session to watch")
                .hint("give its name, its number or a tag"));
        }
        let timeout = self.timeout;
        self.select = self.select.settle()?;
        self.include_history = Some(!self.no_history);
        self.frames = true;
        let mut view = View {
            raw: self.raw,
            json: self.json,
            bare: self.select.tags.is_empty(),
            colour: std::io::stdout().is_terminal(),
            own: own_session(cli)
                .filter(|_| self.select.node.is_none() && std::io::stdout().is_terminal()),
            seen: BTreeMap::new(),
        };
        let watched = until_done(cli, async |channel, patience| {
            view.round(cli, self.clone(), channel, patience).await
        });
        let Some(seconds) = timeout else {
            return watched.await;
        };
        match tokio::time::timeout(Duration::from_secs(seconds), watched).await {
            Ok(ended) => ended,
            Err(_) => {
                cli.note("\n[cw] watch timeout reached");
                Ok(())
            }
        }
    }
}

/// What is on the screen so far.
struct View {
    raw: bool,
    json: bool,
    /// One session, whose output is shown without a label.
    bare: bool,
    colour: bool,
    /// The session in whose terminal this is shown: what it prints is what is shown.
    own: Option<u32>,
    seen: BTreeMap<u32, Lines>,
}

/// The unfinished line of a session, and how far it was seen.
#[derive(Default)]
struct Lines {
    offset: u64,
    strip: Strip,
    line: Vec<u8>,
}

/// A line as an object.
#[derive(Serialize)]
struct Object<'a> {
    session_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    timestamp: String,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    Line { stream: &'static str, text: &'a str },
    Gap { gap_until: u64 },
    End { status: &'a str },
}

impl View {
    async fn round(
        &mut self,
        cli: &Cli,
        mut call: Watch,
        mut channel: Channel,
        patience: &mut Patience,
    ) -> Result<()> {
        call.resume = self
            .seen
            .iter()
            .map(|(&id, lines)| Position {
                id,
                offset: lines.offset,
            })
            .collect();
        channel.sender.send(&Call::WatchSession(call)).await?;
        // A session that prints nothing is no lost node.
        patience.may_be_silent();
        loop {
            match channel.receiver.next::<Reply>().await? {
                Some(Incoming::Control(Reply::WatchUpdate(update))) => {
                    patience.heard();
                    let done = update.done;
                    self.show(cli, update)?;
                    if done {
                        return Ok(());
                    }
                }
                Some(Incoming::Control(other)) => return Err(other.unexpected()),
                Some(Incoming::Data(_)) => {
                    return Err(Error::bad_request("raw bytes among updates"));
                }
                None => return Err(Error::new("connection_lost", "connection lost")),
            }
        }
    }

    fn show(&mut self, cli: &Cli, update: WatchUpdate) -> Result<()> {
        // A word may turn out to be a tag.
        if self.seen.keys().any(|&id| id != update.id) {
            self.bare = false;
        }
        if self.own == Some(update.id) {
            if self.bare {
                return Err(shows_itself());
            }
            return Ok(());
        }
        let first = !self.seen.contains_key(&update.id);
        let lines = self.seen.entry(update.id).or_default();
        lines.offset = lines.offset.max(update.offset);
        let bytes = update.data.as_ref().map(|data| data.0.as_slice());
        if self.bare && !self.json {
            if update.gap && !first {
                cli.note(&format!(
                    "[cw] output before byte {} is gone",
                    update.offset
                ));
            }
            if update.done {
                cli.note(&format!("[cw] session {}", update.status));
            }
            let bytes = bytes.unwrap_or_default();
            if self.raw {
                return cli.print_bytes(bytes);
            }
            let text = lines.text(bytes, update.done);
            return cli.print(&text);
        }
        let mut out = String::new();
        let mut finished = lines.cut(bytes.unwrap_or_default());
        let ended = update.status != "running";
        if ended && !lines.line.is_empty() {
            finished.push(std::mem::take(&mut lines.line));
        }
        for line in finished {
            let text = String::from_utf8_lossy(&line);
            let stream = "stdout";
            out += &self.row(
                &update,
                What::Line {
                    stream,
                    text: &text,
                },
            )?;
        }
        if update.gap && !first {
            let gap_until = update.offset;
            out += &self.row(&update, What::Gap { gap_until })?;
        }
        if ended {
            let status = &update.status;
            out += &self.row(&update, What::End { status })?;
        }
        cli.print(&out)
    }

    fn row(&self, update: &WatchUpdate, what: What<'_>) -> Result<String> {
        let name = update.name.as_deref();
        if self.json {
            let object = Object {
                session_id: update.id,
                name,
                timestamp: show::rfc3339(show::now_ms()),
                what,
            };
            let text = serde_json::to_string(&object).map_err(Error::internal)?;
            return Ok(text + "\n");
        }
        let label = name.map_or_else(|| update.id.to_string(), show::clean);
        let label = if self.colour {
            // Six colours that are readable on dark and light.
            format!("\x1b[{}m[{label}]\x1b[0m", 31 + update.id % 6)
        } else {
            format!("[{label}]")
        };
        Ok(match what {
            What::Line { text, .. } => format!("{label} {}\n", show::clean(text)),
            What::Gap { gap_until } => {
                format!("{label} [cw] output before byte {gap_until} is gone\n")
            }
            What::End { status } => format!("{label} [cw] session {status}\n"),
        })
    }
}

impl Lines {
    /// These bytes as text, as far as its characters are whole. What draws over a line stands
    /// below it.
    fn text(&mut self, bytes: &[u8], is_end: bool) -> String {
        self.line.extend(self.strip.feed(bytes));
        let text = if is_end {
            String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned()
        } else {
            take_text(&mut self.line)
        };
        show::clean(&text.replace('\r', "\n"))
    }

    /// The lines that these bytes finish, without their newlines.
    fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut finished = Vec::new();
        for byte in self.strip.feed(bytes) {
            if byte == b'\n' || self.line.len() >= LINE_MAX {
                finished.push(std::mem::take(&mut self.line));
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        let bytes = b"one\r\n\x1b[31mtwo\x1b[0m\nthree";
        for cut in 0..bytes.len() {
            let mut lines = Lines::default();
            let mut out = lines.cut(&bytes[..cut]);
            out.extend(lines.cut(&bytes[cut..]));
            assert_eq!(out, [b"one".to_vec(), b"two".to_vec()], "{cut}");
            assert_eq!(lines.line, b"three");
        }
    }

    #[test]
    fn a_line_without_end_is_shown_in_parts() {
        let mut lines = Lines::default();
        let out = lines.cut(&vec![b'x'; 3 * LINE_MAX]);
        assert_eq!(out.len(), 2);
        assert!(lines.line.len() <= LINE_MAX);
    }
}
