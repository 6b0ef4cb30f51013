//! The routes about SSH.

use mesh::{NetworkId, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Api, query};
use crate::error::Result;

/// A public key that lets its owner in over SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    /// `SHA256:…`.
    pub fingerprint: String,
    /// One line in OpenSSH's format.
    pub key: String,
    /// RFC 3339.
    pub created_at: String,
}

/// A password for one login over SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshPassword {
    /// The secret.
    pub password: String,
    /// RFC 3339.
    pub expires_at: String,
    /// Where the relay's front door is; none if it has none.
    pub ssh_port: Option<u16>,
}

/// What a relay tells everybody about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct About {
    /// Where its front door for SSH is; none if it has none.
    #[serde(default)]
    pub ssh_port: Option<u16>,
    /// How people prove who they are: `none`, `token`, `github`, `oidc`.
    #[serde(default)]
    pub auth_mode: String,
}

impl Api {
    /// The caller's keys.
    ///
    /// # Errors
    ///
    /// This and all below: the relay's codes, or `relay_unreachable`.
    pub async fn ssh_keys(&self) -> Result<Vec<SshKey>> {
        self.get("/api/v1/ssh-keys").await
    }

    /// Lets the caller in with a key; one line in OpenSSH's format.
    pub async fn add_ssh_key(&self, key: &str) -> Result<SshKey> {
        self.post("/api/v1/ssh-keys", &json!({ "key": key })).await
    }

    /// No longer lets the caller in with a key.
    pub async fn delete_ssh_key(&self, fingerprint: &str) -> Result<()> {
        let path = format!("/api/v1/ssh-keys?fingerprint={}", query(fingerprint));
        self.delete(&path).await
    }

    /// Makes a password for one login to a node of the caller's.
    pub async fn ssh_password(&self, network: &NetworkId, node: &NodeName) -> Result<SshPassword> {
        let place = json!({ "network_id": network, "node": node });
        self.post("/api/v1/ssh-passwords", &place).await
    }

    /// What the relay says of itself.
    pub async fn about(&self) -> Result<About> {
        self.get("/api/v1/auth/config").await
    }
}
