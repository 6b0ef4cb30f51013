//! Why there is no direct path, for those who ask.

use std::time::{Duration, Instant};

use super::Agent;
use crate::reflect::Mapping;

/// Probes may be answered for that long.
const PROBING: Duration = Duration::from_millis(2500);

/// Why packets to a peer go over the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// UDP is switched off on this node.
    Off,
    /// Nothing was sent lately: a path is looked for when it is needed.
    Unused,
    /// The peer has named no address: UDP is off there, or it has not been heard.
    NoAddress,
    /// The search is under way.
    Searching,
    /// Both nodes are behind NATs that give them another address for everybody.
    BothVary,
    /// Nothing came back from any address that the peer has: UDP is filtered on
    /// the way, or packets of full size do not fit.
    NoAnswer,
}

impl Agent {
    /// Why there is no direct path, if there is none.
    pub(crate) fn obstacle(&self, now: Instant) -> Option<Obstacle> {
        if self.direct.is_some() {
            return None;
        }
        let probing = |at: Instant| now.saturating_duration_since(at) < PROBING;
        Some(if !self.enabled {
            Obstacle::Off
        } else if !self.is_used(now) {
            Obstacle::Unused
        } else if self.guess.is_hopeless() {
            Obstacle::BothVary
        } else if self.guess.is_busy() || self.probed_at.or(self.round_at).is_none_or(probing) {
            Obstacle::Searching
        } else if self.candidates.iter().next().is_none() {
            Obstacle::NoAddress
        } else {
            Obstacle::NoAnswer
        })
    }

    /// How the peer's NAT chooses addresses, as the peer says.
    pub(crate) fn peer_mapping(&self) -> Mapping {
        self.guess.theirs()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::Message;
    use crate::path::{Around, Via};
    use crate::reflect::Outside;

    #[test]
    fn the_reason_follows_what_was_tried() {
        let start = Instant::now();
        let mut now = start;
        let addr = "192.0.2.1:5".parse().unwrap();
        assert_eq!(Agent::new(false, 1).obstacle(now), Some(Obstacle::Off));
        let mut agent = Agent::new(true, 1);
        assert_eq!(agent.obstacle(now), Some(Obstacle::Unused));
        agent.handle_session(now);
        assert_eq!(agent.obstacle(now), Some(Obstacle::Searching));
        now += PROBING;
        assert_eq!(agent.obstacle(now), Some(Obstacle::NoAddress));
        agent.handle_call_me_maybe(&[addr], now);
        assert_eq!(agent.obstacle(now), Some(Obstacle::Searching));
        now += PROBING;
        assert_eq!(agent.obstacle(now), Some(Obstacle::NoAnswer));
        let mapping = Mapping::Varies;
        let outside = Outside { addr, mapping };
        agent.set_around(&Arc::new(Around {
            outside: Some(outside),
            ..Around::default()
        }));
        agent.handle_outside(outside, now);
        assert_eq!(agent.peer_mapping(), mapping);
        assert_eq!(agent.obstacle(now), Some(Obstacle::BothVary));
        let probe = |(via, message)| match message {
            Message::Probe { id, .. } if via == Via::Direct(addr) => Some(id),
            _ => None,
        };
        let id = std::iter::from_fn(|| agent.poll_transmit()).find_map(probe);
        agent.handle_pong(id.unwrap(), Via::Direct(addr), now);
        assert_eq!(agent.obstacle(now), None);
    }
}
