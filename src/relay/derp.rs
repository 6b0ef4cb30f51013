//! `GET /derp`: the packets of nodes for which no direct path works.
//!
//! The upgrade is HTTP's, everything after it is the `derp` crate's. Keys of
//! nodes that some network of this relay knows are admitted, others are not.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use derp::io::upgrade::{REFUSAL_STATUS, REFUSAL_TEXT, check, response_headers};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::app::App;
use super::auth::Remote;
use super::server::Place;

/// `GET /derp`. A fast start, which wants no HTTP answer at all, is refused:
/// the HTTP server in front always answers.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    place: Place,
    mut request: Request,
) -> Response {
    let asks = check(request.headers()).is_some_and(|asked| !asked.fast_start);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let Some(upgrade) = upgrade.filter(|_| asks) else {
        return (REFUSAL_STATUS, REFUSAL_TEXT).into_response();
    };
    let headers = response_headers(&app.derp.public_key());
    let mut stop = app.stop.clone();
    tokio::spawn(async move {
        let _place = place;
        let Ok(upgraded) = upgrade.await else {
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
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// `GET /derp/probe`, `GET /derp/latency-check`: how far away is the relay?
pub(crate) async fn probe() -> StatusCode {
    StatusCode::OK
}
