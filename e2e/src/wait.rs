//! The one place that sleeps.

use std::time::{Duration, Instant};

/// How long anything may take that should take no time: generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two probes: short against everything that is waited for.
const STEP: Duration = Duration::from_millis(10);

/// Probes until it holds, and returns what the probe found.
///
/// # Panics
///
/// When it does not hold within `limit`, with what the last probe said.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, probe: impl FnMut() -> Result<T, String>) -> T {
    match within(limit, probe) {
        Ok(found) => found,
        Err(last) => panic!("{what}: not within {limit:?}; at last: {last}"),
    }
}

/// The same for those that must not panic.
pub(crate) fn within<T>(
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            Err(_) if Instant::now() < end => std::thread::sleep(STEP),
            ended => return ended,
        }
    }
}
