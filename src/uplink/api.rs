//! The relay's routes for users, typed: what `cw network` and `cw node` call.

use futures_util::future::BoxFuture;
use mesh::{NetworkId, NodeName};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::Http;
use crate::error::{Error, Result};

mod login;
mod rules;
mod ssh;

pub use login::{Device, Granted, Login, Polled, Whoami};
pub use rules::{Grant, Group, Member, NewGrant, Policy, Seat};
pub use ssh::{About, SshKey, SshPassword};

/// A relay and who speaks to it.
pub struct Api {
    way: Way,
}

/// A request that somebody else makes: method, path and body in, the answer out.
pub type Errand =
    dyn Fn(Method, String, Option<Value>) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync;

enum Way {
    /// By a token.
    Token(Http),
    /// By the node of this machine, in its name.
    Node(Box<Errand>),
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The name.
    pub id: NetworkId,
    /// RFC 3339.
    pub created_at: String,
    /// Those not revoked.
    pub node_count: u64,
    /// Those that can be redeemed.
    pub invite_count: u64,
}

/// An invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteInfo {
    /// What to withdraw it by; no secret.
    pub id: String,
    /// For which network.
    pub network_id: NetworkId,
    /// A user's subject.
    pub created_by: String,
    /// The nodes it brings belong to `created_by`.
    pub mine: bool,
    /// Only a node of this name may join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<NodeName>,
    /// How many nodes it may still bring.
    pub uses_remaining: u32,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub expires_at: String,
    /// The secret; only in the answer that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// An invite to be made.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// For which network.
    pub network: NetworkId,
    /// How many nodes it may bring.
    pub uses: u32,
    /// How long, such as `90s`, `10m`, `1h`.
    pub ttl: String,
    /// The nodes belong to the caller, not to guests.
    pub mine: bool,
    /// Only a node of this name may join with it.
    pub node_name: Option<NodeName>,
}

/// A node of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in the network.
    pub name: NodeName,
    /// Its WireGuard key.
    pub key: mesh::NodeKey,
    /// Whose node it is.
    pub owner: String,
    /// To the relay, now.
    pub connected: bool,
    /// RFC 3339.
    pub last_seen: Option<String>,
}

/// A hand-over of a network's issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Of which network.
    pub network_id: NetworkId,
    /// 1 for the first.
    pub number: u32,
    /// The key that signs now.
    pub issuer: mesh::SignKey,
    /// Until when what the one before has signed is believed; RFC 3339.
    pub retires_at: String,
    /// Nodes whose records were signed anew.
    pub node_count: u64,
}

impl Api {
    /// For requests to `relay_url` with `token`.
    ///
    /// # Errors
    ///
    /// `config_invalid` for a URL that is none, `tls` when nothing is trusted.
    pub fn new(relay_url: &str, token: &str) -> Result<Self> {
        let way = Way::Token(Http::new(relay_url, Some(token))?);
        Ok(Self { way })
    }

    /// For requests that the node of this machine makes.
    #[must_use]
    pub fn by_node(errand: Box<Errand>) -> Self {
        let way = Way::Node(errand);
        Self { way }
    }

    /// Whether the token is right.
    ///
    /// # Errors
    ///
    /// This and all below: the relay's codes, or `relay_unreachable`.
    pub async fn validate(&self) -> Result<()> {
        let _: Value = self.get("/api/v1/auth/validate").await?;
        Ok(())
    }

    /// The caller's networks.
    pub async fn networks(&self) -> Result<Vec<Network>> {
        self.get("/api/v1/networks").await
    }

    /// Creates a network; false if it was there already.
    pub async fn create_network(&self, id: &NetworkId) -> Result<bool> {
        #[derive(Deserialize)]
        struct Created {
            status: String,
        }
        let body = json!({ "network_id": id });
        let created: Created = self.post("/api/v1/networks", &body).await?;
        Ok(created.status == "created")
    }

    /// Makes an invite; its token is in the answer.
    pub async fn create_invite(&self, new: &NewInvite) -> Result<InviteInfo> {
        let body = json!({
            "network_id": new.network,
            "uses": new.uses,
            "ttl": new.ttl,
            "mine": new.mine,
            "node_name": new.node_name,
        });
        self.post("/api/v1/invites", &body).await
    }

    /// The invites of a network that are not expired.
    pub async fn invites(&self, network: &NetworkId) -> Result<Vec<InviteInfo>> {
        self.get(&format!("/api/v1/invites?network_id={network}"))
            .await
    }

    /// Withdraws an invite by its id.
    pub async fn delete_invite(&self, network: &NetworkId, id: &str) -> Result<()> {
        // An id has letters, digits and `_`; whatever else is typed must not
        // become part of the path.
        let id: String = id
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        self.delete(&format!("/api/v1/invites/{id}?network_id={network}"))
            .await
    }

    /// The nodes of a network.
    pub async fn nodes(&self, network: &NetworkId) -> Result<Vec<Node>> {
        self.get(&format!("/api/v1/nodes?network_id={network}"))
            .await
    }

    /// Revokes a node.
    pub async fn revoke(&self, network: &NetworkId, name: &NodeName) -> Result<()> {
        self.delete(&format!("/api/v1/nodes/{name}?network_id={network}"))
            .await
    }

    /// Deletes a network with everything in it.
    pub async fn delete_network(&self, id: &NetworkId) -> Result<()> {
        self.delete(&format!("/api/v1/networks/{id}")).await
    }

    /// Has the issuer of a network hand over to a new key; what the old one has signed is believed
    /// for `overlap`, such as `0s`, `10m`, `24h`.
    pub async fn rotate(&self, id: &NetworkId, overlap: &str) -> Result<Handover> {
        let body = json!({ "overlap": overlap });
        self.post(&format!("/api/v1/networks/{id}/rotate"), &body)
            .await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(&self.send(Method::GET, path, None).await?)
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        parse(&self.send(Method::POST, path, Some(body)).await?)
    }

    async fn put<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        parse(&self.send(Method::PUT, path, Some(body)).await?)
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Vec<u8>> {
        match &self.way {
            Way::Token(http) => {
                let request = http.request(method, path);
                let request = match body {
                    Some(body) => request.json(body),
                    None => request,
                };
                http.send_raw(request).await
            }
            Way::Node(errand) => errand(method, path.to_owned(), body.cloned()).await,
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        Error::new(
            "relay_invalid",
            format!("what answers is not a relay: {error}"),
        )
    })
}

/// A word as part of a query: what is not plain is written as its bytes.
fn query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
