//! `GET /api/v1/openapi.json`: what there is, for programs.

use axum::Json;
use serde_json::Value;

/// See the module.
pub(crate) async fn openapi() -> Json<&'static Value> {
    Json(super::document())
}
