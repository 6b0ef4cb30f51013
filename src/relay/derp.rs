//! `GET /derp`: the packets of nodes for which no direct path works.
//!
//! The upgrade is HTTP's, everything after it is the `derp` crate's. Keys of
//! nodes that some network of this relay knows are admitted, others are not.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::app::App;
use super::auth::Remote;
use super::error::ApiError;
use super::server::Place;

/// `GET /derp`.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    place: Place,
    mut request: Request,
) -> Response {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (Some(on_upgrade), true) = (on_upgrade, asks_for_derp(request.headers())) else {
        let status = StatusCode::UPGRADE_REQUIRED;
        return ApiError::new(status, "upgrade_required", "this is a DERP relay").into_response();
    };
    let key = app.derp.public_key();
    let mut stop = app.stop.clone();
    tokio::spawn(async move {
        let _place = place;
        let Ok(upgraded) = on_upgrade.await else {
            return;
        };
        let ended = tokio::select! {
            ended = app.derp.serve(TokioIo::new(upgraded), remote) => ended,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%remote, %error, "DERP");
        }
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "DERP")
        .header(header::CONNECTION, "Upgrade")
        .header("Derp-Version", "2")
        .header("Derp-Public-Key", key.to_string())
        .body(Body::empty());
    answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// `GET /derp/probe`, `GET /derp/latency-check`: how far away is the relay?
pub(crate) async fn probe() -> StatusCode {
    StatusCode::OK
}

fn asks_for_derp(headers: &HeaderMap) -> bool {
    let is = |name, value: &str| {
        let header = headers.get(name).and_then(|header| header.to_str().ok());
        header.is_some_and(|header| {
            let mut words = header.split(',').map(str::trim);
            words.any(|word| word.eq_ignore_ascii_case(value))
        })
    };
    is(header::UPGRADE, "derp") && is(header::CONNECTION, "upgrade")
}
