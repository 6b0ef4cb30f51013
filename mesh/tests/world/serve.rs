//! How a node runs: what comes in is given to its state machines, what they want is carried out, and
//! its timer is set. What `io` does for a real node.

use std::net::SocketAddr;

use super::datagram::STUN_PORT;
use super::node::{Got, Node};
use super::run::{What, World};
use crate::path::Via;
use crate::standby::Which;

impl World {
    /// The program on a node, as it starts.
    pub(super) fn fresh_node(&mut self, node: usize, nodes: usize) -> Node {
        let boot = self.rng.next();
        let port = 40_000 + self.rng.below(1000) as u16;
        Node::new(node, nodes, boot, port)
    }

    /// The program on a node begins.
    pub(super) fn start_node(&mut self, node: usize) {
        let now = self.local(node);
        let server = SocketAddr::new(self.relay_ip(self.relay_of(node, Which::First)), STUN_PORT);
        let relays = self.relays.len();
        let it = &mut self.nodes[node];
        for link in &mut it.links[..relays] {
            link.home.set_wanted(true, now);
        }
        it.reflector.set_server(Some(server), now);
        self.refresh(node);
    }

    /// The program on a node is killed and started again.
    pub(super) fn restart_node(&mut self, node: usize) {
        for which in [Which::First, Which::Other] {
            if let Some(conn) = self.conn(node, which).filter(|conn| !self.is_cut(*conn)) {
                self.relays[conn.0].close(conn.1);
                self.serve_relay(conn.0);
            }
        }
        let lag = self.nodes[node].lag;
        self.nodes[node] = self.fresh_node(node, self.nodes.len());
        self.nodes[node].lag = lag;
        self.start_node(node);
        self.schedule(node);
    }

    /// Sets a node's timer, after it was changed from outside.
    pub(super) fn rouse(&mut self, node: usize) -> Result<(), String> {
        self.refresh(node);
        self.serve(node)
    }

    /// Its addresses may be others.
    pub(super) fn refresh(&mut self, node: usize) {
        let host = &self.net.hosts[node];
        let own = host
            .segment
            .map(|_| SocketAddr::new(host.ip, self.nodes[node].port));
        self.nodes[node].refresh_endpoints(own);
    }

    /// A node has got a datagram.
    pub(super) fn take(
        &mut self,
        node: usize,
        via: Via,
        from: Option<(usize, Which)>,
        bytes: &[u8],
    ) -> Result<(), String> {
        let now = self.local(node);
        let got = self.nodes[node].receive(via, from, bytes, now);
        if let Got::Payload(peer, payload) = got {
            self.payload(node, peer, &payload)?;
        }
        self.refresh(node);
        self.serve(node)
    }

    /// A node's timer goes off.
    pub(super) fn timer(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].scheduled != Some(self.now) {
            return Ok(());
        }
        self.nodes[node].scheduled = None;
        if !self.is_awake(node) {
            return Ok(());
        }
        let now = self.local(node);
        for core in self.nodes[node].cores.iter_mut().flatten() {
            if core.poll_timeout().is_some_and(|due| due <= now) {
                core.handle_timeout(now);
            }
        }
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        if let Some((to, request)) = self.nodes[node].reflector.handle_timeout(now, id) {
            self.send_udp(node, to, &request);
        }
        for which in [Which::First, Which::Other] {
            while let Some(action) = self.nodes[node].link_mut(which).home.handle_timeout(now) {
                self.act(node, which, action);
            }
        }
        self.repeat_calls(node)?;
        self.serve(node)
    }

    /// Carries out what a node's state machines want, and sets its timer.
    pub(super) fn serve(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].collect();
        while let Some((peer, transmit)) = self.nodes[node].out.pop_front() {
            if transmit.bytes.first() == Some(&1) {
                self.count_initiation(node, peer, &transmit.bytes)?;
            }
            self.transmit(node, peer, transmit.via, &transmit.bytes);
        }
        self.write(node);
        self.schedule(node);
        Ok(())
    }

    /// Sends one packet the way that it is to go.
    pub(super) fn transmit(&mut self, node: usize, peer: usize, via: Via, bytes: &[u8]) {
        match via {
            Via::Direct(to) => self.send_udp(node, to, bytes),
            Via::Fan(to) => {
                self.note(|| format!("{node} opens ports to {to}"));
                self.nodes[node].fan = Some(to);
                for port in Node::fan_ports() {
                    self.sent[node] += 1;
                    self.carry((node, port), to, bytes);
                }
            }
            Via::Relay => {
                let now = self.local(node);
                self.nodes[node].relay(peer, bytes, now);
            }
        }
    }

    /// Sets a node's timer.
    pub(super) fn schedule(&mut self, node: usize) {
        let now = self.local(node);
        let it = &self.nodes[node];
        if let Some(due) = it.due(now) {
            let due = (due + it.lag).max(self.now);
            if it.scheduled.is_none_or(|at| due < at) {
                self.nodes[node].scheduled = Some(due);
                self.push(due, What::Timer(node));
            }
        }
    }
}
