//! One connection of the relay: moves bytes between it and the router.
//!
//! The task reads, routes all that a read brought under one lock, and writes
//! what others have queued for its client, many frames in one write. Reading
//! stops while a frame waits for room in the queue of its destination, and while
//! the client has sent more than it may.
//!
//! A client that sends or is sent much keeps its task busy for milliseconds, and
//! whoever's turn comes after it waits as long. So a task lets the others go
//! first whenever it has moved [`TURN`] bytes.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::input::Input;
use super::server::Registered;
use super::{STEP_TIMEOUT, WRITE_TIMEOUT};
use crate::Error;
use crate::pace::Pace;
use crate::router::{Outcome, Transmit};

/// Bytes that a connection moves before the others have their turn: some ten
/// microseconds' worth, a hundred times what giving it up costs.
const TURN: usize = 16 << 10;

/// One connection past its handshake.
pub(super) struct Driver<'a, S> {
    client: &'a Registered,
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    input: Input,
    /// What is being written, and how much of it is.
    chunk: Vec<u8>,
    written: usize,
    /// The last one, which has been written.
    used: Vec<u8>,
    /// Written, but perhaps not on its way.
    unflushed: bool,
    /// There may be something to write.
    ask: bool,
    /// Bytes read and written since the others had their turn.
    moved: usize,
    /// Somebody wants something of this connection, perhaps its end.
    woken: bool,
    /// Until when the first frame of the input waits for room.
    blocked: Option<Instant>,
    /// How much it may send, if that is bounded, and until when nothing is read
    /// because it has sent that.
    pace: Option<Pace>,
    paused: Option<Instant>,
    /// When the client must have taken something of what is being written.
    write_by: Instant,
    keep_alive_at: Instant,
}

impl<'a, S: AsyncRead + AsyncWrite> Driver<'a, S> {
    pub(super) fn new(
        client: &'a Registered,
        reader: ReadHalf<S>,
        writer: WriteHalf<S>,
        input: Input,
        reply: Vec<u8>,
    ) -> Self {
        let now = Instant::now();
        Self {
            client,
            reader,
            writer,
            input,
            chunk: reply,
            written: 0,
            used: Vec::new(),
            unflushed: false,
            ask: true,
            moved: 0,
            woken: true,
            blocked: None,
            pace: None,
            paused: None,
            write_by: now + STEP_TIMEOUT,
            keep_alive_at: now,
        }
    }

    /// Bounds what the client may send.
    pub(super) fn paced(mut self, pace: Option<Pace>) -> Self {
        self.pace = pace;
        self
    }

    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut timer = Box::pin(sleep_until(self.keep_alive_at));
        loop {
            self.route()?;
            if self.moved >= TURN {
                self.moved = 0;
                tokio::task::yield_now().await;
            }
            self.set(&mut timer);
            let writing = self.is_writing();
            tokio::select! {
                () = self.client.notify.notified() => {
                    self.ask = true;
                    self.woken = true;
                    self.blocked = None;
                }
                written = write(&mut self.writer, &self.chunk[self.written..]), if writing => {
                    self.wrote(&written?)?;
                }
                read = self.input.read(&mut self.reader), if self.is_reading() => {
                    match read {
                        Err(Error::Closed(_)) => return Ok(()),
                        other => self.heard(other?),
                    }
                }
                () = &mut timer => self.handle_timeout()?,
            }
        }
    }

    /// Routes what was read and takes the next chunk to write, as far as
    /// either is possible.
    fn route(&mut self) -> Result<(), Error> {
        let fetch = self.ask && self.chunk.is_empty();
        let pending = self.blocked.is_none() && self.input.peek()?.is_some();
        if !fetch && !pending && !self.woken {
            return Ok(());
        }
        self.woken = false;
        let Registered { server, id, .. } = self.client;
        let (id, now) = (*id, Instant::now());
        server.routing(|router| {
            if let Some(reason) = router.poll_close(id) {
                return Err(Error::Closed(reason));
            }
            while self.blocked.is_none()
                && let Some((frame, len)) = self.input.peek()?
            {
                match router.handle_frame(id, &frame, now.into_std())? {
                    Outcome::Taken => self.input.consume(len),
                    Outcome::Blocked(until) => self.blocked = Some(Instant::from_std(until)),
                }
            }
            if fetch {
                if self.used.capacity() > 0 {
                    router.reuse(id, std::mem::take(&mut self.used));
                }
                match router.poll_transmit(id) {
                    Transmit::Chunk(chunk) => {
                        self.chunk = chunk;
                        self.write_by = now + WRITE_TIMEOUT;
                    }
                    Transmit::Idle => self.ask = false,
                    Transmit::Close(reason) => return Err(Error::Closed(reason)),
                }
            }
            Ok(())
        })
    }

    const fn is_reading(&self) -> bool {
        self.blocked.is_none() && self.paused.is_none()
    }

    /// Counts what was read. Who has sent more than it may is not read for a
    /// while: TCP passes that on, and nothing is lost.
    fn heard(&mut self, len: usize) {
        self.moved += len;
        let Some(pace) = &mut self.pace else {
            return;
        };
        if let Some(until) = pace.take(len, Instant::now().into_std()) {
            self.paused = Some(Instant::from_std(until));
            self.client.server.routing(|router| router.note_throttled());
        }
    }

    fn is_writing(&self) -> bool {
        self.unflushed || !self.chunk.is_empty()
    }

    fn wrote(&mut self, written: &Written) -> Result<(), Error> {
        let Written { len, unflushed } = *written;
        if len == 0 && !self.chunk.is_empty() {
            return Err(Error::Closed("the client takes no bytes"));
        }
        self.unflushed = unflushed;
        self.written += len;
        self.moved += len;
        if self.written == self.chunk.len() {
            self.used = std::mem::take(&mut self.chunk);
            self.written = 0;
        }
        if self.is_writing() {
            self.write_by = Instant::now() + WRITE_TIMEOUT;
        }
        Ok(())
    }

    /// Sets the timer to no later than it has to go off. It may go off early,
    /// which costs less than setting it with each write.
    fn set(&self, timer: &mut Pin<Box<Sleep>>) {
        let mut due = self.keep_alive_at;
        if self.is_writing() {
            due = due.min(self.write_by);
        }
        for until in self.blocked.iter().chain(&self.paused) {
            due = due.min(*until);
        }
        if due < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(due);
        }
    }

    fn handle_timeout(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.is_writing() && now >= self.write_by {
            let (what, limit) = ("writing to the client", WRITE_TIMEOUT);
            return Err(Error::Timeout { what, limit });
        }
        for until in [&mut self.blocked, &mut self.paused] {
            if until.is_some_and(|until| now >= until) {
                *until = None;
            }
        }
        if now >= self.keep_alive_at {
            let id = self.client.id;
            let next = self.client.server.routing(|router| {
                router.handle_timeout(id, now.into_std());
                router.poll_timeout(id)
            });
            self.keep_alive_at = next.map_or(now + WRITE_TIMEOUT, Instant::from_std);
            self.input.rest();
            self.woken = true;
        }
        Ok(())
    }
}

/// What became of an attempt to write.
struct Written {
    /// So many bytes.
    len: usize,
    /// Perhaps not on their way.
    unflushed: bool,
}

/// Writes some of `bytes`, and flushes if that were all, or there are none. It does not
/// wait for that: whoever drops it must not lose that something was written.
async fn write(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<Written> {
    poll_fn(|cx| {
        let mut io = Pin::new(&mut *io);
        let len = match bytes {
            [] => 0,
            bytes => ready!(io.as_mut().poll_write(cx, bytes))?,
        };
        let flushed = len == bytes.len() && io.poll_flush(cx)?.is_ready();
        if bytes.is_empty() && !flushed {
            return Poll::Pending;
        }
        let unflushed = !flushed;
        Poll::Ready(Ok(Written { len, unflushed }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Context, Poll, Waker};

    use bytes::BytesMut;
    use tokio::io::ReadBuf;

    use super::*;
    use crate::frame::{self, Receives, SendPacket};
    use crate::handshake::Introduction;
    use crate::io::server::Server;
    use crate::{NodeKey, NodeSecret};

    /// A client that sends all the time, and takes everything.
    struct Flood {
        frame: Vec<u8>,
        sent: Arc<AtomicUsize>,
    }

    /// What it sends before it rests, bytes.
    const ALL: usize = 4 << 20;

    impl AsyncRead for Flood {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            let sent = self.sent.load(Relaxed);
            if sent >= ALL {
                return Poll::Pending;
            }
            let part = &self.frame[sent % self.frame.len()..];
            let part = &part[..part.len().min(into.remaining())];
            into.put_slice(part);
            self.sent.fetch_add(part.len(), Relaxed);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn who_sends_all_the_time_lets_others_go_first() {
        let server = Server::new(
            NodeSecret::from_bytes([1; 32]),
            Arc::new(|_: &NodeKey| true),
        );
        let client = Introduction {
            key: NodeSecret::from_bytes([2; 32]).public(),
            can_ack_pings: true,
            is_mesh: false,
            is_prober: false,
        };
        let registered = server
            .register(|router, handle, now, seed| router.handle_connect(client, handle, now, seed))
            .unwrap();
        let mut frame = Vec::new();
        let packet = SendPacket {
            to: NodeKey::from_bytes([3; 32]),
            data: &[7; 8 << 10],
        };
        frame::encode(&packet, &mut frame);
        let most = TURN + frame.len();
        let sent = Arc::new(AtomicUsize::new(0));
        let flood = Flood {
            frame,
            sent: Arc::clone(&sent),
        };
        let (reader, writer) = tokio::io::split(flood);
        let input = Input::new(Receives::Server, BytesMut::new());
        let driver = Driver::new(&registered, reader, writer, input, Vec::new());
        let mut run = Box::pin(driver.run());
        let mut context = Context::from_waker(Waker::noop());
        let mut before = 0;
        while before < ALL {
            assert!(run.as_mut().poll(&mut context).is_pending());
            let now = sent.load(Relaxed);
            assert!(now - before <= most, "{} bytes in one turn", now - before);
            before = now;
        }
    }
}
