//! Sockets, clocks and tasks around the pure core.

pub mod client;
mod dial;
mod driver;
pub(crate) mod head;
mod input;
pub mod proxy;
pub mod region;
pub mod server;
pub mod upgrade;

use std::time::Duration;

use tokio::time::timeout;

use crate::Error;
use crate::handshake::Nonce;

/// For each step of setting a connection up: TCP, TLS, HTTP, handshake. A peer
/// that takes longer will not be a useful one.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// For a peer to take any byte of what we write. It has all that its kernel
/// and ours buffer in front of it, so this is a peer that is stuck or gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// For a relay to say anything to its client; it sends a keep-alive each
/// minute.
pub const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs one step of setting a connection up within its time.
async fn step<T>(
    what: &'static str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let limit = STEP_TIMEOUT;
    timeout(limit, future)
        .await
        .unwrap_or(Err(Error::Timeout { what, limit }))
}

fn nonce() -> Result<Nonce, Error> {
    let mut bytes = Nonce::default();
    fill(&mut bytes)?;
    Ok(bytes)
}

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::Io(std::io::Error::other(error.to_string())))
}
