//! Who is in which network, and who is there now.
//!
//! Pure: changes come in from the store (`apply`), connections come and go
//! (`connect`, `disconnect`), and what a connection has to be told goes out
//! (`greeting`, `news`). It knows no sockets and keeps no queue per
//! connection: each connection has a cursor, a *tick*, and asks for the news
//! since then. Every node has one place in the order of ticks, that of its
//! last change, so the news are as long as the number of nodes that changed,
//! whatever happened to them in between, and a slow reader costs nothing but
//! gets the sum of what it missed.
//!
//! Time is cut into slots, and in each at most one *round* begins: everybody
//! is told what happened up to its start, in the same words, which are written
//! once. What happens in a slot after its round waits for the next slot.

mod elsewhere;
mod find;
mod network;

use std::collections::HashMap;

use axum::extract::ws::Utf8Bytes;
use derp::NodeKey;
use mesh::{NetworkId, NodeName, NodeRecord, SignKey, SignedRecord};

use self::network::{Network, Since};
use super::papers::{Has, Papers};
use super::store::{Change, NetworkState, Rotated};
use crate::coord::ToNode;
use crate::coord::handover::{Issuers, SignedHandover};
use crate::paper::Paper;

pub(crate) use find::Found;

/// One coordination connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// A place in the order of what happened in a network since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Tick(u64);

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

/// See the module.
#[derive(Default)]
pub(crate) struct Directory {
    networks: HashMap<NetworkId, Network>,
    /// In how many networks a key is live.
    enrolled: HashMap<NodeKey, u32>,
}

/// What the relay needs to know of a node that says hello.
pub(crate) struct Standing {
    pub(crate) record: NodeRecord,
    /// The first issuer of the network, which is what a node names when it signs.
    pub(crate) root: SignKey,
    pub(crate) revoked: bool,
}

/// A node as `GET /api/v1/nodes` shows it.
pub(crate) struct Listed {
    pub(crate) name: NodeName,
    pub(crate) key: NodeKey,
    pub(crate) owner: String,
    pub(crate) connected: bool,
    pub(crate) last_seen: Option<u64>,
}

/// How many there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) networks: u64,
    /// Live ones, once for each network they are in.
    pub(crate) nodes: u64,
    /// To this relay.
    pub(crate) connected: u64,
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
    nodes: Tick,
    papers: u64,
    handovers: u32,
}

impl Directory {
    /// Adds a network as the store has it.
    pub(crate) fn add(&mut self, state: NetworkState) {
        for row in &state.nodes {
            if row.revoked.is_none() {
                *self.enrolled.entry(row.record.key).or_default() += 1;
            }
        }
        self.networks.insert(state.id.clone(), Network::new(state));
    }

    /// Who has signed for a network, and who does now.
    pub(crate) fn issuers(&self, network: &NetworkId) -> Option<&Issuers> {
        Some(&self.networks.get(network)?.issuers)
    }

    /// Another issuer signs from here on, and has signed everything anew.
    pub(crate) fn rotate(&mut self, network: &NetworkId, rotated: Rotated) {
        if let Some(network) = self.networks.get_mut(network) {
            network.rotate(rotated);
        }
    }

    /// Takes in a change that the store made. Changes of one network come in
    /// the order of their revisions.
    pub(crate) fn apply(&mut self, change: Change) {
        let key = change.node.record.key;
        let Some(network) = self.networks.get_mut(&change.node.record.network) else {
            return;
        };
        let was_live = network.is_live(&key);
        let is_live = change.node.revoked.is_none();
        network.revision = change.revision;
        network.mark(change.revision);
        network.put(change.node);
        match (was_live, is_live) {
            (false, true) => *self.enrolled.entry(key).or_default() += 1,
            (true, false) => {
                // That waits for nobody.
                network.hurry();
                self.withdraw(&key);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Takes in a paper that the store has changed.
    pub(crate) fn file(&mut self, paper: Paper) {
        if let Some(network) = self.networks.get_mut(&paper.network) {
            network.papers.put(paper, &network.issuer);
        }
    }

    /// The papers of a network.
    pub(crate) fn papers(&self, network: &NetworkId) -> Option<&Papers> {
        Some(&self.networks.get(network)?.papers)
    }

    /// Forgets grants that ended long ago.
    pub(crate) fn drop_old(&mut self, now: u64) {
        for network in self.networks.values_mut() {
            network.papers.drop_old(now);
        }
    }

    /// Forgets a network; the keys of its live nodes and their connections.
    pub(crate) fn remove(&mut self, id: &NetworkId) -> Vec<(NodeKey, Option<ConnectionId>)> {
        let nodes = self.networks.remove(id).map(|network| network.nodes);
        let live = nodes.into_iter().flatten();
        let live: Vec<_> = live
            .filter(|(_, node)| node.row.revoked.is_none())
            .map(|(key, node)| (key, node.connection))
            .collect();
        for (key, _) in &live {
            self.withdraw(key);
        }
        live
    }

    /// Whether the key is live in any network.
    pub(crate) fn is_enrolled(&self, key: &NodeKey) -> bool {
        self.enrolled.contains_key(key)
    }

    /// What there is to know of a node that claims `key`.
    pub(crate) fn standing(&self, network: &NetworkId, key: &NodeKey) -> Option<Standing> {
        let network = self.networks.get(network)?;
        let node = network.nodes.get(key)?;
        Some(Standing {
            record: node.row.record.clone(),
            root: *network.issuers.root(),
            revoked: node.row.revoked.is_some(),
        })
    }

    /// The signed record of a live node.
    pub(crate) fn record(&self, network: &NetworkId, key: &NodeKey) -> Option<SignedRecord> {
        let node = self.networks.get(network)?.nodes.get(key)?;
        node.row.revoked.is_none().then(|| node.signed.clone())
    }

    /// `connection` is now the one of this node. Returns the one it takes
    /// the place of, or an error when the node is not (or no longer) live.
    pub(crate) fn connect(
        &mut self,
        network: &NetworkId,
        key: &NodeKey,
        connection: ConnectionId,
    ) -> Result<Option<ConnectionId>, NotLive> {
        let network = self.networks.get_mut(network).ok_or(NotLive)?;
        let node = network.nodes.get_mut(key).ok_or(NotLive)?;
        if node.row.revoked.is_some() {
            return Err(NotLive);
        }
        let was_online = node.is_online();
        let before = node.connection.replace(connection);
        node.elsewhere = false;
        if !was_online {
            network.touch(key);
        }
        Ok(before)
    }

    /// `connection` is over. Does nothing if another one has taken its place.
    pub(crate) fn disconnect(
        &mut self,
        network: &NetworkId,
        key: &NodeKey,
        connection: ConnectionId,
        now: u64,
    ) {
        let Some(network) = self.networks.get_mut(network) else {
            return;
        };
        let Some(node) = network.nodes.get_mut(key) else {
            return;
        };
        if node.connection == Some(connection) {
            node.connection = None;
            node.row.seen = Some(now);
            if !node.is_online() {
                network.touch(key);
            }
        }
    }

    /// Notes that a node was connected at `now`.
    pub(crate) fn seen(&mut self, network: &NetworkId, key: &NodeKey, now: u64) {
        let network = self.networks.get_mut(network);
        if let Some(node) = network.and_then(|network| network.nodes.get_mut(key)) {
            node.row.seen = Some(now);
        }
    }

    /// The connection a node has.
    pub(crate) fn connection(&self, network: &NetworkId, key: &NodeKey) -> Option<ConnectionId> {
        self.networks.get(network)?.nodes.get(key)?.connection
    }

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

    /// The live nodes of a network, by name.
    pub(crate) fn list(&self, network: &NetworkId) -> Vec<Listed> {
        let nodes = self.networks.get(network).map(|network| &network.nodes);
        let live = nodes.into_iter().flatten().map(|(_, node)| node);
        let mut listed: Vec<_> = live
            .filter(|node| node.row.revoked.is_none())
            .map(|node| Listed {
                name: node.row.record.name.clone(),
                key: node.row.record.key,
                owner: node.row.record.owner.clone(),
                connected: node.is_online(),
                last_seen: node.row.seen,
            })
            .collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        listed
    }

    /// Counts.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        for network in self.networks.values() {
            census.networks += 1;
            for node in network.nodes.values() {
                census.nodes += u64::from(node.row.revoked.is_none());
                census.connected += u64::from(node.connection.is_some());
            }
        }
        census
    }

    /// Live nodes whose records end before `deadline`, connected or not: only a
    /// revocation takes a member out, while the end of a record bounds how long
    /// a reader believes it without hearing from the relay.
    pub(crate) fn ending_before(&self, deadline: u64) -> Vec<(NetworkId, NodeKey)> {
        let networks = self.networks.iter();
        let nodes = networks.flat_map(|(id, network)| {
            let nodes = network.nodes.iter();
            nodes.map(move |(key, node)| (id, key, node))
        });
        nodes
            .filter(|(_, _, node)| node.row.revoked.is_none())
            .filter(|(_, _, node)| node.row.record.expires < deadline)
            .map(|(id, key, _)| (id.clone(), *key))
            .collect()
    }

    fn withdraw(&mut self, key: &NodeKey) {
        if let Some(count) = self.enrolled.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.enrolled.remove(key);
            }
        }
    }
}

/// The node is not a live member of the network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotLive;

impl Tick {
    /// The place after this one.
    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::coord::handover::Handover;
    use crate::coord::{Delta, Mark, Revision, SNAPSHOT_PEERS};
    use crate::relay::store::NodeRow;
    use crate::relay::store::cluster::Part;
    use crate::uplink::netmap::Netmap;

    const NOW: u64 = 1_800_000_000;

    fn network() -> NetworkId {
        "home".parse().unwrap()
    }

    fn issuer() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes([n + 1; 32])
    }

    fn revision(number: u64) -> Revision {
        let mark = Mark((number ^ 0x5555).to_be_bytes());
        Revision { number, mark }
    }

    fn row(n: u8, changed: u64) -> NodeRow {
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

    fn empty() -> Directory {
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

    fn change(n: u8, number: u64, revoked: bool) -> Change {
        let mut node = row(n, number);
        node.revoked = revoked.then_some(NOW);
        Change {
            revision: revision(number),
            node,
        }
    }

    /// A slot that was not there before.
    fn slot() -> Slot {
        use std::sync::atomic::{AtomicU64, Ordering};
        static SLOTS: AtomicU64 = AtomicU64::new(0);
        Slot(SLOTS.fetch_add(1, Ordering::Relaxed))
    }

    fn read(line: &Line) -> ToNode {
        serde_json::from_str(line).unwrap()
    }

    fn delta(line: &Line) -> Delta {
        match read(line) {
            ToNode::Delta(delta) => delta,
            other => panic!("no delta: {other:?}"),
        }
    }

    #[test]
    fn an_old_connection_does_not_take_the_new_one_off_the_books() {
        let mut directory = empty();
        directory.apply(change(0, 1, false));
        let (old, new) = (ConnectionId(1), ConnectionId(2));
        assert_eq!(directory.connect(&network(), &key(0), old), Ok(None));
        assert_eq!(directory.connect(&network(), &key(0), new), Ok(Some(old)));
        directory.disconnect(&network(), &key(0), old, NOW);
        assert_eq!(directory.connection(&network(), &key(0)), Some(new));
        assert!(directory.list(&network())[0].connected);
        directory.disconnect(&network(), &key(0), new, NOW);
        assert_eq!(directory.connection(&network(), &key(0)), None);
    }

    #[test]
    fn who_is_at_another_relay_is_online() {
        let mut directory = empty();
        for (n, number) in [(0, 1), (1, 2)] {
            directory.apply(change(n, number, false));
        }
        let me = ConnectionId(1);
        directory.connect(&network(), &key(0), me).unwrap();
        let greeting = directory.greeting(&network(), &key(0), Has::default(), slot());
        let mut cursor = greeting.unwrap().cursor;
        let mut news = |directory: &mut Directory| {
            let news = directory.news(&network(), &key(0), cursor, slot()).unwrap();
            cursor = news.cursor;
            let frame = news.frames.first().map(delta);
            frame.map(|delta| (delta.online, delta.offline))
        };
        directory.is_elsewhere(&network(), &key(1), true, NOW);
        assert_eq!(news(&mut directory), Some((vec![key(1)], vec![])));
        assert!(directory.list(&network())[1].connected);
        // It comes here, and what it was elsewhere counts no more.
        let here = ConnectionId(2);
        directory.connect(&network(), &key(1), here).unwrap();
        assert_eq!(news(&mut directory), None);
        directory.disconnect(&network(), &key(1), here, NOW);
        assert_eq!(news(&mut directory), Some((vec![], vec![key(1)])));
        // And back, before the connection here is over.
        directory.connect(&network(), &key(1), here).unwrap();
        directory.is_elsewhere(&network(), &key(1), true, NOW);
        directory.disconnect(&network(), &key(1), here, NOW);
        assert_eq!(news(&mut directory), Some((vec![key(1)], vec![])));
    }

    #[test]
    fn what_another_relay_has_changed_is_news() {
        let mut directory = empty();
        for (n, number) in [(0, 1), (1, 2)] {
            directory.apply(change(n, number, false));
        }
        let me = ConnectionId(1);
        directory.connect(&network(), &key(0), me).unwrap();
        let other = ConnectionId(2);
        directory.connect(&network(), &key(1), other).unwrap();
        let greeting = directory.greeting(&network(), &key(0), Has::default(), slot());
        let cursor = greeting.unwrap().cursor;
        let mut gone = row(1, 4);
        gone.revoked = Some(NOW);
        let part = |nodes, is_all| Part {
            issuer: issuer(),
            issuers: Issuers::new(network(), SignKey::from(&issuer().verifying_key())),
            revision: revision(4),
            history: vec![revision(3), revision(4)],
            nodes,
            papers: Vec::new(),
            is_all,
        };
        let cut = directory.catch_up(&network(), part(vec![row(2, 3), gone], false), NOW);
        assert_eq!(cut, [(key(1), Some(other))]);
        let news = directory.news(&network(), &key(0), cursor, slot()).unwrap();
        let news = delta(&news.frames[0]);
        assert_eq!((news.upsert.len(), news.removed), (1, vec![key(1)]));
        assert_eq!(news.revision, revision(4));
        assert!(directory.is_enrolled(&key(2)) && !directory.is_enrolled(&key(1)));
        // The same again changes nothing.
        let since = directory.since(&network()).unwrap();
        assert_eq!(since.revision, revision(4));
        // A database that was put back under it: who is not in it is out.
        let cut = directory.catch_up(&network(), part(vec![row(0, 1)], true), NOW);
        assert_eq!(cut, [(key(2), None)]);
        assert!(directory.is_enrolled(&key(0)) && !directory.is_enrolled(&key(2)));
    }

    #[test]
    fn only_live_members_connect() {
        let mut directory = empty();
        let id = ConnectionId(1);
        assert_eq!(directory.connect(&network(), &key(0), id), Err(NotLive));
        directory.apply(change(0, 1, false));
        assert!(directory.is_enrolled(&key(0)));
        directory.apply(change(0, 2, true));
        assert!(!directory.is_enrolled(&key(0)));
        assert_eq!(directory.connect(&network(), &key(0), id), Err(NotLive));
        let elsewhere = "work".parse().unwrap();
        assert_eq!(directory.connect(&elsewhere, &key(0), id), Err(NotLive));
        assert!(directory.standing(&network(), &key(0)).unwrap().revoked);
        assert!(directory.record(&network(), &key(0)).is_none());
    }

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
}
