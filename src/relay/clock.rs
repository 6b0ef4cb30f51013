//! Time as the API speaks it: unix seconds inside, RFC 3339 and durations
//! such as `1h30m` outside. And a clock that nobody can set.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970; 0 for a clock before that.
pub(crate) fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |passed| passed.as_secs())
}

/// Unix milliseconds that only go forward, and as fast as time does: the
/// machine's clock is read once, at the start. What was to be there for an hour
/// is there for an hour even if somebody sets the clock to next year meanwhile.
pub(crate) struct Steady {
    start_ms: u64,
    started: Duration,
}

impl Steady {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            start_ms: millis(now.unwrap_or_default()),
            started: since_boot(),
        }
    }

    /// Now.
    pub(crate) fn now_ms(&self) -> u64 {
        let passed = since_boot().saturating_sub(self.started);
        self.start_ms.saturating_add(millis(passed))
    }
}

/// Time since some start, the machine's sleep included where the system counts
/// it (Linux).
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::try_from(now).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `1970-01-01T00:00:00.000Z` for 0: the one format of times, in seconds here.
pub(crate) fn rfc3339(unix: u64) -> String {
    session::time::format(unix.saturating_mul(1000))
}

/// Seconds in `90s`, `10m`, `1h30m`, `7d`; `None` for anything else.
pub(crate) fn duration_secs(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, after) = rest.split_at(unit_at);
        let (unit, after) = after.split_at_checked(1)?;
        let scale = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let part = digits.parse::<u64>().ok()?.checked_mul(scale)?;
        total = total.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59.000Z");
    }

    #[test]
    fn durations() {
        for (text, secs) in [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("1h", Some(3_600)),
            ("1h30m", Some(5_400)),
            ("7d", Some(604_800)),
            ("0s", Some(0)),
            ("", None),
            ("1", None),
            ("h", None),
            ("1 h", None),
            ("-1h", None),
            ("1.5h", None),
            ("1ü", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(duration_secs(text), secs, "{text:?}");
        }
    }
}
