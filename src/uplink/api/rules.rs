//! The routes about members, groups and grants.

use std::collections::BTreeSet;

use mesh::{NetworkId, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Api, query};
use crate::error::Result;
use crate::paper::{Debug, GroupName, Joining, Messages, Verb};

/// Somebody who belongs to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub subject: String,
    /// `owner`, `member` or `guest`.
    pub role: String,
    /// Nodes of theirs.
    pub node_count: u64,
    /// RFC 3339.
    pub created_at: String,
}

/// The rules of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whose messages its sessions get.
    pub messages_policy: Messages,
    /// What others may do with them.
    pub debug_policy: Debug,
    /// Who may put sessions into it.
    pub join_policy: Joining,
}

/// A session of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Its node.
    pub node_name: String,
    /// Its number there.
    pub session_id: u32,
    /// Its name; empty if it has none.
    pub session_name: String,
    /// RFC 3339.
    pub created_at: String,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The network.
    pub network_id: NetworkId,
    /// Unique in it.
    pub name: GroupName,
    /// RFC 3339.
    pub created_at: String,
    /// Who made it.
    pub created_by: String,
    /// Its rules.
    pub policy: Policy,
    /// Its sessions.
    pub members: Vec<Seat>,
}

/// A grant, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What to revoke it by.
    pub grant_id: String,
    /// The network.
    pub network_id: NetworkId,
    /// The node whose session it is.
    pub target_node: String,
    /// The session.
    pub session_id: u32,
    /// The name it had.
    pub session_name: String,
    /// What may be done.
    pub verbs: BTreeSet<Verb>,
    /// `node` or `owner`.
    pub audience_subject_kind: String,
    /// Which.
    pub audience_subject_id: String,
    /// As it was named.
    pub audience_display: String,
    /// Who gave it.
    pub granted_by: String,
    /// `active`, `expired` or `revoked`.
    pub status: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub expires_at: String,
    /// RFC 3339.
    pub revoked_at: Option<String>,
    /// The secret; only in the answer that makes it.
    #[serde(
        default,
        rename = "delegation",
        skip_serializing_if = "Option::is_none"
    )]
    pub token: Option<String>,
}

/// A grant to be made.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// The network.
    pub network: NetworkId,
    /// The node.
    pub node: String,
    /// The session there.
    pub session: u32,
    /// Its name.
    pub label: Option<String>,
    /// A node, or an owner of nodes.
    pub audience: String,
    /// What may be done; none for reading and listening.
    pub verbs: Vec<Verb>,
    /// How long.
    pub ttl: String,
}

impl Api {
    /// Who belongs to a network.
    ///
    /// # Errors
    ///
    /// This and all below: the relay's codes, or `relay_unreachable`.
    pub async fn members(&self, network: &NetworkId) -> Result<Vec<Member>> {
        self.get(&format!("/api/v1/networks/{network}/members"))
            .await
    }

    /// Gives somebody another role.
    pub async fn set_role(&self, network: &NetworkId, subject: &str, role: &str) -> Result<()> {
        let body = json!({ "subject": subject, "role": role });
        let path = format!("/api/v1/networks/{network}/members");
        self.put::<Value>(&path, &body).await.map(drop)
    }

    /// Takes somebody out, with their nodes.
    pub async fn remove_member(&self, network: &NetworkId, subject: &str) -> Result<()> {
        let subject = query(subject);
        self.delete(&format!(
            "/api/v1/networks/{network}/members?subject={subject}"
        ))
        .await
    }

    /// The groups of a network.
    pub async fn groups(&self, network: &NetworkId) -> Result<Vec<Group>> {
        self.get(&format!("/api/v1/groups?network_id={network}"))
            .await
    }

    /// A group.
    pub async fn group(&self, network: &NetworkId, name: &GroupName) -> Result<Group> {
        self.get(&format!("/api/v1/groups/{name}?network_id={network}"))
            .await
    }

    /// Makes a group.
    pub async fn create_group(&self, network: &NetworkId, name: &GroupName) -> Result<Group> {
        let body = json!({ "network_id": network, "name": name });
        self.post("/api/v1/groups", &body).await
    }

    /// Deletes a group.
    pub async fn delete_group(&self, network: &NetworkId, name: &GroupName) -> Result<()> {
        self.delete(&format!("/api/v1/groups/{name}?network_id={network}"))
            .await
    }

    /// Changes the rules of a group; what is none stays.
    pub async fn set_group_policy(
        &self,
        network: &NetworkId,
        name: &GroupName,
        (messages, debug, joining): (Option<Messages>, Option<Debug>, Option<Joining>),
    ) -> Result<Group> {
        let body = json!({
            "network_id": network,
            "messages_policy": messages,
            "debug_policy": debug,
            "join_policy": joining,
        });
        self.put(&format!("/api/v1/groups/{name}/policy"), &body)
            .await
    }

    /// Puts a session into a group.
    pub async fn enter_group(
        &self,
        network: &NetworkId,
        name: &GroupName,
        (node, session, label): (&NodeName, u32, Option<&str>),
    ) -> Result<Group> {
        let body = json!({
            "network_id": network,
            "node_name": node,
            "session_id": session,
            "session_name": label,
        });
        self.post(&format!("/api/v1/groups/{name}/members"), &body)
            .await
    }

    /// Takes a session out of a group.
    pub async fn leave_group(
        &self,
        network: &NetworkId,
        name: &GroupName,
        (node, session): (&NodeName, u32),
    ) -> Result<()> {
        let path = format!("/api/v1/groups/{name}/members?network_id={network}");
        self.delete(&format!("{path}&node_name={node}&session_id={session}"))
            .await
    }

    /// Makes a grant; its token is in the answer.
    pub async fn create_grant(&self, new: &NewGrant) -> Result<Grant> {
        let body = json!({
            "network_id": new.network,
            "target_node": new.node,
            "session_id": new.session,
            "session_name": new.label,
            "audience": new.audience,
            "verbs": new.verbs,
            "ttl": new.ttl,
        });
        self.post("/api/v1/access-grants", &body).await
    }

    /// The grants that the caller gave; those it got, too, or all of them for the network's owner.
    pub async fn grants(&self, network: &NetworkId, filter: &[(&str, &str)]) -> Result<Vec<Grant>> {
        let mut path = format!("/api/v1/access-grants?network_id={network}");
        for (key, value) in filter {
            path.push_str(&format!("&{key}={}", query(value)));
        }
        self.get(&path).await
    }

    /// One grant.
    pub async fn grant(&self, network: &NetworkId, id: &str) -> Result<Grant> {
        let id = query(id);
        self.get(&format!("/api/v1/access-grants/{id}?network_id={network}"))
            .await
    }

    /// Revokes a grant.
    pub async fn revoke_grant(&self, network: &NetworkId, id: &str) -> Result<()> {
        let id = query(id);
        self.delete(&format!("/api/v1/access-grants/{id}?network_id={network}"))
            .await
    }
}
