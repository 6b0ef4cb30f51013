//! The local socket by hand: `[kind u8][length u32, big-endian][payload]`, kind 0 for one JSON
//! object, kind 1 for raw bytes of a terminal. Written here again, so that a slip in the program's
//! own reading of it shows.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::wait::PATIENCE;

/// A client of the local socket that knows only frames.
pub struct Wire {
    stream: UnixStream,
}

/// A frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A message.
    Control(Value),
    /// Bytes of a terminal.
    Data(Vec<u8>),
}

impl Wire {
    /// Connects.
    ///
    /// # Panics
    ///
    /// When nothing listens.
    #[track_caller]
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket)
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        for set in [
            stream.set_read_timeout(Some(PATIENCE)),
            stream.set_write_timeout(Some(PATIENCE)),
        ] {
            set.expect("a socket takes a limit");
        }
        Self { stream }
    }

    /// Sends a message.
    ///
    /// # Panics
    ///
    /// When the other end takes nothing more.
    #[track_caller]
    pub fn say(&mut self, message: &Value) {
        self.send(0, message.to_string().as_bytes());
    }

    /// Types.
    ///
    /// # Panics
    ///
    /// When the other end takes nothing more.
    #[track_caller]
    pub fn type_in(&mut self, bytes: &[u8]) {
        self.send(1, bytes);
    }

    /// Sends bytes that need not be a frame. Whether the other end takes them all is its affair.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The other half, to write by another thread.
    ///
    /// # Panics
    ///
    /// When there are no descriptors left.
    #[track_caller]
    #[must_use]
    pub fn writer(&self) -> UnixStream {
        self.stream.try_clone().expect("a socket can be shared")
    }

    /// The next frame, none at the end.
    ///
    /// # Panics
    ///
    /// When nothing comes within [`PATIENCE`], or something that is not a frame.
    #[track_caller]
    pub fn hear(&mut self) -> Option<Frame> {
        let mut head = [0; 5];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if is_end(&error) => return None,
            Err(error) => panic!("no frame: {error}"),
        }
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        assert!(length <= 16 << 20, "a frame of {length} bytes");
        let mut payload = vec![0; length];
        let read = self.stream.read_exact(&mut payload);
        assert!(
            read.is_ok(),
            "an end inside a frame of {length} bytes: {read:?}"
        );
        match kind {
            0 => {
                let message = serde_json::from_slice(&payload);
                Some(Frame::Control(
                    message.unwrap_or_else(|error| panic!("no JSON: {error}")),
                ))
            }
            1 => Some(Frame::Data(payload)),
            other => panic!("a frame of kind {other}"),
        }
    }

    /// The next frame, which has to be a message of this type.
    ///
    /// # Panics
    ///
    /// When it is another.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> Value {
        match self.hear() {
            Some(Frame::Control(message)) if message["type"] == kind => message,
            other => panic!("{kind} was due, there came {other:?}"),
        }
    }

    /// Says a message and returns the answer, which has to be of this type.
    ///
    /// # Panics
    ///
    /// When it is another.
    #[track_caller]
    pub fn ask(&mut self, message: &Value, kind: &str) -> Value {
        self.say(message);
        self.expect(kind)
    }

    /// Reads terminal bytes until `part` is among them.
    ///
    /// # Panics
    ///
    /// When something else comes before.
    #[track_caller]
    pub fn shows(&mut self, part: &str) -> String {
        let mut shown = Vec::new();
        loop {
            match self.hear() {
                Some(Frame::Data(bytes)) => shown.extend_from_slice(&bytes),
                other => panic!(
                    "{part:?} was due, there came {other:?} after {:?}",
                    String::from_utf8_lossy(&shown)
                ),
            }
            let text = String::from_utf8_lossy(&shown);
            if text.contains(part) {
                return text.into_owned();
            }
        }
    }

    /// Reads terminal bytes up to the next message.
    ///
    /// # Panics
    ///
    /// When the stream ends before.
    #[track_caller]
    pub fn rest(&mut self) -> (Vec<u8>, Value) {
        let mut shown = Vec::new();
        loop {
            match self.hear() {
                Some(Frame::Data(bytes)) => shown.extend_from_slice(&bytes),
                Some(Frame::Control(message)) => return (shown, message),
                None => panic!("an end without a word after {} bytes", shown.len()),
            }
        }
    }

    #[track_caller]
    fn send(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("tests send small frames");
        let mut frame = vec![kind];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        let sent = self.stream.write_all(&frame);
        assert!(sent.is_ok(), "nobody takes a frame: {sent:?}");
    }
}

/// Bytes that are nothing, the same ones each time.
#[must_use]
pub fn garbage(length: usize) -> Vec<u8> {
    // Xorshift, from a constant.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn is_end(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}
