//! Where packets go, as things stand.
//!
//! QUIC finds the larger datagram size by trying it: one that is not known to
//! arrive has no way here, and is lost. Where it does arrive, a connection gets
//! used to it, and keeps it by the relay, which carries any size. On a path that
//! turns out to be narrower it is lost again, until QUIC has noticed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Agent;
use super::width::Carries;
use crate::packet::QUIC_MTU;

/// The way a packet came, or is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    /// Over the relay.
    Relay,
    /// By UDP, from or to this address.
    Direct(SocketAddr),
    /// By UDP to this address, from as many ports as there can be.
    Fan(SocketAddr),
}

/// Where data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Straight to this address, if there is one.
    pub(crate) direct: Option<SocketAddr>,
    /// Also, or only, over the relay.
    pub(crate) relay: bool,
}

impl Route {
    pub(super) const RELAY: Self = Self {
        direct: None,
        relay: true,
    };
}

impl Agent {
    /// Where to send now. Counts as use of the path: something is about to be
    /// sent.
    pub(crate) fn route(&mut self, now: Instant) -> Route {
        if !self.enabled {
            return Route::RELAY;
        }
        self.wake(now);
        if let Some(direct) = &mut self.direct {
            direct.handle_sent(now);
        }
        self.current(now)
    }

    /// Where to send a QUIC datagram of this length now. There is no way for one
    /// of the larger size where it would not arrive: QUIC finds out by sending it
    /// whether it does. Counts as use of the path.
    pub(crate) fn route_for(&mut self, len: usize, now: Instant) -> Option<Route> {
        if len <= QUIC_MTU || !self.enabled {
            return Some(self.route(now));
        }
        let carries = self.direct.as_ref().map(|direct| direct.width.carries(now));
        if carries == Some(Carries::No) {
            self.wide = false;
        }
        let route = match carries {
            Some(Carries::Yes) => self.route(now),
            _ if !self.wide => return None,
            // The relay carries whatever a connection is used to.
            _ => Route {
                relay: true,
                ..self.route(now)
            },
        };
        Some(route)
    }

    /// Whether the direct path carries datagrams of the larger size.
    pub(crate) fn is_wide(&self, now: Instant) -> bool {
        self.direct
            .as_ref()
            .is_some_and(|direct| direct.width.carries(now) == Carries::Yes)
    }

    /// Where packets would go, without using the path.
    pub(crate) fn current(&self, now: Instant) -> Route {
        match &self.direct {
            Some(direct) => Route {
                direct: Some(direct.addr),
                relay: direct.in_doubt(now),
            },
            None => Route::RELAY,
        }
    }

    /// Whether there is a direct path.
    pub(crate) const fn has_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The round-trip time of the direct path.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.direct.as_ref().map(|direct| direct.rtt)
    }
}
