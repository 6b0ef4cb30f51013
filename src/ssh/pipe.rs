//! A WebSocket taken as a stream of bytes: message boundaries mean nothing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::time::{Instant, interval_at, timeout};

/// Bytes on their way in each direction, at most.
const BUFFER: usize = 64 * 1024;

/// How often either end pings, and how long it waits for the other to take what it is sent.
const PING: Duration = Duration::from_secs(15);

/// Silence after which the other end is given up.
const SILENCE: Duration = Duration::from_secs(50);

/// What a pipe needs to know of a message, whichever library has it.
pub(crate) enum Frame {
    /// Bytes of the stream.
    Data(Bytes),
    /// A sign of life.
    Alive,
    /// The end, or a message that has no place here.
    End,
}

/// The near end of a pipe.
pub(crate) type Pipe = DuplexStream;

/// Runs a WebSocket as one end of a stream until either side ends it; the other end is returned.
/// `read` says what a message is, `data` and `ping` make one.
pub(crate) fn pipe<S, M, E>(
    socket: S,
    read: fn(M) -> Frame,
    data: fn(Bytes) -> M,
    ping: fn() -> M,
) -> (Pipe, impl Future<Output = ()> + Send)
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Send + 'static,
    M: Send + 'static,
    E: Send + 'static,
{
    let (near, far) = duplex(BUFFER);
    let run = async move {
        let (mut sink, mut stream) = socket.split();
        let (mut from_near, mut to_near) = split(far);
        let inwards = async {
            while let Ok(Some(Ok(message))) = timeout(SILENCE, stream.next()).await {
                match read(message) {
                    Frame::Data(bytes) if to_near.write_all(&bytes).await.is_err() => break,
                    Frame::Data(_) | Frame::Alive => {}
                    Frame::End => break,
                }
            }
        };
        let outwards = async {
            let mut due = interval_at(Instant::now() + PING, PING);
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let message = tokio::select! {
                    read = from_near.read(&mut buffer) => match read {
                        Ok(len @ 1..) => data(Bytes::copy_from_slice(&buffer[..len])),
                        _ => break,
                    },
                    _ = due.tick() => ping(),
                };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            let _ = timeout(PING, sink.close()).await;
        };
        // SSH says goodbye itself: when one direction has ended, nothing more will be said.
        tokio::select! {
            () = inwards => {}
            () = outwards => {}
        }
    };
    (near, run)
}
