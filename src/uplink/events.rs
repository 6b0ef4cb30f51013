//! Server-sent events of the relay.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::http::Http;
use crate::error::{Error, Result};

/// Silence after which the stream is given up: the relay says something every 20 s.
const SILENCE: Duration = Duration::from_secs(50);

/// The longest event, bytes.
const MAX_EVENT: usize = 64 * 1024;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Where to go on from.
    pub(crate) id: u64,
    /// Its type.
    pub(crate) kind: String,
    /// What it says.
    pub(crate) data: Value,
}

/// A stream of them.
pub(crate) struct Stream {
    answer: reqwest::Response,
    lines: Lines,
}

impl Stream {
    /// Opens `path` with the header `Authorization`, after the event `cursor`.
    ///
    /// # Errors
    ///
    /// The relay's, `relay_unreachable`.
    pub(crate) async fn open(
        url: &str,
        path: &str,
        authorization: &str,
        cursor: Option<u64>,
    ) -> Result<Self> {
        let client = Http::streaming(url)?;
        let mut request = client
            .request(Method::GET, path)
            .header(http::header::AUTHORIZATION, authorization);
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor.to_string());
        }
        Ok(Self {
            answer: client.open(request).await?,
            lines: Lines::default(),
        })
    }

    /// The next event; `None` when the relay ends the stream.
    ///
    /// # Errors
    ///
    /// `relay_unreachable` when it breaks or falls silent.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>> {
        let broken = |why: String| Error::new("relay_unreachable", why);
        loop {
            if let Some(heard) = self.lines.take() {
                return Ok(Some(heard));
            }
            let chunk = tokio::time::timeout(SILENCE, self.answer.chunk()).await;
            let chunk = chunk.map_err(|_| broken("the relay is silent".to_owned()))?;
            match chunk.map_err(|error| broken(error.to_string()))? {
                Some(bytes) => self.lines.handle(&bytes)?,
                None => return Ok(None),
            }
        }
    }
}

/// Lines on their way to be events.
#[derive(Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    pub(crate) fn handle(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        // Many may come at once; the limit is for one that does not end.
        let ends = self.pending.windows(2).rposition(|two| two == b"\n\n");
        if self.pending.len() - ends.map_or(0, |end| end + 2) > MAX_EVENT {
            return Err(Error::new("relay_invalid", "an event is too long"));
        }
        Ok(())
    }

    /// The next whole event that has an id; comments and whatever else are left out.
    pub(crate) fn take(&mut self) -> Option<Heard> {
        loop {
            let end = self.pending.windows(2).position(|two| two == b"\n\n")?;
            let block: Vec<u8> = self.pending.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let field = |name: &str| {
                let mut lines = block.lines();
                let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
            };
            let heard = || {
                Some(Heard {
                    id: field("id")?.parse().ok()?,
                    kind: field("event")?,
                    data: serde_json::from_str(&field("data")?).ok()?,
                })
            };
            if let Some(heard) = heard() {
                return Some(heard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_are_not_one_too_long() {
        let text = "event: a\nid: 7\ndata: {\"x\":1}\n\n".repeat(3_000);
        let mut lines = Lines::default();
        lines.handle(text.as_bytes()).unwrap();
        assert_eq!(std::iter::from_fn(|| lines.take()).count(), 3_000);
    }

    #[test]
    fn events_come_in_any_pieces() {
        let text = b": keepalive\n\nevent: a.b\nid: 7\ndata: {\"x\":1}\n\nid: no\n\nid:8\nevent:c\ndata:{}\n\n";
        let mut lines = Lines::default();
        let mut heard = Vec::new();
        for byte in text {
            lines.handle(&[*byte]).unwrap();
            heard.extend(lines.take());
        }
        let got: Vec<_> = heard
            .iter()
            .map(|one| (one.id, one.kind.as_str()))
            .collect();
        assert_eq!(got, [(7, "a.b"), (8, "c")]);
        assert_eq!(heard[0].data["x"], 1);
        assert!(lines.handle(&vec![b'x'; MAX_EVENT + 1]).is_err());
    }
}
