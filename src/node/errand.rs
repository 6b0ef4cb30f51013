//! What this node asks the relay over HTTP, in its own name.

use reqwest::Method;
use serde_json::json;

use super::Host;
use crate::error::{Error, Result};
use crate::paper::GroupName;

/// The only part of the relay that is asked for others.
const API: &str = "/api/v1/";

impl Host {
    /// Makes a request of the relay's API, signed with this node's key; the body of the answer.
    ///
    /// # Errors
    ///
    /// `no_network`, `bad_request` for another path, and the relay's.
    pub(crate) async fn errand(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Vec<u8>> {
        let plain = |c: char| c.is_ascii_graphic() && !['#', '\\'].contains(&c);
        if !path.starts_with(API) || path.contains("..") || !path.chars().all(plain) {
            return Err(Error::bad_request("no path of the relay's API"));
        }
        let network = self.network()?;
        if method == "SIGN" {
            // For a stream, which does not go through here.
            let signed =
                crate::uplink::sign(&network.membership, &self.identity, ("GET", path), b"")?;
            return Ok(signed.into_bytes());
        }
        let method: Method = method.parse().map_err(Error::internal)?;
        let mut membership = network.membership.clone();
        membership.relay_url = network.view().relay.clone();
        crate::uplink::sign_request(&membership, &self.identity, (method, path), body).await
    }

    /// Puts a session of this node into a group.
    pub(super) async fn enter(
        &self,
        group: &GroupName,
        session: u32,
        label: Option<String>,
    ) -> Result<()> {
        let network = self.network()?;
        let body = json!({
            "network_id": network.membership.network,
            "node_name": network.name(),
            "session_id": session,
            "session_name": label,
        });
        let path = format!("{API}groups/{group}/members");
        self.errand("POST", &path, Some(body.to_string().as_bytes()))
            .await
            .map(drop)
    }

    /// Takes a session of this node out of a group.
    pub(super) async fn leave(&self, group: &GroupName, session: u32) -> Result<()> {
        let network = self.network()?;
        let (id, name) = (&network.membership.network, network.name());
        let path = format!(
            "{API}groups/{group}/members?network_id={id}&node_name={name}&session_id={session}"
        );
        self.errand("DELETE", &path, None).await.map(drop)
    }

    /// The name of the network that was joined.
    pub(crate) fn network_name(&self) -> Result<String> {
        Ok(self.network()?.membership.network.to_string())
    }
}
