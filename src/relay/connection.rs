//! One connection to the HTTP port: TLS if there is any, then DERP or HTTP.
//!
//! Whoever stalls on the way to a first request costs little, since nothing large is made before
//! what it is for is there: no TLS before the whole greeting of the client, no HTTP before the whole
//! head of the request. And it has to go when there are too many ([`super::strangers`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::acme::is_challenge;
use super::app::App;
use super::auth::Remote;
use super::begun::{Begun, greeting};
use super::derp;
use super::server::Place;
use super::strangers::Stranger;

/// How long a client may take to send the head of a request, the time between
/// two requests included.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long a client may take for the TLS handshake.
const TLS_LIMIT: Duration = Duration::from_secs(10);

/// The longest head of a request, bytes.
const MAX_HEAD: usize = 16 << 10;

/// Where connections lead.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) app: Arc<App>,
    pub(super) router: Router,
    pub(super) tls: Option<TlsAcceptor>,
    /// True when the relay stops.
    pub(super) stop: watch::Receiver<bool>,
}

/// Who has come.
pub(super) struct Caller {
    pub(super) remote: Remote,
    pub(super) place: Place,
    /// Until there is a request.
    pub(super) stranger: Stranger,
}

/// Serves a connection to its end, or until it is `put_out`.
pub(super) async fn serve(
    ways: Ways,
    stream: TcpStream,
    caller: Caller,
    put_out: oneshot::Receiver<()>,
) {
    let Remote(remote) = caller.remote;
    let served = async move {
        let Some(tls) = ways.tls.clone() else {
            return begin(ways, stream, caller).await;
        };
        // Boxed, so that those who have not come so far need no room for it.
        match soon(TLS_LIMIT, &ways.stop, Box::pin(handshake(tls, stream))).await {
            Some(Ok(stream)) => begin(ways, stream, caller).await,
            Some(Err(error)) => tracing::debug!(%remote, %error, "TLS"),
            None => tracing::debug!(%remote, "TLS handshake too slow"),
        }
    };
    tokio::select! {
        () = served => {}
        Ok(()) = put_out => tracing::debug!(%remote, "put out for others"),
    }
}

type Sealed = Box<TlsStream<super::begun::Again<TcpStream>>>;

async fn handshake(tls: TlsAcceptor, stream: TcpStream) -> io::Result<Sealed> {
    let stream = greeting(stream).await?;
    let mut stream = Box::new(Box::pin(tls.accept(stream)).await?);
    if is_challenge(stream.get_ref().1.alpn_protocol()) {
        // The handshake was all that was wanted (RFC 8737).
        stream.shutdown().await?;
        return Err(io::Error::other("somebody has asked whose domain this is"));
    }
    Ok(stream)
}

/// Packets go to DERP at once, everything else to HTTP. Boxed each, so that the thousands that
/// rest take no more room than what they are.
async fn begin<S>(ways: Ways, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match soon(HEAD_LIMIT, &ways.stop, Box::pin(Begun::read(stream))).await {
        Some(Ok(Begun::Derp(stream, bytes))) => {
            let (Remote(remote), _place) = (caller.remote, caller.place);
            drop(caller.stranger);
            Box::pin(derp::serve_begun(
                &ways.app, stream, bytes, remote, ways.stop,
            ))
            .await;
        }
        Some(Ok(Begun::Other(stream))) => Box::pin(http(ways, stream, caller)).await,
        Some(Err(_)) | None => {}
    }
}

/// What is done within its time and before the relay stops: nobody waits for who has asked nothing.
async fn soon<T>(
    limit: Duration,
    stop: &watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut stop = stop.clone();
    tokio::select! {
        done = timeout(limit, work) => done.ok(),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

async fn http<S>(ways: Ways, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(ways.router);
    let (remote, place) = (caller.remote, caller.place);
    let stranger = Mutex::new(Some(caller.stranger));
    let service = service_fn(move |mut request: Request<Incoming>| {
        drop(stranger.lock().take());
        request.extensions_mut().insert(remote);
        request.extensions_mut().insert(place.clone());
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut stop = ways.stop;
    tokio::select! {
        // Errors are the client's: it went away, or talked something else.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
