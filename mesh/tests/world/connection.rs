//! The connections between nodes and relays: how they are opened and lost, and the bytes on them,
//! which arrive late but whole and in order.

use std::time::Duration;

use bytes::Bytes;
use derp::client::{Client, Event, Heard};

use super::net::Host;
use super::relay::{ConnAt, RELAY_DELAY, State, WINDOW};
use super::rng::Rng;
use super::run::{What, World};
use crate::home::Action;
use crate::path::Via;
use crate::standby::Which;

/// TCP repeats what was lost after at least that.
const TCP_RTO: Duration = Duration::from_millis(200);

impl World {
    /// The connection that a node has with a relay, or tries to make.
    pub(super) fn conn(&self, node: usize, which: Which) -> Option<ConnAt> {
        let number = self.nodes[node].link(which).conn?;
        Some((self.relay_of(node, which), number))
    }

    /// What a node uses this connection for, if it does.
    fn used_for(&self, node: usize, conn: ConnAt) -> Option<Which> {
        let all = [Which::First, Which::Other].into_iter();
        let mut used = all.filter(|which| self.conn(node, *which) == Some(conn));
        used.next().filter(|_| self.is_awake(node))
    }

    /// Does what a node wants done with its connection.
    pub(super) fn act(&mut self, node: usize, which: Which, action: Action) {
        let relay = self.relay_of(node, which);
        if action != Action::Ping {
            self.note(|| format!("{node} relay {relay}: {action:?}"));
        }
        match action {
            Action::Connect => {
                let number = self.relays[relay].open(node, self.now);
                self.nodes[node].link_mut(which).conn = Some(number);
                let conn = (relay, number);
                let host = &self.net.hosts[node];
                let trip = 2 * (host.delay + RELAY_DELAY);
                match (host.segment, self.relays[relay].state) {
                    (None, _) | (_, State::Dark) => {}
                    _ if self.barred[node][relay] => {}
                    (_, State::Ended) => self.push(self.now + trip, What::Reset(conn, node)),
                    // TCP, then the upgrade with the handshake of the protocol.
                    (_, State::Up) => self.push(self.now + 3 * trip, What::Connected(conn)),
                }
            }
            Action::Ping => {
                let client = &mut self.nodes[node].link_mut(which).client;
                let _ = client.handle_ping(*b"are you?");
            }
            Action::Drop(_) => {
                if let Some(conn) = self.conn(node, which) {
                    // The relay hears of it, if it hears anything.
                    if self.relays[relay].state == State::Up && !self.is_cut(conn) {
                        self.relays[relay].close(conn.1);
                        self.serve_relay(relay);
                    }
                    self.lose_conn(node, which);
                }
            }
        }
    }

    /// The relay has let a node in.
    pub(super) fn connected(&mut self, conn: ConnAt) -> Result<(), String> {
        let (relay, number) = conn;
        let Some(node) = self.relays[relay].conns.get(&number).map(|conn| conn.node) else {
            return Ok(());
        };
        if let Some(which) = self.used_for(node, conn)
            && !self.is_cut(conn)
            && self.relays[relay].state == State::Up
        {
            self.note(|| format!("{node} relay {relay}: connected"));
            self.relays[relay].accept(number, self.now);
            let now = self.local(node);
            let link = self.nodes[node].link_mut(which);
            link.home.handle_connected(now);
            self.nodes[node].handle_connections(now);
            self.serve(node)?;
            self.serve_relay(relay);
        }
        Ok(())
    }

    /// A node's connection is lost, and it knows.
    fn lose_conn(&mut self, node: usize, which: Which) {
        let (now, chance) = (self.local(node), self.rng.next() as u16);
        let link = self.nodes[node].link_mut(which);
        link.conn = None;
        link.failed += 1;
        link.absent.clear();
        link.client = Client::new();
        link.home.handle_lost(now, chance);
        self.nodes[node].handle_connections(now);
    }

    /// The other end of a node's connection knows nothing of it.
    pub(super) fn reset(&mut self, conn: ConnAt, node: usize) -> Result<(), String> {
        if let Some(which) = self.used_for(node, conn) {
            self.lose_conn(node, which);
            self.serve(node)?;
        }
        Ok(())
    }

    /// Bytes have arrived at the relay.
    pub(super) fn reach_relay(&mut self, conn: ConnAt, bytes: &[u8]) {
        let (relay, number) = conn;
        if self.relays[relay].state == State::Up && !self.is_cut(conn) {
            self.relays[relay].receive(number, bytes, self.now);
        }
        self.serve_relay(relay);
    }

    /// A relay's timer goes off.
    pub(super) fn relay_timer(&mut self, relay: usize) {
        self.relays[relay].scheduled = None;
        self.relays[relay].handle_timeout(self.now);
        self.serve_relay(relay);
    }

    /// Bytes of the relay have arrived at a node.
    pub(super) fn hear_relay(&mut self, conn: ConnAt, bytes: &[u8]) -> Result<(), String> {
        let (relay, number) = conn;
        let Some(entry) = self.relays[relay].conns.get(&number) else {
            return Ok(());
        };
        let (node, cut) = (entry.node, entry.cut);
        let Some(which) = self.used_for(node, conn).filter(|_| !cut) else {
            return Ok(());
        };
        if let Some(entry) = self.relays[relay].conns.get_mut(&number) {
            entry.flying_to_node -= bytes.len();
        }
        let now = self.local(node);
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            let len = 5 + u32::from_be_bytes(*rest[1..].first_chunk().unwrap()) as usize;
            let raw = rest.split_to(len);
            self.nodes[node].link_mut(which).home.handle_heard(now);
            match derp::client::read(&raw).unwrap() {
                Heard::Event(Event::Packet { from, data }) => {
                    let from = self.nodes[node].holder(&from).unwrap();
                    self.nodes[node].link_mut(which).absent.remove(&from);
                    self.take(node, Via::Relay, Some((from, which)), &data)?;
                }
                Heard::Event(Event::PeerGone { key, .. }) => {
                    let gone = self.nodes[node].holder(&key).unwrap();
                    self.nodes[node].link_mut(which).absent.insert(gone);
                }
                Heard::Asked(data) => self.nodes[node].link_mut(which).client.handle_asked(data),
                _ => {}
            }
        }
        self.serve(node)?;
        self.serve_relay(relay);
        Ok(())
    }

    /// Writes to the connections with the relays.
    pub(super) fn write(&mut self, node: usize) {
        for which in [Which::First, Which::Other] {
            if self.nodes[node].link(which).home.is_up()
                && let Some(conn) = self.conn(node, which)
            {
                self.write_to(node, which, conn);
            }
        }
    }

    fn write_to(&mut self, node: usize, which: Which, conn: ConnAt) {
        let (relay, number) = conn;
        while let Some(entry) = self.relays[relay].conns.get_mut(&number) {
            if entry.flying_to_relay >= WINDOW {
                return;
            }
            let client = &mut self.nodes[node].link_mut(which).client;
            let Some(bytes) = client.poll_transmit() else {
                return;
            };
            self.sent[node] += 1;
            entry.flying_to_relay += bytes.len();
            let at = self.now + on_the_way(&self.net.hosts[node], &mut self.rng);
            entry.last_to_relay = entry.last_to_relay.max(at);
            let at = entry.last_to_relay;
            if entry.cut || self.relays[relay].state == State::Dark {
                continue;
            }
            self.push(at, What::ToRelay(conn, bytes));
        }
        // The relay has restarted and knows nothing of this connection.
        if self.relays[relay].state != State::Dark
            && !self.relay_mute
            && !self.barred[node][relay]
            && self.net.hosts[node].segment.is_some()
        {
            let at = self.now + 2 * self.net.hosts[node].delay;
            self.push(at, What::Reset(conn, node));
        }
    }

    /// Carries out what a relay wants, and sets its timer.
    pub(super) fn serve_relay(&mut self, relay: usize) {
        if self.relays[relay].state != State::Up {
            return;
        }
        for (number, bytes) in self.relays[relay].collect(self.now) {
            let Some(entry) = self.relays[relay].conns.get_mut(&number) else {
                continue;
            };
            let at = self.now + on_the_way(&self.net.hosts[entry.node], &mut self.rng);
            entry.last_to_node = entry.last_to_node.max(at);
            let at = entry.last_to_node;
            if !entry.cut {
                self.push(at, What::ToNode((relay, number), bytes));
            }
        }
        self.write_links(relay);
        if let Some(due) = self.relays[relay].due()
            && self.relays[relay].scheduled.is_none_or(|at| due < at)
        {
            let due = due.max(self.now);
            self.relays[relay].scheduled = Some(due);
            self.push(due, What::Relay(relay));
        }
    }

    /// The connections of a node lead nowhere any more, and nobody knows.
    pub(super) fn cut_conns(&mut self, node: usize) {
        for relay in 0..self.relays.len() {
            self.cut_conns_with(node, relay);
        }
    }

    /// The same with one relay.
    pub(super) fn cut_conns_with(&mut self, node: usize, relay: usize) {
        for conn in self.relays[relay].conns.values_mut() {
            conn.cut |= conn.node == node;
        }
    }

    /// A relay's process ends, or its machine.
    pub(super) fn end_relay(&mut self, relay: usize, state: State) {
        for number in self.relays[relay].end(state) {
            for node in 0..self.nodes.len() {
                let conn = (relay, number);
                let has = [Which::First, Which::Other].map(|which| self.conn(node, which));
                let hears = state == State::Ended && !self.barred[node][relay];
                if hears && has.contains(&Some(conn)) {
                    let at = self.now + self.net.hosts[node].delay;
                    self.push(at, What::Reset(conn, node));
                }
            }
        }
        self.relink();
    }

    /// Whether what is written to it does not arrive.
    pub(super) fn is_cut(&self, (relay, number): ConnAt) -> bool {
        let conn = self.relays[relay].conns.get(&number);
        conn.is_none_or(|conn| conn.cut)
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
