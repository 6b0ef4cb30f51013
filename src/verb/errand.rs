//! An errand: a request of the relay's API in the name of this node, for the owner of this
//! machine who has no token of the relay. Nobody types this.

use serde::{Deserialize, Serialize};

use super::Reply;
use crate::error::Result;
use crate::node::Context;

/// Ask the relay something.
#[derive(Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Errand {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: String,
    /// Below `/api/v1/`.
    pub path: String,
    /// JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Done {
    /// The network that the node is in.
    pub network: String,
    /// What the relay said, JSON.
    pub answer: String,
}

impl Errand {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let host = context.host;
        let network = host.network_name()?;
        // Without a path it is only asked which network there is.
        let answer = if self.path.is_empty() {
            Vec::new()
        } else {
            let body = self.body.as_deref().map(str::as_bytes);
            host.errand(&self.method, &self.path, body).await?
        };
        Ok(Reply::ErrandRun(Done {
            network,
            answer: String::from_utf8_lossy(&answer).into_owned(),
        }))
    }
}
