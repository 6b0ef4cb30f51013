//! The listener: `[node] listen`, path `/ws`.
//!
//! The token is compared in constant time before anything else is looked at. A browser is turned
//! away: it says where a page comes from, and no page has business here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::{HANDSHAKE, channel, config};
use crate::error::{Error, Result};
use crate::rpc::Channel;

/// Connections at one time, those that have not shown a token included.
const CONNECTIONS: usize = 256;
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
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let (digest, client) = (Sha256::digest(token.as_bytes()), Arc::new(client));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a WebSocket client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let client = Arc::clone(&client);
        let digest = digest.to_vec();
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, accept(stream, &digest)).await {
                Ok(Ok(channel)) => client(channel, remote).await,
                Ok(Err(why)) => tracing::info!(%remote, %why, "a WebSocket client was refused"),
                Err(_) => tracing::info!(%remote, "a WebSocket client said nothing"),
            }
            drop(place);
        });
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
