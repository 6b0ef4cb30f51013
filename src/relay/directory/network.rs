//! One network in the directory: its nodes, in the order of their last changes, and what is
//! signed for it.

use std::collections::{BTreeMap, HashMap};

use derp::NodeKey;
use ed25519_dalek::SigningKey;
use mesh::SignedRecord;

use super::{ConnectionId, Cursor, Line, Slot, line};
use crate::coord::handover::Issuers;
use crate::coord::{Delta, Mark, Peer, Revision, SNAPSHOT_PEERS, ToNode};
use crate::relay::papers::Papers;
use crate::relay::store::{MAX_CHANGES, NetworkState, NodeRow, Rotated};

/// A place in the order of what happened in a network since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Tick(u64);

pub(super) struct Network {
    pub(super) issuer: SigningKey,
    pub(super) issuers: Issuers,
    pub(super) revision: Revision,
    /// The marks of this and earlier revisions.
    pub(super) marks: BTreeMap<u64, Mark>,
    pub(super) nodes: BTreeMap<NodeKey, Node>,
    pub(super) tick: Tick,
    /// Which node changed at which tick, each node once.
    pub(super) order: BTreeMap<Tick, NodeKey>,
    pub(super) papers: Papers,
    round: Round,
}

/// Up to where everybody is told at the same time. Whoever keeps up is told the same, so it is
/// written once and not once for each.
struct Round {
    /// None when the next one has to come at once.
    slot: Option<Slot>,
    tick: Tick,
    revision: Revision,
    written: HashMap<Since, Vec<Line>>,
}

/// What somebody has who is told what there is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Since {
    /// Nothing that can be built on.
    Nothing,
    /// The revision of this number, and no notion of who is there.
    Revision(u64),
    /// Everything up to here.
    Tick(Tick),
}

/// Different things that are kept written in one round; who needs yet another gets its own.
const MAX_WRITTEN: usize = 16;

pub(super) struct Node {
    pub(super) row: NodeRow,
    pub(super) signed: SignedRecord,
    pub(super) connection: Option<ConnectionId>,
    /// It is connected to another relay.
    pub(super) elsewhere: bool,
    /// The last change of any kind.
    pub(super) touched: Tick,
    /// The last change of the record.
    pub(super) recorded: Tick,
    /// The first record.
    joined: Tick,
}

impl Network {
    /// As the store has it.
    pub(super) fn new(state: NetworkState) -> Self {
        let round = Round {
            slot: None,
            tick: Tick::default(),
            revision: state.revision,
            written: HashMap::new(),
        };
        let mut network = Self {
            round,
            issuer: state.issuer,
            issuers: state.issuers,
            revision: state.revision,
            marks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            tick: Tick::default(),
            order: BTreeMap::new(),
            papers: Papers::default(),
        };
        for paper in state.papers {
            network.papers.put(paper, &network.issuer);
        }
        for revision in state.history.into_iter().chain([state.revision]) {
            network.mark(revision);
        }
        for row in state.nodes {
            network.put(row);
        }
        network
    }

    /// Another issuer has signed everything anew.
    pub(super) fn rotate(&mut self, rotated: Rotated) {
        self.issuer = rotated.issuer;
        self.issuers = rotated.issuers;
        self.revision = rotated.revision;
        self.mark(rotated.revision);
        for paper in rotated.papers {
            self.papers.put(paper, &self.issuer);
        }
        for row in rotated.nodes {
            self.put(row);
        }
        // What is written down was signed by the one before.
        self.hurry();
    }

    /// The next round begins with the next word, and nothing that is written down is said again.
    pub(super) fn hurry(&mut self) {
        self.round.slot = None;
    }

    /// Begins the next round if it is time, and there is something for one. Whether everything
    /// is in the present one.
    pub(super) fn begin(&mut self, slot: Slot) -> bool {
        let is_time = self.round.slot.is_none_or(|before| before < slot);
        if is_time && (self.round.slot.is_none() || self.tick > self.round.tick) {
            self.round = Round {
                slot: Some(slot),
                tick: self.tick,
                revision: self.revision,
                written: HashMap::new(),
            };
        }
        self.round.tick == self.tick
    }

    /// What somebody who has `since` has to be told to be where the present round is. Of a node
    /// that was in it then, it may say what is later, and that is said again in the next round;
    /// who joined later is not in it. So nobody who comes twice in one round is told of less.
    pub(super) fn tell(&mut self, since: Since) -> Vec<Line> {
        if let Some(written) = self.round.written.get(&since) {
            return written.clone();
        }
        let frames = match since {
            Since::Nothing => self.snapshot(),
            Since::Revision(number) => self.resume(number),
            Since::Tick(tick) if tick < self.round.tick => self.news(tick),
            Since::Tick(_) => Vec::new(),
        };
        let lines: Vec<Line> = frames.iter().map(line).collect();
        if self.round.written.len() < MAX_WRITTEN {
            self.round.written.insert(since, lines.clone());
        }
        lines
    }

    /// Notes a state, and forgets the oldest when there are too many.
    pub(super) fn mark(&mut self, revision: Revision) {
        self.marks.insert(revision.number, revision.mark);
        if self.marks.len() as u64 > MAX_CHANGES {
            self.marks.pop_first();
        }
    }

    /// Where somebody is who was told everything up to the present round.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor {
            nodes: self.round.tick,
            papers: self.papers.serial(),
            handovers: self.issuers.count(),
        }
    }

    pub(super) fn is_live(&self, key: &NodeKey) -> bool {
        let node = self.nodes.get(key);
        node.is_some_and(Node::is_live)
    }

    pub(super) fn knows(&self, revision: &Revision) -> bool {
        self.marks.get(&revision.number) == Some(&revision.mark)
    }

    /// Adds or replaces a node; its connection stays, unless it was revoked.
    pub(super) fn put(&mut self, row: NodeRow) {
        let key = row.record.key;
        let signed = SignedRecord::sign(&row.record, &self.issuer);
        let before = self.nodes.remove(&key);
        let connection = before.as_ref().and_then(|node| node.connection);
        let elsewhere = before.as_ref().is_some_and(|node| node.elsewhere);
        let recorded = self.tick.next();
        let node = Node {
            connection: connection.filter(|_| row.revoked.is_none()),
            elsewhere: elsewhere && row.revoked.is_none(),
            joined: before.as_ref().map_or(recorded, |node| node.joined),
            touched: before.map(|node| node.touched).unwrap_or_default(),
            recorded,
            signed,
            row,
        };
        self.nodes.insert(key, node);
        self.touch(&key);
    }

    /// Moves a node to the end of the order.
    pub(super) fn touch(&mut self, key: &NodeKey) {
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        self.tick = self.tick.next();
        self.order.remove(&node.touched);
        self.order.insert(self.tick, *key);
        node.touched = self.tick;
    }

    /// The nodes that were there when the round began.
    fn there(&self) -> impl Iterator<Item = (&NodeKey, &Node)> {
        let round = self.round.tick;
        self.nodes
            .iter()
            .filter(move |(_, node)| node.joined <= round)
    }

    fn snapshot(&self) -> Vec<ToNode> {
        let there = self.there().map(|(_, node)| node);
        let live = there.filter(|node| node.is_live());
        let peers: Vec<Peer> = live.map(Node::peer).collect();
        let parts = peers.len().div_ceil(SNAPSHOT_PEERS).max(1);
        let mut frames: Vec<ToNode> = (1..=parts)
            .map(|part| ToNode::Snapshot {
                revision: self.round.revision,
                peers: Vec::new(),
                more: part < parts,
            })
            .collect();
        for (frame, part) in frames.iter_mut().zip(peers.chunks(SNAPSHOT_PEERS)) {
            if let ToNode::Snapshot { peers, .. } = frame {
                part.clone_into(peers);
            }
        }
        frames
    }

    /// What a node that has the state of this number does not know; as much as a snapshot when
    /// much has changed, since a delta has no parts.
    fn resume(&self, number: u64) -> Vec<ToNode> {
        let mut delta = self.empty_delta();
        delta.resumed = true;
        for (key, node) in self.there() {
            let changed = node.row.changed > number;
            match (node.row.revoked.is_some(), changed) {
                (true, true) => delta.removed.push(*key),
                (false, true) => delta.upsert.push(node.peer()),
                (false, false) if node.is_online() => delta.online.push(*key),
                (true, false) | (false, false) => {}
            }
        }
        self.told(delta)
    }

    /// Who has changed since. A node that changed again after the round is in a later one, unless
    /// its record is of this one: later only what came after the record would be said.
    fn news(&self, cursor: Tick) -> Vec<ToNode> {
        let mut delta = self.empty_delta();
        let round = self.round.tick;
        for key in self.order.range(cursor.next()..).map(|(_, key)| key) {
            let Some(node) = self.nodes.get(key) else {
                continue;
            };
            let is_recorded = node.recorded > cursor && node.recorded <= round;
            if node.touched > round && !is_recorded {
                continue;
            }
            if node.row.revoked.is_some() {
                delta.removed.push(*key);
            } else if node.recorded > cursor {
                delta.upsert.push(node.peer());
            } else if node.is_online() {
                delta.online.push(*key);
            } else {
                delta.offline.push(*key);
            }
        }
        self.told(delta)
    }

    fn told(&self, delta: Delta) -> Vec<ToNode> {
        if delta.upsert.len() > SNAPSHOT_PEERS {
            self.snapshot()
        } else {
            vec![ToNode::Delta(delta)]
        }
    }

    fn empty_delta(&self) -> Delta {
        Delta {
            revision: self.round.revision,
            upsert: Vec::new(),
            removed: Vec::new(),
            online: Vec::new(),
            offline: Vec::new(),
            resumed: false,
        }
    }
}

impl Tick {
    /// The place after this one.
    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Node {
    /// Whether it is a member still.
    pub(super) const fn is_live(&self) -> bool {
        self.row.revoked.is_none()
    }

    pub(super) const fn is_online(&self) -> bool {
        self.connection.is_some() || self.elsewhere
    }

    fn peer(&self) -> Peer {
        Peer {
            record: self.signed.clone(),
            online: self.is_online(),
        }
    }
}
