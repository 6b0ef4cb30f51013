//! `cw kv set|get|list|delete|watch`: values that all nodes of the network share. They live on the
//! relay; the node signs what it asks for there, and every session of it may.

mod watch;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

pub use watch::{Changed, Watch};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::node::Context;
use crate::rpc::Base64;
use crate::show;
use crate::uplink::kv::{Change, Entry};

/// The longest value, bytes.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;

/// The most keys that one list has.
const MAX_LIST: usize = 10_000;

/// What can be done with shared values.
#[derive(Subcommand, Clone, Debug)]
pub enum Kv {
    /// Store a value.
    Set(SetLine),
    /// Print a value.
    Get(Get),
    /// List the keys, and the beginnings of their values.
    #[command(visible_alias = "ls")]
    List(List),
    /// Delete a key.
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Follow what changes.
    Watch(Watch),
}

/// Store a value.
#[derive(Args, Clone, Debug)]
pub struct SetLine {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub set: Set,
    /// The value, at most 1 MiB; - reads it from standard input.
    #[arg(required_unless_present = "file", allow_hyphen_values = true)]
    pub value: Option<String>,
    /// Read the value from a file.
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    pub file: Option<std::path::PathBuf>,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
}

/// Store a value.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Set {
    /// The key.
    pub key: String,
    /// The value.
    #[arg(skip)]
    #[serde(default)]
    pub value: Base64,
    /// The namespace.
    #[arg(long = "ns", value_name = "NAMESPACE", default_value = "default")]
    #[serde(default = "default_space")]
    pub namespace: String,
    /// How long the value is there: 90s, 10m, 1h, 7d; for ever if left out.
    #[arg(long, value_name = "DURATION")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Only if the key has no value: of many that try, one succeeds.
    #[arg(long, conflicts_with = "if_revision")]
    #[serde(default)]
    pub if_absent: bool,
    /// Only if the value is still the one of this revision.
    #[arg(long, value_name = "REVISION")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<u64>,
}

/// Print a value, as it is; cleaned of control characters on a terminal.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Get {
    /// The key.
    pub key: String,
    /// The namespace.
    #[arg(long = "ns", value_name = "NAMESPACE", default_value = "default")]
    #[serde(default = "default_space")]
    pub namespace: String,
    /// Print JSON, with the revision, the writer and the times.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// List the keys.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct List {
    /// Only keys that start with this.
    #[arg(default_value = "")]
    #[serde(default, rename = "key")]
    pub prefix: String,
    /// The namespace.
    #[arg(long = "ns", value_name = "NAMESPACE", default_value = "default")]
    #[serde(default = "default_space")]
    pub namespace: String,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// Delete a key.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Delete {
    /// The key.
    pub key: String,
    /// The namespace.
    #[arg(long = "ns", value_name = "NAMESPACE", default_value = "default")]
    #[serde(default = "default_space")]
    pub namespace: String,
    /// Only if the value is still the one of this revision.
    #[arg(long, value_name = "REVISION")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<u64>,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// A change that was made.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Done {
    /// Grows with every change in the network.
    pub revision: u64,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A value; nothing but the key if there is none.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Value {
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
    /// Of the change that made it.
    #[serde(default)]
    pub revision: u64,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    /// `node:session`, a node, or a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
}

/// Keys.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Entries {
    /// In the order of the keys.
    pub entries: Vec<Entry>,
}

pub(super) fn default_space() -> String {
    "default".to_owned()
}

impl Kv {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match self {
            Self::Set(line) => line.run(cli).await,
            Self::Get(get) => get.run(cli).await,
            Self::List(list) => list.run(cli).await,
            Self::Delete(delete) => delete.run(cli).await,
            Self::Watch(watch) => watch.run(cli).await,
        }
    }
}

impl SetLine {
    async fn run(self, cli: &Cli) -> Result<()> {
        let mut set = self.set;
        set.value = Base64(match (self.value, self.file) {
            (_, Some(path)) => read(std::fs::File::open(&path).map_err(|error| {
                Error::new("not_found", format!("{}: {error}", path.display()))
            })?)?,
            (Some(text), None) if text == "-" => read(std::io::stdin())?,
            (text, None) => text.unwrap_or_default().into_bytes(),
        });
        if set.value.0.len() > MAX_VALUE {
            return Err(too_large());
        }
        let name = format!("{}/{}", set.namespace, set.key);
        match cli.ask(Call::KvSet(set)).await? {
            Reply::KvSet(done) if self.json => cli.print_json(&done),
            Reply::KvSet(_) => {
                cli.note(&format!("Set {}", show::clean(&name)));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }
}

fn read(from: impl std::io::Read) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    from.take(MAX_VALUE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_large() -> Error {
    Error::new("body_too_large", "a value may have 1 MiB")
}

impl Set {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        if self.value.0.len() > MAX_VALUE {
            return Err(too_large());
        }
        let change = Change {
            space: self.namespace,
            key: self.key,
            value: Some(self.value.0),
            ttl: self.ttl,
            if_absent: self.if_absent,
            if_revision: self.if_revision,
            session: writer(context),
        };
        Ok(Reply::KvSet(make(context, change).await?))
    }
}

impl Get {
    async fn run(self, cli: &Cli) -> Result<()> {
        let (json, name) = (self.json, format!("{}/{}", self.namespace, self.key));
        let found = match cli.ask(Call::KvGet(self)).await? {
            Reply::KvValue(found) => found,
            other => return Err(other.unexpected()),
        };
        let Some(value) = &found.value else {
            return Err(Error::new("key_not_found", format!("there is no {name}"))
                .hint("'cw kv list' shows the keys of a namespace"));
        };
        if json {
            return cli.print_json(&readable(&found, Some(value)));
        }
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            // Others have written it.
            let text = show::clean(&String::from_utf8_lossy(&value.0));
            let end = if text.ends_with('\n') { "" } else { "\n" };
            return cli.print(&format!("{text}{end}"));
        }
        cli.print_bytes(&value.0)
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let network = context.host.network()?;
        let found = match network.shared().get(&self.namespace, &self.key).await {
            Ok(found) => found,
            // Clients of the socket know that by the missing value.
            Err(error) if error.code == "key_not_found" => {
                return Ok(Reply::KvValue(Value {
                    value: None,
                    revision: 0,
                    expires_at: None,
                    changed_at: None,
                    changed_by: None,
                }));
            }
            Err(error) => return Err(error),
        };
        Ok(Reply::KvValue(Value {
            value: Some(Base64(found.value)),
            revision: found.revision,
            expires_at: found.expires_at,
            changed_at: found.changed_at,
            changed_by: found.changed_by,
        }))
    }
}

impl List {
    async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        let entries = match cli.ask(Call::KvList(self)).await? {
            Reply::KvEntries(found) => found.entries,
            other => return Err(other.unexpected()),
        };
        if json {
            let readable = entries
                .iter()
                .map(|entry| readable(entry, entry.value.as_ref()));
            return cli.print_json(&readable.collect::<Vec<_>>());
        }
        if entries.is_empty() {
            return cli.print("No keys found\n");
        }
        cli.print(&entries.iter().map(line).collect::<String>())
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let network = context.host.network()?;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map(|entry| entry.key.clone());
            let shared = network.shared();
            let page = shared.list(&self.namespace, &self.prefix, after.as_deref());
            let page = page.await?;
            let is_last = !page.more || page.entries.is_empty();
            entries.extend(page.entries);
            if is_last || entries.len() >= MAX_LIST {
                return Ok(Reply::KvEntries(Entries { entries }));
            }
        }
    }
}

impl Delete {
    async fn run(self, cli: &Cli) -> Result<()> {
        let (json, name) = (self.json, format!("{}/{}", self.namespace, self.key));
        match cli.ask(Call::KvDelete(self)).await? {
            Reply::KvDelete(done) if json => cli.print_json(&done),
            Reply::KvDelete(_) => {
                cli.note(&format!("Deleted {}", show::clean(&name)));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let change = Change {
            space: self.namespace,
            key: self.key,
            if_revision: self.if_revision,
            session: writer(context),
            ..Change::default()
        };
        Ok(Reply::KvDelete(make(context, change).await?))
    }
}

async fn make(context: &Context<'_>, change: Change) -> Result<Done> {
    let network = context.host.network()?;
    let done = network.shared().change(change).await?;
    Ok(Done {
        revision: done.revision,
        expires_at: done.expires_at,
    })
}

/// The session for which a change is made, by its name if it has one.
fn writer(context: &Context<'_>) -> Option<String> {
    let (id, name) = context.party().session?;
    Some(name.map_or_else(|| id.to_string(), |name| name.to_string()))
}

/// `tasks/1                        the beginning of the value`.
fn line(entry: &Entry) -> String {
    let value = entry.value.as_ref().map(|value| &value.0[..]);
    let text = String::from_utf8_lossy(value.unwrap_or_default());
    let shown = format!("{:<30} {}", entry.key, show::cut(&text, 80));
    show::clean(&shown) + "\n"
}

/// For programs: the value as text where it is text, else in base64. A value that is only the
/// beginning is told by `truncated`.
pub(crate) fn readable<T: Serialize>(entry: &T, value: Option<&Base64>) -> serde_json::Value {
    let mut shown = serde_json::to_value(entry).unwrap_or_default();
    let (Some(fields), Some(value)) = (shown.as_object_mut(), value) else {
        return shown;
    };
    let size = fields.get("size").and_then(serde_json::Value::as_u64);
    let is_cut = size.is_some_and(|size| size > value.0.len() as u64);
    let text = std::str::from_utf8(&value.0);
    let text = match text {
        Ok(text) => Some(text),
        // A cut may go through a character.
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(&value.0[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    if let Some(text) = text {
        fields.insert("value".to_owned(), text.into());
    } else if let Some(coded) = fields.remove("value") {
        fields.insert("value_base64".to_owned(), coded);
    }
    if is_cut {
        fields.insert("truncated".to_owned(), true.into());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &[u8], size: u64) -> serde_json::Value {
        let entry = Entry {
            key: "k".to_owned(),
            value: Some(Base64(value.to_vec())),
            size,
            revision: 1,
            expires_at: None,
            changed_at: String::new(),
            changed_by: String::new(),
        };
        readable(&entry, entry.value.as_ref())
    }

    #[test]
    fn values_are_text_where_they_are() {
        assert_eq!(shown("ü".as_bytes(), 2)["value"], "ü");
        assert_eq!(shown(b"a\xc3", 2)["value_base64"], "YcM=");
        let cut = shown(b"a\xc3", 3);
        assert_eq!(
            (&cut["value"], &cut["truncated"]),
            (&"a".into(), &true.into())
        );
        assert!(shown(b"\xff", 3)["value"].is_null());
    }
}
