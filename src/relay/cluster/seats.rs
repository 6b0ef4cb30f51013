//! At which relay a node is connected, as one of the relays knows it.
//!
//! Pure. Connections come and go here ([`Seats::sit`], [`Seats::rise`]) and become what has to be
//! written into the database ([`Seats::poll_write`]); what is written there by others comes in
//! ([`Seats::handle`]). The database puts all of it into one order, the places. Of two relays that
//! both have a connection of a node the one with the later place keeps it.
//!
//! What others have written may be heard before the answer to what is being written here. Whether it
//! is earlier or later is known with that answer, and until then it is kept aside.
//!
//! A relay that the database has taken for dead writes its nodes anew. Those that have gone to
//! another relay since are not its any more: they have a place behind the one it had.

use std::collections::{HashMap, HashSet};

use derp::NodeKey;
use mesh::NetworkId;

use crate::relay::directory::ConnectionId;
use crate::relay::store::cluster::{RelayId, Seat, Seating};

type Node = (NetworkId, NodeKey);

/// See the module.
#[derive(Default)]
pub(crate) struct Seats {
    /// Who is connected here.
    mine: HashMap<Node, Mine>,
    /// What the database does not know yet: the connection that came, or none.
    pending: HashMap<Node, Option<ConnectionId>>,
    /// Who is connected elsewhere.
    others: HashMap<Node, RelayId>,
    /// The last place that is known.
    place: u64,
}

struct Mine {
    connection: ConnectionId,
    /// The last at which it was known to be nowhere else; None until it is written.
    place: Option<u64>,
    /// It is being written: what is heard may be before that or after it.
    is_on_its_way: bool,
    /// What was heard last of the node and cannot be weighed yet.
    heard: Option<Seat>,
}

/// What is to be written, and what to call when it is.
pub(crate) struct Batch(Vec<(Node, Option<ConnectionId>)>);

/// What follows from what others have written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A node is now connected elsewhere, or not any more.
    Elsewhere(NetworkId, NodeKey, bool),
    /// A connection here that has a successor elsewhere.
    Replaced(ConnectionId),
}

impl Seats {
    /// A node has connected here.
    pub(crate) fn sit(&mut self, network: &NetworkId, key: &NodeKey, connection: ConnectionId) {
        let node = (network.clone(), *key);
        self.others.remove(&node);
        let mine = Mine {
            connection,
            place: None,
            is_on_its_way: false,
            heard: None,
        };
        self.mine.insert(node.clone(), mine);
        self.pending.insert(node, Some(connection));
    }

    /// That connection is over. Does nothing if the node has another one.
    pub(crate) fn rise(&mut self, network: &NetworkId, key: &NodeKey, connection: ConnectionId) {
        let node = (network.clone(), *key);
        let is_its = |mine: &Mine| mine.connection == connection;
        if self.mine.get(&node).is_some_and(is_its) {
            self.mine.remove(&node);
            self.pending.insert(node, None);
        }
    }

    /// At which other relay a node is.
    pub(crate) fn elsewhere(&self, network: &NetworkId, key: &NodeKey) -> Option<RelayId> {
        self.others.get(&(network.clone(), *key)).copied()
    }

    /// What has to be written, if anything.
    pub(crate) fn poll_write(&mut self) -> Option<(Batch, Vec<Seating>)> {
        if self.pending.is_empty() {
            return None;
        }
        let batch: Vec<_> = self.pending.drain().collect();
        for (node, connection) in &batch {
            if let Some(mine) = self.written(node, *connection) {
                mine.is_on_its_way = true;
            }
        }
        let seatings = batch.iter().map(|((network, key), connection)| Seating {
            network: network.clone(),
            key: *key,
            is_here: connection.is_some(),
        });
        let seatings = seatings.collect();
        Some((Batch(batch), seatings))
    }

    /// It is written, at this place.
    pub(crate) fn handle_written(&mut self, me: RelayId, batch: Batch, place: u64) -> Vec<Effect> {
        let mut heard = Vec::new();
        for (node, connection) in batch.0 {
            if let Some(mine) = self.written(&node, connection) {
                mine.place = Some(place);
                mine.is_on_its_way = false;
                heard.extend(mine.heard.take());
            }
        }
        self.handle(me, heard)
    }

    /// It is not written, and has to be again unless something newer is.
    pub(crate) fn handle_failed(&mut self, me: RelayId, batch: Batch) -> Vec<Effect> {
        let mut heard = Vec::new();
        for (node, connection) in batch.0 {
            if let Some(mine) = self.written(&node, connection) {
                mine.is_on_its_way = false;
                heard.extend(mine.heard.take_if(|_| mine.place.is_some()));
            }
            self.pending.entry(node).or_insert(connection);
        }
        self.handle(me, heard)
    }

    /// The connection that a batch is about, if it is still the node's.
    fn written(&mut self, node: &Node, connection: Option<ConnectionId>) -> Option<&mut Mine> {
        let mine = self.mine.get_mut(node)?;
        (Some(mine.connection) == connection).then_some(mine)
    }

    /// The database does not know this relay any more, so it has to be told of everybody again.
    pub(crate) fn handle_forgotten(&mut self) {
        let mine = self.mine.iter();
        self.pending
            .extend(mine.map(|(node, mine)| (node.clone(), Some(mine.connection))));
    }

    /// Takes in all that is written. A database that was away may have lost the last of it, places
    /// too: who is not in it is not there, and those who are here are written again.
    pub(crate) fn handle_all(&mut self, me: RelayId, seats: Vec<Seat>) -> Vec<Effect> {
        self.handle_forgotten();
        self.place = 0;
        let last = seats
            .iter()
            .map(|seat| seat.place)
            .max()
            .unwrap_or_default();
        for mine in self.mine.values_mut() {
            mine.place = mine.place.filter(|place| *place <= last);
        }
        let seated: HashSet<Node> = seats
            .iter()
            .filter(|seat| seat.relay.is_some_and(|relay| relay != me))
            .map(|seat| (seat.network.clone(), seat.key))
            .collect();
        let mut effects = self.handle(me, seats);
        let lost: Vec<Node> = self
            .others
            .extract_if(|node, _| !seated.contains(node))
            .map(|(node, _)| node)
            .collect();
        let lost = lost.into_iter();
        effects.extend(lost.map(|(network, key)| Effect::Elsewhere(network, key, false)));
        effects
    }

    /// The last place that is known.
    pub(crate) const fn place(&self) -> u64 {
        self.place
    }

    /// Takes in what is behind it.
    pub(crate) fn handle(&mut self, me: RelayId, seats: Vec<Seat>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for seat in seats {
            self.place = self.place.max(seat.place);
            let node = (seat.network.clone(), seat.key);
            let at = seat.relay.filter(|relay| *relay != me);
            if let Some(mine) = self.mine.get_mut(&node) {
                match mine.place {
                    Some(place) if !mine.is_on_its_way => {
                        if seat.place <= place || seat.relay == Some(me) {
                            continue;
                        }
                    }
                    None | Some(_) => {
                        mine.heard = Some(seat);
                        continue;
                    }
                }
                let connection = mine.connection;
                if at.is_none() {
                    // Somebody took it and left, or thought that this relay were gone.
                    mine.place = Some(seat.place);
                    self.pending.insert(node, Some(connection));
                    continue;
                }
                effects.push(Effect::Replaced(connection));
                self.mine.remove(&node);
                self.pending.remove(&node);
            }
            let was = match at {
                Some(relay) => self.others.insert(node, relay),
                None => self.others.remove(&node),
            };
            if was.is_some() != at.is_some() {
                effects.push(Effect::Elsewhere(seat.network, seat.key, at.is_some()));
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: RelayId = RelayId(1);
    const OTHER: RelayId = RelayId(2);

    fn network() -> NetworkId {
        "home".parse().unwrap()
    }

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes([n; 32])
    }

    fn seat(n: u8, relay: Option<RelayId>, place: u64) -> Seat {
        Seat {
            network: network(),
            key: key(n),
            relay,
            place,
        }
    }

    fn written(seats: &mut Seats, place: u64) -> Vec<bool> {
        let (batch, seatings) = seats.poll_write().unwrap();
        assert_eq!(seats.handle_written(ME, batch, place), []);
        seatings.iter().map(|seating| seating.is_here).collect()
    }

    #[test]
    fn who_comes_and_goes_at_once_is_written_once() {
        let mut seats = Seats::default();
        seats.sit(&network(), &key(1), ConnectionId(1));
        seats.sit(&network(), &key(1), ConnectionId(2));
        // The old one's end is not the new one's.
        seats.rise(&network(), &key(1), ConnectionId(1));
        assert_eq!(written(&mut seats, 1), [true]);
        assert!(seats.poll_write().is_none());
        seats.rise(&network(), &key(1), ConnectionId(2));
        assert_eq!(written(&mut seats, 2), [false]);
    }

    #[test]
    fn the_later_connection_of_a_node_stays() {
        let mut seats = Seats::default();
        seats.sit(&network(), &key(1), ConnectionId(1));
        // Heard before our own is written: that will be later.
        assert_eq!(seats.handle(ME, vec![seat(1, Some(OTHER), 1)]), []);
        written(&mut seats, 2);
        assert_eq!(seats.handle(ME, vec![seat(1, Some(ME), 2)]), []);
        let effects = seats.handle(ME, vec![seat(1, Some(OTHER), 3)]);
        assert_eq!(
            effects,
            [
                Effect::Replaced(ConnectionId(1)),
                Effect::Elsewhere(network(), key(1), true)
            ]
        );
        assert_eq!(seats.elsewhere(&network(), &key(1)), Some(OTHER));
        // Its end says nothing of where the node is now.
        seats.rise(&network(), &key(1), ConnectionId(1));
        assert!(seats.poll_write().is_none());
        let effects = seats.handle(ME, vec![seat(1, None, 4)]);
        assert_eq!(effects, [Effect::Elsewhere(network(), key(1), false)]);
        assert_eq!(seats.place(), 4);
    }

    #[test]
    fn what_is_heard_before_the_answer_is_weighed_with_it() {
        let mut seats = Seats::default();
        for (n, heard, is_later) in [(1, 1, false), (2, 3, true)] {
            let connection = ConnectionId(n.into());
            seats.sit(&network(), &key(n), connection);
            let (batch, _) = seats.poll_write().unwrap();
            assert_eq!(seats.handle(ME, vec![seat(n, Some(OTHER), heard)]), []);
            let effects = seats.handle_written(ME, batch, 2);
            if is_later {
                let there = Effect::Elsewhere(network(), key(n), true);
                assert_eq!(effects, [Effect::Replaced(connection), there]);
                assert_eq!(seats.elsewhere(&network(), &key(n)), Some(OTHER));
            } else {
                assert_eq!(effects, []);
                assert_eq!(seats.elsewhere(&network(), &key(n)), None);
            }
        }
    }

    #[test]
    fn who_is_here_and_nowhere_for_the_database_is_written_again() {
        let mut seats = Seats::default();
        seats.sit(&network(), &key(1), ConnectionId(1));
        written(&mut seats, 1);
        assert_eq!(seats.handle(ME, vec![seat(1, None, 3)]), []);
        assert_eq!(written(&mut seats, 4), [true]);
        assert_eq!(seats.handle(ME, vec![seat(1, Some(ME), 4)]), []);
        assert!(seats.poll_write().is_none());
    }

    #[test]
    fn a_database_that_has_lost_something_is_told_again() {
        let mut seats = Seats::default();
        seats.sit(&network(), &key(1), ConnectionId(1));
        written(&mut seats, 7);
        seats.handle(ME, vec![seat(2, Some(OTHER), 8), seat(3, Some(OTHER), 9)]);
        let effects = seats.handle_all(ME, vec![seat(2, Some(OTHER), 5)]);
        assert_eq!(effects, [Effect::Elsewhere(network(), key(3), false)]);
        assert_eq!(seats.place(), 5);
        assert_eq!(written(&mut seats, 6), [true]);
        assert_eq!(seats.elsewhere(&network(), &key(2)), Some(OTHER));
        assert_eq!(seats.elsewhere(&network(), &key(3)), None);
    }

    #[test]
    fn who_has_gone_elsewhere_while_this_relay_was_forgotten_is_not_taken_back() {
        let moved = |seats: &mut Seats, effects: Vec<Effect>| {
            let there = Effect::Elsewhere(network(), key(1), true);
            assert_eq!(effects, [Effect::Replaced(ConnectionId(1)), there]);
            assert_eq!(seats.elsewhere(&network(), &key(1)), Some(OTHER));
            assert!(seats.poll_write().is_none());
        };
        let seated = || {
            let mut seats = Seats::default();
            seats.sit(&network(), &key(1), ConnectionId(1));
            written(&mut seats, 10);
            seats
        };
        // Before it has written anything, whatever else it has heard.
        for and_then_nowhere in [false, true] {
            let mut seats = seated();
            seats.handle_forgotten();
            if and_then_nowhere {
                assert_eq!(seats.handle(ME, vec![seat(1, None, 15)]), []);
            }
            let effects = seats.handle(ME, vec![seat(1, Some(OTHER), 20)]);
            moved(&mut seats, effects);
        }
        // By all that there is.
        let mut seats = seated();
        let effects = seats.handle_all(ME, vec![seat(1, Some(OTHER), 20)]);
        moved(&mut seats, effects);
        // While it writes, which fails, or comes before.
        for fails in [true, false] {
            let mut seats = seated();
            seats.handle_forgotten();
            let (batch, _) = seats.poll_write().unwrap();
            assert_eq!(seats.handle(ME, vec![seat(1, Some(OTHER), 20)]), []);
            let effects = if fails {
                seats.handle_failed(ME, batch)
            } else {
                seats.handle_written(ME, batch, 19)
            };
            moved(&mut seats, effects);
        }
        // And when the database puts it behind the other, that is how it is.
        let mut seats = seated();
        seats.handle_forgotten();
        let (batch, _) = seats.poll_write().unwrap();
        assert_eq!(seats.handle(ME, vec![seat(1, Some(OTHER), 20)]), []);
        assert_eq!(seats.handle_written(ME, batch, 21), []);
        assert_eq!(seats.elsewhere(&network(), &key(1)), None);
    }

    #[test]
    fn what_failed_is_written_later_unless_it_is_overtaken() {
        let mut seats = Seats::default();
        seats.sit(&network(), &key(1), ConnectionId(1));
        seats.sit(&network(), &key(2), ConnectionId(2));
        let (batch, _) = seats.poll_write().unwrap();
        seats.rise(&network(), &key(1), ConnectionId(1));
        assert_eq!(seats.handle_failed(ME, batch), []);
        let (batch, mut seatings) = seats.poll_write().unwrap();
        seatings.sort_by_key(|seating| seating.key);
        let here: Vec<_> = seatings.iter().map(|seating| seating.is_here).collect();
        assert_eq!(here, [false, true]);
        assert_eq!(seats.handle_written(ME, batch, 1), []);
        // A relay that was taken for dead says again who is there.
        seats.handle_forgotten();
        assert_eq!(seats.handle(ME, vec![seat(2, None, 2)]), []);
        assert_eq!(written(&mut seats, 3), [true]);
    }
}
