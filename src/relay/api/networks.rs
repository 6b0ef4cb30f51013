//! Networks: list, create, rotate, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use ed25519_dalek::SigningKey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Body, network_id};
use crate::coord::Mark;
use crate::coord::handover::MAX_OVERLAP;
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{duration_secs, rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::store::{NewNetwork, Subject};

/// `GET /api/v1/networks`: the caller's, or all for the relay's token.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    User(subject): User,
) -> Result<Json<Value>, ApiError> {
    let subject = Some(subject).filter(|subject| *subject != Subject::admin());
    let networks = app.store.networks(subject, unix_now()).await?;
    let networks = networks.into_iter().map(|network| {
        json!({
            "id": network.id,
            "created_at": rfc3339(network.created),
            "node_count": network.nodes,
            "invite_count": network.invites,
        })
    });
    Ok(Json(networks.collect()))
}

#[derive(Deserialize)]
pub(crate) struct Create {
    network_id: String,
}

/// `POST /api/v1/networks`: the caller becomes the owner.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    User(owner): User,
    Body(create): Body<Create>,
) -> Result<Json<Value>, ApiError> {
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
    Ok(Json(json!({ "status": status, "network_id": id })))
}

/// `DELETE /api/v1/networks/{id}`: with everything in it; its nodes are cut off.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = network_id(&id)?;
    user.may(Action::Rule, &id, &app).await?;
    if app.delete_network(&id).await? {
        Ok(Json(json!({ "status": "deleted", "network_id": id })))
    } else {
        Err(ApiError::network_unknown())
    }
}

#[derive(Deserialize)]
pub(crate) struct Rotate {
    #[serde(default)]
    overlap: Option<String>,
}

/// `POST /api/v1/networks/{id}/rotate`: the issuer hands over to a new key, and everything is
/// signed anew. What the old key has signed is believed for the overlap, 24 h unless told.
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
    Body(rotate): Body<Rotate>,
) -> Result<Json<Value>, ApiError> {
    let id = network_id(&id)?;
    user.may(Action::Rule, &id, &app).await?;
    let overlap = duration_secs(rotate.overlap.as_deref().unwrap_or("24h"));
    let overlap = overlap.filter(|overlap| *overlap <= MAX_OVERLAP);
    let overlap = overlap
        .ok_or_else(|| ApiError::bad_request("overlap is 0s to 30d, such as 0s, 10m, 24h, 7d"))?;
    let handed = app.rotate(&id, overlap).await?;
    let handed = handed.ok_or_else(ApiError::network_unknown)?;
    Ok(Json(json!({
        "network_id": id,
        "number": handed.number,
        "issuer": handed.issuer,
        "retires_at": rfc3339(handed.retires),
        "node_count": handed.nodes,
    })))
}
