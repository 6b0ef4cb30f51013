//! Where others see us: asking the relay's STUN server.
//!
//! From behind a NAT a node cannot know its own address. It asks every 20 s,
//! which also keeps the NAT's mapping open (they close after 30 s), and tells
//! its peers the answer along with its own addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::node::Node;
use crate::stun::{self, Id};

const REFRESH: Duration = Duration::from_secs(20);
/// Pauses between the tries of one question.
const PAUSES_MS: [u64; 4] = [100, 200, 400, 800];

/// What is being asked, and what was answered.
#[derive(Default)]
pub(super) struct Reflection {
    state: Mutex<State>,
    /// There is another server.
    changed: Notify,
    answered: Notify,
}

#[derive(Default)]
struct State {
    server: Option<SocketAddr>,
    id: Option<Id>,
    found: Option<SocketAddr>,
}

impl Reflection {
    /// Says which server to ask, or none.
    pub(super) fn set_server(&self, server: Option<SocketAddr>) {
        let mut state = self.state.lock();
        if state.server != server {
            *state = State {
                server,
                ..State::default()
            };
            self.changed.notify_one();
        }
    }

    /// Our address as the server sees it.
    pub(super) fn found(&self) -> Option<SocketAddr> {
        self.state.lock().found
    }

    /// Takes a datagram that is not WireGuard's. Returns whether it brought a
    /// new address.
    pub(super) fn handle(&self, source: SocketAddr, datagram: &[u8]) -> bool {
        let Some((id, addr)) = stun::parse_response(datagram) else {
            return false;
        };
        let mut state = self.state.lock();
        if state.server != Some(source) || state.id != Some(id) {
            return false;
        }
        state.id = None;
        self.answered.notify_one();
        state.found.replace(addr) != Some(addr)
    }

    /// Begins a question: whom to send what.
    fn ask(&self, id: Id) -> Option<(SocketAddr, [u8; 20])> {
        let mut state = self.state.lock();
        state.id = Some(id);
        Some((state.server?, stun::request(&id)))
    }
}

impl Node {
    /// Keeps asking, until the task is aborted.
    pub(super) async fn run_reflection(self: Arc<Self>) {
        loop {
            let reflection = &self.reflection;
            let asking = async {
                match reflection.ask(self.random_id()) {
                    Some((server, request)) => self.ask(server, &request).await,
                    None => std::future::pending().await,
                }
                tokio::time::sleep(REFRESH).await;
            };
            tokio::select! {
                () = asking => {}
                () = reflection.changed.notified() => {}
            }
        }
    }

    async fn ask(&self, server: SocketAddr, request: &[u8]) {
        let Some(udp) = &self.udp else {
            return;
        };
        for pause in PAUSES_MS {
            udp.send(server, request);
            let answered = self.reflection.answered.notified();
            if timeout(Duration::from_millis(pause), answered)
                .await
                .is_ok()
            {
                self.refresh_endpoints();
                return;
            }
        }
        tracing::debug!(%server, "no answer from the STUN server");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_server_is_believed_and_only_once() {
        let server = SocketAddr::from(([192, 0, 2, 1], 3478));
        let other = SocketAddr::from(([192, 0, 2, 2], 3478));
        let reflection = Reflection::default();
        assert!(reflection.ask([1; 12]).is_none());
        reflection.set_server(Some(server));
        let (to, request) = reflection.ask([7; 12]).unwrap();
        assert_eq!(to, server);
        let mut response = request.to_vec();
        response[0..4].copy_from_slice(&[1, 1, 0, 12]);
        response.extend([0, 1, 0, 8, 0, 1, 0, 80, 192, 0, 2, 9]);
        assert!(!reflection.handle(other, &response));
        let mut forged = response.clone();
        forged[8] ^= 1;
        assert!(!reflection.handle(server, &forged));
        assert!(reflection.handle(server, &response));
        assert_eq!(reflection.found(), Some("192.0.2.9:80".parse().unwrap()));
        assert!(!reflection.handle(server, &response), "already answered");
        reflection.set_server(None);
        assert_eq!(reflection.found(), None);
    }
}
