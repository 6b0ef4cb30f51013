//! The socket that quinn sees: receiving.
//!
//! [`Inbox::poll`] runs in the task of the endpoint. It reads a batch from one
//! source (relay, IPv6, IPv4, in turn), decrypts each datagram on the spot and
//! packs what is QUIC into quinn's buffers: equal datagrams of one peer in a row
//! become one entry. Handshakes and control messages are answered from here too.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use derp::NodeKey;
use quinn::udp::{EcnCodepoint, RecvMeta};

use super::entry::Entry;
use super::node::Node;
use super::pack::Packer;
use super::udp::{BATCH, Family, SLOT};
use crate::path::Via;
use crate::standby::Which;
use crate::wg::demux::{Class, Initiator, classify};

/// The longest datagram there is, by UDP or over the relay, and some room.
const LONGEST: usize = 65_536 + 256;
/// Packets taken from the relay's queue before the sockets have their turn.
const RELAY_BATCH: usize = 64;
/// Batches without a single QUIC datagram before other tasks have their turn.
const FRUITLESS: usize = 16;

/// Reads from all sources.
pub(super) struct Inbox {
    store: Vec<u8>,
    metas: [RecvMeta; BATCH],
    /// Of `metas`: how many are filled, which one is being read, how far.
    filled: usize,
    at: usize,
    offset: usize,
    plain: Vec<u8>,
    turn: usize,
    /// The peer whose datagram was the last one.
    last: Option<Arc<Entry>>,
    /// All that came from it in a row was data.
    only_data: bool,
}

/// A datagram with what is known about it.
#[derive(Clone, Copy)]
struct Datagram<'a> {
    via: Via,
    /// Whom the relay names as the sender, and which relay that is.
    relayed_from: Option<(&'a NodeKey, Which)>,
    ecn: Option<EcnCodepoint>,
    bytes: &'a [u8],
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            store: vec![0; SLOT * BATCH],
            metas: [RecvMeta::default(); BATCH],
            filled: 0,
            at: 0,
            offset: 0,
            plain: vec![0; LONGEST],
            turn: 0,
            last: None,
            only_data: true,
        }
    }

    /// Fills quinn's buffers, or registers the task with every source.
    pub(super) fn poll(
        &mut self,
        node: &Node,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut packer = Packer::new(bufs, metas);
        if let Some(udp) = &node.udp {
            udp.register(cx);
        }
        for _ in 0..FRUITLESS {
            let read = self.drain(node, &mut packer) | self.read(node, cx, &mut packer);
            self.leave(node);
            let count = packer.count();
            if count > 0 {
                return Poll::Ready(count);
            }
            if !read {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Asks every source, beginning with another one each time. Returns whether
    /// anything came.
    fn read(&mut self, node: &Node, cx: &mut Context<'_>, packer: &mut Packer<'_, '_>) -> bool {
        let mut any = false;
        self.turn = (self.turn + 1) % 3;
        for source in 0..3 {
            any |= match (source + self.turn) % 3 {
                0 => self.read_relay(node, cx, packer),
                1 => self.read_udp(Family::V6, node, cx, packer),
                _ => self.read_udp(Family::V4, node, cx, packer),
            };
        }
        any
    }

    fn read_relay(&mut self, node: &Node, cx: &Context<'_>, packer: &mut Packer<'_, '_>) -> bool {
        let mut now = None;
        for taken in 0..RELAY_BATCH {
            if !packer.has_room() {
                return true;
            }
            let Some((from, bytes, which)) = node.relays.poll_recv(cx) else {
                return taken > 0;
            };
            let datagram = Datagram {
                via: Via::Relay,
                relayed_from: Some((&from, which)),
                ecn: None,
                bytes: &bytes,
            };
            let now = *now.get_or_insert_with(Instant::now);
            self.take(node, datagram, packer, now);
        }
        true
    }

    fn read_udp(
        &mut self,
        family: Family,
        node: &Node,
        cx: &mut Context<'_>,
        packer: &mut Packer<'_, '_>,
    ) -> bool {
        // What was read before comes first.
        let Some(udp) = node.udp.as_ref().filter(|_| self.at >= self.filled) else {
            return self.at < self.filled;
        };
        let Poll::Ready(count) = udp.poll_recv(family, cx, &mut self.store, &mut self.metas) else {
            return false;
        };
        self.filled = count;
        self.at = 0;
        self.offset = 0;
        self.drain(node, packer);
        true
    }

    /// Takes the datagrams that were read by UDP, as far as there is room.
    fn drain(&mut self, node: &Node, packer: &mut Packer<'_, '_>) -> bool {
        if self.at >= self.filled {
            return false;
        }
        let now = Instant::now();
        let store = std::mem::take(&mut self.store);
        let mut any = false;
        while self.at < self.filled && packer.has_room() {
            let meta = self.metas[self.at];
            let end = (self.offset + meta.stride.max(1)).min(meta.len);
            let slot = &store[self.at * SLOT..][..meta.len];
            if self.offset < end {
                let datagram = Datagram {
                    via: Via::Direct(canonical(meta.addr)),
                    relayed_from: None,
                    ecn: meta.ecn,
                    bytes: &slot[self.offset..end],
                };
                self.take(node, datagram, packer, now);
                any = true;
            }
            self.offset = end;
            if self.offset >= meta.len {
                self.offset = 0;
                self.at += 1;
            }
        }
        self.store = store;
        any
    }

    fn take(
        &mut self,
        node: &Node,
        datagram: Datagram<'_>,
        packer: &mut Packer<'_, '_>,
        now: Instant,
    ) {
        let Some(entry) = self.entry_of(node, datagram, now) else {
            return;
        };
        let source = match datagram.via {
            Via::Relay => entry.synthetic_ip(),
            Via::Direct(addr) | Via::Fan(addr) => addr.ip(),
        };
        let mut state = entry.state.lock();
        let core = &mut state.core;
        let before = core.last_heard();
        let quic = core.handle(datagram.via, source, datagram.bytes, &mut self.plain, now);
        let is_authentic = quic.is_some() || core.last_heard() != before;
        drop(state);
        if let Some((_, which)) = datagram.relayed_from
            && is_authentic
        {
            node.relays.handle_authentic(&entry.key, which);
        }
        if self.last.as_ref().is_none_or(|last| last.key != entry.key) {
            self.leave(node);
            self.last = Some(Arc::clone(&entry));
        }
        match quic {
            Some(range) => packer.push(entry.inner_address(), datagram.ecn, &self.plain[range]),
            None => self.only_data = false,
        }
    }

    /// Done with a peer for the moment: send its answers, set its timer.
    fn leave(&mut self, node: &Node) {
        let only_data = std::mem::replace(&mut self.only_data, true);
        match self.last.take() {
            Some(entry) if only_data => node.service_data(&entry),
            Some(entry) => node.service(&entry),
            None => {}
        }
    }

    /// Whose datagram it is.
    fn entry_of(&self, node: &Node, datagram: Datagram<'_>, now: Instant) -> Option<Arc<Entry>> {
        match (classify(datagram.bytes), datagram.relayed_from) {
            (Class::Garbage, _) => {
                if let Via::Direct(source) = datagram.via {
                    node.reflection.handle(source, datagram.bytes, now);
                }
                None
            }
            (Class::For(index), from) => {
                if let Some(last) = self.last.as_ref().filter(|last| last.index == index) {
                    return Some(Arc::clone(last));
                }
                let entry = node.table.read().by_index(index).cloned();
                if let (None, Some((from, _))) = (&entry, from) {
                    stray(node, from, now);
                }
                entry
            }
            (Class::Initiation, from) => {
                node.demux.refresh_limiter();
                match (from, datagram.via) {
                    // The handshake will show whether the relay tells the truth.
                    (Some((from, _)), _) => {
                        let entry = node.by_key(from)?;
                        let admitted = node.demux.admits(entry.synthetic_ip(), now);
                        admitted.then_some(entry)
                    }
                    (None, Via::Direct(source)) => initiator(node, source, datagram.bytes, now),
                    (None, Via::Relay | Via::Fan(_)) => None,
                }
            }
        }
    }
}

/// A packet of a session that this run never had: the sender means a former run
/// and is to learn of this one.
fn stray(node: &Node, from: &NodeKey, now: Instant) {
    if let Some(entry) = node.by_key(from) {
        entry.state.lock().core.handle_stray(now);
        node.service(&entry);
    }
}

/// Who begins a handshake by UDP. Under load it first gets a cookie.
fn initiator(node: &Node, source: SocketAddr, datagram: &[u8], now: Instant) -> Option<Arc<Entry>> {
    match node.demux.initiator(source.ip(), datagram, now) {
        Initiator::Key(key) => node.by_key(&key),
        Initiator::Cookie(cookie) => {
            if let Some(udp) = &node.udp {
                udp.send(source, &cookie);
            }
            None
        }
        Initiator::Nobody => None,
    }
}

/// One spelling for each address: only link-local ones need an interface.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.scope_id() == 0 => SocketAddr::new(addr.ip(), addr.port()),
        other => other,
    }
}
