//! Asks the relay's STUN server what `crate::reflect` wants to know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::node::Node;
use super::timers::sleep_until;
use crate::reflect::{Mapping, Outside, Reflector};

/// The questions, and that something about them has changed.
#[derive(Default)]
pub(super) struct Reflection {
    state: Mutex<Reflector>,
    changed: Notify,
}

impl Reflection {
    /// Says which server to ask, or none.
    pub(super) fn set_server(&self, server: Option<SocketAddr>) {
        self.state.lock().set_server(server, Instant::now());
        self.changed.notify_one();
    }

    /// What is known about the NAT.
    pub(super) fn mapping(&self) -> Mapping {
        self.state.lock().mapping()
    }

    /// Our address as the server sees it.
    pub(super) fn found(&self) -> Option<SocketAddr> {
        self.state.lock().found()
    }

    /// Whether there is a server, and it has left the last question unanswered.
    pub(super) fn is_unanswered(&self) -> bool {
        self.state.lock().is_unanswered()
    }

    /// How we look from outside, for peers.
    pub(super) fn outside(&self) -> Option<Outside> {
        self.state.lock().outside()
    }

    /// The addresses that peers are told, when these are our own.
    pub(super) fn endpoints(
        &self,
        mapped: Option<SocketAddr>,
        own: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        self.state.lock().endpoints(mapped, own)
    }

    /// Takes a datagram that is not WireGuard's.
    pub(super) fn handle(&self, source: SocketAddr, datagram: &[u8], now: Instant) {
        if self.state.lock().handle(source, datagram, now) {
            self.changed.notify_one();
        }
    }

    /// A peer sees us at this address.
    pub(super) fn handle_seen(&self, seen: SocketAddr) {
        if self.state.lock().handle_seen(seen) {
            self.changed.notify_one();
        }
    }

    /// The machine has other addresses now, or has slept.
    pub(super) fn handle_move(&self) {
        self.state.lock().handle_move(Instant::now());
        self.changed.notify_one();
    }
}

impl Node {
    /// Keeps asking, until the task is aborted.
    pub(super) async fn run_reflection(self: Arc<Self>) {
        loop {
            let id = self.random_id();
            let question = self
                .reflection
                .state
                .lock()
                .handle_timeout(Instant::now(), id);
            if let (Some((server, request)), Some(udp)) = (question, &self.udp) {
                udp.send(server, &request);
            }
            let due = self.reflection.state.lock().poll_timeout();
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.reflection.changed.notified() => self.refresh_endpoints(),
            }
        }
    }
}
