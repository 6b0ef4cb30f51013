//! The relay's routes for users, typed: what `cw network` and `cw node` call.

use mesh::{NetworkId, NodeName};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::Http;
use crate::error::Result;

/// A relay and the token of one of its users.
pub struct Api {
    http: Http,
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

impl Api {
    /// For requests to `relay_url` with `token`.
    ///
    /// # Errors
    ///
    /// `config_invalid` for a URL that is none, `tls` when nothing is trusted.
    pub fn new(relay_url: &str, token: &str) -> Result<Self> {
        let http = Http::new(relay_url, Some(token))?;
        Ok(Self { http })
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

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.http.send(self.http.request(Method::GET, path)).await
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let request = self.http.request(Method::POST, path).json(body);
        self.http.send(request).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let request = self.http.request(Method::DELETE, path);
        self.http.send_raw(request).await.map(drop)
    }
}
