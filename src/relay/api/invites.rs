//! Invites: make, list, withdraw.
//!
//! The token is in the answer that makes it and nowhere else; afterwards an
//! invite goes by its id.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, InNetwork, Path, network_id};
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

/// An invite to make.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewInvite")]
pub(crate) struct Create {
    network_id: String,
    /// How many nodes it brings in; 1 unless told.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_USES))]
    uses: Option<u32>,
    /// How long it is good, 1s to 30d; 1h unless told.
    #[serde(default)]
    ttl: Option<String>,
    /// Whether the nodes are the caller's own.
    #[serde(default)]
    mine: bool,
    /// For a node of this name only.
    #[serde(default)]
    node_name: Option<String>,
}

/// An invite. The token is in the answer that makes it and nowhere else.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Invite")]
pub(crate) struct Shown {
    id: String,
    network_id: String,
    created_by: String,
    mine: bool,
    node_name: Option<String>,
    uses_remaining: u32,
    /// RFC 3339, as is `expires_at`.
    created_at: String,
    expires_at: String,
    /// What is redeemed.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// `POST /api/v1/invites`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    user: User,
    Body(create): Body<Create>,
) -> Result<Json<Shown>, ApiError> {
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
    shown.token = Some(invite.to_string());
    Ok(Json(shown))
}

/// `GET /api/v1/invites?network_id=`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    user: User,
    InNetwork(network): InNetwork,
) -> Result<Json<Vec<Shown>>, ApiError> {
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

fn show(info: &InviteInfo, network: &str) -> Shown {
    Shown {
        id: info.id.clone(),
        network_id: network.to_owned(),
        created_by: info.created_by.as_str().to_owned(),
        mine: info.mine,
        node_name: info.node_name.as_ref().map(ToString::to_string),
        uses_remaining: info.uses_remaining,
        created_at: rfc3339(info.created),
        expires_at: rfc3339(info.expires),
        token: None,
    }
}
