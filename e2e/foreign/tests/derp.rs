//! The DERP client of tailscale-rs against our relay, over plain TCP.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use derp::io::client::{self, Config, Event};
use derp::io::server::Server;
use derp::{NodeKey, NodeSecret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use ts_keys::{ExportableKey, NodeKeyPair, NodePublicKey};

use common::{packet, talk};

type Foreign = ts_derp::Client<TcpStream>;

/// Packets that each side sends.
const COUNT: u32 = 1500;

async fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future)
        .await
        .expect("a test that hangs")
}

/// A relay that admits who is on the list; empty is everybody.
struct Relay {
    address: SocketAddr,
    server: Server,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn start(admitted: Vec<NodeKey>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admits = move |key: &NodeKey| admitted.is_empty() || admitted.contains(key);
        let server = Server::new(NodeSecret::from_bytes([0xfe; 32]), Arc::new(admits));
        let accepting = server.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, remote)) = listener.accept().await {
                let server = accepting.clone();
                connections.spawn(async move { server.serve_http(tcp, remote).await });
            }
        });
        Self {
            address,
            server,
            _tasks: tasks,
        }
    }

    /// Past the HTTP upgrade, where the foreign client takes over.
    async fn upgraded(&self) -> TcpStream {
        let mut tcp = TcpStream::connect(self.address).await.unwrap();
        let request = "GET /derp HTTP/1.1\r\nHost: relay.test\r\nUpgrade: DERP\r\n\
                       Connection: Upgrade\r\n\r\n";
        tcp.write_all(request.as_bytes()).await.unwrap();
        // No byte more than the head: the rest is for the client.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        tcp
    }

    async fn foreign(&self, keys: &NodeKeyPair) -> Arc<Foreign> {
        let tcp = self.upgraded().await;
        Arc::new(Foreign::handshake(tcp, keys).await.unwrap())
    }

    async fn ours(&self, secret: NodeSecret) -> (client::Sender, client::Receiver) {
        let config = Config {
            url: format!("http://{}", self.address),
            secret,
            tls: None,
            proxy: None,
        };
        client::connect(&config).await.unwrap()
    }
}

fn ours(key: &NodePublicKey) -> NodeKey {
    NodeKey::from_bytes(*key.export().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_foreign_clients_relay_both_ways() {
    within(async {
        let relay = Relay::start(Vec::new()).await;
        let (one, two) = (NodeKeyPair::random(), NodeKeyPair::random());
        let (a, b) = (relay.foreign(&one).await, relay.foreign(&two).await);
        let mut tasks = JoinSet::new();
        let (a, b) = ((a, one.public), (b, two.public));
        talk(&mut tasks, COUNT, a.clone(), b.clone());
        talk(&mut tasks, COUNT, b, a);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let counters = relay.server.counters();
        assert_eq!(counters.packets, 2 * u64::from(COUNT));
        assert_eq!(counters.dropped + counters.not_here, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_talks_with_ours() {
    within(async {
        let relay = Relay::start(Vec::new()).await;
        let keys = NodeKeyPair::random();
        let foreign = relay.foreign(&keys).await;
        let secret = NodeSecret::from_bytes([1; 32]);
        let me = NodePublicKey::from_bytes(*secret.public().as_bytes());
        let (sender, mut receiver) = relay.ours(secret).await;
        let echo = foreign.clone();
        let echoing = tokio::spawn(async move {
            for _ in 0..COUNT {
                let (from, data) = echo.recv_one().await.unwrap();
                echo.send_one(from, data.as_ref()).await.unwrap();
            }
        });
        for number in 0..COUNT {
            sender
                .try_send(&ours(&keys.public), &packet(number))
                .unwrap();
            let Event::Packet { from, data } = receiver.recv().await.unwrap() else {
                panic!("not a packet");
            };
            assert_eq!(from, ours(&keys.public));
            assert_eq!(data, packet(number));
        }
        echoing.await.unwrap();
        // And the other way round, first word from the foreign side.
        foreign.send_one(me, b"bye").await.unwrap();
        let event = receiver.recv().await.unwrap();
        assert!(matches!(event, Event::Packet { data, .. } if data == b"bye"[..]));
    })
    .await;
}

/// The foreign client ends its connection at frames it does not expect, so
/// this is also a test of what we do not send.
#[tokio::test]
async fn a_foreign_client_survives_what_happens_to_it() {
    within(async {
        let relay = Relay::start(Vec::new()).await;
        let keys = NodeKeyPair::random();
        let first = relay.foreign(&keys).await;
        // Another connection with its key, a send to nobody, a peer that
        // leaves, a restart.
        let second = relay.foreign(&keys).await;
        second
            .send_one(NodeKeyPair::random().public, b"?")
            .await
            .unwrap();
        let (sender, mut receiver) = relay.ours(NodeSecret::from_bytes([1; 32])).await;
        sender.try_send(&ours(&keys.public), b"one").unwrap();
        assert_eq!(second.recv_one().await.unwrap().1.as_ref(), b"one");
        second
            .send_one(
                NodePublicKey::from_bytes(*NodeSecret::from_bytes([1; 32]).public().as_bytes()),
                b"two",
            )
            .await
            .unwrap();
        receiver.recv().await.unwrap();
        let second_long = Duration::from_secs(1);
        relay.server.announce_restart(second_long, second_long);
        drop((sender, receiver));
        let (sender, _receiver) = relay.ours(NodeSecret::from_bytes([2; 32])).await;
        sender.try_send(&ours(&keys.public), b"three").unwrap();
        assert_eq!(second.recv_one().await.unwrap().1.as_ref(), b"three");
        drop(first);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_client_that_is_not_admitted_is_refused() {
    within(async {
        let (good, bad) = (NodeKeyPair::random(), NodeKeyPair::random());
        let relay = Relay::start(vec![ours(&good.public)]).await;
        relay.foreign(&good).await;
        let tcp = relay.upgraded().await;
        assert!(Foreign::handshake(tcp, &bad).await.is_err());
        assert!(!relay.server.is_connected(&ours(&bad.public)));
    })
    .await;
}
