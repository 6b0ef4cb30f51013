//! Groups: create, list, change, delete, and who is in them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use derp::NodeKey;
use mesh::NetworkId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{Body, InNetwork, Path, Query, network_id};
use crate::paper::{Debug, Group, GroupName, Joining, Member, Messages};
use crate::relay::app::App;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::papers::Edit;
use crate::relay::policy::{Action, Own};
use crate::relay::signed::Visitor;
use crate::relay::store::Refusal;

/// The longest label of a session, bytes; names are shorter.
const MAX_LABEL: usize = 64;

/// A group to create.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewGroup")]
pub(crate) struct Create {
    network_id: String,
    name: String,
}

/// A group of sessions.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Group")]
pub(crate) struct Shown {
    network_id: String,
    name: String,
    /// RFC 3339.
    created_at: String,
    created_by: String,
    policy: Policies,
    members: Vec<InGroup>,
}

/// The rules of a group.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GroupPolicy")]
pub(crate) struct Policies {
    messages_policy: Messages,
    debug_policy: Debug,
    join_policy: Joining,
}

/// A session in a group.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GroupMember")]
pub(crate) struct InGroup {
    /// The name of the node, or its key when it is gone.
    node_name: String,
    session_id: u32,
    session_name: String,
    /// RFC 3339.
    created_at: String,
}

/// A group is no more.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GroupDeleted")]
pub(crate) struct Deleted {
    /// deleted
    status: &'static str,
    name: String,
}

/// `POST /api/v1/groups`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Body(create): Body<Create>,
) -> Result<Json<Shown>, ApiError> {
    let network = network_id(&create.network_id)?;
    visitor.may(Action::MakeGroups, &network, &app).await?;
    let name = group_name(&create.name)?;
    let by = visitor.subject().as_str().to_owned();
    let edit = Edit::CreateGroup {
        name: name.clone(),
        by,
    };
    app.edit(&network, edit).await?;
    show_one(&app, &network, &name)
}

/// `GET /api/v1/groups?network_id=`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
) -> Result<Json<Vec<Shown>>, ApiError> {
    visitor.may(Action::ListGroups, &network, &app).await?;
    let names = names(&app, &network);
    let shown = app.hub.papers(&network, |papers| {
        let groups = papers.groups();
        groups.map(|group| show(group, &network, &names)).collect()
    });
    shown.map(Json).ok_or_else(ApiError::network_unknown)
}

/// `GET /api/v1/groups/{name}?network_id=`.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    Path(name): Path<String>,
) -> Result<Json<Shown>, ApiError> {
    visitor.may(Action::ListGroups, &network, &app).await?;
    show_one(&app, &network, &group_name(&name)?)
}

/// `DELETE /api/v1/groups/{name}?network_id=`.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    Path(name): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    visitor.may(Action::MakeGroups, &network, &app).await?;
    let group = group_name(&name)?;
    app.edit(&network, Edit::DeleteGroup(group)).await?;
    Ok(Json(Deleted {
        status: "deleted",
        name,
    }))
}

/// Rules to change; those that are left out stay.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewGroupPolicy")]
pub(crate) struct Policy {
    network_id: String,
    /// internal-only or open
    #[serde(default)]
    messages_policy: Option<String>,
    /// none, observe-only or full
    #[serde(default)]
    debug_policy: Option<String>,
    /// owners or members
    #[serde(default)]
    join_policy: Option<String>,
}

/// `PUT /api/v1/groups/{name}/policy`.
pub(crate) async fn set_policy(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Body(policy): Body<Policy>,
) -> Result<Json<Shown>, ApiError> {
    let network = network_id(&policy.network_id)?;
    visitor.may(Action::MakeGroups, &network, &app).await?;
    let name = group_name(&name)?;
    let edit = Edit::SetPolicy {
        name: name.clone(),
        messages: word::<Messages>(policy.messages_policy, "invalid messages_policy")?,
        debug: word::<Debug>(policy.debug_policy, "invalid debug_policy")?,
        joining: word::<Joining>(policy.join_policy, "invalid join_policy")?,
    };
    app.edit(&network, edit).await?;
    show_one(&app, &network, &name)
}

/// A session for a group.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewGroupMember")]
pub(crate) struct Entry {
    network_id: String,
    node_name: String,
    session_id: u32,
    /// A label for people, at most 64 bytes.
    #[serde(default)]
    session_name: Option<String>,
}

/// `POST /api/v1/groups/{name}/members`.
pub(crate) async fn enter(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Body(entry): Body<Entry>,
) -> Result<Json<Shown>, ApiError> {
    let network = network_id(&entry.network_id)?;
    let name = group_name(&name)?;
    visitor.may(Action::ListGroups, &network, &app).await?;
    let (node, own) = node(&app, &visitor, &network, &entry.node_name)?;
    let known = app.hub.papers(&network, |papers| {
        let group = papers.group(&name)?;
        Some((group.joining, group.has(&node, entry.session_id)))
    });
    let (joining, is_in) = known
        .flatten()
        .ok_or(Refusal::GroupUnknown)
        .map_err(refused)?;
    // Who is in already only gets another label, which its own node may give.
    let action = if is_in {
        Action::Leave(own)
    } else {
        Action::Enter(joining, own)
    };
    visitor.may(action, &network, &app).await?;
    let label = entry.session_name.unwrap_or_default();
    if label.len() > MAX_LABEL {
        return Err(ApiError::bad_request("session_name has at most 64 bytes"));
    }
    let member = Member {
        node,
        session: entry.session_id,
        label,
        added: unix_now(),
    };
    let edit = Edit::Enter {
        name: name.clone(),
        member,
    };
    app.edit(&network, edit).await?;
    show_one(&app, &network, &name)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Leaving {
    /// The node of the session.
    node_name: String,
    /// Its number there.
    session_id: u32,
}

/// `DELETE /api/v1/groups/{name}/members?network_id=&node_name=&session_id=`.
pub(crate) async fn leave(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    Path(name): Path<String>,
    Query(leaving): Query<Leaving>,
) -> Result<Json<Shown>, ApiError> {
    visitor.may(Action::ListGroups, &network, &app).await?;
    let name = group_name(&name)?;
    let (node, own) = node(&app, &visitor, &network, &leaving.node_name)?;
    visitor.may(Action::Leave(own), &network, &app).await?;
    let edit = Edit::Leave {
        name: name.clone(),
        node,
        session: leaving.session_id,
    };
    app.edit(&network, edit).await?;
    show_one(&app, &network, &name)
}

/// The key of a live node, and whether it is of the visitor's owner.
pub(super) fn node(
    app: &App,
    visitor: &Visitor,
    network: &NetworkId,
    name: &str,
) -> Result<(NodeKey, Own), ApiError> {
    let nodes = app.hub.list(network);
    let found = nodes.into_iter().find(|node| node.name.as_str() == name);
    let found = found.ok_or_else(ApiError::node_unknown)?;
    let own = if found.owner == visitor.subject().as_str() {
        Own::Yes
    } else {
        Own::No
    };
    Ok((found.key, own))
}

/// The names of the nodes that are live.
pub(super) fn names(app: &App, network: &NetworkId) -> Vec<(NodeKey, String)> {
    let nodes = app.hub.list(network).into_iter();
    nodes
        .map(|node| (node.key, node.name.to_string()))
        .collect()
}

/// The name of a node, else its key.
pub(super) fn name_of(names: &[(NodeKey, String)], key: &NodeKey) -> String {
    let known = names.iter().find(|(known, _)| known == key);
    known.map_or_else(|| key.to_string(), |(_, name)| name.clone())
}

fn group_name(text: &str) -> Result<GroupName, ApiError> {
    text.parse::<GroupName>()
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// A word of the API; the empty one is the default.
fn word<T: Default + serde::de::DeserializeOwned>(
    text: Option<String>,
    wrong: &str,
) -> Result<Option<T>, ApiError> {
    match text {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(Some(T::default())),
        Some(text) => serde_json::from_value(Value::String(text))
            .map(Some)
            .map_err(|_| ApiError::bad_request(wrong)),
    }
}

fn refused(refusal: Refusal) -> ApiError {
    crate::relay::store::Error::from(refusal).into()
}

fn show_one(app: &App, network: &NetworkId, name: &GroupName) -> Result<Json<Shown>, ApiError> {
    let names = names(app, network);
    let shown = app.hub.papers(network, |papers| {
        let group = papers.group(name);
        group.map(|group| show(group, network, &names))
    });
    shown
        .flatten()
        .map(Json)
        .ok_or_else(|| refused(Refusal::GroupUnknown))
}

fn show(group: &Group, network: &NetworkId, names: &[(NodeKey, String)]) -> Shown {
    let members = group.members.iter().map(|member| InGroup {
        node_name: name_of(names, &member.node),
        session_id: member.session,
        session_name: member.label.clone(),
        created_at: rfc3339(member.added),
    });
    Shown {
        network_id: network.to_string(),
        name: group.name.to_string(),
        created_at: rfc3339(group.created),
        created_by: group.created_by.clone(),
        policy: Policies {
            messages_policy: group.messages,
            debug_policy: group.debug,
            join_policy: group.joining,
        },
        members: members.collect(),
    }
}
