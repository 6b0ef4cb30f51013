//! Nodes that come, go and see each other.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::rig::{Rig, limited, node_name};
use crate::uplink::NetworkView;
use crate::uplink::http::Http;

#[tokio::test]
pub(super) async fn two_nodes_see_each_other_join_leave_and_come_back() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let a = rig.join(&invite, "dev-1").await.unwrap();
        let mut a = a.up();
        let view = a.until_connected().await;
        assert!(view.peers.is_empty());
        assert_eq!(view.me.name, node_name("dev-1"));
        assert_eq!(view.me.owner, "admin");
        assert_eq!(view.stun, rig.relay().stun());

        let b_node = rig.join(&invite, "dev-2").await.unwrap();
        a.until_sees("dev-2", Some(false)).await;
        let mut b = b_node.up();
        a.until_sees("dev-2", Some(true)).await;
        let view = b.until_sees("dev-1", Some(true)).await;
        let peer = &view.peers[&node_name("dev-1")];
        assert_eq!(peer.record, a.now().me);

        let http = Http::new(rig.url(), None).unwrap();
        let metrics = http.send_raw(http.request(Method::GET, "/metrics")).await;
        let metrics = String::from_utf8(metrics.unwrap()).unwrap();
        assert!(
            metrics.contains("\ncodewire_relay_nodes_connected 2\n"),
            "{metrics}"
        );

        drop(b);
        a.until_sees("dev-2", Some(false)).await;
        let mut b = b_node.up();
        a.until_sees("dev-2", Some(true)).await;
        b.until_sees("dev-1", Some(true)).await;
    })
    .await;
}

#[tokio::test]
pub(super) async fn s21_after_a_restart_of_the_relay_nodes_come_back_and_go_on() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 3).await;
        let mut a = rig.join(&invite, "dev-1").await.unwrap().up();
        let mut b = rig.join(&invite, "dev-2").await.unwrap().up();
        a.until_sees("dev-2", Some(true)).await;
        b.until_sees("dev-1", Some(true)).await;
        let before = a.now().revision.unwrap();

        rig.stop().await;
        let away = a.until("away", |view| !view.connected).await;
        assert!(away.last_error.is_some());
        assert!(
            away.peers.contains_key(&node_name("dev-2")),
            "the last known"
        );

        rig.restart().await;
        a.until_sees("dev-2", Some(true)).await;
        let view = b.until_sees("dev-1", Some(true)).await;
        assert_eq!(view.revision, Some(before), "nothing changed meanwhile");

        let _c = rig.join(&invite, "dev-3").await.unwrap();
        let view = a.until_sees("dev-3", Some(false)).await;
        assert_eq!(view.revision.unwrap().number, before.number + 1);
    })
    .await;
}

#[tokio::test]
async fn a_node_knows_its_peers_while_the_relay_is_away() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let a_node = rig.join(&invite, "dev-1").await.unwrap();
        let mut a = a_node.up();
        rig.join(&invite, "dev-2").await.unwrap();
        a.until_sees("dev-2", Some(false)).await;
        // The cache is written behind the news.
        let file = a_node.cache.clone();
        let records = || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.matches("signature").count()
        };
        while records() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(a);
        rig.stop().await;

        let mut a = a_node.up();
        assert!(!a.now().connected);
        assert!(a.now().peers.contains_key(&node_name("dev-2")));
        let revision = a.now().revision;
        assert!(revision.is_some());
        rig.restart().await;
        let view = a.until_connected().await;
        assert_eq!(view.revision, revision);
    })
    .await;
}

#[tokio::test]
async fn s02_networks_do_not_see_each_other() {
    limited(async {
        let rig = Rig::new().await;
        let (home, work) = (rig.network("home").await, rig.network("work").await);
        let home_invite = rig.invite(&home, 2).await;
        let mut a = rig.join(&home_invite, "dev-1").await.unwrap().up();
        let work_invite = rig.invite(&work, 1).await;
        let mut b = rig.join(&work_invite, "dev-1").await.unwrap().up();
        b.until_connected().await;
        let mut c = rig.join(&home_invite, "dev-2").await.unwrap().up();
        let view = a.until_sees("dev-2", Some(true)).await;
        assert_eq!(view.peers.len(), 1);
        c.until_sees("dev-1", Some(true)).await;
        assert!(b.now().peers.is_empty());
    })
    .await;
}

#[tokio::test]
pub(super) async fn b11_u24_s26_a_revoked_node_is_cut_withdrawn_and_stays_out() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 4).await;
        let mut a = rig.join(&invite, "dev-1").await.unwrap().up();
        let b_node = rig.join(&invite, "dev-2").await.unwrap();
        let mut b = b_node.up();
        a.until_sees("dev-2", Some(true)).await;

        rig.api()
            .revoke(&network, &node_name("dev-2"))
            .await
            .unwrap();
        a.until_sees("dev-2", None).await;
        let view = b.until("cut", |view| !view.connected).await;
        assert_eq!(view.last_error.as_deref(), Some("this node was revoked"));
        assert_eq!(
            super::rig::code(rig.api().revoke(&network, &node_name("dev-2")).await),
            "node_unknown"
        );

        drop(b);
        rig.restart().await;
        let mut b = b_node.up();
        let said = |view: &NetworkView| view.last_error.as_deref() == Some("this node was revoked");
        b.until("refused", said).await;
        a.until_connected().await;
        assert!(a.now().peers.is_empty());
        let again = rig.join_as(&invite, "dev-2", b_node.identity.clone()).await;
        assert_eq!(super::rig::code(again), "revoked");

        // Its name is free for another machine.
        rig.join(&invite, "dev-2").await.unwrap();
        a.until_sees("dev-2", Some(false)).await;
        let nodes = rig.api().nodes(&network).await.unwrap();
        let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["dev-1", "dev-2"]);
        assert!(nodes[0].connected && nodes[0].last_seen.is_some());
        assert!(!nodes[1].connected);
    })
    .await;
}

#[tokio::test]
async fn b11_s26_a_database_that_is_put_back_takes_no_revocation_back() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 3).await;
        let a_node = rig.join(&invite, "dev-1").await.unwrap();
        let mut a = a_node.up();
        let b_node = rig.join(&invite, "dev-2").await.unwrap();
        a.until_sees("dev-2", Some(false)).await;
        let copy = rig.backup().await;
        let revoke = async |rig: &Rig| {
            let revoked = rig.api().revoke(&network, &node_name("dev-2")).await;
            revoked.unwrap();
        };
        revoke(&rig).await;
        a.until_sees("dev-2", None).await;

        rig.put_back(&copy).await;
        // The relay has forgotten it, and nobody else has.
        let mut b = b_node.up();
        b.until_sees("dev-1", Some(true)).await;
        rig.join(&invite, "dev-3").await.unwrap();
        let view = a.until_sees("dev-3", Some(false)).await;
        assert!(!view.peers.contains_key(&node_name("dev-2")));
        // Nor does a node that starts again.
        let kept = || std::fs::read_to_string(&a_node.cache).unwrap_or_default();
        while !(kept().contains("revoked") && kept().matches("signature").count() == 2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(a);
        let mut a = a_node.up();
        let view = a.until_sees("dev-3", Some(false)).await;
        assert!(!view.peers.contains_key(&node_name("dev-2")));

        // Once more, and the relay knows it too.
        revoke(&rig).await;
        b.until("cut", |view| !view.connected).await;
        assert_eq!(rig.api().nodes(&network).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn s21_s30_a_newer_connection_of_a_node_takes_the_place_of_the_old_one() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let mut a = rig.join(&invite, "dev-1").await.unwrap().up();
        let b_node = rig.join(&invite, "dev-2").await.unwrap();
        for _ in 0..10 {
            let mut old = b_node.up();
            old.until_connected().await;
            let mut new = b_node.up();
            new.until_connected().await;
            old.until("replaced", |view| !view.connected).await;
            // The old one's end must not take the new one off the books.
            drop(old);
            let nodes = rig.api().nodes(&network).await.unwrap();
            assert!(nodes.iter().all(|node| node.connected));
            a.until_sees("dev-2", Some(true)).await;
        }
    })
    .await;
}

/// Forwards connections to the relay. While it is frozen the connections it
/// has stay open and pass nothing on, now or ever again, as when the machine
/// at the other end lost its network; new ones are turned away.
struct Proxy {
    address: SocketAddr,
    frozen: watch::Sender<bool>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, is_frozen) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if *is_frozen.borrow() {
                    continue;
                }
                let mut is_frozen = is_frozen.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let freeze = async move { is_frozen.wait_for(|frozen| *frozen).await.is_ok() };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        true = freeze => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, frozen }
    }
}

#[tokio::test]
async fn s20_a_half_open_connection_is_noticed_at_both_ends() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let mut a = rig.join(&invite, "dev-1").await.unwrap().up();
        let proxy = Proxy::start(rig.relay().http()).await;
        let url = format!("http://{}", proxy.address);
        let mut b = rig.join(&invite, "dev-2").await.unwrap().up_through(&url);
        a.until_sees("dev-2", Some(true)).await;
        b.until_sees("dev-1", Some(true)).await;

        proxy.frozen.send_replace(true);
        let silent = |view: &NetworkView| view.last_error.as_deref() == Some("the relay is silent");
        tokio::join!(
            a.until_sees("dev-2", Some(false)),
            b.until("silent", silent)
        );
        proxy.frozen.send_replace(false);
        b.until_sees("dev-1", Some(true)).await;
        a.until_sees("dev-2", Some(true)).await;
    })
    .await;
}
