//! What the second encryption takes: WireGuard's ChaCha20-Poly1305 around each packet of QUIC, by
//! ring, as the mesh does it.
//!
//! Nothing that carries QUIC in WireGuard takes less than raw quinn and this together, so the bound
//! is another one on each machine.

use std::time::Instant;

use anyhow::{Result, anyhow};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::report::Samples;
use crate::way;

/// Headers of IPv6 and UDP in the tunnel, around a datagram of QUIC.
const TUNNEL: usize = 40 + 8;
/// Of a datagram of QUIC, what is not the stream's: header, frame header and tag.
const QUIC: usize = 36;
/// Packets in a round.
const PACKETS: usize = 2_000;
/// Packets between two looks at the clock.
const BLOCK: u32 = 10;

/// What one packet takes, in nanoseconds: to seal, and to open.
#[derive(Default)]
pub struct Cipher {
    pub seal: Samples,
    pub open: Samples,
}

impl Cipher {
    /// Measures once more.
    pub fn round(&mut self) -> Result<()> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]);
        let key = LessSafeKey::new(key.map_err(|_| anyhow!("no key"))?);
        let nonce = || Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let size = usize::from(way::MTU) + TUNNEL;
        let mut sealed = vec![7; size];
        let tag = key
            .seal_in_place_separate_tag(nonce(), Aad::empty(), &mut sealed)
            .map_err(|_| anyhow!("not sealed"))?;
        sealed.extend_from_slice(tag.as_ref());
        let mut packets = vec![sealed.clone(); BLOCK as usize];
        let [mut seal, mut open] = [const { Samples::new() }; 2];
        for _ in 0..PACKETS / BLOCK as usize {
            let start = Instant::now();
            for packet in &mut packets {
                key.open_in_place(nonce(), Aad::empty(), packet)
                    .map_err(|_| anyhow!("not opened"))?;
            }
            open.time(start.elapsed() / BLOCK);
            let start = Instant::now();
            for packet in &mut packets {
                let tag = key
                    .seal_in_place_separate_tag(nonce(), Aad::empty(), &mut packet[..size])
                    .map_err(|_| anyhow!("not sealed"))?;
                packet[size..].copy_from_slice(tag.as_ref());
            }
            seal.time(start.elapsed() / BLOCK);
        }
        self.seal.number(seal.median() * 1e3);
        self.open.number(open.median() * 1e3);
        Ok(())
    }
}

/// Round by round, what quinn took (s/GiB) and so many nanoseconds for each of its packets more.
pub fn bound(quinn: &Samples, each: &Samples) -> Samples {
    let packets = f64::from(1 << 30) / (usize::from(way::MTU) - QUIC) as f64;
    let mut bound = Samples::new();
    for (quinn, each) in quinn.values().iter().zip(each.values()) {
        bound.number(quinn + each * 1e-9 * packets);
    }
    bound
}
