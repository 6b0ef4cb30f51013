//! How many handshakes one address may begin.
//!
//! The cookie of WireGuard proves that a sender is where it says; it does not
//! keep that sender from costing us half a millisecond as often as it likes. So
//! each address has a bucket: as many initiations as nodes behind one NAT begin
//! when all of them come back at once, then a steady few. IPv6 counts by /64,
//! which is what one machine has; our own overlay addresses, which stand for
//! peers on the relay, each for itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Initiations at once; a ladder has nine.
const BURST: u32 = 200;
/// And then one after each of these.
const EVERY: Duration = Duration::from_millis(20);
/// Addresses remembered. The global limit admits no more than 256 a second that
/// have not proven theirs, and a bucket is full again after four.
const MAX_ADDRESSES: usize = 4096;

/// A bucket for each address that is not at rest.
#[derive(Debug, Default)]
pub(super) struct PerAddress {
    /// When the bucket will be full again.
    buckets: HashMap<IpAddr, Instant>,
}

impl PerAddress {
    /// Whether this address may begin a handshake now; if so, it has.
    pub(super) fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        let key = bucket_of(source);
        if self.buckets.len() >= MAX_ADDRESSES && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, full| *full > now);
            if self.buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let full = self.buckets.entry(key).or_insert(now);
        let next = (*full).max(now) + EVERY;
        let admitted = next <= now + EVERY * BURST;
        if admitted {
            *full = next;
        }
        admitted
    }
}

/// Which addresses share a bucket.
fn bucket_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(ip) if !ip.is_unique_local() => {
            Ipv6Addr::from(u128::from(ip) >> 64 << 64).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_the_place_of_others() {
        let now = Instant::now();
        let mut limits = PerAddress::default();
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let admitted = (0..1000).filter(|_| limits.admit(a, now)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(limits.admit(b, now));
        let second = now + Duration::from_secs(1);
        let admitted = (0..1000).filter(|_| limits.admit(a, second)).count();
        assert_eq!(admitted, 50);
    }

    #[test]
    fn a_machine_has_one_bucket_and_a_peer_on_the_relay_its_own() {
        let now = Instant::now();
        let admit = |of: [&str; 2]| {
            let mut limits = PerAddress::default();
            let [a, b] = of.map(|ip| ip.parse().unwrap());
            while limits.admit(a, now) {}
            limits.admit(b, now)
        };
        assert!(!admit(["2001:db8::1", "2001:db8::2"]));
        assert!(admit(["2001:db8::1", "2001:db8:0:1::1"]));
        assert!(admit(["fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2"]));
    }

    #[test]
    fn the_table_is_bounded_and_frees_itself() {
        let now = Instant::now();
        let mut limits = PerAddress::default();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let admitted = (0..10_000).filter(|n| limits.admit(address(*n), now));
        assert_eq!(admitted.count(), MAX_ADDRESSES);
        assert!(limits.admit(address(20_000), now + EVERY));
        assert_eq!(limits.buckets.len(), 1);
    }
}
