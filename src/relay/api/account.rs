//! Is the relay there, and who am I to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

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

/// `GET /api/v1/auth/config`: how users prove themselves here.
pub(crate) async fn config(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "auth_mode": app.gate.mode(), "ssh_port": app.info.ssh_port }))
}

/// `GET /api/v1/auth/validate`: whether the token is right.
pub(crate) async fn validate(_: User) -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
