//! A typed channel: control messages and raw bytes over any stream, in both directions.
//!
//! Both directions are safe to cancel. Bytes that have come stay in the receiver's buffer. A frame
//! whose sending was given up halfway stays in the sender's, and its rest goes out in front of the
//! next one: the other end never sees a torn frame.

use std::os::fd::{BorrowedFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::codec::{Coding, Wire};
use super::descriptors::{self, Arrived};
use super::frame::{self, Frame, Kind};
use crate::error::{Error, Result};

/// The least and the most bytes that are made room for before a read.
const ROOM: (usize, usize) = (512, 64 * 1024);

/// What came in.
#[derive(Debug)]
pub enum Incoming<T> {
    /// A control message.
    Control(T),
    /// Raw terminal bytes.
    Data(Bytes),
}

/// Both directions of a stream.
pub struct Channel {
    /// What the other end says.
    pub receiver: Receiver,
    /// What we say.
    pub sender: Sender,
}

/// The reading half.
pub struct Receiver {
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    buffer: BytesMut,
    /// Bytes of room for the next read: more for an end that says much at once.
    room: usize,
    coding: Coding,
    /// Descriptors that came with frames; only on a Unix socket.
    arrived: Option<Arrived>,
}

/// The writing half.
pub struct Sender {
    writer: Writer,
    /// What is still to be written: what was put off, and at most one frame more than the stream
    /// took.
    out: BytesMut,
    coding: Coding,
}

/// Where frames go.
enum Writer {
    /// Descriptors can go with them.
    Socket(OwnedWriteHalf),
    Stream(Box<dyn AsyncWrite + Send + Sync + Unpin>),
}

impl Writer {
    fn stream(&mut self) -> &mut (dyn AsyncWrite + Send + Sync + Unpin) {
        match self {
            Self::Socket(socket) => socket,
            Self::Stream(stream) => stream,
        }
    }
}

impl Channel {
    /// A channel over a Unix socket, in JSON; descriptors can go with its frames.
    pub fn local(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (reader, arrived) = descriptors::Reader::new(reader);
        let mut channel = Self::new(reader, tokio::io::empty(), Coding::Json);
        channel.receiver.arrived = Some(arrived);
        channel.sender.writer = Writer::Socket(writer);
        channel
    }

    /// A channel over two halves of a stream.
    pub fn new(
        reader: impl AsyncRead + Send + Sync + Unpin + 'static,
        writer: impl AsyncWrite + Send + Sync + Unpin + 'static,
        coding: Coding,
    ) -> Self {
        Self {
            receiver: Receiver {
                reader: Box::new(reader),
                buffer: BytesMut::new(),
                room: ROOM.0,
                coding,
                arrived: None,
            },
            sender: Sender {
                writer: Writer::Stream(Box::new(writer)),
                out: BytesMut::new(),
                coding,
            },
        }
    }

    /// Sends one message and waits for one answer.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`] and [`Receiver::next`]; `connection_lost` when the other end closes;
    /// `version` for an answer that nobody here knows.
    pub async fn call<Q: Wire, A: Wire>(&mut self, question: &Q) -> Result<A> {
        self.sender.send(question).await?;
        self.answer().await
    }

    /// Waits for the answer to what was asked.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn answer<A: Wire>(&mut self) -> Result<A> {
        match self.receiver.next_frame().await? {
            Some(frame) => self.understand(frame),
            None => Err(lost()),
        }
    }

    /// Reads a frame as the answer to what was asked.
    ///
    /// # Errors
    ///
    /// `bad_request` for raw bytes, `version` for an answer that nobody here knows.
    pub fn understand<A: Wire>(&self, frame: Frame) -> Result<A> {
        match self.receiver.interpret(frame) {
            Ok(Incoming::Control(answer)) => Ok(answer),
            Ok(Incoming::Data(_)) => Err(Error::bad_request("raw bytes where an answer was due")),
            Err(error) => Err(Error::new(
                "version",
                format!("the node answers what this program does not understand: {error}"),
            )
            .hint("one of them is older: 'cw node restart' makes the node run this program")),
        }
    }
}

impl Receiver {
    /// The next frame, if all of it has come and been read already.
    ///
    /// # Errors
    ///
    /// `bad_request` and `frame_too_large` for what is not a frame.
    pub fn frame_at_hand(&mut self) -> Result<Option<Frame>> {
        frame::decode(&mut self.buffer)
    }

    /// The next frame as it is, or none at the end of the stream.
    ///
    /// # Errors
    ///
    /// `bad_request` and `frame_too_large` for what is not a frame, `connection_lost` for an end
    /// inside one.
    pub async fn next_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = frame::decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(self.room);
            let free = self.buffer.capacity() - self.buffer.len();
            let read = self.reader.read_buf(&mut self.buffer).await;
            let read = read.map_err(|_| lost())?;
            if read == free {
                self.room = (self.room * 2).min(ROOM.1);
            }
            if read == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(lost())
                };
            }
        }
    }

    /// The next control message or piece of raw bytes, or none at the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`Self::next_frame`]; `bad_request` for a control frame of another kind or coding.
    pub async fn next<T: Wire>(&mut self) -> Result<Option<Incoming<T>>> {
        let Some(frame) = self.next_frame().await? else {
            return Ok(None);
        };
        self.interpret(frame).map(Some)
    }

    /// Whether descriptors can come with frames.
    #[must_use]
    pub const fn takes_descriptors(&self) -> bool {
        self.arrived.is_some()
    }

    /// The descriptors that have come, at most three; each is given once.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        let arrived = self.arrived.as_ref();
        arrived.map_or_else(Vec::new, |arrived| std::mem::take(&mut *arrived.lock()))
    }

    /// Reads a frame as what this stream carries.
    ///
    /// # Errors
    ///
    /// `bad_request` for a control frame of another kind or coding.
    pub fn interpret<T: Wire>(&self, frame: Frame) -> Result<Incoming<T>> {
        match frame.kind {
            Kind::Data => Ok(Incoming::Data(frame.payload)),
            kind if kind == self.coding.kind() => {
                self.coding.decode(&frame.payload).map(Incoming::Control)
            }
            kind => Err(Error::bad_request(format!(
                "a control frame in the wrong coding ({kind:?})"
            ))),
        }
    }
}

impl Sender {
    /// Sends a control message.
    ///
    /// # Errors
    ///
    /// `frame_too_large`, or `connection_lost` when the other end is gone.
    pub async fn send<T: Wire>(&mut self, message: &T) -> Result<()> {
        let payload = self.coding.encode(message)?;
        self.write(self.coding.kind(), &payload).await
    }

    /// Puts a control message behind what is to be sent; [`Self::flush`] sends it, and so does
    /// whatever is sent next.
    ///
    /// # Errors
    ///
    /// `frame_too_large`.
    pub fn put_off<T: Wire>(&mut self, message: &T) -> Result<()> {
        let payload = self.coding.encode(message)?;
        self.append(self.coding.kind(), &payload)
    }

    /// Sends raw bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_data(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(Kind::Data, bytes).await
    }

    /// Sends a control message with descriptors, at most three.
    ///
    /// # Errors
    ///
    /// `connection_lost` when the other end is gone, or is no Unix socket.
    pub async fn send_with<T: Wire>(&mut self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.flush().await?;
        let Writer::Socket(socket) = &self.writer else {
            return Err(lost());
        };
        let payload = self.coding.encode(message)?;
        let mut frame = frame::header(self.coding.kind(), payload.len())?.to_vec();
        frame.extend_from_slice(&payload);
        let stream: &UnixStream = socket.as_ref();
        let sending = stream.async_io(tokio::io::Interest::WRITABLE, || {
            descriptors::send(stream, &frame, fds)
        });
        sending.await.map_err(|_| lost())
    }

    /// Says that nothing more comes.
    pub async fn finish(&mut self) {
        // The other end may be gone already, which is as finished as it gets.
        let _ = self.writer.stream().shutdown().await;
    }

    async fn write(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        self.append(kind, payload)?;
        self.flush().await
    }

    fn append(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        self.out
            .extend_from_slice(&frame::header(kind, payload.len())?);
        self.out.extend_from_slice(payload);
        Ok(())
    }

    /// Sends what was put off.
    ///
    /// # Errors
    ///
    /// `connection_lost` when the other end is gone.
    pub async fn flush(&mut self) -> Result<()> {
        let writer = &mut self.writer.stream();
        while !self.out.is_empty() {
            writer.write_buf(&mut self.out).await.map_err(|_| lost())?;
        }
        writer.flush().await.map_err(|_| lost())
    }
}

fn lost() -> Error {
    Error::new("connection_lost", "connection lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(coding: Coding) -> (Channel, Channel) {
        let (a, b) = tokio::io::duplex(1 << 20);
        let (ar, aw) = tokio::io::split(a);
        let (br, bw) = tokio::io::split(b);
        (Channel::new(ar, aw, coding), Channel::new(br, bw, coding))
    }

    #[tokio::test]
    async fn messages_and_bytes_keep_their_order() {
        for coding in [Coding::Json, Coding::Binary] {
            let (mut here, mut there) = pair(coding);
            here.sender.send(&"hello".to_owned()).await.unwrap();
            here.sender.send_data(b"\x1b[0m").await.unwrap();
            here.sender.finish().await;
            assert!(
                matches!(there.receiver.next::<String>().await.unwrap(), Some(Incoming::Control(s)) if s == "hello")
            );
            assert!(
                matches!(there.receiver.next::<String>().await.unwrap(), Some(Incoming::Data(b)) if &b[..] == b"\x1b[0m")
            );
            assert!(there.receiver.next::<String>().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_send_that_was_given_up_tears_no_frame() {
        let (here, there) = tokio::io::duplex(16);
        let (reader, writer) = tokio::io::split(here);
        let mut near = Channel::new(reader, writer, Coding::Json);
        let (reader, writer) = tokio::io::split(there);
        let mut far = Channel::new(reader, writer, Coding::Json);
        // The stream takes 16 bytes; the rest of the frame has to wait, and is not waited for.
        let sent = near.sender.send_data(&[7; 100]);
        tokio::select! {
            biased;
            _ = sent => panic!("nobody reads yet"),
            () = std::future::ready(()) => {}
        }
        let next = "next".to_owned();
        let (sent, got) = tokio::join!(near.sender.send(&next), async {
            let first = far.receiver.next::<String>().await.unwrap();
            (first, far.receiver.next::<String>().await.unwrap())
        });
        sent.unwrap();
        assert!(matches!(got.0, Some(Incoming::Data(bytes)) if bytes.len() == 100));
        assert!(matches!(got.1, Some(Incoming::Control(text)) if text == "next"));
    }

    #[tokio::test]
    async fn descriptors_come_with_their_frame_and_no_more_than_three_wait() {
        use std::io::{Read, Write};
        use std::os::fd::AsFd;

        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Channel::local(near), Channel::local(far));
        let (mut reader, writer) = std::io::pipe().unwrap();
        let word = "word".to_owned();
        for _ in 0..2 {
            let fds = [writer.as_fd(), writer.as_fd()];
            near.sender.send_with(&word, &fds).await.unwrap();
            let got = far.receiver.next::<String>().await.unwrap();
            assert!(matches!(got, Some(Incoming::Control(text)) if text == word));
        }
        drop(writer);
        let fds = far.receiver.take_descriptors();
        assert_eq!(fds.len(), 3);
        assert!(far.receiver.take_descriptors().is_empty());
        std::fs::File::from(fds.into_iter().next().unwrap())
            .write_all(b"said")
            .unwrap();
        // All the others are closed, else this would not end.
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "said");
    }

    #[tokio::test]
    async fn u14_an_end_inside_a_frame_is_an_error() {
        let whole = [1, 0, 0, 0, 9, 1, 2];
        for cut in 0..=whole.len() {
            let (mut here, there) = tokio::io::duplex(64);
            here.write_all(&whole[..cut]).await.unwrap();
            drop(here);
            let (reader, writer) = tokio::io::split(there);
            let mut channel = Channel::new(reader, writer, Coding::Json);
            let end = channel.receiver.next::<String>().await;
            let end = end.map(|next| next.is_none()).map_err(|error| error.code);
            let lost = Err("connection_lost".to_owned());
            assert_eq!(end, if cut == 0 { Ok(true) } else { lost }, "{cut}");
        }
    }
}
