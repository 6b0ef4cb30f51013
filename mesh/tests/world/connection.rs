//! The connections between nodes and the relay: how they are opened and lost, and the bytes on them,
//! which arrive late but whole and in order.

use std::time::Duration;

use bytes::Bytes;
use derp::client::{Client, Event, Heard};

use super::net::Host;
use super::node::secret;
use super::relay::{RELAY_DELAY, State, WINDOW};
use super::rng::Rng;
use super::run::{What, World};
use crate::home::Action;
use crate::path::Via;

/// TCP repeats what was lost after at least that.
const TCP_RTO: Duration = Duration::from_millis(200);

impl World {
    /// Does what a node wants done with its connection.
    pub(super) fn act(&mut self, node: usize, action: Action) {
        if action != Action::Ping {
            self.note(|| format!("{node} relay: {action:?}"));
        }
        match action {
            Action::Connect => {
                let conn = self.relay.open(node, self.now);
                self.nodes[node].conn = Some(conn);
                let host = &self.net.hosts[node];
                let trip = 2 * (host.delay + RELAY_DELAY);
                match (host.segment, self.relay.state) {
                    (None, _) | (_, State::Dark) => {}
                    (_, State::Ended) => self.push(self.now + trip, What::Reset(conn, node)),
                    // TCP, then the upgrade with the handshake of the protocol.
                    (_, State::Up) => self.push(self.now + 3 * trip, What::Connected(conn)),
                }
            }
            Action::Ping => drop(self.nodes[node].client.handle_ping(*b"are you?")),
            Action::Drop(_) => {
                if let Some(conn) = self.nodes[node].conn {
                    // The relay hears of it, if it hears anything.
                    if self.relay.state == State::Up && !self.is_cut(conn) {
                        self.relay.close(conn);
                    }
                    self.lose_conn(node);
                }
            }
        }
    }

    /// The relay has let a node in.
    pub(super) fn connected(&mut self, conn: u64) -> Result<(), String> {
        let Some(node) = self.relay.conns.get(&conn).map(|conn| conn.node) else {
            return Ok(());
        };
        let current = self.nodes[node].conn == Some(conn) && self.is_awake(node);
        if current && !self.is_cut(conn) && self.relay.state == State::Up {
            self.note(|| format!("{node} relay: connected"));
            self.relay.accept(conn, self.now);
            let now = self.local(node);
            self.nodes[node].home.handle_connected(now);
            for core in self.nodes[node].cores.iter_mut().flatten() {
                core.handle_relay_up(now);
            }
            self.serve(node)?;
            self.serve_relay();
        }
        Ok(())
    }

    /// A node's connection is lost, and it knows.
    fn lose_conn(&mut self, node: usize) {
        let (now, chance) = (self.local(node), self.rng.next() as u16);
        let it = &mut self.nodes[node];
        it.conn = None;
        it.client = Client::new();
        it.home.handle_lost(now, chance);
    }

    /// The other end of a node's connection knows nothing of it.
    pub(super) fn reset(&mut self, conn: u64, node: usize) -> Result<(), String> {
        if self.nodes[node].conn == Some(conn) && self.is_awake(node) {
            self.lose_conn(node);
            self.serve(node)?;
        }
        Ok(())
    }

    /// Bytes have arrived at the relay.
    pub(super) fn reach_relay(&mut self, conn: u64, bytes: &[u8]) {
        if self.relay.state == State::Up && !self.is_cut(conn) {
            self.relay.receive(conn, bytes, self.now);
        }
        self.serve_relay();
    }

    /// The relay's timer goes off.
    pub(super) fn relay_timer(&mut self) {
        self.relay_due = None;
        self.relay.handle_timeout(self.now);
        self.serve_relay();
    }

    /// Bytes of the relay have arrived at a node.
    pub(super) fn hear_relay(&mut self, conn: u64, bytes: &[u8]) -> Result<(), String> {
        let Some(entry) = self.relay.conns.get_mut(&conn) else {
            return Ok(());
        };
        let node = entry.node;
        let awake = self.nodes[node].asleep.is_none();
        if entry.cut || !awake || self.nodes[node].conn != Some(conn) {
            return Ok(());
        }
        entry.flying_to_node -= bytes.len();
        let now = self.local(node);
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            let len = 5 + u32::from_be_bytes(*rest[1..].first_chunk().unwrap()) as usize;
            let raw = rest.split_to(len);
            self.nodes[node].home.handle_heard(now);
            match derp::client::read(&raw).unwrap() {
                Heard::Event(Event::Packet { from, data }) => {
                    let known = |peer: &usize| secret(*peer).public() == from;
                    let from = (0..self.nodes.len()).find(known).unwrap();
                    self.take(node, Via::Relay, Some(from), &data)?;
                }
                Heard::Asked(data) => self.nodes[node].client.handle_asked(data),
                _ => {}
            }
        }
        self.serve(node)?;
        self.serve_relay();
        Ok(())
    }

    /// Writes to the connection with the relay.
    pub(super) fn write(&mut self, node: usize) {
        let Some(conn) = self.nodes[node]
            .conn
            .filter(|_| self.nodes[node].home.is_up())
        else {
            return;
        };
        while let Some(entry) = self.relay.conns.get_mut(&conn) {
            if entry.flying_to_relay >= WINDOW {
                return;
            }
            let Some(bytes) = self.nodes[node].client.poll_transmit() else {
                return;
            };
            self.sent[node] += 1;
            entry.flying_to_relay += bytes.len();
            let at = self.now + on_the_way(&self.net.hosts[node], &mut self.rng);
            entry.last_to_relay = entry.last_to_relay.max(at);
            let at = entry.last_to_relay;
            if entry.cut || self.relay.state == State::Dark {
                continue;
            }
            self.push(at, What::ToRelay(conn, bytes));
        }
        // The relay has restarted and knows nothing of this connection.
        if self.relay.state != State::Dark
            && !self.relay_mute
            && self.net.hosts[node].segment.is_some()
        {
            let at = self.now + 2 * self.net.hosts[node].delay;
            self.push(at, What::Reset(conn, node));
        }
    }

    /// Carries out what the relay wants, and sets its timer.
    fn serve_relay(&mut self) {
        if self.relay.state != State::Up {
            return;
        }
        for (conn, bytes) in self.relay.collect(self.now) {
            let Some(entry) = self.relay.conns.get_mut(&conn) else {
                continue;
            };
            let at = self.now + on_the_way(&self.net.hosts[entry.node], &mut self.rng);
            entry.last_to_node = entry.last_to_node.max(at);
            let at = entry.last_to_node;
            if !entry.cut {
                self.push(at, What::ToNode(conn, bytes));
            }
        }
        if let Some(due) = self.relay.due()
            && self.relay_due.is_none_or(|at| due < at)
        {
            let due = due.max(self.now);
            self.relay_due = Some(due);
            self.push(due, What::Relay);
        }
    }

    /// The connections of a node lead nowhere any more, and nobody knows.
    pub(super) fn cut_conns(&mut self, node: usize) {
        for conn in self.relay.conns.values_mut() {
            conn.cut |= conn.node == node;
        }
    }

    /// The relay's process ends, or its machine.
    pub(super) fn end_relay(&mut self, state: State) {
        for conn in self.relay.end(state) {
            for node in 0..self.nodes.len() {
                if state == State::Ended && self.nodes[node].conn == Some(conn) {
                    let at = self.now + self.net.hosts[node].delay;
                    self.push(at, What::Reset(conn, node));
                }
            }
        }
    }

    /// Whether what is written to it does not arrive.
    pub(super) fn is_cut(&self, conn: u64) -> bool {
        self.relay.conns.get(&conn).is_none_or(|conn| conn.cut)
    }
}

/// How long bytes take from one end of a host's connection to the other.
fn on_the_way(host: &Host, rng: &mut Rng) -> Duration {
    let late = if rng.permille(host.loss) {
        TCP_RTO
    } else {
        Duration::ZERO
    };
    host.delay + RELAY_DELAY + rng.micros(500) + late
}
