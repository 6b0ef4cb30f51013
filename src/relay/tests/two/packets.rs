//! Packets pass from one relay to the other.

use std::time::Duration;

use derp::io::client::{Event, Receiver, Sender};
use derp::io::region::Neighbour;
use derp::io::server::Admission as _;

use super::with_pair;
use crate::relay::store::Server;
use crate::relay::tests::hostile::derp;
use crate::relay::tests::packets::metric;
use crate::relay::tests::rig::{Node, Rig, node_name};

/// Until each of two relays that have two nodes knows that of the other.
pub(super) async fn until_linked(a: &Rig, b: &Rig) {
    for rig in [a, b] {
        while metric(rig, "derp_links").await != 1 || metric(rig, "derp_away").await != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A node's connection for packets. The relay may be about to hear that another has let it in; nodes
/// come again then.
pub(super) async fn packets(rig: &Rig, node: &Node) -> (Sender, Receiver) {
    while !rig.relay().app().hub.admits(&node.identity.key()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    derp(rig, &node.identity).await.unwrap()
}

/// Sends a packet and waits for it.
pub(super) async fn pass(from: (&Node, &Sender), to: (&Node, &mut Receiver), data: &[u8]) {
    let ((one, out), (two, back)) = (from, to);
    out.try_send(&two.identity.key(), data).unwrap();
    loop {
        match back.recv().await.unwrap() {
            // Of a time before.
            Event::PeerGone { .. } => {}
            Event::Packet { from, data: found } => {
                assert_eq!((from, &found[..]), (one.identity.key(), data));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn s34_packets_pass_from_one_relay_to_the_other() {
    with_pair(async |a, mut b, _, [one, two]| {
        let (out, mut back) = packets(&a, &one).await;
        for round in 0..2_u64 {
            // The link comes back with the relay.
            let (there, mut from_there) = packets(&b, &two).await;
            until_linked(&a, &b).await;
            pass((&one, &out), (&two, &mut from_there), b"there").await;
            pass((&two, &there), (&one, &mut back), b"back").await;
            assert_eq!(metric(&a, "derp_forwarded_total").await, round + 1);
            if round == 0 {
                b.stop().await;
                while metric(&a, "derp_links").await > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                b.restart().await;
            }
        }
        // Who has the database has the key; nobody else is a relay.
        let stranger = Rig::over(Server::shared().map(Server::database)).await;
        let key = b.relay().app().derp.public_key();
        let link = Neighbour {
            url: b.url().to_owned(),
            tls: None,
            key: Some(key),
        };
        let derp = &stranger.relay().app().derp;
        let tried = tokio::time::timeout(Duration::from_millis(500), derp.keep_link(link)).await;
        assert!(tried.is_err(), "it goes on trying");
        assert_eq!(derp.census().away, 0);
        assert_eq!(metric(&b, "derp_links").await, 1);
    })
    .await;
}

#[tokio::test]
async fn b11_s34_packets_of_who_is_revoked_at_one_relay_end_at_the_other() {
    with_pair(async |a, b, network, [one, two]| {
        let (out, mut back) = packets(&a, &one).await;
        let (_there, mut from_there) = packets(&b, &two).await;
        until_linked(&a, &b).await;
        pass((&one, &out), (&two, &mut from_there), b"there").await;
        a.api().revoke(&network, &node_name("dev-2")).await.unwrap();
        while from_there.recv().await.is_ok() {}
        // And who has exchanged packets with it hears that it is gone.
        let key = two.identity.key();
        let gone = Event::PeerGone { key, reason: 0 };
        assert_eq!(back.recv().await.unwrap(), gone);
        assert!(derp(&b, &two.identity).await.is_err());
    })
    .await;
}
