//! The session that a command is typed in. Shown in its own terminal it would show itself showing
//! itself, without end.

use crate::cli::Cli;
use crate::error::Error;

/// The session of this machine's node that this process is in, as its variables say; the node
/// knows it for certain.
pub(super) fn own_session(cli: &Cli) -> Option<u32> {
    if cli.server.is_some() {
        return None;
    }
    std::env::var("CW_SESSION_ID").ok()?.parse().ok()
}

/// Why it is not shown.
pub(super) fn shows_itself() -> Error {
    Error::new("usage", "this is the session you are in")
        .hint("shown in its own terminal it would never come to rest; use one outside of it")
}
