//! A client of the local socket that expects everything: it asks again, with the same call, when
//! the node is lost before it has answered.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::wait::within;

/// How long an answer may take. Longer than any of the node's own limits for these calls.
const ANSWER: Duration = Duration::from_secs(30);

/// The longest frame.
const FRAME: usize = 16 << 20;

/// How a call ended.
pub(super) enum End {
    /// The node has answered.
    Answer(Value),
    /// It has refused, with this code; and whether it was asked before, without an answer.
    Refused(String, bool),
    /// It was lost, again and again.
    Lost(String),
}

/// See the module.
pub(super) struct Client {
    socket: PathBuf,
    stream: Option<UnixStream>,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            stream: None,
        }
    }

    /// Asks until there is an answer, at most for so long.
    pub(super) fn call(&mut self, call: &Value, limit: Duration) -> End {
        let mut again = false;
        let answered = within(limit, || {
            let answer = self.ask(call).map_err(|error| {
                again = true;
                self.stream = None;
                error.to_string()
            })?;
            if answer["type"] != "Error" {
                return Ok(End::Answer(answer));
            }
            let code = answer["code"].as_str().unwrap_or_default();
            if is_lost(code) {
                again = true;
                return Err(answer.to_string());
            }
            Ok(End::Refused(code.to_owned(), again))
        });
        answered.unwrap_or_else(End::Lost)
    }

    /// Asks once.
    fn ask(&mut self, call: &Value) -> io::Result<Value> {
        let stream = self.open()?;
        send(stream, call)?;
        receive(stream)
    }

    /// The connection, made if there is none.
    pub(super) fn open(&mut self) -> io::Result<&mut UnixStream> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = UnixStream::connect(&self.socket)?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_write_timeout(Some(ANSWER))?;
                stream
            }
        };
        Ok(self.stream.insert(stream))
    }
}

/// Sends a message.
pub(super) fn send(stream: &mut UnixStream, message: &Value) -> io::Result<()> {
    let payload = message.to_string();
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload.as_bytes());
    stream.write_all(&frame)
}

/// Receives one.
pub(super) fn receive(stream: &mut UnixStream) -> io::Result<Value> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if kind != 0 || length > FRAME {
        return Err(io::Error::other(format!(
            "a frame of kind {kind} and {length} bytes"
        )));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    serde_json::from_slice(&payload).map_err(io::Error::other)
}

/// As the program itself sees it.
fn is_lost(code: &str) -> bool {
    matches!(
        code,
        "connection_lost" | "node_down" | "node_unreachable" | "node_restarting" | "shutting_down"
    )
}
