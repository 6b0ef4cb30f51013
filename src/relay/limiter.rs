//! How often one address may try.
//!
//! A token bucket per address: it holds `burst` tries and gets `per_second`
//! back. An IPv6 host owns a /64, so the whole /64 is one address. The address
//! is that of the TCP connection: headers of proxies are not believed, and
//! behind a proxy all its clients share one bucket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Addresses remembered. When there are more, those that have all their tries
/// again are forgotten, and if that is none, new addresses are refused: a
/// flood from many addresses closes the door it knocks at and no other.
const MAX_ADDRESSES: usize = 16_384;

/// See the module.
pub(crate) struct Limiter {
    burst: f64,
    per_second: f64,
    buckets: HashMap<IpAddr, Bucket>,
}

struct Bucket {
    tries: f64,
    at: Instant,
}

impl Limiter {
    /// `burst` tries at once, `per_second` in the long run.
    pub(crate) fn new(burst: u32, per_second: f64) -> Self {
        Self {
            burst: f64::from(burst),
            per_second,
            buckets: HashMap::new(),
        }
    }

    /// Takes one try of `address`, if it has one.
    pub(crate) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(bucket) = self.bucket(address, now) else {
            return false;
        };
        let may = bucket.tries >= 1.0;
        if may {
            bucket.tries -= 1.0;
        }
        may
    }

    /// Whether `address` has a try left. Takes none.
    pub(crate) fn has(&mut self, address: IpAddr, now: Instant) -> bool {
        self.bucket(address, now)
            .is_some_and(|bucket| bucket.tries >= 1.0)
    }

    fn bucket(&mut self, address: IpAddr, now: Instant) -> Option<&mut Bucket> {
        let address = network_of(address);
        if !self.buckets.contains_key(&address) && self.buckets.len() >= MAX_ADDRESSES {
            let (burst, per_second) = (self.burst, self.per_second);
            self.buckets
                .retain(|_, bucket| bucket.after(now, burst, per_second) < burst);
            if self.buckets.len() >= MAX_ADDRESSES {
                return None;
            }
        }
        let bucket = self.buckets.entry(address).or_insert(Bucket {
            tries: self.burst,
            at: now,
        });
        bucket.tries = bucket.after(now, self.burst, self.per_second);
        bucket.at = now;
        Some(bucket)
    }
}

impl Bucket {
    fn after(&self, now: Instant, burst: f64, per_second: f64) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        passed.mul_add(per_second, self.tries).min(burst)
    }
}

/// What counts as one address.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    fn v4(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (start, mut limiter) = (Instant::now(), Limiter::new(3, 0.5));
        for _ in 0..3 {
            assert!(limiter.take(v4(1), start));
        }
        assert!(!limiter.take(v4(1), start));
        assert!(limiter.take(v4(2), start), "another address has its own");
        assert!(!limiter.has(v4(1), start + Duration::from_secs(1)));
        assert!(limiter.has(v4(1), start + Duration::from_secs(2)));
        assert!(limiter.take(v4(1), start + Duration::from_secs(2)));
        assert!(!limiter.take(v4(1), start + Duration::from_secs(2)));
        let long_after = start + Duration::from_secs(1000);
        for _ in 0..3 {
            assert!(limiter.take(v4(1), long_after));
        }
        assert!(
            !limiter.take(v4(1), long_after),
            "never more than the burst"
        );
    }

    #[test]
    fn a_slash_64_and_a_mapped_address_are_one() {
        let (now, mut limiter) = (Instant::now(), Limiter::new(1, 0.1));
        let host = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        assert!(limiter.take(host(1), now));
        assert!(!limiter.take(host(2), now));
        assert!(limiter.take(v4(1), now));
        assert!(!limiter.take(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into(), now));
    }

    #[test]
    fn b16_memory_is_bounded_and_rested_addresses_make_room() {
        let (now, mut limiter) = (Instant::now(), Limiter::new(1, 1.0));
        let address = |n: usize| IpAddr::from(Ipv4Addr::from(u32::try_from(n).unwrap()));
        for n in 0..MAX_ADDRESSES {
            assert!(limiter.take(address(n), now));
        }
        assert!(!limiter.take(address(MAX_ADDRESSES), now));
        let later = now + Duration::from_secs(2);
        assert!(limiter.take(address(MAX_ADDRESSES), later));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
