//! Tools for values that all machines of the network share: what agents agree on, hand over, or
//! hold a lock by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::{Effect, Tool, Turn};
use crate::error::{Error, Result};
use crate::rpc::Base64;
use crate::verb::{Call, Reply, kv};

/// What the texts of one list may have together, bytes.
const LIST_TEXT: usize = 256 * 1024;

fn namespace(given: Option<String>) -> String {
    given.unwrap_or_else(|| "default".to_owned())
}

/// Store a value under a key, for all machines of the network. With if_absent only one of many that
/// try succeeds (a lock; give it a ttl); with if_revision a value that somebody else has changed
/// meanwhile is left alone (code conflict).
#[derive(Deserialize, JsonSchema)]
pub(super) struct SetKey {
    /// The key, such as tasks/build-1.
    key: String,
    /// The value, at most 1 MiB.
    value: String,
    /// The namespace; default if left out.
    namespace: Option<String>,
    /// How long the value is there: 90s, 10m, 1h; for ever if left out.
    ttl: Option<String>,
    /// Only if the key has no value.
    #[serde(default)]
    if_absent: bool,
    /// Only if the value is still the one of this revision.
    if_revision: Option<u64>,
}

/// A change that was made.
#[derive(Serialize, JsonSchema)]
pub(super) struct Changed {
    /// Of the value; grows with every change in the network.
    revision: u64,
    /// When the value goes, RFC 3339.
    expires_at: Option<String>,
}

impl Tool for SetKey {
    type Output = Changed;
    const NAME: &'static str = "codewire_kv_set";
    const TITLE: &'static str = "Store a shared value";
    const EFFECT: Effect = Effect::Destroys;

    async fn call(self, turn: &Turn) -> Result<(String, Changed)> {
        let namespace = namespace(self.namespace);
        let text = format!("Set {namespace}/{}", self.key);
        let call = Call::KvSet(kv::Set {
            key: self.key,
            value: Base64(self.value.into_bytes()),
            namespace,
            ttl: self.ttl,
            if_absent: self.if_absent,
            if_revision: self.if_revision,
        });
        match turn.ask(call).await? {
            Reply::KvSet(done) => Ok((text, changed(done))),
            other => Err(other.unexpected()),
        }
    }
}

fn changed(done: kv::Done) -> Changed {
    Changed {
        revision: done.revision,
        expires_at: done.expires_at,
    }
}

/// Read the value of a key that the machines of the network share.
#[derive(Deserialize, JsonSchema)]
pub(super) struct GetKey {
    /// The key.
    key: String,
    /// The namespace; default if left out.
    namespace: Option<String>,
}

/// A value.
#[derive(Serialize, JsonSchema)]
pub(super) struct Value {
    /// The value; what is not text in it is replaced.
    value: String,
    /// For if_revision.
    revision: u64,
    /// When it goes, RFC 3339.
    expires_at: Option<String>,
    /// When it was written, RFC 3339.
    changed_at: Option<String>,
    /// By whom: node:session, a node, or a user.
    changed_by: Option<String>,
}

impl Tool for GetKey {
    type Output = Value;
    const NAME: &'static str = "codewire_kv_get";
    const TITLE: &'static str = "Read a shared value";
    const EFFECT: Effect = Effect::Reads;

    async fn call(self, turn: &Turn) -> Result<(String, Value)> {
        let namespace = namespace(self.namespace);
        let name = format!("{namespace}/{}", self.key);
        let call = Call::KvGet(kv::Get {
            key: self.key,
            namespace,
            json: false,
        });
        let found = match turn.ask(call).await? {
            Reply::KvValue(found) => found,
            other => return Err(other.unexpected()),
        };
        let Some(value) = found.value else {
            return Err(Error::new("key_not_found", format!("there is no {name}"))
                .hint("codewire_kv_list shows the keys of a namespace"));
        };
        let text = String::from_utf8_lossy(&value.0).into_owned();
        Ok((
            text.clone(),
            Value {
                value: text,
                revision: found.revision,
                expires_at: found.expires_at,
                changed_at: found.changed_at,
                changed_by: found.changed_by,
            },
        ))
    }
}

/// List the keys that the machines of the network share, with the beginnings of their values.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ListKeys {
    /// Only keys that start with this.
    prefix: Option<String>,
    /// The namespace; default if left out.
    namespace: Option<String>,
    /// Only keys behind this one: where the list before has ended.
    after: Option<String>,
}

/// Keys.
#[derive(Serialize, JsonSchema)]
pub(super) struct Keys {
    /// In their order.
    entries: Vec<KeyInfo>,
    /// There are more: ask again with this as after.
    next: Option<String>,
}

/// A key.
#[derive(Serialize, JsonSchema)]
struct KeyInfo {
    /// The key.
    key: String,
    /// The value or its beginning; what is not text in it is replaced.
    value: String,
    /// Bytes of the whole value.
    size: u64,
    /// For if_revision.
    revision: u64,
    /// When it goes, RFC 3339.
    expires_at: Option<String>,
    /// By whom it was written: node:session, a node, or a user.
    changed_by: String,
}

impl Tool for ListKeys {
    type Output = Keys;
    const NAME: &'static str = "codewire_kv_list";
    const TITLE: &'static str = "List shared values";
    const EFFECT: Effect = Effect::Reads;

    async fn call(self, turn: &Turn) -> Result<(String, Keys)> {
        let call = Call::KvList(kv::List {
            prefix: self.prefix.unwrap_or_default(),
            namespace: namespace(self.namespace),
            json: false,
        });
        let found = match turn.ask(call).await? {
            Reply::KvEntries(found) => found.entries,
            other => return Err(other.unexpected()),
        };
        let after = self.after.unwrap_or_default();
        let (mut entries, mut room, mut next) = (Vec::<KeyInfo>::new(), LIST_TEXT, None);
        for entry in found.into_iter().filter(|entry| entry.key > after) {
            let value = entry.value.unwrap_or_default();
            let weight = entry.key.len() + value.0.len();
            let Some(left) = room.checked_sub(weight) else {
                next = entries.last().map(|last| last.key.clone());
                break;
            };
            room = left;
            entries.push(KeyInfo {
                key: entry.key,
                value: String::from_utf8_lossy(&value.0).into_owned(),
                size: entry.size,
                revision: entry.revision,
                expires_at: entry.expires_at,
                changed_by: entry.changed_by,
            });
        }
        let text = serde_json::to_string_pretty(&entries).map_err(Error::internal)?;
        Ok((text, Keys { entries, next }))
    }
}

/// Delete a key that the machines of the network share.
#[derive(Deserialize, JsonSchema)]
pub(super) struct DeleteKey {
    /// The key.
    key: String,
    /// The namespace; default if left out.
    namespace: Option<String>,
    /// Only if the value is still the one of this revision.
    if_revision: Option<u64>,
}

impl Tool for DeleteKey {
    type Output = Changed;
    const NAME: &'static str = "codewire_kv_delete";
    const TITLE: &'static str = "Delete a shared value";
    const EFFECT: Effect = Effect::Destroys;

    async fn call(self, turn: &Turn) -> Result<(String, Changed)> {
        let namespace = namespace(self.namespace);
        let text = format!("Deleted {namespace}/{}", self.key);
        let call = Call::KvDelete(kv::Delete {
            key: self.key,
            namespace,
            if_revision: self.if_revision,
            json: false,
        });
        match turn.ask(call).await? {
            Reply::KvDelete(done) => Ok((text, changed(done))),
            other => Err(other.unexpected()),
        }
    }
}
