//! How long to wait between two attempts to connect: a little longer each time that all relays were
//! tried in vain, and with jitter, so that the nodes of a restarted relay do not come back in step.

use std::time::Duration;

/// The first wait after a break, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The wait after the relay said no. It may change its mind (its database is
/// put back), but not soon.
const REFUSED: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) const fn new() -> Self {
        Self(BACKOFF.0)
    }

    /// The connection was up.
    pub(super) const fn handle_up(&mut self) {
        self.0 = BACKOFF.0;
    }

    /// The relay has said no.
    pub(super) const fn handle_refused(&mut self) {
        self.0 = REFUSED;
    }

    /// How long to wait now; longer the next time if the last relay was tried.
    pub(super) fn take(&mut self, was_last: bool) -> Duration {
        let pause = jittered(self.0);
        let next = if was_last { self.0 * 2 } else { self.0 };
        self.0 = next.clamp(BACKOFF.0, BACKOFF.1);
        pause
    }
}

/// Between half of `wait` and all of it.
pub(crate) fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness there is no jitter, and no harm.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    wait.mul_f64(0.5 + share / 2.0)
}
