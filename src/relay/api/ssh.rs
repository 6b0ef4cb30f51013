//! Who may come in over SSH: a person's keys, and passwords for one login.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, Query, network_id};
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::signed::Visitor;
use crate::relay::store::doors::{SshKey, SshPassword};
use crate::ssh;

/// How long a password is good, seconds: long enough to point a phone at it.
const PASSWORD_TTL: u64 = 600;

/// A key to let in.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewSshKey")]
pub(crate) struct Add {
    /// As in OpenSSH's `.pub` files.
    key: String,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Which {
    /// Of the key, as it is listed.
    fingerprint: String,
}

/// To which node a password is to open.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewSshPassword")]
pub(crate) struct For {
    network_id: String,
    /// One of the caller's own.
    node: String,
}

/// A key that is let in.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SshKey")]
pub(crate) struct Shown {
    fingerprint: String,
    key: String,
    /// RFC 3339.
    created_at: String,
}

/// A password for one login.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SshPassword")]
pub(crate) struct Password {
    password: String,
    /// RFC 3339.
    expires_at: String,
    /// The TCP port of the SSH front door, if there is one.
    ssh_port: Option<u16>,
}

/// `GET /api/v1/ssh-keys`: one's own.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    User(subject): User,
) -> Result<Json<Vec<Shown>>, ApiError> {
    let keys = app.store.ssh_keys(subject).await?;
    Ok(Json(keys.iter().map(show).collect()))
}

/// `POST /api/v1/ssh-keys`.
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    User(subject): User,
    Body(add): Body<Add>,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    let key = ssh::public_key(&add.key);
    let key = key.map_err(|error| ApiError::bad_request(error.message))?;
    let text = key.to_openssh();
    let text = text.map_err(|_| ApiError::bad_request("the key cannot be written down"))?;
    let key = SshKey {
        fingerprint: ssh::fingerprint(&key),
        subject,
        key: text,
        created: unix_now(),
    };
    let status = if app.store.add_ssh_key(key.clone()).await? {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(show(&key))))
}

/// `DELETE /api/v1/ssh-keys?fingerprint=`: it lets nobody in any more; who is in stays.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    User(subject): User,
    Query(which): Query<Which>,
) -> Result<StatusCode, ApiError> {
    if app.store.remove_ssh_key(subject, which.fingerprint).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        let status = StatusCode::NOT_FOUND;
        let unknown = ApiError::new(status, "not_found", "you have no such key");
        Err(unknown.hint("'cw ssh-key list' shows them"))
    }
}

/// `POST /api/v1/ssh-passwords`: for one login to a node of one's own. A node gets one for itself
/// only.
pub(crate) async fn password(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Body(place): Body<For>,
) -> Result<Json<Password>, ApiError> {
    let network = network_id(&place.network_id)?;
    visitor.may(Action::ListNodes, &network, &app).await?;
    let name = place.node.parse().map_err(|_| ApiError::node_unknown())?;
    let (subject, only) = match visitor {
        Visitor::User(subject) => (subject, None),
        Visitor::Node { key, owner, .. } => (owner, Some(key)),
    };
    let mut found = app.hub.nodes_named(&name, subject.as_str());
    found.retain(|found| found.network == network);
    found.retain(|found| only.is_none_or(|key| key == found.key));
    let Some(found) = found.pop() else {
        return Err(ApiError::node_unknown());
    };
    let text = ssh::password(&random::<64>());
    let now = unix_now();
    let password = SshPassword {
        hash: ssh::password_hash(&text),
        subject,
        network: found.network,
        node: found.name,
        expires: now + PASSWORD_TTL,
    };
    let expires = password.expires;
    app.store.add_ssh_password(password, now).await?;
    Ok(Json(Password {
        password: text,
        expires_at: rfc3339(expires),
        ssh_port: app.info.ssh_port,
    }))
}

fn show(key: &SshKey) -> Shown {
    Shown {
        fingerprint: key.fingerprint.clone(),
        key: key.key.clone(),
        created_at: rfc3339(key.created),
    }
}
