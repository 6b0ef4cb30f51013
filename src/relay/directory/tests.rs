//! What the tests of the directory are made of, and the test of all of it: whoever follows ends up
//! with the truth.

use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::SigningKey;

use super::*;
use crate::coord::handover::{Handover, SignedHandover};
use crate::coord::{Delta, Mark, Revision, ToNode};
use crate::relay::papers::Has;
use crate::relay::store::NodeRow;
use crate::uplink::netmap::Netmap;

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn network() -> NetworkId {
    "home".parse().unwrap()
}

pub(super) fn issuer() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

pub(super) fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes([n + 1; 32])
}

pub(super) fn revision(number: u64) -> Revision {
    let mark = Mark((number ^ 0x5555).to_be_bytes());
    Revision { number, mark }
}

pub(super) fn row(n: u8, changed: u64) -> NodeRow {
    NodeRow {
        record: NodeRecord {
            network: network(),
            name: format!("dev-{n}").parse().unwrap(),
            key: key(n),
            sign_key: SignKey::from_bytes([n; 32]),
            owner: "admin".to_owned(),
            groups: Vec::new(),
            issued: NOW + changed,
            expires: NOW + 10_000 + changed,
        },
        changed,
        seen: None,
        revoked: None,
    }
}

pub(super) fn empty() -> Directory {
    let mut directory = Directory::default();
    directory.add(NetworkState {
        id: network(),
        issuer: issuer(),
        issuers: Issuers::new(network(), SignKey::from(&issuer().verifying_key())),
        revision: revision(0),
        history: Vec::new(),
        nodes: Vec::new(),
        papers: Vec::new(),
    });
    directory
}

pub(super) fn change(n: u8, number: u64, revoked: bool) -> Change {
    let mut node = row(n, number);
    node.revoked = revoked.then_some(NOW);
    Change {
        revision: revision(number),
        node,
    }
}

/// A slot that was not there before.
pub(super) fn slot() -> Slot {
    static SLOTS: AtomicU64 = AtomicU64::new(0);
    Slot(SLOTS.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn read(line: &Line) -> ToNode {
    serde_json::from_str(line).unwrap()
}

pub(super) fn delta(line: &Line) -> Delta {
    match read(line) {
        ToNode::Delta(delta) => delta,
        other => panic!("no delta: {other:?}"),
    }
}

/// A small generator (xorshift), so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A node that follows the directory, with pauses and reconnections.
struct Follower {
    netmap: Netmap,
    cursor: Cursor,
}

impl Follower {
    fn take(&mut self, frame: ToNode) {
        match frame {
            ToNode::Snapshot {
                revision,
                peers,
                more,
            } => assert!(
                self.netmap
                    .handle_snapshot(revision, peers, more, NOW + 1_000)
                    .1
                    .is_empty()
            ),
            ToNode::Delta(delta) => {
                assert!(self.netmap.handle_delta(delta, NOW + 1_000).is_empty());
            }
            ToNode::Papers { .. } => {}
            ToNode::Handovers { handovers } => {
                assert_eq!(self.netmap.handle_handovers(&handovers), Ok(true));
            }
            other => panic!("{other:?}"),
        }
    }

    fn greet(&mut self, directory: &mut Directory, revision: Option<Revision>, slot: Slot) {
        self.netmap.handle_connected();
        let has = Has {
            revision,
            papers: None,
            handovers: self.netmap.issuers().count(),
        };
        let greeting = directory.greeting(&network(), &key(0), has, slot).unwrap();
        self.cursor = greeting.cursor;
        self.netmap.handle_handovers(&greeting.handovers).unwrap();
        assert_eq!(self.netmap.issuers().count(), greeting.issuer);
        self.netmap
            .handle_own(greeting.record, NOW + 1_000)
            .unwrap();
        for line in &greeting.frames {
            self.take(read(line));
        }
    }

    fn catch_up(&mut self, directory: &mut Directory, slot: Slot) {
        let news = directory.news(&network(), &key(0), self.cursor, slot);
        let news = news.unwrap();
        self.cursor = news.cursor;
        for line in &news.frames {
            self.take(read(line));
        }
    }
}

/// Another issuer, whom what the old one has signed does not outlive.
fn rotate(directory: &mut Directory, number: u64) {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let next = SigningKey::from_bytes(&seed);
    let held = directory.networks.get(&network()).unwrap();
    let mut issuers = held.issuers.clone();
    let handover = Handover {
        network: network(),
        number: issuers.count() + 1,
        old: *issuers.current(),
        new: SignKey::from(&next.verifying_key()),
        issued: NOW,
        retires: NOW,
    };
    let link = SignedHandover::sign(&handover, &held.issuer, &next);
    issuers.extend(&[link]).unwrap();
    let live = (0..=5).filter(|n| {
        let standing = directory.standing(&network(), &key(*n));
        standing.is_some_and(|standing| !standing.revoked)
    });
    let nodes = live.map(|n| row(n, number)).collect();
    directory.rotate(
        &network(),
        Rotated {
            issuer: next,
            issuers,
            revision: revision(number),
            nodes,
            papers: Vec::new(),
        },
    );
}

fn play(seed: u64) {
    let mut dice = Dice(seed);
    let mut directory = empty();
    let mut number = 1;
    directory.apply(change(0, number, false));
    let signed = directory.record(&network(), &key(0)).unwrap();
    let issuers = directory.issuers(&network()).unwrap().clone();
    let mut me = Follower {
        netmap: Netmap::new(issuers, signed, row(0, 1).record),
        cursor: Cursor::default(),
    };
    let mut slot = Slot(0);
    me.greet(&mut directory, None, slot);
    let mut connections = 0;
    for _ in 0..200 {
        let n = 1 + u8::try_from(dice.roll(5)).unwrap();
        slot.0 += u64::from(dice.roll(4) == 0);
        let standing = directory.standing(&network(), &key(n));
        let may_change = standing.is_none_or(|standing| !standing.revoked);
        match dice.roll(7) {
            0 | 1 if may_change => {
                number += 1;
                directory.apply(change(n, number, dice.roll(4) == 0));
            }
            0..=2 => {
                connections += 1;
                let _ = directory.connect(&network(), &key(n), ConnectionId(connections));
            }
            3 => {
                if let Some(id) = directory.connection(&network(), &key(n)) {
                    directory.disconnect(&network(), &key(n), id, NOW);
                }
            }
            4 => me.catch_up(&mut directory, slot),
            5 if dice.roll(4) == 0 => {
                number += 1;
                rotate(&mut directory, number);
            }
            _ => {
                let known = me.netmap.revision().filter(|_| dice.roll(3) > 0);
                me.greet(&mut directory, known, slot);
            }
        }
    }
    me.catch_up(&mut directory, Slot(u64::MAX));
    let seen = me.netmap.peers(NOW).into_iter();
    let seen: Vec<_> = seen.map(|(name, peer)| (name, peer.online)).collect();
    let listed = directory.list(&network()).into_iter();
    let listed: Vec<_> = listed
        .filter(|node| node.key != key(0))
        .map(|node| (node.name, node.connected))
        .collect();
    assert_eq!(seen, listed, "seed {seed}");
}

#[test]
fn whoever_follows_ends_up_with_the_truth() {
    for seed in 1..150 {
        play(seed);
    }
}
