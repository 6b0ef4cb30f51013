//! Networks: list, create, rotate, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use ed25519_dalek::SigningKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, Path, network_id};
use crate::coord::Mark;
use crate::coord::handover::MAX_OVERLAP;
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{duration_secs, rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::store::{NewNetwork, Subject};

/// A network, and how much is in it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Network {
    id: String,
    /// RFC 3339.
    created_at: String,
    /// Nodes that are members.
    node_count: u64,
    /// Invites that can be redeemed.
    invite_count: u64,
}

/// `GET /api/v1/networks`: the caller's, or all for the relay's token.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    User(subject): User,
) -> Result<Json<Vec<Network>>, ApiError> {
    let subject = Some(subject).filter(|subject| *subject != Subject::admin());
    let networks = app.store.networks(subject, unix_now()).await?;
    let networks = networks.into_iter().map(|network| Network {
        id: network.id.to_string(),
        created_at: rfc3339(network.created),
        node_count: network.nodes,
        invite_count: network.invites,
    });
    Ok(Json(networks.collect()))
}

/// A network to create.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewNetwork")]
pub(crate) struct Create {
    /// 1 to 63 letters, digits, '-' or '_', starting with a letter or digit.
    network_id: String,
}

/// What became of a network.
#[derive(Serialize, JsonSchema)]
pub(crate) struct NetworkStatus {
    /// created, exists or deleted
    status: &'static str,
    network_id: String,
}

/// `POST /api/v1/networks`: the caller becomes the owner.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    User(owner): User,
    Body(create): Body<Create>,
) -> Result<Json<NetworkStatus>, ApiError> {
    let id = network_id(&create.network_id)?;
    let new = NewNetwork {
        id: id.clone(),
        owner,
        issuer: SigningKey::from_bytes(&random()),
        mark: Mark(random()),
        now: unix_now(),
    };
    let status = if app.create_network(new).await? {
        "created"
    } else {
        "exists"
    };
    Ok(Json(NetworkStatus {
        status,
        network_id: id.to_string(),
    }))
}

/// `DELETE /api/v1/networks/{id}`: with everything in it; its nodes are cut off.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<NetworkStatus>, ApiError> {
    let id = network_id(&id)?;
    user.may(Action::Rule, &id, &app).await?;
    if app.delete_network(&id).await? {
        Ok(Json(NetworkStatus {
            status: "deleted",
            network_id: id.to_string(),
        }))
    } else {
        Err(ApiError::network_unknown())
    }
}

/// How the issuer is to hand over.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Rotate {
    /// How long what the old key has signed is believed, 0s to 30d; 24h unless told.
    #[serde(default)]
    overlap: Option<String>,
}

/// A hand-over that was made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Rotated {
    network_id: String,
    /// The how manieth it was.
    number: u32,
    /// The key that signs now.
    issuer: String,
    /// When the one before is believed no more, RFC 3339.
    retires_at: String,
    /// Nodes whose records were signed anew.
    node_count: usize,
}

/// `POST /api/v1/networks/{id}/rotate`: the issuer hands over to a new key, and everything is
/// signed anew. What the old key has signed is believed for the overlap, 24 h unless told.
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
    Body(rotate): Body<Rotate>,
) -> Result<Json<Rotated>, ApiError> {
    let id = network_id(&id)?;
    user.may(Action::Rule, &id, &app).await?;
    let overlap = duration_secs(rotate.overlap.as_deref().unwrap_or("24h"));
    let overlap = overlap.filter(|overlap| *overlap <= MAX_OVERLAP);
    let overlap = overlap
        .ok_or_else(|| ApiError::bad_request("overlap is 0s to 30d, such as 0s, 10m, 24h, 7d"))?;
    let handed = app.rotate(&id, overlap).await?;
    let handed = handed.ok_or_else(ApiError::network_unknown)?;
    Ok(Json(Rotated {
        network_id: id.to_string(),
        number: handed.number,
        issuer: handed.issuer.to_string(),
        retires_at: rfc3339(handed.retires),
        node_count: handed.nodes,
    }))
}
