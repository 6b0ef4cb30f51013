//! When a certificate is renewed, and when an authority that gave none is asked again.

use std::time::Duration;

/// Why there is no certificate, as far as it matters for when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FailureKind {
    /// The authority was not reached, or could not answer. That costs it nothing.
    Away,
    /// It has refused. Let's Encrypt lets a domain fail five times an hour.
    Refused,
}

impl FailureKind {
    /// The first pause, and the longest.
    const fn pauses(self) -> (Duration, Duration) {
        match self {
            Self::Away => (Duration::from_secs(1), Duration::from_secs(600)),
            Self::Refused => (Duration::from_secs(120), Duration::from_secs(6 * 3_600)),
        }
    }
}

/// The longest time that an authority may put somebody off for.
const MAX_PUT_OFF: Duration = Duration::from_secs(24 * 3_600);

/// How long to wait after this many failures in a row, at least one. An authority that has said
/// when is asked no earlier.
pub(super) fn pause(kind: FailureKind, failures: u32, told: Option<Duration>) -> Duration {
    let (first, longest) = kind.pauses();
    let factor = 1 << failures.saturating_sub(1).min(16);
    let pause = first.saturating_mul(factor).min(longest);
    pause.max(told.unwrap_or_default().min(MAX_PUT_OFF))
}

/// When a certificate is renewed that is good `from` and `until` (seconds since 1970): when a third
/// of its time is left.
pub(super) const fn renewal(from: u64, until: u64) -> u64 {
    until - until.saturating_sub(from) / 3
}

/// When, at the earliest, the next one is asked for after one that was given `now` and is good
/// `until`: a clock that is wrong, or an authority that gives what has almost ended, would have it
/// asked for again and again.
pub(super) const fn again(until: u64, now: u64) -> u64 {
    now + until.saturating_sub(now) / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let seconds = |kind, failures| pause(kind, failures, None).as_secs();
        let away: Vec<_> = [1, 2, 3, 10, 11, u32::MAX]
            .map(|failures| seconds(FailureKind::Away, failures))
            .into();
        assert_eq!(away, [1, 2, 4, 512, 600, 600]);
        // No more than five in the first hour.
        let mut at = 0;
        let mut tries = 1;
        while at + seconds(FailureKind::Refused, tries) < 3_600 {
            at += seconds(FailureKind::Refused, tries);
            tries += 1;
        }
        assert_eq!(tries, 5);
        assert_eq!(seconds(FailureKind::Refused, u32::MAX), 6 * 3_600);
    }

    #[test]
    fn who_is_put_off_waits() {
        let told =
            |seconds| pause(FailureKind::Away, 3, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!([told(0), told(60), told(u64::MAX)], [4, 60, 24 * 3_600]);
    }

    #[test]
    fn a_third_is_left_at_the_renewal() {
        assert_eq!(renewal(1_000, 1_090), 1_060);
        assert_eq!(renewal(0, 0), 0);
        // By a clock that is two months ahead a new one would be due.
        let (now, until) = (61 * 86_400, 90 * 86_400);
        assert!(renewal(0, until) < now);
        assert!(again(until, now) > now + 9 * 86_400);
        assert_eq!(again(10, 20), 20);
        // One that ends before it begins is due at once.
        assert_eq!(renewal(20, 10), 10);
    }
}
