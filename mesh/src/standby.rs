//! By which of two relays a packet goes: the one by which peers find us, or the
//! one that stands by.
//!
//! Relays of one region pass on packets for each other's clients, so it does not
//! matter at which of them a peer is. A packet goes to the first relay. It goes to
//! the other one as well while the first has not answered a ping, or says that the
//! peer is not there, and if it begins a session; and instead while there is no
//! connection to the first. What comes twice is taken once, as WireGuard does with
//! any packet.
//!
//! Whose packets come by the other relay is answered there, since the peer may have
//! lost the first one before that noticed; for a while by both, since it may be the
//! relays that sent them around: right after a node has connected to one, the other
//! takes it for having moved.
//!
//! A relay may not know for minutes that it has lost us. So when we miss one of them,
//! the other is told that we are to be found there, and passes that on; and again after
//! each vain attempt, as it may have had nobody to pass it on to.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use derp::NodeKey;

/// Peers remembered as being at the other relay; who is forgotten is noticed again.
const MAX_STRAYS: usize = 4096;

/// Who turned up at the other relay so recently is answered by both. Relays know by
/// then where a node is: it has asked each of them whether it is there.
const UNSETTLED: Duration = Duration::from_secs(10);

/// One of the two relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// By which peers find us.
    First,
    /// Which stands by.
    Other,
}

impl Which {
    /// The one that is not this.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::First => Self::Other,
            Self::Other => Self::First,
        }
    }
}

/// How a relay is at the moment, as far as a packet for some peer is concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// It was asked whether it is there, and has not answered yet.
    pub(crate) in_doubt: bool,
    /// It has said that the peer is not there.
    pub(crate) misses_peer: bool,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no connection.
    Gone,
    /// The queue is full.
    Full,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To that relay; if there is no connection to it, to the one that is not this.
    by: Which,
    /// To both, as far as there is room.
    both: bool,
    /// A full queue is no reason to wait: the one that is not this may take it.
    impatient: bool,
}

impl Plan {
    /// Sends it by `send`, which may refuse.
    ///
    /// # Errors
    ///
    /// No relay has taken it.
    pub(crate) fn carry_out(
        self,
        mut send: impl FnMut(Which) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match send(self.by) {
            Ok(()) => {
                if self.both {
                    // Where there is room, and otherwise not.
                    let _ = send(self.by.other());
                }
                Ok(())
            }
            Err(Refusal::Full) if !self.impatient => Err(Refusal::Full),
            Err(_) => send(self.by.other()),
        }
    }
}

/// The connection with a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// It is there; no number is used twice for one relay.
    There(u64),
    /// It is not, and so often it was lost, or not made.
    Missing(u64),
}

impl Connection {
    const fn is_there(self) -> bool {
        matches!(self, Self::There(_))
    }
}

/// What follows from a connection that has come or gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// What to tell each relay, if anything: whether we are to be found there.
    pub(crate) notes: [Option<bool>; 2],
    /// Packets go by another connection than before.
    pub(crate) rerouted: bool,
}

/// Which connections there are, and who is to be answered by the other relay.
#[derive(Debug)]
pub(crate) struct Standby {
    connections: [Connection; 2],
    /// Whose last packet came by the other relay, and since when they do.
    strays: HashMap<NodeKey, Instant>,
}

impl Default for Standby {
    fn default() -> Self {
        Self {
            connections: [Connection::Missing(0); 2],
            strays: HashMap::new(),
        }
    }
}

impl Standby {
    /// Where a packet for a peer goes while there is a connection to the other relay.
    /// `standing` says how a relay is.
    pub(crate) fn plan(
        &self,
        to: &NodeKey,
        packet: &[u8],
        now: Instant,
        standing: impl FnOnce(Which) -> Standing,
    ) -> Plan {
        let stray = self.strays.get(to);
        let settled = stray.is_none_or(|since| now.saturating_duration_since(*since) > UNSETTLED);
        let by = match stray {
            Some(_) => Which::Other,
            None => Which::First,
        };
        let standing = standing(by);
        Plan {
            by,
            both: standing.in_doubt || standing.misses_peer || !settled || is_handshake(packet),
            impatient: standing.in_doubt,
        }
    }

    /// A packet of a peer that came by this relay was authentic, and not a copy of one
    /// that had come before.
    pub(crate) fn handle_authentic(&mut self, from: &NodeKey, by: Which, now: Instant) {
        match by {
            Which::First if self.strays.is_empty() => {}
            Which::First => drop(self.strays.remove(from)),
            Which::Other if self.strays.contains_key(from) => {}
            Which::Other => {
                if self.strays.len() >= MAX_STRAYS {
                    self.strays.clear();
                }
                self.strays.insert(*from, now);
            }
        }
    }

    /// How the connections are now.
    pub(crate) fn handle_connections(&mut self, now: [Connection; 2]) -> Change {
        let before = std::mem::replace(&mut self.connections, now);
        let has_changed = |which: usize| now[which] != before[which];
        let is_new = |which: usize| has_changed(which) && now[which].is_there();
        // Or was, until it was made anew.
        let is_missed = |which: usize| {
            has_changed(which) && (before[which].is_there() || !now[which].is_there())
        };
        let [first, other] = now.map(Connection::is_there);
        let mut notes = [None; 2];
        if first && (is_new(0) || is_missed(1)) {
            notes[0] = Some(true);
        }
        if other && (is_new(1) || is_new(0) || is_missed(0)) {
            notes[1] = Some(!first);
        }
        // By which one packets go: the first, if it is there.
        let route = |connections: [Connection; 2]| match connections {
            [Connection::There(number), _] => Some((Which::First, number)),
            [_, Connection::There(number)] => Some((Which::Other, number)),
            _ => None,
        };
        let rerouted = route(now).is_some() && route(now) != route(before);
        if rerouted && first {
            // Whoever has the first relay, too, is to be found there again.
            self.strays.clear();
        }
        Change { notes, rerouted }
    }
}

/// Whether a packet begins a session of WireGuard, or answers that. Where both relays
/// are there it goes by both: by which of them the peer can be heard is not known
/// before.
fn is_handshake(packet: &[u8]) -> bool {
    matches!(packet, [1 | 2, 0, 0, 0, ..])
}

#[cfg(test)]
mod tests {
    use super::Connection::{Missing, There};
    use super::*;

    const PEER: NodeKey = NodeKey::from_bytes([8; 32]);
    const DATA: [u8; 4] = [4, 0, 0, 0];

    fn plan(standby: &Standby, packet: &[u8], now: Instant, standing: Standing) -> (Which, bool) {
        let plan = standby.plan(&PEER, packet, now, |_| standing);
        assert_eq!(plan.impatient, standing.in_doubt);
        (plan.by, plan.both)
    }

    #[test]
    fn the_other_relay_is_used_for_a_reason_only() {
        let (standby, now) = (Standby::default(), Instant::now());
        let sure = Standing::default();
        assert_eq!(plan(&standby, &DATA, now, sure), (Which::First, false));
        for packet in [[1, 0, 0, 0], [2, 0, 0, 0]] {
            assert_eq!(plan(&standby, &packet, now, sure), (Which::First, true));
        }
        for (in_doubt, misses_peer) in [(true, false), (false, true)] {
            let standing = Standing {
                in_doubt,
                misses_peer,
            };
            assert_eq!(plan(&standby, &DATA, now, standing), (Which::First, true));
        }
    }

    #[test]
    fn who_is_heard_by_the_other_relay_is_answered_there() {
        let (mut standby, now) = (Standby::default(), Instant::now());
        let sure = Standing::default();
        standby.handle_authentic(&PEER, Which::Other, now);
        // At first by both, and hearing more of it there does not begin that anew.
        standby.handle_authentic(&PEER, Which::Other, now + UNSETTLED);
        assert_eq!(
            plan(&standby, &DATA, now + UNSETTLED, sure),
            (Which::Other, true)
        );
        let later = now + UNSETTLED + Duration::from_nanos(1);
        assert_eq!(plan(&standby, &DATA, later, sure), (Which::Other, false));
        // Until it is heard by the first one, or there is a new connection to that.
        standby.handle_authentic(&PEER, Which::First, later);
        assert_eq!(plan(&standby, &DATA, later, sure), (Which::First, false));
        standby.handle_authentic(&PEER, Which::Other, later);
        assert!(standby.handle_connections([Missing(1), There(1)]).rerouted);
        assert_eq!(plan(&standby, &DATA, later, sure), (Which::Other, true));
        assert!(standby.handle_connections([There(1), There(1)]).rerouted);
        assert_eq!(plan(&standby, &DATA, later, sure), (Which::First, false));
    }

    #[test]
    fn what_one_relay_refuses_the_other_takes_unless_it_is_worth_waiting() {
        use Refusal::{Full, Gone};
        let (ok, first, other) = (Ok(()), Which::First, Which::Other);
        // In doubt, what the first and the other one say, who is asked, and what comes of it.
        for (in_doubt, says, asked, result) in [
            (false, [ok, ok], vec![first], ok),
            (false, [Err(Full), ok], vec![first], Err(Full)),
            (false, [Err(Gone), ok], vec![first, other], ok),
            (false, [Err(Gone), Err(Full)], vec![first, other], Err(Full)),
            (true, [ok, ok], vec![first, other], ok),
            (true, [ok, Err(Full)], vec![first, other], ok),
            (true, [Err(Full), ok], vec![first, other], ok),
        ] {
            let standing = Standing {
                in_doubt,
                misses_peer: false,
            };
            let plan = Standby::default().plan(&PEER, &DATA, Instant::now(), |_| standing);
            let mut were_asked = vec![];
            let sent = plan.carry_out(|which| {
                were_asked.push(which);
                says[which as usize]
            });
            assert_eq!((were_asked, sent), (asked, result), "{in_doubt} {says:?}");
        }
    }

    #[test]
    fn relays_are_told_where_we_are_to_be_found() {
        let (here, not) = (Some(true), Some(false));
        let mut standby = Standby::default();
        for (now, notes, rerouted) in [
            ([Missing(0), Missing(0)], [None, None], false),
            ([Missing(0), There(1)], [None, here], true),
            ([There(1), There(1)], [here, not], true),
            ([There(1), There(1)], [None, None], false),
            // The other one is lost, is not to be had, and is back; then both between two looks.
            ([There(1), Missing(1)], [here, None], false),
            ([There(1), Missing(2)], [here, None], false),
            ([There(1), There(2)], [None, not], false),
            ([There(1), There(3)], [here, not], false),
            // And the first one.
            ([Missing(1), There(3)], [None, here], true),
            ([Missing(2), There(3)], [None, here], false),
            ([There(2), There(3)], [here, not], true),
            ([There(3), There(3)], [here, not], true),
            ([Missing(3), Missing(3)], [None, None], false),
            ([Missing(4), Missing(3)], [None, None], false),
            ([There(4), Missing(3)], [here, None], true),
        ] {
            let expected = Change { notes, rerouted };
            assert_eq!(standby.handle_connections(now), expected, "{now:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut standby, now) = (Standby::default(), Instant::now());
        for number in 0..3 * MAX_STRAYS as u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            standby.handle_authentic(&NodeKey::from_bytes(key), Which::Other, now);
            assert!(standby.strays.len() <= MAX_STRAYS);
        }
    }
}
