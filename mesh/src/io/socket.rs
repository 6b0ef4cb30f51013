//! The socket that quinn sees: sending.
//!
//! quinn sends to the inner address of a peer. [`Socket::try_send`] encrypts on
//! the spot, in the task of the connection, and passes on at once what is not
//! worth collecting (`super::outbox`). A datagram that is longer than the way to
//! the peer is known to carry is lost here: quinn tries one now and then, and
//! uses the larger size once it is acknowledged. One peer's trouble never becomes an
//! error: quinn would take the whole endpoint for broken.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::task::JoinSet;

use super::entry::{Entry, inner_address};
use super::gate::Poller;
use super::node::Node;
use super::outbox::{Blocked, FULL_HAND, Outbox};
use super::receive::Inbox;
use crate::packet::{HEADER_LEN, SEAL_LEN};

/// quinn takes this many equal datagrams at once from us; sizes its buffers.
const RECEIVE_SEGMENTS: usize = 32;

/// What was sent on a path in use is looked after by a timer that goes off within that time,
/// whatever it was set for. The earliest that asks for an answer is the path's, after 250 ms.
const SOON: Duration = Duration::from_millis(200);

/// Implements quinn's socket on a node.
pub(super) struct Socket {
    node: Arc<Node>,
    inbox: Mutex<Inbox>,
}

impl Socket {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            inbox: Mutex::new(Inbox::new()),
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller::new(Arc::clone(&self.node)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // An address that nobody has any more is as good as a lost datagram.
        match self.node.by_inner(&transmit.destination) {
            Some(entry) => self.node.send(&entry, transmit),
            None => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inbox.lock().poll(&self.node, cx, bufs, metas).map(Ok)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(inner_address(self.node.identity.address()))
    }

    fn max_transmit_segments(&self) -> usize {
        FULL_HAND
    }

    fn max_receive_segments(&self) -> usize {
        RECEIVE_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

impl Node {
    /// Encrypts datagrams for a peer and sends them, or keeps them for a moment.
    fn send(&self, entry: &Arc<Entry>, transmit: &Transmit<'_>) -> io::Result<()> {
        if transmit.contents.is_empty() || self.silenced.load(Relaxed) {
            return Ok(());
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        let hand = transmit.contents.len().div_ceil(size);
        let stride = size + HEADER_LEN + SEAL_LEN;
        let mut outbox = entry.outbox.lock();
        let now = Instant::now();
        let mut state = entry.state.lock();
        let used = state.core.is_used(now);
        let Some(mut route) = state.core.route_for(size, now) else {
            return Ok(());
        };
        if outbox.is_held_up() {
            self.schedule(entry, &mut state);
            drop(state);
            self.flush_now(entry, &mut outbox)?;
            state = entry.state.lock();
            match state.core.route_for(size, now) {
                Some(anew) => route = anew,
                None => return Ok(()),
            }
        }
        let only_relay = route.direct.is_none();
        if (only_relay && outbox.waiting() > 0)
            || !outbox.takes(route.direct, transmit.ecn, stride, hand)
        {
            // The state must not stay locked through a system call.
            drop(state);
            self.flush_now(entry, &mut outbox)?;
            state = entry.state.lock();
        }
        let start = outbox.waiting();
        for datagram in transmit.contents.chunks(size) {
            let (scratch, out) = outbox.space();
            if let Some(len) = state.core.seal(datagram, scratch, out, now) {
                outbox.push(len);
            }
        }
        // Nothing that follows from data on a path in use is due earlier.
        let soon = now + SOON;
        if !(used && state.scheduled.is_some_and(|at| at <= soon)) {
            self.schedule(entry, &mut state);
        }
        let busy = state.core.has_output();
        drop(state);
        if let Some(udp) = &self.udp {
            outbox.note_use(route.direct.filter(|_| !route.relay), udp);
        }
        outbox.address(route.direct, transmit.ecn);
        if route.relay {
            outbox.relay(start, only_relay, &entry.key, &self.relays);
        }
        self.flush_or_wait(entry, &mut outbox, hand);
        drop(outbox);
        if busy {
            self.service(entry);
        }
        Ok(())
    }

    fn flush_or_wait(&self, entry: &Arc<Entry>, outbox: &mut Outbox, hand: usize) {
        if outbox.is_empty() {
            return;
        }
        if outbox.wants_more(hand) || self.flush_outbox(entry, outbox).is_err() {
            self.flush_later(entry, outbox);
        }
    }

    /// Sends what waits, or tells the sender to wait for it.
    fn flush_now(&self, entry: &Arc<Entry>, outbox: &mut Outbox) -> io::Result<()> {
        self.flush_outbox(entry, outbox).map_err(|blocked| {
            self.flush_later(entry, outbox);
            self.gate.refuse(blocked)
        })
    }

    fn flush_outbox(&self, entry: &Entry, outbox: &mut Outbox) -> Result<(), Blocked> {
        let result = outbox.flush(&entry.key, &self.relays, self.udp.as_ref());
        if result == Err(Blocked::Relay) && entry.state.lock().core.has_direct() {
            // Rather a few repeated packets than waiting for a relay that is not
            // needed any more.
            outbox.forget_relayed();
            return outbox.flush(&entry.key, &self.relays, self.udp.as_ref());
        }
        result
    }

    fn flush_later(&self, entry: &Arc<Entry>, outbox: &mut Outbox) {
        if !std::mem::replace(&mut outbox.queued, true) {
            self.flush.lock().push(Arc::clone(entry));
            self.flush_soon.notify_one();
        }
    }

    /// Flushes outboxes, each when its sender has had its turn, until the task
    /// is aborted.
    pub(super) async fn run_flush(self: Arc<Self>) {
        let mut waiting = JoinSet::new();
        loop {
            tokio::select! {
                () = self.flush_soon.notified() => tokio::task::yield_now().await,
                Some(_) = waiting.join_next() => {}
            }
            let entries = std::mem::take(&mut *self.flush.lock());
            for entry in entries {
                let mut outbox = entry.outbox.lock();
                let Err(blocked) = self.flush_outbox(&entry, &mut outbox) else {
                    outbox.queued = false;
                    continue;
                };
                drop(outbox);
                let node = Arc::clone(&self);
                waiting.spawn(async move {
                    node.unblocked(blocked).await;
                    node.flush.lock().push(entry);
                });
            }
        }
    }
}
