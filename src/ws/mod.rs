//! A node spoken to directly, without a relay: the frames of the local socket over a WebSocket.
//!
//! A control message is a text message, raw bytes are a binary one; neither has a header. The
//! client shows the node's token in `Authorization: Bearer` and is then the owner. The end of the
//! stream is a normal close. Both ends ping, and take a minute of silence for the end: a client
//! whose machine sleeps is let go, a node that has vanished is noticed.

mod connect;
mod listen;
#[cfg(test)]
mod tests;
mod token;

use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf,
};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub(crate) use connect::{address, connect};
pub(crate) use listen::listen;
pub(crate) use token::token;

use crate::rpc::frame::{self, Kind, PAYLOAD_MAX};
use crate::rpc::{Channel, Coding};

/// Bytes on their way between a channel and its socket, in each direction.
const ROOM: usize = 256 * 1024;
/// How often each end says that it is there.
const PING: Duration = Duration::from_secs(20);
/// The silence that is taken for the end.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the other end may take to close, when nothing more is said to it.
const GOODBYE: Duration = Duration::from_secs(10);

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(PAYLOAD_MAX))
        .max_frame_size(Some(PAYLOAD_MAX))
}

/// A channel over a WebSocket. The tasks that carry it end with either side.
pub(crate) fn channel<S>(socket: WebSocketStream<S>) -> Channel
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (to_socket, from_socket) = socket.split();
    // A pair of which each end sees that the other was dropped.
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let (our_reader, our_writer) = tokio::io::split(ours);
    let (their_reader, their_writer) = tokio::io::split(theirs);
    let mut coming = tokio::spawn(incoming(from_socket, their_writer));
    tokio::spawn(async move {
        outgoing(their_reader, to_socket).await;
        // The other end may still be taking the last of it. One that only goes on talking does not
        // keep the connection.
        if tokio::time::timeout(GOODBYE, &mut coming).await.is_err() {
            coming.abort();
        }
    });
    Channel::new(our_reader, our_writer, Coding::Json)
}

/// What comes from the socket, as frames, until it ends, is silent, or nobody reads any more.
async fn incoming<S>(mut socket: SplitStream<WebSocketStream<S>>, mut out: WriteHalf<DuplexStream>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE, socket.next()).await {
        let (kind, bytes) = match &message {
            Message::Text(text) => (Kind::Json, text.as_bytes()),
            Message::Binary(bytes) => (Kind::Data, bytes.as_ref()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            Message::Close(_) => break,
        };
        let Ok(header) = frame::header(kind, bytes.len()) else {
            break;
        };
        if out.write_all(&header).await.is_err() || out.write_all(bytes).await.is_err() {
            break;
        }
    }
    // The channel reads the end of the stream.
    let _ = out.shutdown().await;
}

/// What the channel writes, as messages, until nobody writes any more.
async fn outgoing<S>(
    mut reader: ReadHalf<DuplexStream>,
    mut socket: SplitSink<WebSocketStream<S>, Message>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    let mut ping = tokio::time::interval(PING);
    loop {
        match frame::decode(&mut buffer) {
            Ok(Some(frame)) => {
                let message = match frame.kind {
                    Kind::Data => Message::Binary(frame.payload),
                    _ => Message::Text(String::from_utf8_lossy(&frame.payload).into_owned().into()),
                };
                if socket.send(message).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            // We wrote it ourselves; a frame that is none ends the connection.
            Err(_) => break,
        }
        tokio::select! {
            read = reader.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
            }
            _ = ping.tick() => {
                if socket.send(Message::Ping(bytes::Bytes::new())).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = socket.close().await;
}
