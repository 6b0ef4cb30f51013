//! Who belongs to a network: list, promote, remove.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, Path, Query, network_id};
use crate::coord::Mark;
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::signed::Visitor;
use crate::relay::store::{Revocation, Role, Subject};

/// Somebody who belongs to a network.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NetworkMember")]
pub(crate) struct Shown {
    subject: String,
    /// owner, member or guest
    role: &'static str,
    /// Nodes that are theirs.
    node_count: u64,
    /// RFC 3339.
    created_at: String,
}

/// `GET /api/v1/networks/{id}/members`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Json<Vec<Shown>>, ApiError> {
    let network = network_id(&id)?;
    visitor.may(Action::ListMembers, &network, &app).await?;
    let members = app.store.members(network).await?.into_iter();
    let shown = members.map(|member| Shown {
        subject: member.subject.as_str().to_owned(),
        role: member.role.as_str(),
        node_count: member.nodes,
        created_at: rfc3339(member.since),
    });
    Ok(Json(shown.collect()))
}

/// A role for somebody.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewRole")]
pub(crate) struct Set {
    subject: String,
    /// owner, member or guest
    role: String,
}

/// Which role somebody has now.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MemberRole")]
pub(crate) struct HasRole {
    subject: String,
    /// owner, member or guest
    role: &'static str,
}

/// `PUT /api/v1/networks/{id}/members`: another role for somebody who belongs to it.
pub(crate) async fn set(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
    Body(set): Body<Set>,
) -> Result<Json<HasRole>, ApiError> {
    let network = network_id(&id)?;
    user.may(Action::Rule, &network, &app).await?;
    let role = Role::parse(&set.role)
        .ok_or_else(|| ApiError::bad_request("role is owner, member or guest"))?;
    let subject = Subject::named(&set.subject);
    if !app.store.set_role(network, subject, Some(role)).await? {
        return Err(unknown());
    }
    Ok(Json(HasRole {
        subject: set.subject,
        role: role.as_str(),
    }))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Who {
    /// Who is taken out.
    subject: String,
}

/// Who is out, and the nodes that went with them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MemberRemoved")]
pub(crate) struct Removed {
    subject: String,
    nodes: Vec<String>,
}

/// `DELETE /api/v1/networks/{id}/members?subject=`: with the nodes that are theirs.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
    Query(who): Query<Who>,
) -> Result<Json<Removed>, ApiError> {
    let network = network_id(&id)?;
    user.may(Action::Rule, &network, &app).await?;
    let subject = Subject::named(&who.subject);
    let belonged = app.store.set_role(network.clone(), subject, None).await?;
    // A node of theirs may have come at another relay until now; from now on none does.
    app.freshen(&network).await?;
    // Who asks again because not all was done finds the role gone already.
    let mut nodes = Vec::new();
    for node in app.hub.list(&network) {
        if node.owner != who.subject {
            continue;
        }
        let revocation = Revocation {
            network: network.clone(),
            name: node.name.clone(),
            mark: Mark(random()),
            now: unix_now(),
        };
        if app.revoke(revocation).await? {
            nodes.push(node.name.to_string());
        }
    }
    if !belonged && nodes.is_empty() {
        return Err(unknown());
    }
    Ok(Json(Removed {
        subject: who.subject,
        nodes,
    }))
}

fn unknown() -> ApiError {
    let status = StatusCode::NOT_FOUND;
    ApiError::new(
        status,
        "not_found",
        "nobody of that name belongs to this network",
    )
    .hint("'cw network members' shows who does")
}
