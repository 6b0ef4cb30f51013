//! Is the relay there, and who am I to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::relay::app::App;
use crate::relay::auth::User;
use crate::relay::error::ApiError;

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// `GET /readyz`: the store answers too, and the relay is not stopping.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    let not_ready = |why: &str| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Err(ApiError::new(status, "not_ready", why))
    };
    if *app.stop.borrow() {
        return not_ready("the relay is stopping");
    }
    match app.store.ready().await {
        Ok(()) => Ok("ok"),
        Err(_) => not_ready("the store does not answer"),
    }
}

/// How users prove themselves here, and where the other doors are.
#[derive(Serialize, JsonSchema)]
pub(crate) struct AuthConfig {
    /// none, token, github or oidc.
    auth_mode: &'static str,
    /// The TCP port of the SSH front door, if there is one.
    ssh_port: Option<u16>,
}

/// `GET /api/v1/auth/config`.
pub(crate) async fn config(State(app): State<Arc<App>>) -> Json<AuthConfig> {
    Json(AuthConfig {
        auth_mode: app.gate.mode(),
        ssh_port: app.info.ssh_port,
    })
}

/// The token is right.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Valid {
    /// ok
    status: &'static str,
}

/// `GET /api/v1/auth/validate`: whether the token is right.
pub(crate) async fn validate(_: User) -> Json<Valid> {
    Json(Valid { status: "ok" })
}
