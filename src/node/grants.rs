//! Grants that were accepted here: tokens of others, kept in one file, shown to their nodes.

use serde::{Deserialize, Serialize};

use super::network::Network;
use crate::error::{Error, Result};
use crate::home::{Home, write_private};
use crate::locator::Session;
use crate::paper::Verb;
use crate::verb::Call;

/// Grants that are kept, at most.
const MAX: usize = 1_000;

/// A grant that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// What to inspect or drop it by.
    pub grant_id: String,
    /// The secret.
    pub token: String,
    /// The network.
    pub network_id: String,
    /// The node whose session it is.
    pub target_node: String,
    /// The session.
    pub session_id: u32,
    /// The name it had.
    pub session_name: String,
    /// What may be done.
    pub verbs: Vec<Verb>,
    /// RFC 3339.
    pub expires_at: String,
}

/// All of them.
///
/// # Errors
///
/// `corrupt` for a file that cannot be read.
pub(crate) fn load(home: &Home) -> Result<Vec<Accepted>> {
    let path = home.accepted_grants();
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            Error::new("corrupt", format!("{}: {error}", path.display()))
                .hint("remove the file, and accept the grants again")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps these.
///
/// # Errors
///
/// `too_many`, or the file system's.
pub(crate) fn store(home: &Home, grants: &[Accepted]) -> Result<()> {
    if grants.len() > MAX {
        return Err(
            Error::new("too_many", format!("at most {MAX} grants are kept"))
                .hint("'cw access prune' drops those that have ended"),
        );
    }
    home.create()?;
    let bytes = serde_json::to_vec_pretty(grants).map_err(Error::internal)?;
    Ok(write_private(&home.accepted_grants(), &bytes)?)
}

/// The token that lets the owner of this node make a call on `node`.
pub(super) fn accepted(home: &Home, network: &Network, node: &str, call: &Call) -> Option<String> {
    let verb = match call {
        Call::MsgRead(_) => Verb::Read,
        Call::MsgListen(_) => Verb::Listen,
        Call::Attach(attach) if attach.read_only => Verb::Watch,
        Call::Logs(_) | Call::GetStatus(_) | Call::Screen(_) | Call::WatchSession(_) => Verb::Watch,
        _ => return None,
    };
    let session = call.about()?;
    let is = |grant: &&Accepted| {
        let named = match session {
            Session::Id(id) => grant.session_id == *id,
            Session::Name(name) => grant.session_name == *name,
        };
        named
            && grant.network_id == network.membership.network.as_str()
            && grant.target_node == node
            && grant.verbs.contains(&verb)
    };
    // The last one holds longest.
    let grants = load(home).ok()?;
    grants
        .iter()
        .rev()
        .find(is)
        .map(|grant| grant.token.clone())
}
