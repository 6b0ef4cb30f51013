//! How fast one client may send: a bucket of bytes that fills at a rate.
//!
//! Who has emptied it is not read until it is full enough again. Nothing is
//! dropped: the client's kernel fills up, and its congestion control sees delay.

use std::time::{Duration, Instant};

use crate::KEY_LEN;
use crate::frame::{HEADER_LEN, MAX_PACKET};

/// The smallest burst, bytes: the longest packet has to fit.
pub const MIN_BURST: u64 = (MAX_PACKET + KEY_LEN + HEADER_LEN) as u64;

/// A bound for what one client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    bytes_per_second: u64,
    burst: u64,
}

impl Rate {
    /// So many bytes a second, with their headers, at least one; and at once
    /// after a rest what ten milliseconds of that are, or [`MIN_BURST`].
    pub fn new(bytes_per_second: u64) -> Self {
        Self::with_burst(bytes_per_second, bytes_per_second / 100)
    }

    /// The same with another burst, at least [`MIN_BURST`].
    pub fn with_burst(bytes_per_second: u64, burst: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            burst: burst.max(MIN_BURST),
        }
    }
}

/// What one client has left.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    /// When the bucket is full again.
    full_at: Instant,
}

impl Pace {
    /// A full bucket.
    pub const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes bytes that have come; until when nothing may be read, if so.
    pub fn take(&mut self, len: usize, now: Instant) -> Option<Instant> {
        let whole = self.time_for(self.rate.burst);
        self.full_at = self.full_at.max(now) + self.time_for(len as u64);
        // Empty is what takes the whole burst to fill.
        let empty_until = self.full_at.checked_sub(whole)?;
        (empty_until > now).then_some(empty_until)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        const BILLION: u64 = 1_000_000_000;
        /// A century is for ever.
        const LIMIT: u64 = 100 * 365 * 24 * 3600;
        let rate = self.rate.bytes_per_second;
        let seconds = (bytes / rate).min(LIMIT);
        let rest = u128::from(bytes % rate) * u128::from(BILLION) / u128::from(rate);
        // Less than a second.
        let rest = u64::try_from(rest).unwrap_or_default();
        Duration::from_secs(seconds) + Duration::from_nanos(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut pace = Pace::new(Rate::with_burst(1_000_000, 100_000), start);
        assert_eq!(pace.take(100_000, start), None);
        let until = pace.take(10_000, start).unwrap();
        assert_eq!(until - start, Duration::from_millis(10));
        // Over ten seconds, read whenever it may be, it is the rate.
        let (mut now, mut sent) = (until, 110_000);
        while now < start + Duration::from_secs(10) {
            sent += 64_000;
            now = pace.take(64_000, now).unwrap_or(now);
        }
        assert!((10_000_000..=10_200_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_rest_gives_one_burst_and_no_more() {
        let start = Instant::now();
        let rate = Rate::new(1_000_000);
        let mut pace = Pace::new(rate, start);
        let later = start + Duration::from_secs(3600);
        let burst = usize::try_from(MIN_BURST).unwrap();
        assert_eq!(pace.take(burst, later), None);
        assert!(pace.take(1, later).is_some());
    }

    #[test]
    fn nonsense_does_not_overflow() {
        let now = Instant::now();
        let mut slow = Pace::new(Rate::new(0), now);
        for _ in 0..10 {
            slow.take(usize::MAX, now);
        }
        let mut fast = Pace::new(Rate::new(u64::MAX), now);
        assert!(fast.take(usize::MAX / 2, now).is_some());
        assert_eq!(fast.take(1, now + Duration::from_secs(1)), None);
    }
}
