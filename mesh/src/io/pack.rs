//! Packing datagrams into the buffers that quinn offers.
//!
//! One buffer holds datagrams of one peer, all of one length; the last may be
//! shorter. quinn cuts them apart again.

use std::io::IoSliceMut;
use std::net::SocketAddr;

use quinn::udp::{EcnCodepoint, RecvMeta};

use crate::peer::MAX_QUIC_DATAGRAM;

/// Fills buffers one after the other.
pub(super) struct Packer<'a, 'b> {
    bufs: &'a mut [IoSliceMut<'b>],
    metas: &'a mut [RecvMeta],
    /// The buffer being filled, and how far.
    slot: usize,
    len: usize,
}

impl<'a, 'b> Packer<'a, 'b> {
    pub(super) const fn new(bufs: &'a mut [IoSliceMut<'b>], metas: &'a mut [RecvMeta]) -> Self {
        Self {
            bufs,
            metas,
            slot: 0,
            len: 0,
        }
    }

    /// Whether one more datagram fits, whatever it is.
    pub(super) fn has_room(&self) -> bool {
        let slots = self.bufs.len().min(self.metas.len());
        let here = |buf: &IoSliceMut<'_>| buf.len() - self.len >= MAX_QUIC_DATAGRAM;
        self.slot + 1 < slots || (self.slot < slots && here(&self.bufs[self.slot]) && self.len == 0)
    }

    /// Adds a datagram of at most [`MAX_QUIC_DATAGRAM`] bytes, if there is room.
    pub(super) fn push(&mut self, addr: SocketAddr, ecn: Option<EcnCodepoint>, payload: &[u8]) {
        if payload.is_empty() || payload.len() > MAX_QUIC_DATAGRAM || !self.has_room() {
            return;
        }
        if self.len > 0 && !self.joins(addr, ecn, payload.len()) {
            self.slot += 1;
            self.len = 0;
        }
        let end = self.len + payload.len();
        self.bufs[self.slot][self.len..end].copy_from_slice(payload);
        let stride = match self.len {
            0 => payload.len(),
            _ => self.metas[self.slot].stride,
        };
        self.metas[self.slot] = RecvMeta {
            addr,
            len: end,
            stride,
            ecn,
            dst_ip: None,
        };
        self.len = end;
    }

    /// How many buffers are in use.
    pub(super) const fn count(&self) -> usize {
        self.slot + (self.len > 0) as usize
    }

    /// Whether a datagram can follow in the same buffer.
    fn joins(&self, addr: SocketAddr, ecn: Option<EcnCodepoint>, len: usize) -> bool {
        let meta = &self.metas[self.slot];
        let same = meta.addr == addr && meta.ecn == ecn;
        let none_shorter = self.len.is_multiple_of(meta.stride);
        let fits = self.len + len <= self.bufs[self.slot].len();
        same && none_shorter && len <= meta.stride && fits
    }
}

/// A fuzz target: datagrams of any peers and lengths, each said by two bytes. All that is taken is
/// there, whole and in order, and cut apart again.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn pack_anything(data: &[u8]) {
    let mut store = vec![vec![0; 4 * MAX_QUIC_DATAGRAM]; 4];
    let mut bufs: Vec<_> = store.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
    let mut metas = vec![RecvMeta::default(); 4];
    let mut packer = Packer::new(&mut bufs, &mut metas);
    let mut pushed = Vec::new();
    for (step, number) in data.chunks_exact(2).zip((0..=u8::MAX).cycle()) {
        let peer = SocketAddr::from(([127, 0, 0, 1], u16::from(step[0] % 4)));
        let len = usize::from(step[0] / 4) * 32 + usize::from(step[1]) / 4;
        let room = packer.has_room();
        packer.push(peer, None, &vec![number; len]);
        if room && (1..=MAX_QUIC_DATAGRAM).contains(&len) {
            pushed.push((peer, len, number));
        }
    }
    let count = packer.count();
    let mut found = Vec::new();
    for (buf, meta) in store.iter().zip(&metas).take(count) {
        let datagrams = buf[..meta.len].chunks(meta.stride);
        found.extend(datagrams.map(|one| (meta.addr, one.len(), one[0])));
    }
    assert_eq!(found, pushed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(size: usize, slots: usize, datagrams: &[(u16, usize)]) -> Vec<(u16, usize, usize)> {
        let mut store = vec![vec![0; size]; slots];
        let mut bufs: Vec<_> = store.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        let mut metas = vec![RecvMeta::default(); slots];
        let mut packer = Packer::new(&mut bufs, &mut metas);
        for (port, len) in datagrams {
            let addr = SocketAddr::from(([127, 0, 0, 1], *port));
            packer.push(addr, None, &vec![1; *len]);
        }
        let count = packer.count();
        let used = metas[..count].iter();
        used.map(|meta| (meta.addr.port(), meta.len, meta.stride))
            .collect()
    }

    #[test]
    fn equal_datagrams_of_one_peer_share_a_buffer() {
        let got = pack(10_000, 8, &[(1, 100), (1, 100), (1, 40), (1, 100)]);
        assert_eq!(got, [(1, 240, 100), (1, 100, 100)]);
        let got = pack(10_000, 8, &[(1, 100), (2, 100), (1, 100)]);
        assert_eq!(got, [(1, 100, 100), (2, 100, 100), (1, 100, 100)]);
        let got = pack(10_000, 8, &[(1, 100), (1, 101)]);
        assert_eq!(got, [(1, 100, 100), (1, 101, 101)]);
    }

    #[test]
    fn nothing_is_written_past_the_last_buffer() {
        let got = pack(3000, 2, &[(1, 1472); 9]);
        assert_eq!(got, [(1, 2944, 1472), (1, 1472, 1472)]);
        assert_eq!(pack(3000, 2, &[(1, 1473), (1, 0)]), []);
        assert_eq!(pack(3000, 0, &[(1, 10)]), []);
    }
}
