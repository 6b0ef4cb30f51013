//! A visit over SSH: the relay has told this node that somebody is there, and the node connects
//! back for them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::watch;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::dial::{dial, within};
use super::url::RelayUrl;
use crate::ssh::{Door, Frame, Pipe, pipe};

/// How long the WebSocket handshake may take. The relay waits no longer either.
const LIMIT: Duration = Duration::from_secs(10);

/// What the relay tells of somebody who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The relay that says so.
    pub(crate) relay: String,
    pub(crate) ticket: String,
    /// How they come.
    pub door: Door,
    /// Who the relay says they are.
    pub subject: String,
}

/// Connects back for the visit with this ticket: the stream, and what becomes true when it is over.
pub(crate) async fn come(
    relay: &str,
    tls: Option<&Arc<ClientConfig>>,
    ticket: &str,
) -> io::Result<(Pipe, watch::Receiver<bool>)> {
    let url: RelayUrl = relay.parse().map_err(io::Error::other)?;
    let (stream, _) = dial(&url, tls).await?;
    let target = url.websocket(&format!("/api/v1/back/{ticket}"));
    let handshake = async {
        let done = client_async(target, stream).await;
        done.map_err(io::Error::other)
    };
    let (socket, _) = within(LIMIT, "the WebSocket handshake", handshake).await?;
    let (near, run) = pipe(socket, read, Message::Binary, || {
        Message::Ping(Vec::new().into())
    });
    let (over, gone) = watch::channel(false);
    tokio::spawn(async move {
        run.await;
        over.send_replace(true);
    });
    Ok((near, gone))
}

fn read(message: Message) -> Frame {
    match message {
        Message::Binary(bytes) => Frame::Data(bytes),
        Message::Ping(_) | Message::Pong(_) => Frame::Alive,
        Message::Text(_) | Message::Close(_) | Message::Frame(_) => Frame::End,
    }
}
