//! `cw mcp-server`: the verbs as tools of the Model Context Protocol, over standard input and
//! output.
//!
//! It is a client of the node like any other, with the identity of the process that started it and
//! no power of its own: inside a session its tools act as that session. Every call has a connection
//! of its own, so many run at once, and one that is called off, or whose client is gone, ends on
//! the node too.
//!
//! What takes long ends by itself after a while and says how to go on ([`follow`]); for clients
//! that know tasks it is a task. [`tool`] has the table of tools, [`resources`] what can be read
//! and subscribed to, [`prompts`] the two patterns that agents start from.

mod follow;
mod messages;
mod network;
mod prompts;
mod resources;
mod server;
mod sessions;
mod shared;
pub(crate) mod tool;
mod who;

use std::sync::Arc;

use rmcp::ServiceExt;

use crate::cli::Cli;
use crate::error::{Error, Result};

/// Whether a URI names a resource that there may be.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_place(uri: &str) -> bool {
    uri.parse::<resources::Place>().is_ok()
}

/// Serves until standard input ends.
///
/// # Errors
///
/// `bad_request` when the other end does not speak the protocol.
pub(crate) async fn serve(cli: &Cli) -> Result<()> {
    let server = server::Server::new(Arc::new(cli.clone()));
    let running = server
        .serve(rmcp::transport::stdio())
        .await
        .map_err(|error| Error::bad_request(error.to_string()))?;
    running.waiting().await.map_err(Error::internal)?;
    Ok(())
}
