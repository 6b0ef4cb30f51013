//! The listener: `[node] listen`, path `/ws`.
//!
//! The token is compared in constant time before anything else is looked at. A browser is turned
//! away: it says where a page comes from, and no page has business here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::{HANDSHAKE, channel, config};
use crate::error::{Error, Result};
use crate::rpc::Channel;

/// Clients at one time.
const CLIENTS: usize = 256;
/// Connections that have not shown a token yet. When there are more, the one that has waited for
/// longest goes: strangers who say nothing keep nobody out.
const STRANGERS: usize = 512;
/// The pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves WebSocket clients for ever; each that has shown the token is given to `client`.
///
/// # Errors
///
/// `config_invalid` when nothing can listen at `address`.
pub(crate) async fn listen<F>(
    address: &str,
    token: String,
    client: impl Fn(Channel, SocketAddr) -> F + Send + Sync + 'static,
) -> Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Error::new(
            "config_invalid",
            format!("cannot listen at {address}: {error}"),
        )
        .hint("[node] listen, or CODEWIRE_LISTEN, is host:port")
    })?;
    if let Ok(at) = listener.local_addr() {
        tracing::info!(%at, "clients may connect over WebSocket");
        if !at.ip().is_loopback() {
            tracing::warn!("the WebSocket listener speaks no TLS; put a proxy with TLS in front");
        }
    }
    serve(listener, &token, client).await;
    Ok(())
}

pub(super) async fn serve<F>(
    listener: TcpListener,
    token: &str,
    client: impl Fn(Channel, SocketAddr) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CLIENTS));
    let (digest, client) = (Sha256::digest(token.as_bytes()), Arc::new(client));
    let mut strangers: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a WebSocket client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (client, room) = (Arc::clone(&client), Arc::clone(&room));
        let digest = digest.to_vec();
        let task = tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, accept(stream, &digest)).await {
                Ok(Ok(channel)) => match room.try_acquire_owned() {
                    // In a task of its own: it is no stranger any more.
                    Ok(place) => drop(tokio::spawn(async move {
                        client(channel, remote).await;
                        drop(place);
                    })),
                    Err(_) => tracing::warn!(%remote, "too many WebSocket clients"),
                },
                Ok(Err(why)) => tracing::info!(%remote, %why, "a WebSocket client was refused"),
                Err(_) => tracing::info!(%remote, "a WebSocket client said nothing"),
            }
        });
        strangers.retain(|stranger| !stranger.is_finished());
        strangers.push_back(task.abort_handle());
        if strangers.len() > STRANGERS
            && let Some(oldest) = strangers.pop_front()
        {
            oldest.abort();
        }
    }
}

#[expect(
    clippy::result_large_err,
    reason = "the shape of the library's callback"
)]
async fn accept(stream: TcpStream, digest: &[u8]) -> Result<Channel> {
    let _ = stream.set_nodelay(true);
    let check = |request: &Request, response: Response| match refusal(request, digest) {
        None => Ok(response),
        Some(status) => {
            let mut refused = ErrorResponse::new(None);
            *refused.status_mut() = status;
            Err(refused)
        }
    };
    let socket = accept_hdr_async_with_config(stream, check, Some(config())).await;
    socket
        .map(channel)
        .map_err(|error| Error::new("unauthorized", error.to_string()))
}

fn refusal(request: &Request, digest: &[u8]) -> Option<StatusCode> {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let matches = shown.is_some_and(|token| {
        // Digests are of one length, so the comparison says nothing about the token's.
        bool::from(
            Sha256::digest(token.trim().as_bytes())
                .as_slice()
                .ct_eq(digest),
        )
    });
    if !matches {
        return Some(StatusCode::UNAUTHORIZED);
    }
    if request.uri().path() != "/ws" {
        return Some(StatusCode::NOT_FOUND);
    }
    let browser = request.headers().contains_key(header::ORIGIN);
    browser.then_some(StatusCode::FORBIDDEN)
}
