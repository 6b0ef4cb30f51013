//! Grants: a look into one session, for somebody, for a while.
//!
//! The relay writes them down and tells the node whose session it is; that node lets in or not.
//! The secret is in the answer that makes a grant and nowhere else.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use derp::NodeKey;
use futures_util::{Stream, stream};
use mesh::NetworkId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::body::{Body, InNetwork, network_id};
use super::groups::{name_of, names, node};
use crate::paper::{Audience, Grant, GrantToken, MAX_GRANT, Verb};
use crate::relay::app::{App, random};
use crate::relay::clock::{duration_secs, rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::papers::{Edit, GRANTS_KEPT};
use crate::relay::policy::{Action, Own};
use crate::relay::signed::Visitor;
use crate::relay::store::Refusal;

/// How often a stream of events says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
pub(crate) struct Create {
    network_id: String,
    target_node: String,
    session_id: u32,
    #[serde(default)]
    session_name: Option<String>,
    audience: String,
    #[serde(default)]
    verbs: BTreeSet<Verb>,
    #[serde(default)]
    ttl: Option<String>,
}

/// `POST /api/v1/access-grants`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Body(mut create): Body<Create>,
) -> Result<Json<Value>, ApiError> {
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
    shown["delegation"] = json!(token.to_string());
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

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    target_node: Option<String>,
    #[serde(default)]
    audience: Option<String>,
    #[serde(default)]
    active: bool,
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
) -> Result<Json<Value>, ApiError> {
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
) -> Result<Json<Value>, ApiError> {
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
) -> Result<Json<Value>, ApiError> {
    visitor
        .may(Action::SeeGrant(Own::Yes), &network, &app)
        .await?;
    let grant = find(&app, &network, &id)?;
    let me = Me::of(&app, &visitor, &network);
    let action = Action::RevokeGrant(own(me.gave(&grant)));
    visitor.may(action, &network, &app).await?;
    app.edit(&network, Edit::Revoke(id.clone())).await?;
    Ok(Json(json!({ "status": "revoked", "grant_id": id })))
}

/// `GET /api/v1/access/cache/events?network_id=`: grants as they are revoked, server-sent. The id
/// of an event is the serial of its paper, so that `Last-Event-ID` holds across restarts.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    visitor
        .may(Action::SeeGrant(Own::Yes), &network, &app)
        .await?;
    let cursor = match headers.get("last-event-id") {
        None => None,
        Some(header) => {
            let parsed = header
                .to_str()
                .ok()
                .and_then(|text| text.parse::<u64>().ok());
            Some(parsed.ok_or_else(|| ApiError::bad_request("Last-Event-ID is no cursor"))?)
        }
    };
    let bell = app.hub.bell(&network);
    let last = app
        .hub
        .papers(&network, crate::relay::papers::Papers::serial);
    let last = last.ok_or_else(ApiError::network_unknown)?;
    // What was revoked longer ago than grants are kept is not told any more.
    let oldest = unix_now().saturating_sub(GRANTS_KEPT).saturating_mul(1000);
    let lost = cursor.is_some_and(|cursor| cursor < oldest.min(last) || cursor > last);
    let told = Told {
        all: visitor
            .may(Action::SeeGrant(Own::No), &network, &app)
            .await
            .is_ok(),
        app,
        visitor,
        network,
        cursor: cursor.filter(|_| !lost).unwrap_or(last),
        queue: Vec::new(),
        bell,
        reset: lost.then_some(last),
    };
    let events = stream::unfold(told, async |mut told| {
        let event = told.next().await?;
        Some((Ok(event), told))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keepalive")))
}

/// A stream of events, and how far it has come.
struct Told {
    app: Arc<App>,
    visitor: Visitor,
    network: NetworkId,
    all: bool,
    cursor: u64,
    queue: Vec<(u64, String, u64)>,
    bell: watch::Receiver<()>,
    reset: Option<u64>,
}

impl Told {
    /// The next event; `None` when the relay stops or the visitor no longer belongs here.
    async fn next(&mut self) -> Option<Event> {
        if let Some(last) = self.reset.take() {
            let data = json!({ "seq": last, "type": "stream.reset", "network_id": self.network });
            return Some(event(last, "stream.reset", &data));
        }
        let mut stop = self.app.stop.clone();
        loop {
            if let Some((serial, id, at)) = self.queue.pop() {
                self.cursor = serial;
                let data = json!({
                    "seq": serial,
                    "type": "access.grant.revoked",
                    "network_id": self.network,
                    "grant_id": id,
                    "revoked_at": rfc3339(at),
                });
                return Some(event(serial, "access.grant.revoked", &data));
            }
            self.bell.borrow_and_update();
            self.look()?;
            if self.queue.is_empty() {
                tokio::select! {
                    changed = self.bell.changed() => changed.ok()?,
                    _ = stop.wait_for(|stop| *stop) => return None,
                }
            }
        }
    }

    /// Queues what was revoked since the cursor, the last first.
    fn look(&mut self) -> Option<()> {
        let (app, network) = (&self.app, &self.network);
        if let Visitor::Node { key, .. } = &self.visitor {
            // A node that was put out hears nothing more.
            app.hub.record(network, key)?;
        }
        let me = Me::of(app, &self.visitor, network);
        let (all, cursor) = (self.all, self.cursor);
        self.queue = app.hub.papers(network, |papers| {
            let revoked = papers.grants().filter_map(|(serial, grant)| {
                let concerns = all || me.gave(grant) || me.is_audience(grant);
                let at = grant.revoked.filter(|_| serial > cursor && concerns)?;
                Some((serial, grant.id.clone(), at))
            });
            revoked.collect()
        })?;
        self.queue
            .sort_by_key(|(serial, ..)| std::cmp::Reverse(*serial));
        Some(())
    }
}

fn event(id: u64, name: &str, data: &Value) -> Event {
    let event = Event::default().id(id.to_string()).event(name);
    event.data(data.to_string())
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

fn show(grant: &Grant, network: &NetworkId, names: &[(NodeKey, String)], now: u64) -> Value {
    let (kind, id) = match &grant.audience {
        Audience::Node(key) => ("node", name_of(names, key)),
        Audience::Owner(owner) => ("owner", owner.clone()),
    };
    json!({
        "grant_id": grant.id,
        "network_id": network,
        "target_node": name_of(names, &grant.node),
        "session_id": grant.session,
        "session_name": grant.label,
        "verbs": grant.verbs,
        "audience_subject_kind": kind,
        "audience_subject_id": id,
        "audience_display": grant.shown,
        "granted_by": grant.by,
        "status": status(grant, now),
        "created_at": rfc3339(grant.issued),
        "expires_at": rfc3339(grant.expires),
        "revoked_at": grant.revoked.map(rfc3339),
    })
}
