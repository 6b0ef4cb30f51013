//! What waits to be written to one connection: whole frames, counted in bytes.
//!
//! There are two lanes. The *bulk* lane is in order and bounded by bytes; when
//! it is full the caller waits or drops, as it sees fit. The *urgent* lane is
//! small and overtakes the bulk lane, for what is worth little when late:
//! control frames, the handshakes of WireGuard and the probes of disco. Probes
//! inside a tunnel look like any packet of it, and may not overtake: a tunnel
//! forgets what comes a thousand packets late.
//!
//! Frames are copied into chunks of about [`CHUNK`] bytes, and the writer takes
//! a chunk at a time: one write for many frames, and an urgent frame waits for
//! one chunk at most.

use std::collections::VecDeque;

use crate::frame::{self, Body};

/// Bytes the writer gets at once. Larger ones save no system calls worth
/// mentioning and make urgent frames wait longer.
pub const CHUNK: usize = 64 << 10;

/// Bytes in the bulk lane of a connection, including the chunk being written:
/// 80 ms at 100 Mbit/s, and more than a congestion window on most paths, so
/// that the sender's congestion control fills the path and does not collapse.
pub const BULK_LIMIT: usize = 1 << 20;

/// Bytes in the urgent lane: some four hundred handshakes.
pub const URGENT_LIMIT: usize = 64 << 10;

/// There is no room in the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The bytes that wait for one connection.
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    urgent: Vec<u8>,
    bulk: VecDeque<Vec<u8>>,
    /// Bytes in `bulk`.
    waiting: usize,
    /// Bytes of the bulk chunk that the writer took last.
    writing: usize,
    /// The memory of a chunk that has been written, for the next one; none when
    /// nothing waits.
    spare: Vec<u8>,
}

impl Queue {
    /// An empty queue that takes `limit` bytes in its bulk lane.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            urgent: Vec::new(),
            bulk: VecDeque::new(),
            waiting: 0,
            writing: 0,
            spare: Vec::new(),
        }
    }

    /// Bytes in the bulk lane, with those being written.
    pub const fn len(&self) -> usize {
        self.waiting + self.writing
    }

    /// Whether the bulk lane is empty and nothing of it is being written.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is something to write.
    pub const fn has_chunk(&self) -> bool {
        self.waiting > 0 || !self.urgent.is_empty()
    }

    /// Whether the bulk lane is down to half: the point at which it pays to
    /// wake those who wait for room.
    pub const fn is_low(&self) -> bool {
        self.len() <= self.limit / 2
    }

    /// Appends a frame to the bulk lane.
    ///
    /// # Errors
    ///
    /// [`Full`] when it would go over the limit; nothing is queued then. A
    /// frame longer than the whole limit is taken by an empty queue.
    pub fn push<'a>(&mut self, body: &impl Body<'a>) -> Result<(), Full> {
        let len = frame::encoded_len(body);
        if !self.is_empty() && self.len() + len > self.limit {
            return Err(Full);
        }
        frame::encode(body, self.chunk_for(len));
        self.waiting += len;
        Ok(())
    }

    /// Appends a frame that carries the packet `data`: to the urgent lane if it
    /// is a handshake or a probe and there is room, else to the bulk lane.
    ///
    /// # Errors
    ///
    /// [`Full`] as for [`Queue::push`].
    pub fn push_packet<'a>(&mut self, body: &impl Body<'a>, data: &[u8]) -> Result<(), Full> {
        if is_urgent(data) && self.push_urgent(body).is_ok() {
            return Ok(());
        }
        self.push(body)
    }

    /// Appends a frame to the urgent lane.
    ///
    /// # Errors
    ///
    /// [`Full`] when it would go over [`URGENT_LIMIT`]; nothing is queued then.
    pub fn push_urgent<'a>(&mut self, body: &impl Body<'a>) -> Result<(), Full> {
        if self.urgent.len() + frame::encoded_len(body) > URGENT_LIMIT {
            return Err(Full);
        }
        frame::encode(body, &mut self.urgent);
        Ok(())
    }

    /// The next bytes to write. To ask for them says that those before are
    /// written.
    pub fn poll_chunk(&mut self) -> Option<Vec<u8>> {
        if !self.urgent.is_empty() {
            self.writing = 0;
            return Some(std::mem::take(&mut self.urgent));
        }
        let chunk = self.bulk.pop_front();
        if chunk.is_none() {
            self.spare = Vec::new();
        }
        self.writing = chunk.as_ref().map_or(0, Vec::len);
        self.waiting -= self.writing;
        chunk
    }

    /// Takes the memory of a chunk that has been written, as long as more is to
    /// be: under load the system would be asked for it again and again.
    pub fn reuse(&mut self, mut chunk: Vec<u8>) {
        let fits = (CHUNK..=2 * CHUNK).contains(&chunk.capacity());
        if fits && self.waiting > 0 && self.spare.capacity() == 0 {
            chunk.clear();
            self.spare = chunk;
        }
    }

    /// Where the next frame of `len` bytes goes: the last chunk, or a new one.
    fn chunk_for(&mut self, len: usize) -> &mut Vec<u8> {
        let last = self.bulk.back().filter(|last| last.len() + len <= CHUNK);
        if last.is_none() {
            let chunk = if self.spare.capacity() >= len {
                std::mem::take(&mut self.spare)
            } else if self.writing < CHUNK / 2 {
                Vec::with_capacity(len)
            } else {
                // While the writer is busy the chunk is likely to fill up, and
                // growing it in steps would copy it twice.
                Vec::with_capacity(CHUNK)
            };
            self.bulk.push_back(chunk);
        }
        let at = self.bulk.len() - 1;
        &mut self.bulk[at]
    }
}

/// What disco's messages begin with: Tailscale's probes, and the addresses that
/// are to be probed.
const DISCO: &[u8] = b"TS\xf0\x9f\x92\xac";

/// The longest message of disco that is no padded probe, bytes.
const MAX_DISCO: usize = 1 << 10;

/// Whether a packet is worth little when late.
fn is_urgent(packet: &[u8]) -> bool {
    is_handshake(packet) || (packet.starts_with(DISCO) && packet.len() <= MAX_DISCO)
}

/// Whether a packet is one of WireGuard's handshake messages: initiation,
/// response, or cookie reply, each with three zero bytes after its type and a
/// fixed length.
fn is_handshake(packet: &[u8]) -> bool {
    matches!(
        (packet, packet.len()),
        ([1, 0, 0, 0, ..], 148) | ([2, 0, 0, 0, ..], 92) | ([3, 0, 0, 0, ..], 64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeKey;
    use crate::frame::{Frame, KeepAlive, Receives, RecvPacket, decode};
    use proptest::prelude::*;

    fn packet(data: &[u8]) -> RecvPacket<'_> {
        let from = NodeKey::from_bytes([1; 32]);
        RecvPacket { from, data }
    }

    fn frames(bytes: &[u8]) -> Vec<Frame<'_>> {
        let mut rest = bytes;
        let mut found = Vec::new();
        while let Some((frame, used)) = decode(Receives::Client, rest).unwrap() {
            found.push(frame);
            rest = &rest[used..];
        }
        assert!(rest.is_empty(), "a chunk holds whole frames");
        found
    }

    #[test]
    fn many_frames_make_one_chunk_in_order() {
        let mut queue = Queue::new(BULK_LIMIT);
        for byte in 0..100 {
            queue.push(&packet(&[byte; 10])).unwrap();
        }
        let chunk = queue.poll_chunk().unwrap();
        for (byte, frame) in frames(&chunk).into_iter().enumerate() {
            let data = [u8::try_from(byte).unwrap(); 10];
            assert_eq!(frame, Frame::RecvPacket(packet(&data)));
        }
        assert_eq!(queue.len(), chunk.len(), "what is being written counts");
        assert!(queue.poll_chunk().is_none());
        assert!(queue.is_empty());
    }

    #[test]
    fn the_limit_counts_bytes_and_what_is_being_written() {
        let frame_len = frame::encoded_len(&packet(&[0; 1000]));
        let mut queue = Queue::new(10 * frame_len);
        for _ in 0..10 {
            queue.push(&packet(&[0; 1000])).unwrap();
        }
        assert_eq!(queue.push(&packet(b"")), Err(Full));
        assert!(queue.poll_chunk().is_some());
        assert_eq!(queue.push(&packet(b"")), Err(Full));
        assert!(!queue.is_low());
        assert!(queue.poll_chunk().is_none());
        assert!(queue.is_low());
        queue.push(&packet(b"")).unwrap();
    }

    #[test]
    fn memory_is_used_again_while_something_waits() {
        let mut queue = Queue::new(BULK_LIMIT);
        let used = Vec::with_capacity(CHUNK);
        let place = used.as_ptr();
        let large = packet(&[7; CHUNK / 2]);
        queue.push(&large).unwrap();
        queue.reuse(Vec::with_capacity(10));
        queue.reuse(Vec::with_capacity(3 * CHUNK));
        assert_eq!(queue.spare.capacity(), 0, "too small, too large");
        queue.reuse(used);
        queue.push(&large).unwrap();
        assert_eq!(frames(&queue.poll_chunk().unwrap()).len(), 1);
        let second = queue.poll_chunk().unwrap();
        assert_eq!(second.as_ptr(), place);
        assert_eq!(frames(&second).len(), 1);
        // Nothing waits any more, and nothing is kept.
        queue.reuse(second);
        assert_eq!(queue.spare.capacity(), 0);
        queue.push(&large).unwrap();
        queue.reuse(Vec::with_capacity(CHUNK));
        queue.poll_chunk().unwrap();
        assert!(queue.poll_chunk().is_none());
        assert_eq!(queue.spare.capacity(), 0);
    }

    #[test]
    fn urgent_frames_overtake_and_are_bounded() {
        let mut queue = Queue::new(BULK_LIMIT);
        queue.push(&packet(b"bulk")).unwrap();
        queue.push_urgent(&KeepAlive).unwrap();
        assert_eq!(
            frames(&queue.poll_chunk().unwrap()),
            [Frame::KeepAlive(KeepAlive)]
        );
        assert_eq!(
            frames(&queue.poll_chunk().unwrap()),
            [Frame::RecvPacket(packet(b"bulk"))]
        );
        let mut taken = 0;
        while queue.push_urgent(&KeepAlive).is_ok() {
            taken += frame::encoded_len(&KeepAlive);
        }
        assert!(taken <= URGENT_LIMIT);
    }

    #[test]
    fn the_shape_of_a_handshake() {
        for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
            let mut packet = vec![0; len];
            packet[0] = kind;
            assert!(is_handshake(&packet));
            assert!(!is_handshake(&packet[..len - 1]));
            packet[3] = 1;
            assert!(!is_handshake(&packet));
        }
        assert!(!is_handshake(b""));
        assert!(!is_handshake(&[4, 0, 0, 0]));
    }

    #[test]
    fn probes_overtake_unless_they_are_padded() {
        let mut probe = DISCO.to_vec();
        probe.resize(MAX_DISCO, 7);
        assert!(is_urgent(&probe));
        probe.push(7);
        assert!(!is_urgent(&probe));
        let mut queue = Queue::new(BULK_LIMIT);
        queue.push_packet(&packet(b"bulk"), b"bulk").unwrap();
        queue.push_packet(&packet(DISCO), DISCO).unwrap();
        let first = queue.poll_chunk().unwrap();
        assert_eq!(frames(&first), [Frame::RecvPacket(packet(DISCO))]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered(
            ops in proptest::collection::vec(proptest::option::of(0..70_000usize), 1..60),
        ) {
            let mut queue = Queue::new(200_000);
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let read = |chunk: Option<Vec<u8>>, got: &mut Vec<usize>| {
                if let Some(chunk) = chunk {
                    for frame in frames(&chunk) {
                        if let Frame::RecvPacket(packet) = frame {
                            got.push(packet.data.len());
                        }
                    }
                    true
                } else {
                    false
                }
            };
            for op in ops {
                if let Some(len) = op {
                    if queue.push(&packet(&vec![0; len])).is_ok() {
                        sent.push(len);
                    }
                    prop_assert!(queue.len() <= 200_000);
                } else {
                    read(queue.poll_chunk(), &mut got);
                }
            }
            while read(queue.poll_chunk(), &mut got) {}
            prop_assert_eq!(sent, got);
            prop_assert!(queue.is_empty());
        }
    }
}
