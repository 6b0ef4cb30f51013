//! Invites: make, list, withdraw.
//!
//! The token is in the answer that makes it and nowhere else; afterwards an
//! invite goes by its id.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Body, InNetwork, network_id};
use crate::coord::Invite;
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{duration_secs, rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::store::{InviteInfo, NewInvite};

/// The longest an invite may live: 30 days. One that lies about for longer is
/// more likely found than used.
const MAX_TTL: u64 = 30 * 24 * 3600;

/// The most nodes one invite may bring.
const MAX_USES: u32 = 10_000;

#[derive(Deserialize)]
pub(crate) struct Create {
    network_id: String,
    #[serde(default)]
    uses: Option<u32>,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(default)]
    mine: bool,
    #[serde(default)]
    node_name: Option<String>,
}

/// `POST /api/v1/invites`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    user: User,
    Body(create): Body<Create>,
) -> Result<Json<Value>, ApiError> {
    let network = network_id(&create.network_id)?;
    user.may(Action::Invite, &network, &app).await?;
    let uses = create.uses.unwrap_or(1);
    if uses == 0 || uses > MAX_USES {
        return Err(ApiError::bad_request("uses is 1 to 10000"));
    }
    let ttl = duration_secs(create.ttl.as_deref().unwrap_or("1h"));
    let ttl = ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl));
    let ttl = ttl.ok_or_else(|| ApiError::bad_request("ttl is 1s to 30d, such as 90s, 10m, 1h"))?;
    let node_name = create.node_name.map(|name| name.parse()).transpose();
    let node_name = node_name.map_err(|_| ApiError::bad_request("node_name is no node's name"))?;
    let issuers = app.hub.issuers(&network);
    let issuers = issuers.ok_or_else(ApiError::network_unknown)?;
    let invite = Invite::generate(&random::<96>(), *issuers.current())
        .ok_or_else(|| ApiError::bad_request("the dice fell badly; try again"))?;
    let now = unix_now();
    let info = InviteInfo {
        id: format!("inv_{}", hex::encode(random::<8>())),
        created_by: user.0,
        mine: create.mine,
        node_name,
        uses_remaining: uses,
        created: now,
        expires: now + ttl,
    };
    app.store
        .create_invite(NewInvite {
            id: info.id.clone(),
            hash: invite.hash(),
            network: network.clone(),
            created_by: info.created_by.clone(),
            mine: info.mine,
            node_name: info.node_name.clone(),
            uses,
            now,
            expires: info.expires,
        })
        .await?;
    let mut shown = show(&info, network.as_str());
    shown["token"] = json!(invite);
    Ok(Json(shown))
}

/// `GET /api/v1/invites?network_id=`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    user: User,
    InNetwork(network): InNetwork,
) -> Result<Json<Value>, ApiError> {
    user.may(Action::Invite, &network, &app).await?;
    let invites = app.store.invites(network.clone(), unix_now()).await?;
    let shown = invites.iter().map(|info| show(info, network.as_str()));
    Ok(Json(shown.collect()))
}

/// `DELETE /api/v1/invites/{id}?network_id=`.
pub(crate) async fn withdraw(
    State(app): State<Arc<App>>,
    user: User,
    InNetwork(network): InNetwork,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    user.may(Action::Invite, &network, &app).await?;
    if app.store.delete_invite(network, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        let status = StatusCode::NOT_FOUND;
        Err(ApiError::new(
            status,
            "not_found",
            "there is no such invite",
        ))
    }
}

fn show(info: &InviteInfo, network: &str) -> Value {
    json!({
        "id": info.id,
        "network_id": network,
        "created_by": info.created_by.as_str(),
        "mine": info.mine,
        "node_name": info.node_name,
        "uses_remaining": info.uses_remaining,
        "created_at": rfc3339(info.created),
        "expires_at": rfc3339(info.expires),
    })
}
