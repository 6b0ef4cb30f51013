//! Grants: a look into one session, for somebody, for a while.
//!
//! The relay writes them down and tells the node whose session it is; that node lets in or not.
//! The secret is in the answer that makes a grant and nowhere else.

mod events;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use derp::NodeKey;
use mesh::NetworkId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, InNetwork, Path, Query, network_id};
use super::groups::{name_of, names, node};
use crate::paper::{Audience, Grant, GrantToken, MAX_GRANT, Verb};
use crate::relay::app::{App, random};
use crate::relay::clock::{duration_secs, rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::papers::Edit;
use crate::relay::policy::{Action, Own};
use crate::relay::signed::Visitor;
use crate::relay::store::Refusal;

pub(crate) use events::events;

/// A grant to give.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewGrant")]
pub(crate) struct Create {
    network_id: String,
    /// The node of the session.
    target_node: String,
    session_id: u32,
    /// A label for people, at most 64 bytes.
    #[serde(default)]
    session_name: Option<String>,
    /// A node or an owner of nodes; `node:<name>` or `owner:<name>` where a name is both.
    audience: String,
    /// Reading and listening, unless told.
    #[serde(default)]
    verbs: BTreeSet<Verb>,
    /// How long it is good, 1s to 24h; 10m unless told.
    #[serde(default)]
    ttl: Option<String>,
}

/// A grant.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Grant")]
pub(crate) struct Shown {
    grant_id: String,
    network_id: String,
    /// The node of the session, by its name, or its key when it is gone.
    target_node: String,
    session_id: u32,
    session_name: String,
    verbs: BTreeSet<Verb>,
    /// node or owner
    audience_subject_kind: &'static str,
    audience_subject_id: String,
    /// As it was asked for.
    audience_display: String,
    granted_by: String,
    /// active, expired or revoked
    status: &'static str,
    /// RFC 3339, as are the others.
    created_at: String,
    expires_at: String,
    revoked_at: Option<String>,
    /// What whoever it is for shows to the node; only in the answer that makes the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    delegation: Option<String>,
}

/// A grant is revoked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GrantRevoked")]
pub(crate) struct Revoked {
    /// revoked
    status: &'static str,
    grant_id: String,
}

/// `POST /api/v1/access-grants`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Body(mut create): Body<Create>,
) -> Result<Json<Shown>, ApiError> {
    let network = network_id(&create.network_id)?;
    visitor.may(Action::ListNodes, &network, &app).await?;
    let (key, own) = node(&app, &visitor, &network, &create.target_node)?;
    visitor.may(Action::Grant(own), &network, &app).await?;
    let ttl = duration_secs(create.ttl.as_deref().unwrap_or("10m"));
    let ttl = ttl.filter(|ttl| (1..=MAX_GRANT).contains(ttl));
    let ttl = ttl.ok_or_else(|| ApiError::bad_request("ttl is 1s to 24h, such as 90s, 10m, 1h"))?;
    if create.verbs.is_empty() {
        create.verbs.extend([Verb::Read, Verb::Listen]);
    }
    let label = create.session_name.unwrap_or_default();
    if label.len() > 64 {
        return Err(ApiError::bad_request("session_name has at most 64 bytes"));
    }
    let token = GrantToken::generate(random(), random());
    let now = unix_now();
    let grant = Grant {
        id: token.id.clone(),
        node: key,
        session: create.session_id,
        label,
        verbs: create.verbs,
        audience: audience(&app, &network, &create.audience)?,
        shown: create.audience,
        by: visitor.subject().as_str().to_owned(),
        hash: token.hash(),
        issued: now,
        expires: now + ttl,
        revoked: None,
    };
    let mut shown = show(&grant, &network, &names(&app, &network), now);
    app.edit(&network, Edit::Give(Box::new(grant))).await?;
    shown.delegation = Some(token.to_string());
    Ok(Json(shown))
}

/// A node by its name, else an owner of nodes; what is both has to be told apart.
fn audience(app: &App, network: &NetworkId, text: &str) -> Result<Audience, ApiError> {
    let nodes = app.hub.list(network);
    let named = |name: &str| {
        let node = nodes.iter().find(|node| node.name.as_str() == name);
        node.map(|node| Audience::Node(node.key))
    };
    let owner = |name: &str| {
        let owns = nodes.iter().any(|node| node.owner == name);
        owns.then(|| Audience::Owner(name.to_owned()))
    };
    if let Some(name) = text.strip_prefix("node:") {
        return named(name).ok_or_else(unknown_audience);
    }
    if let Some(name) = text.strip_prefix("owner:") {
        return owner(name).ok_or_else(unknown_audience);
    }
    match (named(text), owner(text)) {
        (Some(_), Some(_)) => Err(ApiError::bad_request(
            "the audience is ambiguous: a node and an owner have this name",
        )
        .hint("write node:<name> or owner:<name>")),
        (Some(found), None) | (None, Some(found)) => Ok(found),
        (None, None) => Err(unknown_audience()),
    }
}

fn unknown_audience() -> ApiError {
    ApiError::bad_request(
        "the audience is unknown: no node and no owner of this network has this name",
    )
    .hint("'cw node list' shows the nodes and their owners")
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Wanted {
    /// Those for sessions of this node.
    #[serde(default)]
    target_node: Option<String>,
    /// Those for this audience.
    #[serde(default)]
    audience: Option<String>,
    /// Those that are good now.
    #[serde(default)]
    active: bool,
    /// Those that the caller got.
    #[serde(default)]
    mine: bool,
}

/// `GET /api/v1/access-grants?network_id=&target_node=&audience=&active=&mine=`: newest first,
/// those that the visitor gave or, with `mine`, got; all of them for an owner of the network.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<Shown>>, ApiError> {
    visitor
        .may(Action::SeeGrant(Own::Yes), &network, &app)
        .await?;
    let all = visitor.may(Action::SeeGrant(Own::No), &network, &app).await;
    let (names, now) = (names(&app, &network), unix_now());
    let me = Me::of(&app, &visitor, &network);
    let shown = app.hub.papers(&network, |papers| {
        let fits = |grant: &Grant| {
            let node = wanted.target_node.as_ref();
            let audience = wanted.audience.as_ref();
            node.is_none_or(|node| name_of(&names, &grant.node) == *node)
                && audience.is_none_or(|audience| grant.shown == *audience)
                && (!wanted.active || status(grant, now) == "active")
                && (!wanted.mine || me.is_audience(grant))
                && (all.is_ok() || me.gave(grant) || me.is_audience(grant))
        };
        let mut found: Vec<_> = papers.grants().filter(|(_, grant)| fits(grant)).collect();
        found.sort_by_key(|(_, grant)| std::cmp::Reverse((grant.issued, grant.id.clone())));
        let found = found.into_iter();
        found
            .map(|(_, grant)| show(grant, &network, &names, now))
            .collect()
    });
    shown.map(Json).ok_or_else(ApiError::network_unknown)
}

/// `GET /api/v1/access-grants/{id}?network_id=`.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    Path(id): Path<String>,
) -> Result<Json<Shown>, ApiError> {
    visitor
        .may(Action::SeeGrant(Own::Yes), &network, &app)
        .await?;
    let grant = find(&app, &network, &id)?;
    let me = Me::of(&app, &visitor, &network);
    let own = own(me.gave(&grant) || me.is_audience(&grant));
    // That there is one is told only to whom it concerns.
    let may = visitor.may(Action::SeeGrant(own), &network, &app).await;
    may.map_err(|_| refused(Refusal::GrantUnknown))?;
    Ok(Json(show(
        &grant,
        &network,
        &names(&app, &network),
        unix_now(),
    )))
}

/// `DELETE /api/v1/access-grants/{id}?network_id=`: at once; again it says the same.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    Path(id): Path<String>,
) -> Result<Json<Revoked>, ApiError> {
    visitor
        .may(Action::SeeGrant(Own::Yes), &network, &app)
        .await?;
    let grant = find(&app, &network, &id)?;
    let me = Me::of(&app, &visitor, &network);
    let action = Action::RevokeGrant(own(me.gave(&grant)));
    visitor.may(action, &network, &app).await?;
    app.edit(&network, Edit::Revoke(id.clone())).await?;
    Ok(Json(Revoked {
        status: "revoked",
        grant_id: id,
    }))
}

/// Who looks at grants.
struct Me {
    subject: String,
    /// Their nodes.
    keys: Vec<NodeKey>,
}

impl Me {
    fn of(app: &App, visitor: &Visitor, network: &NetworkId) -> Self {
        let subject = visitor.subject().as_str().to_owned();
        let nodes = app.hub.list(network).into_iter();
        let keys = match visitor {
            Visitor::Node { key, .. } => vec![*key],
            Visitor::User(_) => nodes
                .filter(|node| node.owner == subject)
                .map(|node| node.key)
                .collect(),
        };
        Self { subject, keys }
    }

    fn gave(&self, grant: &Grant) -> bool {
        grant.by == self.subject
    }

    fn is_audience(&self, grant: &Grant) -> bool {
        match &grant.audience {
            Audience::Node(key) => self.keys.contains(key),
            Audience::Owner(owner) => *owner == self.subject,
        }
    }
}

const fn own(is: bool) -> Own {
    if is { Own::Yes } else { Own::No }
}

fn find(app: &App, network: &NetworkId, id: &str) -> Result<Grant, ApiError> {
    let found = app.hub.papers(network, |papers| {
        let mut grants = papers.grants().map(|(_, grant)| grant);
        grants.find(|grant| grant.id == id).cloned()
    });
    found
        .flatten()
        .ok_or_else(|| refused(Refusal::GrantUnknown))
}

fn refused(refusal: Refusal) -> ApiError {
    crate::relay::store::Error::from(refusal).into()
}

fn status(grant: &Grant, now: u64) -> &'static str {
    match grant.revoked {
        Some(_) => "revoked",
        None if grant.expires <= now => "expired",
        None => "active",
    }
}

fn show(grant: &Grant, network: &NetworkId, names: &[(NodeKey, String)], now: u64) -> Shown {
    let (kind, id) = match &grant.audience {
        Audience::Node(key) => ("node", name_of(names, key)),
        Audience::Owner(owner) => ("owner", owner.clone()),
    };
    Shown {
        grant_id: grant.id.clone(),
        network_id: network.to_string(),
        target_node: name_of(names, &grant.node),
        session_id: grant.session,
        session_name: grant.label.clone(),
        verbs: grant.verbs.clone(),
        audience_subject_kind: kind,
        audience_subject_id: id,
        audience_display: grant.shown.clone(),
        granted_by: grant.by.clone(),
        status: status(grant, now),
        created_at: rfc3339(grant.issued),
        expires_at: rfc3339(grant.expires),
        revoked_at: grant.revoked.map(rfc3339),
        delegation: None,
    }
}
