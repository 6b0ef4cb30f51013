//! Two relays of one region, over loopback TCP.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::{Relay, packet, secret, send, until, within};
use derp::handshake::MeshKey;
use derp::io::client::Event;
use derp::io::region::Neighbour;
use derp::io::server::{Options, Server};
use derp::{Error, NodeKey};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

fn options(digit: &str) -> Options {
    Options {
        mesh_key: MeshKey::from_hex(&digit.repeat(64)),
        ..Options::default()
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn link(tasks: &mut JoinSet<()>, from: &Server, to: SocketAddr) {
    let from = from.clone();
    let to = neighbour(to, None);
    tasks.spawn(async move { from.keep_link(to).await });
}

fn neighbour(at: SocketAddr, key: Option<NodeKey>) -> Neighbour {
    let url = format!("http://{at}");
    Neighbour {
        url,
        tls: None,
        key,
    }
}

/// Both, and the links between them.
async fn region() -> (Relay, Relay, JoinSet<()>) {
    let one = Relay::start_as(0xf1, any(), options("a")).await;
    let two = Relay::start_as(0xf2, any(), options("a")).await;
    let mut tasks = JoinSet::new();
    link(&mut tasks, &one.server, two.address);
    link(&mut tasks, &two.server, one.address);
    until(|| one.server.census().links == 1 && two.server.census().links == 1).await;
    (one, two, tasks)
}

#[tokio::test]
async fn clients_of_two_relays_exchange_packets() {
    within(async {
        let (one, two, _links) = region().await;
        let (a, mut a_in) = one.connect(1).await;
        let (b, mut b_in) = two.connect(2).await;
        until(|| one.server.is_away(&secret(2).public())).await;
        until(|| two.server.is_away(&secret(1).public())).await;
        for number in 0..500_u32 {
            let data = vec![7; number as usize * 20];
            send(&a, 2, &data).await;
            assert_eq!(packet(&mut b_in).await, (secret(1).public(), data.clone()));
            send(&b, 1, &data).await;
            assert_eq!(packet(&mut a_in).await, (secret(2).public(), data));
        }
        assert_eq!(one.server.counters().forwarded, 500);
        drop((b, b_in));
        let (key, reason) = (secret(2).public(), 0);
        assert_eq!(a_in.recv().await.unwrap(), Event::PeerGone { key, reason });
    })
    .await;
}

#[tokio::test]
async fn a_client_that_moves_to_the_other_relay_is_found_there() {
    within(async {
        let (one, two, _links) = region().await;
        let (a, _a_in) = one.connect(1).await;
        let (_old, mut old_in) = one.connect(2).await;
        send(&a, 2, b"first").await;
        assert_eq!(packet(&mut old_in).await.1, b"first");
        // The old connection stays open, as one whose client has lost its
        // network does.
        let (_new, mut new_in) = two.connect(2).await;
        until(|| one.server.is_away(&secret(2).public())).await;
        send(&a, 2, b"second").await;
        assert_eq!(packet(&mut new_in).await.1, b"second");
    })
    .await;
}

#[tokio::test]
async fn a_link_comes_back_with_its_relay() {
    within(async {
        let (one, two, _links) = region().await;
        let (a, _a_in) = one.connect(1).await;
        let address = two.address;
        drop(two);
        until(|| one.server.census().links == 0).await;
        let two = Relay::start_as(0xf2, address, options("a")).await;
        let (_b, mut b_in) = two.connect(2).await;
        until(|| one.server.is_away(&secret(2).public())).await;
        send(&a, 2, b"again").await;
        assert_eq!(packet(&mut b_in).await.1, b"again");
    })
    .await;
}

#[tokio::test]
async fn a_relay_without_the_key_is_turned_away() {
    within(async {
        let mut one = Relay::start_as(0xf1, any(), options("a")).await;
        let stranger = Relay::start_as(0xf2, any(), options("b")).await;
        let mut tasks = JoinSet::new();
        link(&mut tasks, &stranger.server, one.address);
        let ended = one.ended.recv().await.unwrap();
        assert!(matches!(ended, Err(Error::Protocol(_))), "{ended:?}");
        assert_eq!(one.server.census().away, 0);
    })
    .await;
}

#[tokio::test]
async fn a_relay_does_not_link_to_itself() {
    within(async {
        let one = Relay::start_as(0xf1, any(), options("a")).await;
        // It ends by itself, which a kept link does not.
        one.server.keep_link(neighbour(one.address, None)).await;
        assert_eq!(one.server.census().links, 0);
    })
    .await;
}

/// An address by which a relay is reached. What is connected there when the channel says so hears
/// nothing any more, at either end, and stays open.
async fn cable(relay: SocketAddr, tasks: &mut JoinSet<()>) -> (SocketAddr, broadcast::Sender<()>) {
    let listener = TcpListener::bind(any()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let cut = broadcast::Sender::new(1);
    let is_cut = cut.clone();
    tasks.spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut is_cut = is_cut.subscribe();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(relay).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                    _ = is_cut.recv() => {}
                }
                std::future::pending::<()>().await;
            });
        }
    });
    (address, cut)
}

#[tokio::test]
async fn a_link_that_dies_without_a_word_is_made_anew() {
    within(async {
        let mut options = options("a");
        options.limits.link_keep_alive = Duration::from_millis(50);
        options.limits.link_silence = Duration::from_secs(1);
        let one = Relay::start_as(0xf1, any(), options.clone()).await;
        let two = Relay::start_as(0xf2, any(), options).await;
        let mut tasks = JoinSet::new();
        let (address, cut) = cable(two.address, &mut tasks).await;
        link(&mut tasks, &one.server, address);
        until(|| one.server.census().links == 1).await;
        let before = two.server.counters().connected;
        cut.send(()).unwrap();
        until(|| two.server.counters().connected > before).await;
        let (a, _a_in) = one.connect(1).await;
        let (_b, mut b_in) = two.connect(2).await;
        until(|| one.server.is_away(&secret(2).public())).await;
        send(&a, 2, b"anew").await;
        assert_eq!(packet(&mut b_in).await.1, b"anew");
    })
    .await;
}

/// An address at which each of two relays answers in turn, as behind a load balancer.
async fn either(relays: [SocketAddr; 2], tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind(any()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        for relay in relays.into_iter().cycle() {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(relay).await.unwrap();
            tokio::spawn(async move {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_relay_of_another_key_is_told_nothing_and_the_right_one_is_found() {
    within(async {
        let mut wrong = Relay::start_as(0xf2, any(), options("a")).await;
        let right = Relay::start_as(0xf3, any(), options("a")).await;
        let one = Relay::start_as(0xf1, any(), options("a")).await;
        let mut tasks = JoinSet::new();
        let address = either([wrong.address, right.address], &mut tasks).await;
        let key = secret(0xf3).public();
        let (from, to) = (one.server.clone(), neighbour(address, Some(key)));
        tasks.spawn(async move { from.keep_link(to).await });
        let ended = wrong.ended.recv().await.unwrap();
        assert!(ended.is_err(), "{ended:?}");
        assert_eq!(wrong.server.counters().connected, 0);
        until(|| one.server.is_linked(&key)).await;
    })
    .await;
}
