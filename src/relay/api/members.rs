//! Who belongs to a network: list, promote, remove.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Body, network_id};
use crate::coord::Mark;
use crate::relay::app::{App, random};
use crate::relay::auth::User;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::Action;
use crate::relay::signed::Visitor;
use crate::relay::store::{Revocation, Role, Subject};

/// `GET /api/v1/networks/{id}/members`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let network = network_id(&id)?;
    visitor.may(Action::ListMembers, &network, &app).await?;
    let members = app.store.members(network).await?.into_iter();
    let shown = members.map(|member| {
        json!({
            "subject": member.subject.as_str(),
            "role": member.role.as_str(),
            "node_count": member.nodes,
            "created_at": rfc3339(member.since),
        })
    });
    Ok(Json(shown.collect()))
}

#[derive(Deserialize)]
pub(crate) struct Set {
    subject: String,
    role: String,
}

/// `PUT /api/v1/networks/{id}/members`: another role for somebody who belongs to it.
pub(crate) async fn set(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
    Body(set): Body<Set>,
) -> Result<Json<Value>, ApiError> {
    let network = network_id(&id)?;
    user.may(Action::Rule, &network, &app).await?;
    let role = Role::parse(&set.role)
        .ok_or_else(|| ApiError::bad_request("role is owner, member or guest"))?;
    let subject = Subject::named(&set.subject);
    if !app.store.set_role(network, subject, Some(role)).await? {
        return Err(unknown());
    }
    Ok(Json(
        json!({ "subject": set.subject, "role": role.as_str() }),
    ))
}

#[derive(Deserialize)]
pub(crate) struct Who {
    subject: String,
}

/// `DELETE /api/v1/networks/{id}/members?subject=`: with the nodes that are theirs.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
    Query(who): Query<Who>,
) -> Result<Json<Value>, ApiError> {
    let network = network_id(&id)?;
    user.may(Action::Rule, &network, &app).await?;
    let subject = Subject::named(&who.subject);
    if !app.store.set_role(network.clone(), subject, None).await? {
        return Err(unknown());
    }
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
            nodes.push(node.name);
        }
    }
    Ok(Json(json!({ "subject": who.subject, "nodes": nodes })))
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
