//! A relay that lies about who there is and what holds: it is believed in nothing that the issuer
//! has not signed, nor in what was signed and is over.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use mesh::{NodeKey, NodeRecord, SignedRecord};
use parking_lot::Mutex;

use super::evil::{Evil, signing};
use super::rig::{Rig, limited, node_name};
use crate::coord::{Delta, Mark, Peer, Revision, ToNode};

async fn issuer(rig: &Rig) -> SigningKey {
    let seed = rig.seed(&"home".parse().unwrap()).await;
    SigningKey::from_bytes(&seed.try_into().unwrap())
}

fn delta(peer: Peer) -> ToNode {
    ToNode::Delta(Delta {
        revision: Revision {
            number: 1_000,
            mark: Mark([1; 8]),
        },
        upsert: vec![peer],
        removed: Vec::new(),
        online: Vec::new(),
        offline: Vec::new(),
        resumed: false,
    })
}

fn with_bad_signature(record: &SignedRecord) -> SignedRecord {
    let mut json = serde_json::to_value(record).unwrap();
    let text = json["signature"].as_str().unwrap();
    let first = if text.starts_with('A') { "B" } else { "A" };
    json["signature"] = format!("{first}{}", &text[1..]).into();
    serde_json::from_value(json).unwrap()
}

#[tokio::test]
async fn a_malicious_relay_cannot_say_who_somebody_is() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let me = rig.join(&invite, "dev-1").await.unwrap();
        let other = rig.join(&invite, "dev-2").await.unwrap();
        let by = issuer(&rig).await;
        let signed = other.membership.record.clone();
        let record = |change: fn(&mut NodeRecord), key: &SigningKey| {
            let now = crate::relay::clock::unix_now();
            let mut record = signed.verify(&me.membership.issuer, &network, now).unwrap();
            change(&mut record);
            SignedRecord::sign(&record, key)
        };
        let lies = [
            ("a wrong signature", with_bad_signature(&signed)),
            (
                "a foreign key under a known name",
                record(
                    |record| record.key = NodeKey::from_bytes([9; 32]),
                    &signing(66),
                ),
            ),
            (
                "another network",
                record(|record| record.network = "work".parse().unwrap(), &by),
            ),
            (
                "a record that has ended",
                record(|record| record.expires = record.issued, &by),
            ),
        ];
        let evil = Evil::start(&rig).await;
        for (what, lie) in lies {
            let lie = Peer {
                record: lie,
                online: true,
            };
            let truth = me.membership.record.clone();
            evil.set(move |frame| match frame {
                ToNode::Snapshot {
                    revision, peers, ..
                } => {
                    let mine = peers.into_iter().filter(|peer| peer.record == truth);
                    vec![ToNode::Snapshot {
                        revision,
                        peers: mine.chain([lie.clone()]).collect(),
                        more: false,
                    }]
                }
                other => vec![other],
            });
            let mut up = me.up_through(&evil.url());
            let view = up.until_connected().await;
            assert!(view.peers.is_empty(), "{what}: {view:?}");
            // Nor is it passed off for a state to go on from.
            assert!(view.revision.is_none(), "{what}");
        }
        evil.set(|frame| vec![frame]);
        let mut up = me.up_through(&evil.url());
        let view = up.until_sees("dev-2", Some(false)).await;
        let seen = &view.peers[&node_name("dev-2")].record;
        assert_eq!(seen.key, other.identity.key());
    })
    .await;
}

#[tokio::test]
async fn a_malicious_relay_cannot_play_back_what_was() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let me = rig.join(&invite, "dev-1").await.unwrap();
        rig.join(&invite, "dev-2").await.unwrap();
        let by = issuer(&rig).await;
        let evil = Evil::start(&rig).await;
        // Whatever papers come by are kept for later.
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&kept);
        evil.set(move |frame| {
            if let ToNode::Papers { papers, .. } = &frame {
                keep.lock().extend(papers.clone());
            }
            vec![frame]
        });
        let mut up = me.up_through(&evil.url());
        let view = up.until_sees("dev-2", Some(false)).await;
        let old = view.peers[&node_name("dev-2")].record.clone();

        let newer = NodeRecord {
            issued: old.issued + 100,
            ..old.clone()
        };
        for (record, online) in [(&newer, true), (&old, false)] {
            evil.say(delta(Peer {
                record: SignedRecord::sign(record, &by),
                online,
            }));
            let view = up.until_sees("dev-2", Some(online)).await;
            assert_eq!(view.peers[&node_name("dev-2")].record.issued, newer.issued);
        }

        // A group that is no more, and the paper by which it was.
        let group = "mesh".parse().unwrap();
        rig.api().create_group(&network, &group).await.unwrap();
        up.until("hears of the group", |view| view.rules.groups.len() == 1)
            .await;
        rig.api().delete_group(&network, &group).await.unwrap();
        up.until("hears of its end", |view| view.rules.groups.is_empty())
            .await;
        let papers = std::mem::take(&mut *kept.lock());
        assert!(!papers.is_empty());
        evil.say(ToNode::Papers {
            papers: papers[..1].to_vec(),
            serial: u64::MAX,
            more: false,
        });
        // Behind it comes something that is seen.
        evil.say(delta(Peer {
            record: SignedRecord::sign(&newer, &by),
            online: true,
        }));
        let view = up.until_sees("dev-2", Some(true)).await;
        assert!(view.rules.groups.is_empty(), "{:?}", view.rules);
    })
    .await;
}
