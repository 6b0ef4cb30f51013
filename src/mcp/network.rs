//! Tools about the other machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::{Effect, Tool, Turn};
use crate::error::{Error, Result};
use crate::verb::node::{List, NodeInfo};
use crate::verb::{Call, Reply};

/// List the nodes of the network: which machines there are, whether they are up, and how each is
/// reached. Sessions on them are addressed as node:session in every tool.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ListNodes {}

/// Nodes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Nodes {
    /// The network.
    network: String,
    /// By name.
    nodes: Vec<NodeInfo>,
}

impl Tool for ListNodes {
    type Output = Nodes;
    const NAME: &'static str = "codewire_list_nodes";
    const TITLE: &'static str = "List nodes";
    const EFFECT: Effect = Effect::Reads;

    async fn call(self, turn: &Turn) -> Result<(String, Nodes)> {
        match turn.ask(Call::ListNodes(List::default())).await? {
            Reply::NodeList(found) => {
                let text = serde_json::to_string_pretty(&found.nodes).map_err(Error::internal)?;
                let (network, nodes) = (found.network, found.nodes);
                Ok((text, Nodes { network, nodes }))
            }
            other => Err(other.unexpected()),
        }
    }
}
