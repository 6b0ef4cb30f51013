//! `POST /api/v1/join`: a node redeems an invite.
//!
//! No user is needed: the invite is the permission, the proof shows that the
//! node means these keys, and the store does the rest in one transaction.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use mesh::NodeName;

use super::body::Body;
use crate::coord::{Invite, JOIN_WINDOW, JoinProof, JoinRequest, JoinResponse, Mark};
use crate::relay::app::{App, RECORD_VALIDITY, random};
use crate::relay::auth::Remote;
use crate::relay::clock::unix_now;
use crate::relay::error::ApiError;
use crate::relay::store::Join;

/// See the module.
pub(crate) async fn join(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    Body(request): Body<JoinRequest>,
) -> Result<Json<JoinResponse>, ApiError> {
    app.guards.join(remote.ip())?;
    let now = unix_now();
    let (invite, name) = check(&request, now)?;
    let (network, key) = app
        .join(Join {
            invite: invite.hash(),
            name,
            key: request.key,
            sign_key: request.sign_key,
            expires: now + RECORD_VALIDITY,
            mark: Mark(random()),
            now,
        })
        .await?;
    app.renew_if_due(&network, &key).await?;
    let record = app.hub.record(&network, &key);
    let standing = app.hub.standing(&network, &key);
    let issuers = app.hub.issuers(&network);
    if standing.is_none() && app.cluster.is_some() {
        // It is in, and this relay cannot see it yet. Who asks again uses nothing up.
        return Err(ApiError::store_unavailable());
    }
    let (Some(record), Some(standing), Some(issuers)) = (record, standing, issuers) else {
        // Revoked in this very moment.
        return Err(ApiError::forbidden());
    };
    Ok(Json(JoinResponse {
        network_id: network,
        node_name: standing.record.name,
        record,
        issuer_key: *issuers.root(),
        handovers: issuers.after(0),
        relay: app.info.clone(),
    }))
}

/// Everything that can be judged without the store.
fn check(request: &JoinRequest, now: u64) -> Result<(Invite, NodeName), ApiError> {
    let refuse = |code, message: &str| Err(ApiError::new(StatusCode::BAD_REQUEST, code, message));
    let Ok(invite) = request.invite_token.parse::<Invite>() else {
        return refuse(
            "invite_malformed",
            "an invite has the form CW-INV-<24 letters or digits>-<key>",
        );
    };
    let Ok(name) = request.node_name.parse() else {
        return refuse(
            "name_invalid",
            "a node name is 1 to 63 letters, digits, '-' or '_', starting with a letter or digit",
        );
    };
    if now.abs_diff(request.timestamp) > JOIN_WINDOW {
        return refuse(
            "clock_skew",
            "the clocks of this node and of the relay differ by more than four minutes",
        );
    }
    let proof = JoinProof {
        invite: &invite,
        name: &request.node_name,
        key: &request.key,
        sign_key: &request.sign_key,
        timestamp: request.timestamp,
    };
    if request.key.is_zero() || !request.proof.verifies(&request.sign_key, &proof.message()) {
        return refuse(
            "proof_invalid",
            "the signature does not show that the node holds these keys",
        );
    }
    Ok((invite, name))
}
