//! Somebody who listens to all messages of a node, and goes on where it was when the node is lost.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{receive, send};
use super::traffic::{lock, text};
use crate::history::Heard;

/// How long nothing may come before it is looked whether more is wanted.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Default)]
pub(super) struct Listener {
    begun: AtomicBool,
    since: AtomicU64,
    last: AtomicU64,
    over: AtomicBool,
    heard: Mutex<Vec<Heard>>,
}

impl Listener {
    /// Listens until it is told to stop.
    pub(super) fn listen(&self, socket: &Path, rest: impl Fn()) {
        while !self.over.load(Ordering::SeqCst) {
            // A node that is lost is asked again, from where it was.
            let _ = self.once(socket);
            rest();
        }
    }

    fn once(&self, socket: &Path) -> io::Result<()> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LOOK))?;
        let begun = self.begun.load(Ordering::SeqCst);
        let since = begun.then(|| self.last.load(Ordering::SeqCst));
        send(&mut stream, &json!({"type": "MsgListen", "since": since}))?;
        // An answer that takes longer than a look is asked for again.
        let ack = receive(&mut stream)?;
        if ack["type"] != "MsgListenAck" {
            return Err(io::Error::other(ack.to_string()));
        }
        if !begun {
            let cursor = ack["cursor"].as_u64().unwrap_or_default();
            self.since.store(cursor, Ordering::SeqCst);
            self.last.store(cursor, Ordering::SeqCst);
            self.begun.store(true, Ordering::SeqCst);
        }
        while !self.over.load(Ordering::SeqCst) {
            if !waits(&stream)? {
                continue;
            }
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            let event = receive(&mut stream)?;
            stream.set_read_timeout(Some(LOOK))?;
            self.note(&event);
        }
        Ok(())
    }

    fn note(&self, said: &Value) {
        let heard = match said["type"].as_str() {
            Some("EventGap") => Heard::Gap {
                from: said["from"].as_u64().unwrap_or_default(),
                to: said["to"].as_u64().unwrap_or_default(),
            },
            _ => Heard::Message {
                cursor: said["event"]["cursor"].as_u64().unwrap_or_default(),
                session: said["session_id"]
                    .as_u64()
                    .and_then(|id| u32::try_from(id).ok())
                    .unwrap_or_default(),
                id: text(&said["event"]["data"]["message_id"]),
            },
        };
        let (Heard::Message { cursor, .. } | Heard::Gap { to: cursor, .. }) = heard;
        lock(&self.heard).push(heard);
        self.last.store(cursor, Ordering::SeqCst);
    }

    /// Whether it has heard where to begin.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Where it began.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::SeqCst)
    }

    /// The last cursor that it was told.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    /// It need not listen any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        lock(&self.heard).clone()
    }
}

/// Whether a byte is there, without taking it; false when none has come for a while.
fn waits(stream: &UnixStream) -> io::Result<bool> {
    let mut byte = [0];
    match rustix::net::recv(stream, &mut byte, rustix::net::RecvFlags::PEEK) {
        Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
