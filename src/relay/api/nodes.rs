//! The nodes of a network: list, revoke.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::body::{InNetwork, Path};
use crate::coord::Mark;
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::signed::Visitor;
use crate::relay::store::Revocation;

/// A node of a network.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Node {
    name: String,
    /// Its WireGuard and DERP key, in hexadecimal.
    key: String,
    /// Whose it is.
    owner: String,
    /// Whether it is connected to this relay now.
    connected: bool,
    /// When it was last, RFC 3339.
    last_seen: Option<String>,
}

/// `GET /api/v1/nodes?network_id=`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
) -> Result<Json<Vec<Node>>, ApiError> {
    visitor.may(Action::ListNodes, &network, &app).await?;
    let nodes = app.hub.list(&network).into_iter().map(|node| Node {
        name: node.name.to_string(),
        key: node.key.to_string(),
        owner: node.owner,
        connected: node.connected,
        last_seen: node.last_seen.map(rfc3339),
    });
    Ok(Json(nodes.collect()))
}

/// A node is out.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Revoked {
    /// revoked
    status: &'static str,
    node: String,
}

/// `DELETE /api/v1/nodes/{name}?network_id=`: its connections end now, its
/// peers are told, and its key stays out.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    user: User,
    InNetwork(network): InNetwork,
    Path(name): Path<String>,
) -> Result<Json<Revoked>, ApiError> {
    user.may(Action::Revoke, &network, &app).await?;
    let unknown = ApiError::node_unknown;
    let revocation = Revocation {
        network,
        name: name.parse().map_err(|_| unknown())?,
        mark: Mark(random()),
        now: unix_now(),
    };
    if app.revoke(revocation).await? {
        Ok(Json(Revoked {
            status: "revoked",
            node: name,
        }))
    } else {
        Err(unknown())
    }
}
