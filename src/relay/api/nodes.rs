//! The nodes of a network: list, revoke.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::body::InNetwork;
use crate::coord::Mark;
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::signed::Visitor;
use crate::relay::store::Revocation;

/// `GET /api/v1/nodes?network_id=`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
) -> Result<Json<Value>, ApiError> {
    visitor.may(Action::ListNodes, &network, &app).await?;
    let nodes = app.hub.list(&network).into_iter().map(|node| {
        json!({
            "name": node.name,
            "key": node.key,
            "owner": node.owner,
            "connected": node.connected,
            "last_seen": node.last_seen.map(rfc3339),
        })
    });
    Ok(Json(nodes.collect()))
}

/// `DELETE /api/v1/nodes/{name}?network_id=`: its connections end now, its
/// peers are told, and its key stays out.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    user: User,
    InNetwork(network): InNetwork,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    user.may(Action::Revoke, &network, &app).await?;
    let unknown = ApiError::node_unknown;
    let revocation = Revocation {
        network,
        name: name.parse().map_err(|_| unknown())?,
        mark: Mark(random()),
        now: unix_now(),
    };
    if app.revoke(revocation).await? {
        Ok(Json(json!({ "status": "revoked", "node": name })))
    } else {
        Err(unknown())
    }
}
