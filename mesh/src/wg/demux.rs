//! Whose datagram is this?
//!
//! Every message but the first names the receiver's session with a 32-bit
//! index. The upper 24 bits are the peer's number in our table, so one lookup
//! finds the tunnel; the source address plays no part. An initiation names
//! nobody: its sender's key must be decrypted first ([`Demux::initiator`]),
//! which is only done for messages made for our key, within the limit.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use derp::{NodeKey, NodeSecret};
use x25519_dalek::{PublicKey, StaticSecret};

use super::HANDSHAKES_PER_SECOND;
use super::limits::PerAddress;

/// What a datagram is, judged by its first bytes and its length alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The first message of a handshake.
    Initiation,
    /// Anything else, for the tunnel with this number.
    For(u32),
    /// Not WireGuard.
    Garbage,
}

/// Classifies a datagram.
pub(crate) fn classify(datagram: &[u8]) -> Class {
    let Some(kind) = datagram.first_chunk::<4>() else {
        return Class::Garbage;
    };
    let index_at = |at: usize| {
        let bytes = datagram.get(at..)?.first_chunk::<4>()?;
        Some(Class::For(u32::from_le_bytes(*bytes) >> 8))
    };
    match (u32::from_le_bytes(*kind), datagram.len()) {
        (1, 148) => Class::Initiation,
        (2, 92) => index_at(8).unwrap_or(Class::Garbage),
        (3, 64) | (4, 32..) => index_at(4).unwrap_or(Class::Garbage),
        _ => Class::Garbage,
    }
}

/// The full receiver index of a data packet.
pub(super) fn data_index(datagram: &[u8]) -> Option<u32> {
    let bytes = datagram.get(4..)?.first_chunk::<4>()?;
    (datagram.first() == Some(&4)).then(|| u32::from_le_bytes(*bytes))
}

/// What it takes to tell who sends an initiation.
pub(crate) struct Demux {
    secret: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    addresses: Mutex<PerAddress>,
}

/// The sender of an initiation, or what to tell it.
pub(crate) enum Initiator {
    /// The key inside; whether the sender holds it shows in the handshake.
    Key(NodeKey),
    /// We are under load: send this cookie back.
    Cookie(Vec<u8>),
    /// Not for us.
    Nobody,
}

impl Demux {
    pub(crate) fn new(secret: &NodeSecret) -> Self {
        Self::with_limit(secret, HANDSHAKES_PER_SECOND)
    }

    /// With another limit than usual, for those whose seconds are shorter.
    pub(crate) fn with_limit(secret: &NodeSecret, per_second: u64) -> Self {
        let secret = StaticSecret::from(secret.to_bytes());
        let public = PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, per_second));
        Self {
            secret,
            public,
            limiter,
            addresses: Mutex::default(),
        }
    }

    /// The limiter that all tunnels of this node share.
    pub(crate) const fn limiter(&self) -> &Arc<RateLimiter> {
        &self.limiter
    }

    /// Lets the limiter begin a new second, if one has passed. Call it before
    /// each handshake message.
    pub(crate) fn refresh_limiter(&self) {
        self.limiter.reset_count();
    }

    /// Whether `source` may begin a handshake now, or has begun too many.
    pub(crate) fn admits(&self, source: IpAddr, now: Instant) -> bool {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.admit(source, now)
    }

    /// Who sent this initiation.
    pub(crate) fn initiator(&self, source: IpAddr, datagram: &[u8], now: Instant) -> Initiator {
        let mut cookie = [0; 64];
        let verified = self
            .limiter
            .verify_packet(Some(source), datagram, &mut cookie);
        match verified {
            Ok(Packet::HandshakeInit(init)) if self.admits(source, now) => {
                match parse_handshake_anon(&self.secret, &self.public, &init) {
                    Ok(half) => Initiator::Key(NodeKey::from_bytes(half.peer_static_public)),
                    Err(_) => Initiator::Nobody,
                }
            }
            Err(TunnResult::WriteToNetwork(cookie)) => Initiator::Cookie(cookie.to_vec()),
            _ => Initiator::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use boringtun::noise::Tunn;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_index_is_found_in_every_message() {
        let mut data = vec![0; 40];
        data[0] = 4;
        data[4..8].copy_from_slice(&0x0012_3456_u32.to_le_bytes());
        assert_eq!(classify(&data), Class::For(0x1234));
        let mut response = vec![0; 92];
        response[0] = 2;
        response[8..12].copy_from_slice(&0xffff_ff00_u32.to_le_bytes());
        assert_eq!(classify(&response), Class::For(0x00ff_ffff));
        let mut init = vec![0; 148];
        init[0] = 1;
        assert_eq!(classify(&init), Class::Initiation);
        init.push(0);
        assert_eq!(classify(&init), Class::Garbage);
    }

    proptest! {
        #[test]
        fn what_is_classified_is_what_boringtun_parses(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            if let Some(first) = bytes.first_chunk_mut::<4>() {
                *first = [kind, 0, 0, 0];
            }
            let parses = Tunn::parse_incoming_packet(&bytes).is_ok();
            prop_assert_eq!(parses, classify(&bytes) != Class::Garbage);
        }
    }
}
