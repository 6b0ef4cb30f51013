//! Two relays of one region, one of which stands by.

use mesh::NodeKey;
use mesh::io::{Mesh, Relay};
use tokio::task::JoinHandle;

use crate::support::*;

/// Two nodes without a direct path, each by a cable of its own to each relay.
struct Region {
    relays: [Option<TestRelay>; 2],
    addrs: [std::net::SocketAddr; 2],
    keys: [NodeKey; 2],
    /// By node, then by relay.
    cables: [[Cable; 2]; 2],
    nodes: [Mesh; 2],
    _echoes: [JoinHandle<()>; 2],
}

impl Region {
    async fn start() -> Self {
        let relays = TestRelay::region().await;
        let addrs = relays.each_ref().map(|relay| relay.addr);
        let keys = relays.each_ref().map(|relay| relay.key);
        let cables = [
            [Cable::to(addrs[0]).await, Cable::to(addrs[1]).await],
            [Cable::to(addrs[0]).await, Cable::to(addrs[1]).await],
        ];
        let nodes = [mesh(1, false).await, mesh(2, false).await];
        nodes[0].upsert_peer(peer(2));
        nodes[1].upsert_peer(peer(1));
        let echoes = nodes.each_ref().map(echo);
        Self {
            relays: relays.map(Some),
            addrs,
            keys,
            cables,
            nodes,
            _echoes: echoes,
        }
    }

    /// Both nodes at both relays.
    async fn connected() -> Self {
        let region = Self::start().await;
        for (node, mesh) in region.nodes.iter().enumerate() {
            mesh.set_relay(Some(region.relay(node, 0)));
            mesh.set_standby(Some((region.relay(node, 1), region.keys[1])));
            until(|| mesh.relay_connected() && mesh.standby_connected()).await;
        }
        region
    }

    fn relay(&self, node: usize, relay: usize) -> Relay {
        Relay {
            url: format!("http://{}", self.cables[node][relay].addr),
            tls: None,
            proxy: None,
            stun: None,
        }
    }

    async fn kill(&mut self, relay: usize) {
        self.relays[relay].take().unwrap().kill().await;
    }

    async fn revive(&mut self, relay: usize) {
        let [addr, other] = [self.addrs[relay], self.addrs[1 - relay]];
        self.relays[relay] = Some(TestRelay::back_in_region(addr, other).await);
    }

    /// Calls in both directions; none may fail.
    async fn calls(&self) {
        for _ in 0..3 {
            for (node, to) in [(0, 2), (1, 1)] {
                call(&self.nodes[node], to, 10_000).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_when_a_relay_dies_and_another_stands_by() {
    limited(async {
        let mut region = Region::connected().await;
        region.calls().await;
        region.kill(0).await;
        region.calls().await;
        // It comes back, and is enough when the other one dies.
        region.revive(0).await;
        for node in &region.nodes {
            until(|| node.first_connected()).await;
        }
        region.calls().await;
        region.kill(1).await;
        region.calls().await;
        region.revive(1).await;
        for node in &region.nodes {
            until(|| node.standby_connected()).await;
        }
        region.kill(0).await;
        region.calls().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_when_a_relay_falls_silent_and_another_stands_by() {
    limited(async {
        let region = Region::connected().await;
        region.calls().await;
        for node in 0..2 {
            region.cables[node][0].cut(true);
        }
        region.calls().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_one_relay_is_answered_by_the_other() {
    limited(async {
        for lost in [0, 1] {
            for node in 0..2 {
                let region = Region::connected().await;
                region.calls().await;
                // The relay does not know, and goes on sending there.
                region.cables[node][lost].cut(true);
                region.calls().await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_have_lost_one_relay_each_meet_by_both() {
    limited(async {
        for lost in [[0, 1], [1, 0]] {
            let region = Region::connected().await;
            region.calls().await;
            // Neither relay knows for minutes, and each would keep what is for its own.
            for (node, relay) in lost.into_iter().enumerate() {
                region.cables[node][relay].cut(true);
            }
            region.calls().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_at_the_other_relay_alone_is_found_there() {
    limited(async {
        let region = Region::start().await;
        let [a, b] = &region.nodes;
        a.set_relay(Some(region.relay(0, 0)));
        a.set_standby(Some((region.relay(0, 1), region.keys[1])));
        b.set_relay(Some(region.relay(1, 1)));
        region.calls().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_do_not_find_each_other_are_both_asked() {
    limited(async {
        let relays = [TestRelay::start().await, TestRelay::start().await];
        let (a, b) = (mesh(1, false).await, mesh(2, false).await);
        a.upsert_peer(peer(2));
        b.upsert_peer(peer(1));
        let _echoes = [echo(&a), echo(&b)];
        a.set_relay(Some(relays[0].relay()));
        a.set_standby(Some((relays[1].relay(), relays[1].key)));
        b.set_relay(Some(relays[1].relay()));
        until(|| a.relay_connected() && a.standby_connected() && b.relay_connected()).await;
        for _ in 0..3 {
            call(&a, 2, 10_000).await.unwrap();
            call(&b, 1, 10_000).await.unwrap();
        }
        // Who is at neither is missed by both.
        b.close().await;
        // The first call may still be under way when the good-bye comes.
        while !call(&a, 2, 10)
            .await
            .unwrap_err()
            .contains("not connected to the relay")
        {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_by_is_never_the_first_relay_once_more() {
    limited(async {
        let region = Region::start().await;
        let [a, b] = &region.nodes;
        // Both URLs lead to the same relay, as by a load balancer.
        a.set_relay(Some(region.relay(0, 0)));
        a.set_standby(Some((region.relay(1, 0), region.keys[1])));
        b.set_relay(Some(region.relay(1, 1)));
        let mut key = a.relay_key();
        let is_first = |key: &Option<NodeKey>| *key == Some(region.keys[0]);
        key.wait_for(is_first).await.unwrap();
        // It is tried all the time.
        for _ in 0..20 {
            region.calls().await;
            assert!(!a.standby_connected());
        }
    })
    .await;
}
