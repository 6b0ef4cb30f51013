//! The values that a network shares, as a node reaches them: requests to the
//! relay that the node signs.

use std::sync::Arc;

use mesh::{Identity, NetworkId, SignKey};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};

use super::Membership;
use super::http::Http;
use super::join::unix_now;
use crate::coord::Nonce;
use crate::coord::request::{Credential, Request, SCHEME, Signer};
use crate::error::{Error, Result};
use crate::rpc::Base64;

/// How long the relay may hold a question for changes, seconds.
const WAIT: u64 = 10;

/// What stays as it is in a path or a query; the rest would be changed on the
/// way, and the signature is over the text that is sent.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Says where the relay is.
type Url = dyn Fn() -> String + Send + Sync;

/// See the module.
pub struct Shared {
    url: Box<Url>,
    network: NetworkId,
    issuer: SignKey,
    identity: Arc<Identity>,
    /// Made when it is first needed: it reads the certificates to trust.
    http: Mutex<Option<(String, Arc<Http>)>>,
}

/// A value, with what is known of it.
#[derive(Debug, Clone)]
pub struct Found {
    /// All of it.
    pub value: Vec<u8>,
    /// Of the change that made it.
    pub revision: u64,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// RFC 3339.
    pub changed_at: Option<String>,
    /// `node:session`, a node, or a user.
    pub changed_by: Option<String>,
}

/// A change, or a key of a list.
#[derive(Debug, Clone, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value or its first KiB; none if it was deleted or has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
    /// Bytes of the whole value.
    pub size: u64,
    /// Of this change.
    pub revision: u64,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// RFC 3339.
    pub changed_at: String,
    /// `node:session`, a node, or a user.
    pub changed_by: String,
}

/// Keys, in their order.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// Of this page.
    pub entries: Vec<Entry>,
    /// There may be another.
    pub more: bool,
}

/// What has changed, in its order.
#[derive(Debug, Clone, Deserialize)]
pub struct Changes {
    /// A key that changed twice is there once.
    pub changes: Vec<Entry>,
    /// Where to go on.
    pub upto: u64,
    /// Changes may be missing: they are no longer known.
    pub gap: bool,
}

/// A change that was made.
#[derive(Debug, Clone, Deserialize)]
pub struct Done {
    /// Its revision.
    pub revision: u64,
    /// RFC 3339.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// A change to be made.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The namespace.
    pub space: String,
    /// The key.
    pub key: String,
    /// The new value; none deletes.
    pub value: Option<Vec<u8>>,
    /// Such as `90s`.
    pub ttl: Option<String>,
    /// Only if there is no value.
    pub if_absent: bool,
    /// Only if the value is that of this revision.
    pub if_revision: Option<u64>,
    /// The session for which it is made.
    pub session: Option<String>,
}

impl Shared {
    /// For a member of a network, whose relay is where `url` says each time.
    pub(crate) fn new(
        membership: &Membership,
        identity: Arc<Identity>,
        url: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            url: Box::new(url),
            network: membership.network.clone(),
            issuer: membership.issuer,
            identity,
            http: Mutex::default(),
        }
    }

    /// Stores or deletes a value.
    ///
    /// # Errors
    ///
    /// This and all below: the relay's codes (`key_not_found`, `conflict`,
    /// `kv_full`, `namespace_reserved`, …), or `relay_unreachable`.
    pub async fn change(&self, change: Change) -> Result<Done> {
        let path = path(&change.space, &change.key);
        let method = if change.value.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        let body = change.value.unwrap_or_default();
        let mut request = self.request(method, &path, &body)?.body(body);
        if let Some(ttl) = change.ttl {
            request = request.header("x-ttl", ttl);
        }
        if change.if_absent {
            request = request.header("if-none-match", "*");
        }
        if let Some(revision) = change.if_revision {
            request = request.header("if-match", format!("\"{revision}\""));
        }
        if let Some(session) = change.session {
            request = request.header("x-session", session);
        }
        self.http()?.send(request).await
    }

    /// A value.
    pub async fn get(&self, space: &str, key: &str) -> Result<Found> {
        let request = self.request(Method::GET, &path(space, key), b"")?;
        let (head, value) = self.http()?.send_whole(request).await?;
        let text = |name: &str| Some(head.get(name)?.to_str().ok()?.to_owned());
        Ok(Found {
            value,
            revision: revision(&head)?,
            expires_at: text("x-expires-at"),
            changed_at: text("x-changed-at"),
            changed_by: text("x-changed-by"),
        })
    }

    /// A page of the keys that start with `prefix` and come after `after`.
    pub async fn list(&self, space: &str, prefix: &str, after: Option<&str>) -> Result<Page> {
        let mut path = format!("/api/v1/kv/{}?prefix={}", coded(space), coded(prefix));
        if let Some(after) = after {
            path.push_str(&format!("&after={}", coded(after)));
        }
        let request = self.request(Method::GET, &path, b"")?;
        self.http()?.send(request).await
    }

    /// What has changed since a revision; waits for it some seconds. Without a
    /// revision: where to start from.
    pub async fn changes(&self, space: &str, prefix: &str, since: Option<u64>) -> Result<Changes> {
        let (space, prefix) = (coded(space), coded(prefix));
        let mut path = format!("/api/v1/kv/{space}?prefix={prefix}&wait={WAIT}");
        if let Some(since) = since {
            path.push_str(&format!("&since={since}"));
        }
        let request = self.request(Method::GET, &path, b"")?;
        self.http()?.send(request).await
    }

    /// Made once for a relay: it keeps its connections.
    fn http(&self) -> Result<Arc<Http>> {
        let url = (self.url)();
        let mut kept = self.http.lock();
        if let Some((at, http)) = &*kept
            && *at == url
        {
            return Ok(Arc::clone(http));
        }
        let http = Arc::new(Http::new(&url, None)?);
        *kept = Some((url, Arc::clone(&http)));
        Ok(http)
    }

    fn request(&self, method: Method, path: &str, body: &[u8]) -> Result<RequestBuilder> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(Error::internal)?;
        let signer = Signer {
            network: &self.network,
            key: self.identity.key(),
            signing: self.identity.signing_key(),
        };
        let request = Request {
            issuer: &self.issuer,
            method: method.as_str(),
            path,
        };
        let credential = Credential::sign(&signer, &request, body, unix_now(), Nonce(nonce));
        let request = self.http()?.request(method, path);
        Ok(request.header(AUTHORIZATION, format!("{SCHEME} {credential}")))
    }
}

fn path(space: &str, key: &str) -> String {
    let key: Vec<_> = key.split('/').map(coded).collect();
    format!("/api/v1/kv/{}/{}", coded(space), key.join("/"))
}

fn coded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

fn revision(head: &HeaderMap) -> Result<u64> {
    let tag = head.get("etag").and_then(|tag| tag.to_str().ok());
    let revision = tag.and_then(|tag| tag.trim_matches('"').parse().ok());
    revision.ok_or_else(|| Error::new("relay_invalid", "the relay's answer has no revision"))
}
