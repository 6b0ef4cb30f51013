//! What a connection is told: first what there is, then what has changed.
//!
//! There is no queue for each connection: it has a cursor, a *tick*, and asks
//! for the news since then. Every node has one place in the order of ticks, that
//! of its last change, so the news are as long as the number of nodes that
//! changed, whatever happened to them in between, and a slow reader costs nothing
//! but gets the sum of what it missed.
//!
//! Time is cut into slots, and in each at most one *round* begins: everybody
//! is told what happened up to its start, in the same words, which are written
//! once. What happens in a slot after its round waits for the next slot.

use axum::extract::ws::Utf8Bytes;
use derp::NodeKey;
use mesh::{NetworkId, SignedRecord};

use super::Directory;
use super::network::{Since, Tick};
use crate::coord::ToNode;
use crate::coord::handover::SignedHandover;
use crate::relay::papers::Has;

/// Which of the slots of time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u64);

/// A frame as it travels; many may have it, and it is there once.
pub(crate) type Line = Utf8Bytes;

/// Writes a frame down.
pub(crate) fn line(frame: &ToNode) -> Line {
    let json = serde_json::to_string(frame).expect("frames are strings and numbers");
    json.into()
}

/// The first frames of a connection and the cursor to go on from.
pub(crate) struct Greeting {
    pub(crate) record: SignedRecord,
    pub(crate) frames: Vec<Line>,
    /// Those that the node does not know.
    pub(crate) handovers: Vec<SignedHandover>,
    /// How many there were in all.
    pub(crate) issuer: u32,
    pub(crate) cursor: Cursor,
}

/// What a connection that is behind has to be told.
pub(crate) struct News {
    pub(crate) frames: Vec<Line>,
    /// Where it is then.
    pub(crate) cursor: Cursor,
    /// There is more, in the next slot.
    pub(crate) more: bool,
}

/// Up to where a connection has been told what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    pub(super) nodes: Tick,
    pub(super) papers: u64,
    pub(super) handovers: u32,
}

impl Directory {
    /// What a node that has something already is told first. The papers come
    /// before the peers: who hears of a peer knows what it may do.
    pub(crate) fn greeting(
        &mut self,
        network: &NetworkId,
        key: &NodeKey,
        has: Has,
        slot: Slot,
    ) -> Option<Greeting> {
        let network = self.networks.get_mut(network)?;
        let record = network.nodes.get(key)?.signed.clone();
        network.begin(slot);
        // Papers from after the last one are another database's.
        let known = has.papers.filter(|known| *known <= network.papers.serial());
        let papers = network.papers.since(key, known.unwrap_or(0), true);
        let mut frames: Vec<Line> = papers.iter().map(line).collect();
        let known = has.revision.filter(|revision| network.knows(revision));
        let since = known.map_or(Since::Nothing, |revision| Since::Revision(revision.number));
        frames.extend(network.tell(since));
        Some(Greeting {
            record,
            frames,
            handovers: network.issuers.after(has.handovers),
            issuer: network.issuers.count(),
            cursor: network.cursor(),
        })
    }

    /// What happened since `cursor` as far as it concerns the node `key`, up to the round of this
    /// slot; `None` when there is no such network.
    pub(crate) fn news(
        &mut self,
        network: &NetworkId,
        key: &NodeKey,
        cursor: Cursor,
        slot: Slot,
    ) -> Option<News> {
        let network = self.networks.get_mut(network)?;
        let is_all = network.begin(slot);
        let mut frames = Vec::new();
        let handovers = network.issuers.after(cursor.handovers);
        if !handovers.is_empty() {
            frames.push(line(&ToNode::Handovers { handovers }));
        }
        let papers = network.papers.since(key, cursor.papers, false);
        frames.extend(papers.iter().map(line));
        frames.extend(network.tell(Since::Tick(cursor.nodes)));
        Some(News {
            frames,
            cursor: network.cursor(),
            more: !is_all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, change, delta, empty, key, network, read, revision, slot};
    use super::*;
    use crate::coord::{Mark, Revision, SNAPSHOT_PEERS};
    use crate::relay::directory::ConnectionId;

    #[test]
    fn news_are_the_sum_of_what_happened() {
        let mut directory = empty();
        for (n, number) in [(0, 1), (1, 2), (2, 3)] {
            directory.apply(change(n, number, false));
        }
        let me = ConnectionId(1);
        directory.connect(&network(), &key(0), me).unwrap();
        let cursor = directory
            .greeting(&network(), &key(0), Has::default(), slot())
            .unwrap()
            .cursor;
        let news = directory.news(&network(), &key(0), cursor, slot()).unwrap();
        assert!(news.frames.is_empty() && !news.more);

        for n in 0..100 {
            let id = ConnectionId(10 + n);
            directory.connect(&network(), &key(1), id).unwrap();
            directory.disconnect(&network(), &key(1), id, NOW);
        }
        let last = ConnectionId(200);
        directory.connect(&network(), &key(1), last).unwrap();
        directory.apply(change(2, 4, true));
        directory.apply(change(3, 5, false));
        let News { frames, cursor, .. } =
            directory.news(&network(), &key(0), cursor, slot()).unwrap();
        let news = delta(&frames[0]);
        assert_eq!(news.online, [key(1)]);
        assert_eq!(news.removed, [key(2)]);
        assert_eq!(news.upsert.len(), 1);
        assert!(news.offline.is_empty());
        assert_eq!(news.revision, revision(5));
        let news = directory.news(&network(), &key(0), cursor, slot()).unwrap();
        assert!(news.frames.is_empty());
    }

    #[test]
    fn in_one_slot_all_are_told_the_same_and_the_rest_later() {
        let mut directory = empty();
        for (n, number) in [(0, 1), (1, 2), (2, 3)] {
            directory.apply(change(n, number, false));
        }
        let first = slot();
        let greet = |directory: &mut Directory, n, slot| {
            let id = ConnectionId(u64::from(n) + 1);
            directory.connect(&network(), &key(n), id).unwrap();
            directory
                .greeting(&network(), &key(n), Has::default(), slot)
                .unwrap()
                .cursor
        };
        let one = greet(&mut directory, 0, first);
        let other = greet(&mut directory, 1, first);
        assert_eq!(one, other, "the second begins where the round is");
        directory.apply(change(3, 4, false));
        let now = directory.news(&network(), &key(0), one, first).unwrap();
        assert!(now.frames.is_empty() && now.more, "one round in a slot");

        let next = slot();
        let told = [0, 1].map(|n| directory.news(&network(), &key(n), one, next).unwrap());
        assert!(told.iter().all(|news| !news.more));
        let cursor = told[0].cursor;
        let [one, other] = told.map(|mut news| news.frames.remove(0));
        assert_eq!(one.as_ptr(), other.as_ptr(), "written once");
        assert_eq!(delta(&one).upsert.len(), 1);
        assert_eq!(delta(&one).revision, revision(4));

        // Who is revoked is so at once.
        directory.apply(change(2, 5, true));
        let news = directory.news(&network(), &key(0), cursor, next).unwrap();
        assert!(!news.more);
        assert_eq!(delta(&news.frames[0]).removed, [key(2)]);
    }

    #[test]
    fn who_joins_and_connects_at_once_is_told_with_its_record() {
        let mut directory = empty();
        for (n, number) in [(0, 1), (1, 2)] {
            directory.apply(change(n, number, false));
        }
        let connect = |directory: &mut Directory, n| {
            let id = ConnectionId(u64::from(n) + 1);
            directory.connect(&network(), &key(n), id).unwrap();
        };
        let greet = |directory: &mut Directory, n, slot| {
            connect(directory, n);
            let greeting = directory.greeting(&network(), &key(n), Has::default(), slot);
            greeting.unwrap().cursor
        };
        let watcher = greet(&mut directory, 0, slot());
        directory.apply(change(2, 3, false));
        // A round begins with somebody else, and the new node connects in it.
        let now = slot();
        let _ = greet(&mut directory, 1, now);
        connect(&mut directory, 2);

        let mut cursor = watcher;
        let mut records = 0;
        for slot in [now, slot()] {
            let news = directory.news(&network(), &key(0), cursor, slot).unwrap();
            cursor = news.cursor;
            for frame in &news.frames {
                records += delta(frame).upsert.len();
            }
        }
        // The records of the others were told before.
        assert_eq!(records, 1);
    }

    #[test]
    fn who_comes_twice_in_a_slot_is_told_of_no_less() {
        let mut directory = empty();
        directory.apply(change(0, 1, false));
        directory.apply(change(1, 2, false));
        let now = slot();
        let greet = |directory: &mut Directory, known| {
            let has = Has {
                revision: known,
                ..Has::default()
            };
            let greeting = directory.greeting(&network(), &key(0), has, now).unwrap();
            greeting.frames[1].clone()
        };
        let ToNode::Snapshot { peers, .. } = read(&greet(&mut directory, None)) else {
            panic!("no snapshot");
        };
        assert_eq!(peers.len(), 2);
        directory.apply(change(2, 3, false));
        // The snapshot is written down; this is not.
        let resumed = delta(&greet(&mut directory, Some(revision(1))));
        assert_eq!(
            resumed.upsert.len(),
            1,
            "who joined is told in the next round"
        );
        assert_eq!(resumed.revision, revision(2));
        directory.apply(change(1, 4, true));
        let ToNode::Snapshot { peers, .. } = read(&greet(&mut directory, None)) else {
            panic!("no snapshot");
        };
        assert_eq!(
            peers.len(),
            2,
            "who was revoked is out, and who joined is in"
        );
    }

    /// What is told says no later revision than what is in it: who goes on from there would
    /// never hear of what came in between.
    #[test]
    fn a_revision_is_told_with_what_belongs_to_it() {
        let mut directory = empty();
        directory.apply(change(0, 1, false));
        let first = slot();
        directory
            .connect(&network(), &key(0), ConnectionId(1))
            .unwrap();
        let cursor = directory
            .greeting(&network(), &key(0), Has::default(), slot())
            .unwrap()
            .cursor;
        directory.apply(change(1, 2, false));
        let news = |directory: &mut Directory, cursor, slot| {
            directory.news(&network(), &key(0), cursor, slot).unwrap()
        };
        let told = news(&mut directory, cursor, slot());
        assert_eq!(delta(&told.frames[0]).revision, revision(2));
        // Another who is as far back asks when there is more already.
        directory.apply(change(2, 3, false));
        let late = news(&mut directory, Cursor::default(), first);
        assert!(late.more);
        let late = delta(&late.frames[0]);
        assert_eq!(late.revision, revision(2));
        assert_eq!(late.upsert.len(), 2);
    }

    #[test]
    fn a_revision_that_is_not_ours_gets_a_snapshot() {
        let mut directory = empty();
        directory.apply(change(0, 1, false));
        directory.apply(change(1, 2, false));
        let mut first = |revision| {
            let has = Has {
                revision,
                ..Has::default()
            };
            let greeting = directory.greeting(&network(), &key(0), has, slot());
            greeting.unwrap().frames.remove(1)
        };
        let is_snapshot = |line: &Line| matches!(read(line), ToNode::Snapshot { .. });
        assert!(is_snapshot(&first(None)));
        assert!(is_snapshot(&first(Some(revision(3)))));
        let forged = Revision {
            number: 1,
            mark: Mark([0; 8]),
        };
        assert!(is_snapshot(&first(Some(forged))));
        let resumed = delta(&first(Some(revision(1))));
        assert!(resumed.resumed);
        assert_eq!(resumed.upsert.len(), 1);
        assert!(delta(&first(Some(revision(2)))).upsert.is_empty());
    }

    #[test]
    fn a_large_snapshot_comes_in_parts() {
        let mut directory = empty();
        let count = SNAPSHOT_PEERS + 1;
        for n in 0..count as u64 {
            let mut change = change(0, n + 1, false);
            let mut bytes = [9; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            change.node.record.key = NodeKey::from_bytes(bytes);
            directory.apply(change);
        }
        let mut bytes = [9; 32];
        bytes[..8].copy_from_slice(&0_u64.to_be_bytes());
        let me = NodeKey::from_bytes(bytes);
        let frames = directory
            .greeting(&network(), &me, Has::default(), slot())
            .unwrap()
            .frames;
        let parts: Vec<_> = frames
            .iter()
            .skip(1)
            .map(|line| match read(line) {
                ToNode::Snapshot { peers, more, .. } => (peers.len(), more),
                other => panic!("no snapshot: {other:?}"),
            })
            .collect();
        assert_eq!(parts, [(SNAPSHOT_PEERS, true), (1, false)]);
    }
}
