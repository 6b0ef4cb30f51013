//! Nodes at two relays see each other come and go, and go from one relay to the other.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::{pair, with_pair};
use crate::relay::tests::rig::{Rig, limited};
use crate::uplink::NetworkView;

#[tokio::test]
async fn s34_nodes_at_two_relays_see_each_other_come_and_go() {
    with_pair(async |a, b, network, [one, two]| {
        let mut one = one.up();
        let mut at_b = two.up_through(b.url());
        one.until_sees("dev-2", Some(true)).await;
        at_b.until_sees("dev-1", Some(true)).await;
        for rig in [&a, &b] {
            let nodes = rig.api().nodes(&network).await.unwrap();
            assert!(nodes.iter().all(|node| node.connected));
        }
        drop(at_b);
        one.until_sees("dev-2", Some(false)).await;

        // From one relay to the other and back: the newer connection is the one that counts.
        let mut at_b = two.up_through(b.url());
        one.until_sees("dev-2", Some(true)).await;
        for _ in 0..3 {
            let mut at_a = two.up();
            at_a.until_connected().await;
            at_b.until("replaced", |view| !view.connected).await;
            drop(at_b);
            at_b = two.up_through(b.url());
            at_b.until_sees("dev-1", Some(true)).await;
            at_a.until("replaced", |view| !view.connected).await;
            one.until_sees("dev-2", Some(true)).await;
        }
        // A revision at one is the revision at the other.
        let at_both = [one.now().revision, at_b.now().revision];
        assert_eq!(at_both[0], at_both[1]);
    })
    .await;
}

/// Connections go to the first of the relays that takes them, as behind a load balancer.
async fn balancer(relays: [SocketAddr; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                for relay in relays {
                    if let Ok(mut far) = TcpStream::connect(relay).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn s21_s34_nodes_of_a_relay_that_is_gone_go_on_at_the_other() {
    with_pair(async |mut a, b, network, [one, two]| {
        let shared = balancer([a.relay().http(), b.relay().http()]).await;
        let mut one = one.up_through(&shared);
        let mut at_b = two.up_through(b.url());
        at_b.until_sees("dev-1", Some(true)).await;
        one.until_sees("dev-2", Some(true)).await;
        let before = one.now().revision;
        a.stop().await;
        // It may be there before anybody has seen it away.
        while b.relay().app().hub.census().connected < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let view = one.until_sees("dev-2", Some(true)).await;
        assert_eq!(view.revision, before, "nothing was changed by it");
        at_b.until_sees("dev-1", Some(true)).await;
        let invite = b.invite(&network, 1).await;
        b.join(&invite, "dev-3").await.unwrap();
        one.until_sees("dev-3", Some(false)).await;
        // And back when it is there again.
        a.restart().await;
        let mut at_a = two.up_through(a.url());
        at_a.until_sees("dev-1", Some(true)).await;
        one.until_sees("dev-2", Some(true)).await;
    })
    .await;
}

/// Two relays that tell nodes where they are.
async fn open_pair() -> Option<(Rig, Rig)> {
    let (mut a, mut b) = pair().await?;
    open(&mut a).await;
    open(&mut b).await;
    Some((a, b))
}

async fn open(rig: &mut Rig) {
    let url = rig.url().to_owned();
    rig.restart_with(|config| config.base_url = url).await;
}

#[tokio::test]
async fn a_node_goes_to_the_other_relay_when_its_own_is_gone() {
    limited(async {
        let Some((mut a, mut b)) = open_pair().await else {
            return;
        };
        let network = a.network("home").await;
        let invite = a.invite(&network, 2).await;
        let one = a.join(&invite, "dev-1").await.unwrap();
        let two = a.join(&invite, "dev-2").await.unwrap();
        let (url_a, url_b) = (a.url().to_owned(), b.url().to_owned());
        let knows = |url: &str| {
            let url = url.to_owned();
            move |view: &NetworkView| {
                let [place] = &view.relays[..] else {
                    return false;
                };
                view.connected && place.url == url
            }
        };
        let is_at = |url: &str| {
            let url = url.to_owned();
            move |view: &NetworkView| view.connected && view.relay == url
        };
        let mut one = one.up();
        let up = &mut two.up();
        one.until("told of the other", knows(&url_b)).await;
        up.until("told of the other", knows(&url_b)).await;
        assert_eq!(one.now().relay, url_a);
        a.stop().await;
        one.until("at the other", is_at(&url_b)).await;
        up.until_sees("dev-1", Some(true)).await;
        open(&mut a).await;
        b.stop().await;
        one.until("where it joined", is_at(&url_a)).await;
        up.until_sees("dev-1", Some(true)).await;
        one.until("alone", |view| view.connected && view.relays.is_empty())
            .await;
        open(&mut b).await;
        one.until("told again", knows(&url_b)).await;
    })
    .await;
}
