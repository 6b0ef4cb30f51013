//! `GET /derp`: the packets of nodes for which no direct path works.
//!
//! The upgrade is HTTP's, everything after it is the `derp` crate's. Keys of
//! nodes that some network of this relay knows are admitted, others are not.
//!
//! A connection that begins with that request is recognised before the HTTP
//! server sees it (`begun`). What comes here is a request on a connection that
//! had others before, or one for the protocol over WebSocket, whose messages
//! are but pieces of one stream of bytes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, Bytes, BytesMut};
use derp::io::upgrade::{REFUSAL_TEXT, check, response_headers};
use futures_util::{Sink as _, Stream as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::sleep;

use super::api::upgrade_required;
use super::app::App;
use super::auth::Remote;
use super::server::Place;

/// How long a connection has to be written empty when the relay stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// The WebSocket subprotocol.
const SUBPROTOCOL: &str = "derp";

/// The longest WebSocket message, bytes: a frame of DERP, and room for another way to cut.
const MAX_MESSAGE: usize = 256 << 10;

/// `GET /derp`. A fast start, which wants no HTTP answer at all, is refused
/// here: the HTTP server in front always answers.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    place: Place,
    mut request: Request,
) -> Response {
    if is_websocket(request.headers()) {
        return websocket(app, remote, place, request).await;
    }
    let asks = check(request.headers()).is_some_and(|asked| !asked.fast_start);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let Some(upgrade) = upgrade.filter(|_| asks) else {
        return upgrade_required(REFUSAL_TEXT.trim_end()).into_response();
    };
    let headers = response_headers(&app.derp.public_key());
    tokio::spawn(async move {
        let _place = place;
        if let Ok(upgraded) = upgrade.await {
            let io = TokioIo::new(upgraded);
            let stop = app.stop.clone();
            until_left(app.derp.serve(io, remote), remote, stop).await;
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// Serves a connection of which the request has been read, and perhaps more.
pub(super) async fn serve_begun<S>(
    app: &App,
    io: S,
    bytes: BytesMut,
    remote: SocketAddr,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    until_left(app.derp.serve_begun(io, remote, bytes), remote, stop).await;
}

/// `GET /derp/probe`, `GET /derp/latency-check`: how far away is the relay? Pages may ask, too.
pub(crate) async fn probe() -> Response {
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], StatusCode::OK).into_response()
}

/// Serves to the end, or until the relay stops and the client has had time to hear of it.
async fn until_left(
    serving: impl Future<Output = Result<(), derp::Error>>,
    remote: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let left = async {
        let _ = stop.wait_for(|stop| *stop).await;
        sleep(FAREWELL).await;
    };
    let ended = tokio::select! {
        ended = serving => ended,
        () = left => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%remote, %error, "DERP");
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let asked = headers.get(header::UPGRADE);
    asked.is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Any page may ask: what is admitted is a key, and no browser has one to give away.
async fn websocket(app: Arc<App>, remote: SocketAddr, place: Place, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade
            .max_message_size(MAX_MESSAGE)
            .protocols([SUBPROTOCOL]),
        Err(refusal) => {
            return upgrade_required(format!("this is no WebSocket: {refusal}")).into_response();
        }
    };
    if upgrade.selected_protocol().is_none() {
        return upgrade_required("the WebSocket subprotocol is derp").into_response();
    }
    upgrade.on_upgrade(move |socket| async move {
        let _place = place;
        let io = Bytestream {
            socket,
            rest: Bytes::new(),
        };
        let stop = app.stop.clone();
        until_left(app.derp.serve(io, remote), remote, stop).await;
    })
}

/// The bytes in a WebSocket's messages, wherever they are cut.
struct Bytestream {
    socket: WebSocket,
    rest: Bytes,
}

impl AsyncRead for Bytestream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::other("a text message")));
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..len]);
        self.rest.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bytestream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(io::Error::other)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        socket.start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        flushed.map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.socket).poll_close(cx);
        closed.map_err(io::Error::other)
    }
}
