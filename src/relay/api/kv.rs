//! Values that the nodes of a network share: a key in a namespace, and bytes.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/kv/{ns}/{key}` | the bytes; `ETag` is the revision, `X-Expires-At`, `X-Changed-By` |
//! | `PUT /api/v1/kv/{ns}/{key}`, `X-TTL: 60s` | `{revision, expires_at?}` |
//! | `DELETE /api/v1/kv/{ns}/{key}` | `{revision}` |
//! | `GET /api/v1/kv/{ns}?prefix=&after=&limit=` | `{entries, more}`, by key |
//! | `GET /api/v1/kv/{ns}?prefix=&since=&wait=` | `{changes, upto, gap}`, by revision |
//!
//! A user names the network by `network_id`, a node's signature names it. A `PUT`
//! and a `DELETE` may have the condition `If-None-Match: *` (there is no value) or
//! `If-Match: "<revision>"`; 412 when it is not met.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh::NetworkId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Path, Query};
use crate::relay::app::App;
use crate::relay::clock::duration_secs;
use crate::relay::error::ApiError;
use crate::relay::signed::{Sharer, too_large};
use crate::relay::store::shared::{
    self, Condition, Entry, Key, MAX_VALUE, NoSpace, Place, Put, Removal, Space,
};

/// The longest life a value may be given, seconds: ten years.
const MAX_TTL: u64 = 10 * 365 * 24 * 3600;

/// Entries of one answer.
const MAX_ENTRIES: u32 = 1_000;

/// How long a request for changes may wait, seconds; less than what a request
/// may take.
const MAX_WAIT: u64 = 10;

/// How the name of a writer's session is told, letters.
const MAX_SESSION: usize = 64;

/// What a query may say.
#[derive(Default, Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// Of the keys.
    #[serde(default)]
    prefix: String,
    /// Only keys after this one.
    after: Option<String>,
    /// So many at most; 1000 unless told.
    limit: Option<u32>,
    /// With `wait`: changes after this revision.
    since: Option<u64>,
    /// Asks for changes, and waits for one so many seconds, 10 at most.
    wait: Option<u64>,
}

/// A shared value, or that there is none any more.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SharedEntry")]
pub(crate) struct Shown {
    key: String,
    /// base64: all of it, or its first KiB in a list; null for what was deleted.
    value: Option<String>,
    /// Of the whole value, bytes.
    size: u64,
    revision: u64,
    /// RFC 3339, as is `changed_at`.
    expires_at: Option<String>,
    changed_at: String,
    changed_by: String,
}

/// What is shared: keys, or what changed.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Shared")]
pub(crate) enum Listed {
    /// Keys, in their order.
    Entries {
        entries: Vec<Shown>,
        /// There may be more, after the last.
        more: bool,
    },
    /// What changed, in the order of the revisions.
    Changes {
        changes: Vec<Shown>,
        /// Up to which revision this is all.
        upto: u64,
        /// Changes before these are not known any more.
        gap: bool,
    },
}

/// A value is written.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SharedWritten")]
pub(crate) struct Written {
    revision: u64,
    /// RFC 3339.
    expires_at: Option<String>,
}

/// A value is gone.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SharedRemoved")]
pub(crate) struct Removed {
    revision: u64,
}

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path((space, key)): Path<(String, String)>,
    sharer: Sharer,
) -> Result<Response, ApiError> {
    let place = place(sharer.network, &space, &key)?;
    let found = app.store.get_shared(place, app.shared.now_ms()).await?;
    let entry = found.ok_or_else(|| missing(&space, &key))?;
    let mut answer = HeaderMap::new();
    let mut tell = |name: HeaderName, value: String| {
        if let Ok(value) = value.parse() {
            answer.insert(name, value);
        }
    };
    tell(header::ETAG, format!("\"{}\"", entry.revision));
    tell(header::CONTENT_TYPE, "application/octet-stream".to_owned());
    tell(HeaderName::from_static("x-changed-by"), entry.by);
    tell(
        HeaderName::from_static("x-changed-at"),
        session::time::format(entry.changed),
    );
    if let Some(expires) = entry.expires {
        let name = HeaderName::from_static("x-expires-at");
        tell(name, session::time::format(expires));
    }
    Ok((answer, entry.value.unwrap_or_default()).into_response())
}

pub(crate) async fn write(
    State(app): State<Arc<App>>,
    Path((space, key)): Path<(String, String)>,
    headers: HeaderMap,
    sharer: Sharer,
) -> Result<Json<Written>, ApiError> {
    if sharer.body.len() > MAX_VALUE {
        return Err(too_large());
    }
    let now = app.shared.now_ms();
    let expires = ttl(&headers)?.map(|ttl| now.saturating_add(ttl * 1000));
    let revision = app
        .put_shared(Put {
            place: place(sharer.network.clone(), &space, &key)?,
            value: sharer.body.to_vec(),
            expires,
            condition: condition(&headers)?,
            by: writer(&sharer, &headers),
            now,
        })
        .await?;
    let expires = expires.map(session::time::format);
    Ok(Json(Written {
        revision,
        expires_at: expires,
    }))
}

pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path((space, key)): Path<(String, String)>,
    headers: HeaderMap,
    sharer: Sharer,
) -> Result<Json<Removed>, ApiError> {
    let removal = Removal {
        place: place(sharer.network.clone(), &space, &key)?,
        condition: condition(&headers)?,
        by: writer(&sharer, &headers),
        now: app.shared.now_ms(),
    };
    let revision = app.remove_shared(removal).await?;
    let revision = revision.ok_or_else(|| missing(&space, &key))?;
    Ok(Json(Removed { revision }))
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
    sharer: Sharer,
) -> Result<Json<Listed>, ApiError> {
    let query = shared::Query {
        network: sharer.network,
        space: space(&name)?,
        prefix: params.prefix,
        limit: params.limit.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES),
        now: app.shared.now_ms(),
    };
    let Some(wait) = params.wait else {
        let limit = query.limit as usize;
        let entries = app.store.list_shared(query, params.after).await?;
        // Exactly as many as fit: perhaps all. The next page is empty then.
        let more = entries.len() == limit;
        let entries = entries.iter().map(shown).collect();
        return Ok(Json(Listed::Entries { entries, more }));
    };
    let wait = Duration::from_secs(wait.min(MAX_WAIT));
    let changes = app
        .shared_changes(query.clone(), params.since, wait)
        .await?;
    if let Some(node) = sharer.node {
        // It may have been revoked while it waited.
        let standing = app.hub.standing(&query.network, &node);
        if standing.is_none_or(|standing| standing.revoked) {
            return Err(ApiError::forbidden());
        }
    }
    Ok(Json(Listed::Changes {
        changes: changes.entries.iter().map(shown).collect(),
        upto: changes.upto,
        gap: changes.gap,
    }))
}

fn shown(entry: &Entry) -> Shown {
    Shown {
        key: entry.key.clone(),
        value: entry.value.as_ref().map(|value| STANDARD.encode(value)),
        size: entry.size,
        revision: entry.revision,
        expires_at: entry.expires.map(session::time::format),
        changed_at: session::time::format(entry.changed),
        changed_by: entry.by.clone(),
    }
}

pub(crate) fn place(network: NetworkId, name: &str, key: &str) -> Result<Place, ApiError> {
    let space = space(name)?;
    let key = Key::new(key).ok_or_else(|| {
        let why = "a key is 1 to 256 bytes of text without control characters, and no part \
                   between slashes is '.' or '..'";
        ApiError::new(StatusCode::BAD_REQUEST, "key_invalid", why)
    })?;
    Ok(Place {
        network,
        space,
        key,
    })
}

fn space(name: &str) -> Result<Space, ApiError> {
    Space::new(name).map_err(|why| match why {
        NoSpace::Malformed => ApiError::new(
            StatusCode::BAD_REQUEST,
            "namespace_invalid",
            "a namespace is 1 to 64 letters, digits, '-', '_' or '.', starting with a letter or digit",
        ),
        NoSpace::Reserved => ApiError::new(
            StatusCode::FORBIDDEN,
            "namespace_reserved",
            "this namespace is the relay's own",
        ),
    })
}

fn missing(space: &str, key: &str) -> ApiError {
    let what = format!("there is no {space}/{key}");
    ApiError::new(StatusCode::NOT_FOUND, "key_not_found", what)
}

pub(crate) fn ttl(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(text) = headers.get("x-ttl") else {
        return Ok(None);
    };
    let secs = text.to_str().ok().and_then(duration_secs);
    match secs {
        Some(secs) if (1..=MAX_TTL).contains(&secs) => Ok(Some(secs)),
        _ => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "ttl_invalid",
            "a time to live is 1s to 3650d, such as 90s, 10m or 1h30m",
        )),
    }
}

pub(crate) fn condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    let wrong = || {
        ApiError::bad_request("the condition is not If-Match: \"<revision>\" or If-None-Match: *")
    };
    match (
        headers.get(header::IF_MATCH),
        headers.get(header::IF_NONE_MATCH),
    ) {
        (None, None) => Ok(Condition::Always),
        (None, Some(value)) if value == "*" => Ok(Condition::Absent),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| wrong())?;
            let revision = text.trim_matches('"').parse().map_err(|_| wrong())?;
            Ok(Condition::Is(revision))
        }
        _ => Err(wrong()),
    }
}

/// Whoever writes: the node is proven, its session is what it says.
fn writer(sharer: &Sharer, headers: &HeaderMap) -> String {
    let session = headers.get("x-session").and_then(|name| name.to_str().ok());
    let is_name = |name: &&str| {
        (1..=MAX_SESSION).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match session.filter(is_name) {
        Some(session) if sharer.node.is_some() => format!("{}:{session}", sharer.by),
        _ => sharer.by.clone(),
    }
}
