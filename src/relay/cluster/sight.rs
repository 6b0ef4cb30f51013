//! How long ago a relay has seen what is in its database.
//!
//! Who was revoked at another relay is known from there alone. So a relay that is cut off goes on for
//! those who are connected, and after a while lets in nobody new: nodes try the next relay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use derp::NodeKey;
use derp::io::server::Admission;
use parking_lot::Mutex;

use crate::relay::hub::Hub;

/// For how long what was seen is good enough to let somebody in. A relay looks every two seconds,
/// and one step may take twelve.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Sight(Mutex<Option<Instant>>);

impl Sight {
    /// Everything was seen just now.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }

    /// It was seen again.
    pub(super) fn renew(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether what is known may be out of date.
    pub(super) fn is_lost(&self) -> bool {
        self.0.lock().is_none_or(|last| last.elapsed() > GOOD_FOR)
    }

    /// As if nothing had been seen for long.
    #[cfg(test)]
    pub(super) fn lose(&self) {
        *self.0.lock() = None;
    }
}

/// Whose packets are forwarded: those of nodes that are in some network, by what was seen lately.
pub(crate) struct Members {
    hub: Arc<Hub>,
    sight: Option<Arc<Sight>>,
}

impl Members {
    /// Without `sight` the hub knows everything itself.
    pub(crate) const fn new(hub: Arc<Hub>, sight: Option<Arc<Sight>>) -> Self {
        Self { hub, sight }
    }
}

impl Admission for Members {
    fn admits(&self, key: &NodeKey) -> bool {
        let is_lost = self.sight.as_ref().is_some_and(|sight| sight.is_lost());
        !is_lost && self.hub.admits(key)
    }
}
