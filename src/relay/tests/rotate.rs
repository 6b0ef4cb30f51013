//! The issuer hands over: everybody follows, nobody is led astray.

use std::sync::Arc;

use mesh::SignKey;
use reqwest::Method;
use tokio::sync::watch;

use super::evil::{Evil, link, public};
use super::hostile::hello;
use super::rig::{Node, Rig, Up, code, identity, limited, node_name};
use crate::coord::{HelloProof, Signature, ToNode, ToRelay, VERSION};
use crate::uplink::{self, NetworkView};

/// Every state that a node has shown, from now on.
fn watch_for_gaps(up: &Up, peer: &str) -> (watch::Sender<bool>, tokio::task::JoinHandle<u32>) {
    let (end, mut ended) = watch::channel(false);
    let (mut view, name) = (up.watch(), node_name(peer));
    let gaps = tokio::spawn(async move {
        let mut gaps = 0;
        loop {
            tokio::select! {
                _ = view.changed() => {
                    let now = view.borrow_and_update().clone();
                    gaps += u32::from(!now.connected || !now.peers.contains_key(&name));
                }
                _ = ended.changed() => return gaps,
            }
        }
    });
    (end, gaps)
}

async fn rotate(rig: &Rig, overlap: &str) -> SignKey {
    let home = "home".parse().unwrap();
    rig.api().rotate(&home, overlap).await.unwrap().issuer
}

/// Waits until a node believes this key.
async fn until_follows(up: &mut Up, issuer: SignKey, handovers: u32) -> Arc<NetworkView> {
    up.until("follows the issuer", |view| {
        view.connected && view.issuer == issuer && view.handovers == handovers
    })
    .await
}

async fn signed_request(rig: &Rig, node: &Node) -> String {
    let path = format!("/api/v1/nodes?network_id={}", node.membership.network);
    let membership = node.membership_at(rig.url());
    code(uplink::sign_request(&membership, &node.identity, (Method::GET, &path), None).await)
}

#[tokio::test]
pub(super) async fn s36_nodes_follow_the_issuer_and_lose_nobody() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 5).await;
        let (a_node, b_node) = (
            rig.join(&invite, "dev-1").await.unwrap(),
            rig.join(&invite, "dev-2").await.unwrap(),
        );
        let away = rig.join(&invite, "dev-3").await.unwrap();
        let (mut a, mut b) = (a_node.up(), b_node.up());
        a.until_sees("dev-2", Some(true)).await;
        b.until_sees("dev-1", Some(true)).await;
        // Known before, and away for both hand-overs.
        let mut c = away.up();
        c.until_sees("dev-1", Some(true)).await;
        drop(c);
        a.until_sees("dev-3", Some(false)).await;

        let watched = [watch_for_gaps(&a, "dev-2"), watch_for_gaps(&b, "dev-1")];
        rotate(&rig, "24h").await;
        assert_eq!(signed_request(&rig, &a_node).await, "ok");
        // At once: whoever follows needs no overlap.
        let issuer = rotate(&rig, "0s").await;
        for up in [&mut a, &mut b] {
            let view = until_follows(up, issuer, 2).await;
            assert_eq!(view.peers.len(), 2);
        }
        a.until("hears of all that was signed anew", |view| {
            view.peers
                .values()
                .all(|peer| peer.record.issued >= view.me.issued)
        })
        .await;
        for (end, gaps) in watched {
            end.send_replace(true);
            assert_eq!(gaps.await.unwrap(), 0, "a peer was gone, or the relay");
        }
        assert_eq!(signed_request(&rig, &a_node).await, "ok");

        // After a restart of the relay as of the node, which comes back at the present key.
        rig.restart().await;
        let mut c = away.up();
        let view = until_follows(&mut c, issuer, 2).await;
        assert_eq!(view.peers.len(), 2);
        drop(a);
        rig.stop().await;
        let mut a = a_node.up();
        let view = a.now();
        assert_eq!(
            (view.issuer, view.handovers, view.peers.len()),
            (issuer, 2, 2)
        );
        rig.restart().await;
        until_follows(&mut a, issuer, 2).await;

        // With an invite from before, and with one from now.
        let fresh = rig.invite(&network, 1).await;
        for (invite, name) in [(&invite, "dev-4"), (&fresh, "dev-5")] {
            let node = rig.join(invite, name).await.unwrap();
            let mut up = node.up();
            until_follows(&mut up, issuer, 2).await;
            assert_eq!(signed_request(&rig, &node).await, "ok");
            a.until_sees(name, Some(true)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn only_who_rules_rotates() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        // A node does not, not even one of the owner's.
        let membership = node.membership_at(rig.url());
        let target = (Method::POST, "/api/v1/networks/home/rotate");
        let asked = uplink::sign_request(&membership, &node.identity, target, Some(b"{}")).await;
        assert_eq!(code(asked), "unauthorized");
        for overlap in ["", "x", "-1s", "31d", "99999999999999999999d"] {
            let asked = rig.api().rotate(&network, overlap).await;
            assert_eq!(code(asked), "bad_request", "{overlap:?}");
        }
        let elsewhere = "elsewhere".parse().unwrap();
        let asked = rig.api().rotate(&elsewhere, "1h").await;
        assert_eq!(code(asked), "network_unknown");
        assert_eq!(rig.api().rotate(&network, "1h").await.unwrap().number, 1);
    })
    .await;
}

/// An issuer of the relay's own making is refused, however it comes: by a stranger's signature, as
/// a fork of what is known, on the way as in the greeting.
#[tokio::test]
async fn a_malicious_relay_cannot_make_itself_the_issuer() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        rig.join(&invite, "dev-2").await.unwrap();
        let root = node.membership.issuer;
        let first = rotate(&rig, "1h").await;
        let evil = Evil::start(&rig).await;
        let mut up = node.up_through(&evil.url());
        until_follows(&mut up, first, 1).await;

        for (number, old, by) in [
            // Signed by keys that are not those it names.
            (2, first, 66),
            // By itself: a key that never was the issuer.
            (2, public(66), 66),
            // In place of the one that is known.
            (1, root, 66),
            (1, public(66), 66),
            (7, public(66), 66),
        ] {
            let forged = link(&network, number, old, (by, 67));
            evil.set(move |frame| match frame {
                ToNode::Welcome {
                    record,
                    stun_port,
                    keepalive_ms,
                    dead_after_ms,
                    ..
                } => {
                    vec![ToNode::Welcome {
                        record,
                        stun_port,
                        keepalive_ms,
                        dead_after_ms,
                        handovers: vec![forged.clone()],
                        issuer: 2,
                    }]
                }
                other => vec![other],
            });
            evil.cut();
            let view = up.until("refuses the issuer", |view| {
                let why = view.last_error.as_deref().unwrap_or_default();
                !view.connected && why.contains("not to be trusted")
            });
            let view = view.await;
            assert_eq!((view.issuer, view.handovers), (first, 1), "{number}");
            // What it knew before it still knows.
            assert_eq!(view.peers.len(), 1);
        }
        // Told in the midst of it.
        evil.set(|frame| vec![frame]);
        evil.cut();
        drop(up);
        let mut up = node.up_through(&evil.url());
        until_follows(&mut up, first, 1).await;
        let handovers = vec![link(&network, 2, public(66), (66, 67))];
        evil.say(ToNode::Handovers { handovers });
        let view = up
            .until("refuses it on the way", |view| !view.connected)
            .await;
        assert_eq!((view.issuer, view.handovers), (first, 1));
    })
    .await;
}

/// A relay whose database was put back from before a hand-over is not followed, and says why;
/// what its old issuer signs is not believed.
#[tokio::test]
async fn a_relay_that_was_put_back_is_refused() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 3).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        let copy = rig.backup().await;
        let mut up = node.up();
        let issuer = rotate(&rig, "0s").await;
        until_follows(&mut up, issuer, 1).await;

        rig.put_back(&copy).await;
        let refused = |view: &NetworkView| {
            let why = view.last_error.as_deref().unwrap_or_default();
            why.contains("an earlier issuer")
        };
        let view = up.until("refused", refused).await;
        assert_eq!((view.issuer, view.handovers), (issuer, 1));
        // Also after a restart of the node.
        drop(up);
        let mut up = node.up();
        up.until("refused again", refused).await;
        // A fork of the chain, by the key that was the issuer once.
        rotate(&rig, "0s").await;
        drop(up);
        let mut up = node.up();
        let view = up
            .until("refuses the fork", |view| view.last_error.is_some())
            .await;
        assert!(!view.connected);
        assert_eq!((view.issuer, view.handovers), (issuer, 1));
    })
    .await;
}

#[tokio::test]
async fn the_old_key_is_nowhere_any_more() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let seed = rig.seed(&network).await;
        rotate(&rig, "1h").await;
        assert_ne!(rig.seed(&network).await, seed);
        rig.close().await;
        for file in std::fs::read_dir(rig.path("relay")).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(32).any(|window| window == seed);
            assert!(!found, "{}", path.display());
        }
    })
    .await;
}

/// The network is deleted while a node is away: it is told when it comes back, and only by whom
/// it has to believe.
#[tokio::test]
pub(super) async fn a_node_that_was_away_learns_that_its_network_is_no_more() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 3).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        let peer = rig.join(&invite, "dev-2").await.unwrap();
        let mut up = node.up();
        up.until_sees("dev-2", Some(false)).await;
        drop(up);
        // It has missed this too.
        rotate(&rig, "0s").await;
        let mut there = peer.up();
        there.until_sees("dev-1", Some(false)).await;
        rig.api().delete_network(&network).await.unwrap();
        let gone = |view: &NetworkView| view.deleted && view.peers.is_empty();
        there.until("told at once", gone).await;
        // Another network of the same name is another network.
        rig.network("home").await;

        let mut up = node.up();
        let view = up.until("told when it is back", gone).await;
        assert_eq!(view.last_error.as_deref(), Some("this network was deleted"));
        drop(up);
        // For good, and without the relay.
        let mut quiet = node.up_through("http://127.0.0.1:1");
        quiet.until("still knows", gone).await;

        // A stranger is told nothing of it.
        let (stranger, key) = (identity(), node.identity.key());
        let answer = hello(&rig, |nonce| {
            let proof = HelloProof {
                issuer: &node.membership.issuer,
                nonce: &nonce,
                network: &network,
                key: &key,
            };
            ToRelay::Hello {
                network: network.clone(),
                key,
                version: VERSION,
                revision: None,
                papers: None,
                handovers: 0,
                ssh: Vec::new(),
                relays: false,
                signature: Signature::sign(stranger.signing_key(), &proof.message()),
            }
        });
        let answer = answer.await;
        assert!(
            matches!(&answer, ToNode::Error { code, .. } if code == "unauthorized"),
            "{answer:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_malicious_relay_cannot_bury_a_network() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        rig.join(&invite, "dev-2").await.unwrap();
        let evil = Evil::start(&rig).await;
        let mut up = node.up_through(&evil.url());
        up.until_sees("dev-2", Some(false)).await;
        evil.say(ToNode::Deleted {
            handovers: Vec::new(),
            obituary: super::evil::obituary(&network, node.membership.issuer, 66),
        });
        let refused = |view: &NetworkView| {
            let why = view.last_error.as_deref().unwrap_or_default();
            why.contains("its issuer does not")
        };
        let view = up.until("not believed", refused).await;
        assert!(!view.deleted);
        assert_eq!(view.peers.len(), 1);
        // In other words, as the protocol had it once.
        let (code, message) = ("deleted".to_owned(), "this network was deleted".to_owned());
        evil.set(move |frame| match frame {
            ToNode::Welcome { .. } => vec![ToNode::Error {
                code: code.clone(),
                message: message.clone(),
            }],
            other => vec![other],
        });
        let told =
            |view: &NetworkView| view.last_error.as_deref() == Some("this network was deleted");
        let view = up.until("told so", told).await;
        assert!(!view.deleted && view.peers.len() == 1, "{view:?}");
    })
    .await;
}
