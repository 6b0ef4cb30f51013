//! The heart of the server: who is where, and what waits for whom.
//!
//! Pure: frames and times go in, chunks of bytes and wake-ups come out. A
//! connection is driven like this, under one lock:
//!
//! - [`Router::handle_connect`] once its handshake is done;
//! - [`Router::handle_frame`] for each frame it sends. [`Outcome::Blocked`]
//!   means that the frame was *not* taken: read no more from this connection,
//!   and offer the same frame again when woken or at the time given;
//! - [`Router::poll_transmit`] for what to write to it, until
//!   [`Transmit::Idle`];
//! - [`Router::handle_timeout`] at [`Router::poll_timeout`];
//! - [`Router::handle_disconnect`] when it is over;
//! - after each of these, [`Router::poll_wakes`]: the handles of other
//!   connections that have something to write or may offer their frame again.
//!
//! # Full queues
//!
//! Each client has a queue of a megabyte. A packet that finds it full waits:
//! its sender's reads pause, TCP passes that on, and the sender's own
//! congestion control sees delay in place of loss. When the queue is half
//! empty all who wait are woken. A sender that has waited for
//! [`Limits::patience`] goes on without the packet, which is counted as
//! dropped, and from then until the queue is half empty packets that do not
//! fit are dropped at once: a receiver that is stuck delays a sender once, not
//! once a packet.
//!
//! WireGuard's handshake messages and disco's probes have a small lane of their
//! own, so that a tunnel can be set up through a full queue.
//!
//! # Duplicate keys
//!
//! Several connections may have the same key. The one that connected or sent a
//! packet last receives; the others stay open and are told, if they can hear
//! it.
//!
//! # Other servers
//!
//! A client may be at another server of the region (`region`): what is for it
//! goes there, over a connection that [`Router::handle_link`] has added.

mod conn;
mod limits;
mod region;
mod route;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

pub use self::limits::{Counters, Limits};

use self::conn::{Conn, Role};
use self::region::Away;
use crate::frame::{Frame, Health, Pong, Restarting};
use crate::handshake::Introduction;
use crate::{Error, NodeKey};

/// The text for connections that share their key.
const DUPLICATE: &str =
    "another connection uses the same key; packets go to the one that sent last";

/// Names a connection; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Taken,
    /// It waits for room; offer it again when woken, or at this time.
    Blocked(Instant),
}

/// What to write to a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Transmit {
    /// These bytes. Asking again says that they are written.
    Chunk(Vec<u8>),
    /// Nothing until woken.
    Idle,
    /// Close the connection, for this reason.
    Close(&'static str),
}

/// Who is where. `H` is what wakes the driver of a connection.
#[derive(Debug)]
pub struct Router<H> {
    limits: Limits,
    conns: HashMap<ConnId, Conn<H>>,
    peers: HashMap<NodeKey, Peer>,
    wakes: Vec<H>,
    counters: Counters,
    next_id: u64,
    /// Changes when a key may lead to another connection than before.
    epoch: u64,
    /// Servers of the region that want to know who is here.
    watchers: Vec<ConnId>,
    /// Who is at another server of the region.
    away: HashMap<NodeKey, Away>,
}

/// Everybody who holds one key.
#[derive(Debug, Default)]
struct Peer {
    /// The last one receives.
    conns: Vec<ConnId>,
    /// With whom packets were exchanged, in either direction.
    known: HashSet<NodeKey>,
    /// It has connected to another server since, and sent nothing here.
    moved: bool,
}

impl<H: Clone> Router<H> {
    /// A router without clients.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            conns: HashMap::new(),
            peers: HashMap::new(),
            wakes: Vec::new(),
            counters: Counters::default(),
            next_id: 0,
            epoch: 0,
            watchers: Vec::new(),
            away: HashMap::new(),
        }
    }

    /// How many connections there are, those with other servers among them.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Whether somebody with this key is connected.
    pub fn contains(&self, key: &NodeKey) -> bool {
        self.peers.contains_key(key)
    }

    /// What happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Adds a connection. `seed` is any random number.
    pub fn handle_connect(
        &mut self,
        client: Introduction,
        handle: H,
        now: Instant,
        seed: u64,
    ) -> ConnId {
        let role = match client.is_mesh {
            true => Role::Server(None),
            false => Role::Client,
        };
        let id = self.add(client, role, handle, now, seed);
        if client.is_mesh {
            return id;
        }
        let peer = self.peers.entry(client.key).or_default();
        peer.moved = false;
        peer.conns.push(id);
        let conns = peer.conns.clone();
        let excess = conns.len().saturating_sub(self.limits.duplicates);
        for oldest in &conns[..excess] {
            self.close(*oldest, "too many connections with the same key");
        }
        if conns.len() > 1 {
            self.tell_health(&conns, DUPLICATE);
        }
        self.tell_watchers(client.key);
        id
    }

    fn add(
        &mut self,
        client: Introduction,
        role: Role,
        handle: H,
        now: Instant,
        seed: u64,
    ) -> ConnId {
        let id = ConnId(self.next_id);
        self.next_id += 1;
        self.epoch += 1;
        self.counters.connected += 1;
        let conn = Conn::new(client, role, handle, &self.limits, now, seed);
        self.conns.insert(id, conn);
        id
    }

    /// Removes a connection, and tells those it exchanged packets with if it
    /// was the last with its key.
    pub fn handle_disconnect(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else {
            return;
        };
        self.epoch += 1;
        self.counters.disconnected += 1;
        self.counters.preferred -= u64::from(conn.preferred);
        for waiter in conn.waiters {
            self.wake(waiter);
        }
        match conn.role {
            Role::Client => {}
            Role::Server(_) => return self.watchers.retain(|other| *other != id),
            Role::Link => return self.drop_link(id),
        }
        let key = conn.client.key;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.conns.retain(|other| *other != id);
        match peer.conns[..] {
            [] => self.forget(key),
            [last] => self.tell_health(&[last], ""),
            _ => {}
        }
    }

    /// Takes a frame that the connection `id` sent.
    ///
    /// # Errors
    ///
    /// When the client may not send it; the connection is to be closed.
    pub fn handle_frame(
        &mut self,
        id: ConnId,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Outcome, Error> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Err(Error::Closed("not connected"));
        };
        if let Some(reason) = conn.closing {
            return Err(Error::Closed(reason));
        }
        conn.heard(now);
        let is_server = conn.is_server();
        match frame {
            Frame::SendPacket(_) if is_server || conn.is_link() => {
                return Err(Error::Protocol("a server has no packets of its own"));
            }
            Frame::SendPacket(packet) => return Ok(self.handle_packet(id, packet, now)),
            Frame::ForwardPacket(packet) if is_server => {
                return Ok(self.handle_forward(id, packet, now));
            }
            Frame::WatchConns(_) if is_server => self.handle_watch(id),
            Frame::ClosePeer(close) if is_server => self.handle_revoke(&close.key),
            Frame::PeerPresent(_) | Frame::PeerGone(_) if conn.is_link() => {
                self.handle_presence(id, frame);
            }
            Frame::Ping(ping) => {
                let key = conn.client.key;
                conn.control(&Pong { data: ping.data }, &mut self.counters);
                self.wake_idle(id);
                self.handle_here(&key);
            }
            Frame::NotePreferred(note) => {
                self.counters.preferred -= u64::from(conn.preferred);
                self.counters.preferred += u64::from(note.preferred);
                conn.preferred = note.preferred;
                if note.preferred && matches!(conn.role, Role::Client) {
                    let (key, tells) = (conn.client.key, conn.may_tell(now));
                    self.handle_here(&key);
                    if tells {
                        self.tell_watchers(key);
                    }
                }
            }
            Frame::ForwardPacket(_) | Frame::WatchConns(_) | Frame::ClosePeer(_) => {
                return Err(Error::Protocol("only servers of the region may send this"));
            }
            // An answer to our ping has done its work by being heard; frames
            // that are not for servers, and those of later versions, are
            // skipped.
            _ => {}
        }
        Ok(Outcome::Taken)
    }

    /// Whoever asks here, or says so, is here, wherever else it is.
    fn handle_here(&mut self, key: &NodeKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            self.epoch += u64::from(std::mem::take(&mut peer.moved));
        }
    }

    /// Why a connection is to be closed, if it is. To be asked when woken: a
    /// client that takes nothing of what is being written to it must go, too.
    pub fn poll_close(&self, id: ConnId) -> Option<&'static str> {
        self.conns.get(&id)?.closing
    }

    /// What to write to a connection next.
    pub fn poll_transmit(&mut self, id: ConnId) -> Transmit {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Transmit::Close("not connected");
        };
        if let Some(reason) = conn.closing {
            return Transmit::Close(reason);
        }
        if let Some(news) = self.poll_presence(id) {
            return Transmit::Chunk(news);
        }
        let Some(conn) = self.conns.get_mut(&id) else {
            return Transmit::Close("not connected");
        };
        let chunk = conn.queue.poll_chunk();
        conn.idle = chunk.is_none();
        if conn.idle && conn.leaving {
            return Transmit::Close("the relay restarts");
        }
        if conn.queue.is_low() {
            conn.overloaded = false;
            for waiter in std::mem::take(&mut conn.waiters) {
                self.wake(waiter);
            }
        }
        chunk.map_or(Transmit::Idle, Transmit::Chunk)
    }

    /// Takes the memory of a chunk that was written to a connection, for what comes next.
    pub fn reuse(&mut self, id: ConnId, chunk: Vec<u8>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.queue.reuse(chunk);
        }
    }

    /// When [`Router::handle_timeout`] is due for a connection.
    pub fn poll_timeout(&self, id: ConnId) -> Option<Instant> {
        Some(self.conns.get(&id)?.due_at())
    }

    /// Keeps a connection open, or closes one whose client is gone.
    pub fn handle_timeout(&mut self, id: ConnId, now: Instant) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.due_at() <= now
        {
            conn.handle_timeout(&self.limits, now, &mut self.counters);
            self.wake_idle(id);
        }
    }

    /// Closes every connection with this key.
    pub fn handle_revoke(&mut self, key: &NodeKey) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        for id in peer.conns.clone() {
            self.close(id, "no longer admitted");
        }
    }

    /// Tells those who can hear it that the server is about to restart.
    pub fn handle_restart(&mut self, reconnect_in: Duration, try_for: Duration) {
        let frame = Restarting::new(reconnect_in, try_for);
        for conn in self.conns.values_mut() {
            if conn.client.can_ack_pings {
                conn.control(&frame, &mut self.counters);
                self.wakes.push(conn.handle.clone());
            }
        }
    }

    /// Ends every connection as soon as all that waits for it is written.
    pub fn handle_leave(&mut self) {
        for conn in self.conns.values_mut() {
            conn.leaving = true;
            self.wakes.push(conn.handle.clone());
        }
    }

    /// A client sends more than it may; its reads pause.
    pub const fn note_throttled(&mut self) {
        self.counters.throttled += 1;
    }

    /// Moves the handles of connections that have something to do into
    /// `wakes`; the same one may be there more than once.
    pub fn poll_wakes(&mut self, wakes: &mut Vec<H>) {
        wakes.append(&mut self.wakes);
    }

    fn tell_health(&mut self, conns: &[ConnId], text: &str) {
        let text = text.as_bytes();
        for id in conns {
            if let Some(conn) = self.conns.get_mut(id)
                && conn.client.can_ack_pings
            {
                conn.control(&Health { text }, &mut self.counters);
                self.wake_idle(*id);
            }
        }
    }

    fn close(&mut self, id: ConnId, reason: &'static str) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.closing.get_or_insert(reason);
            self.wake(id);
        }
    }

    /// Wakes a connection whatever it does.
    fn wake(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(&id) {
            self.wakes.push(conn.handle.clone());
        }
    }

    /// Wakes a connection if it waits for something to write.
    fn wake_idle(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && std::mem::take(&mut conn.idle)
        {
            self.wakes.push(conn.handle.clone());
        }
    }
}

#[cfg(test)]
mod tests;
