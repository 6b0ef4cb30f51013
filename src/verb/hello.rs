//! `Hello`: the optional first frame of a client that knows this version of the protocol.
//!
//! A client that says it gets `Exited` at the end of an attachment; one that does not gets the
//! `Error` that existing clients take for the end.

use serde::{Deserialize, Serialize};

use super::Reply;
use crate::node::Context;

/// The version of the protocol on the local socket and between nodes.
pub const VERSION: u32 = 1;

/// The greeting.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Hello {
    /// What the client speaks.
    pub version: u32,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Welcome {
    /// What the node speaks.
    pub version: u32,
    /// The release of the node's program.
    pub release: String,
    /// The node's name.
    pub node: String,
    /// The process number of the node.
    pub pid: u32,
}

impl Hello {
    pub(crate) fn handle(self, context: &mut Context<'_>) -> Reply {
        context.modern = self.version >= 1;
        Reply::Hello(Welcome {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            node: context.host.name(),
            pid: std::process::id(),
        })
    }
}
