//! Whether the direct path carries datagrams of the larger size, too.
//!
//! A path counts as direct once it has carried a probe of the size that every
//! link carries. Right after that it is asked with a larger one, up to three
//! times. What has been answered holds for a minute; then it is asked again, as
//! it is when the machine has moved. Lost answers cast no doubt on the path
//! itself: they only mean that the larger size is not to be used.

use std::time::{Duration, Instant};

/// Questions in a row before the answer is taken for a no.
const TRIES: u8 = 3;
/// Between them, or three round trips.
const PAUSE: Duration = Duration::from_millis(200);
/// An answer is asked for anew after that long.
const AGAIN: Duration = Duration::from_secs(60);
/// A yes is not believed for longer than that.
const TRUST: Duration = Duration::from_secs(62);

/// What is known about the larger size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// Nothing yet.
    Unknown,
    /// It arrives.
    Yes,
    /// It does not.
    No,
}

/// The larger size on one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Width {
    known: Carries,
    /// When the probe that said so was sent.
    since: Instant,
    /// The id of the latest question; what comes later than the next one counts for nothing.
    asked: Option<u64>,
    tries: u8,
    due: Instant,
}

impl Width {
    /// Of a path of which nothing is known; it is asked at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            known: Carries::Unknown,
            since: now,
            asked: None,
            tries: 0,
            due: now,
        }
    }

    /// What is known.
    pub(super) fn carries(&self, now: Instant) -> Carries {
        let old = now.saturating_duration_since(self.since) >= TRUST;
        match self.known {
            Carries::Yes if old => Carries::Unknown,
            known => known,
        }
    }

    /// When [`Width::check`] has something to say.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Whether to ask now, with a probe of this id. `rtt` is that of the path.
    pub(super) fn check(&mut self, id: u64, rtt: Duration, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        if self.tries == TRIES {
            self.tries = 0;
            self.known = Carries::No;
            self.due = now + AGAIN;
            return false;
        }
        self.asked = Some(id);
        self.tries += 1;
        self.due = now + PAUSE.max(rtt * 3);
        true
    }

    /// The probe of this id, sent then, was answered. Whether it was the one of here.
    pub(super) fn answered(&mut self, id: u64, sent: Instant) -> bool {
        let ours = self.asked == Some(id);
        if ours {
            *self = Self {
                known: Carries::Yes,
                since: sent,
                due: sent + AGAIN,
                ..Self::new(sent)
            };
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn three_questions_without_an_answer_are_a_no_for_a_minute() {
        let start = Instant::now();
        let mut width = Width::new(start);
        let mut asked = vec![];
        for ms in 0..1000 {
            if width.check(ms, 10 * MS, start + ms as u32 * MS) {
                asked.push(ms);
                assert_eq!(width.carries(start), Carries::Unknown);
            }
        }
        assert_eq!(asked, [0, 200, 400]);
        assert_eq!(width.carries(start + 600 * MS), Carries::No);
        assert_eq!(width.due(), start + 600 * MS + AGAIN);
        assert!(width.check(7, 10 * MS, width.due()));
        assert_eq!(width.carries(width.due()), Carries::No, "until it answers");
        assert!(width.answered(7, width.due()));
        assert_eq!(width.carries(width.due()), Carries::Yes);
    }

    #[test]
    fn a_yes_is_asked_for_again_and_forgotten_without_an_answer() {
        let start = Instant::now();
        let mut width = Width::new(start);
        assert!(width.check(1, 10 * MS, start));
        assert!(width.check(2, 10 * MS, start + 200 * MS));
        assert!(!width.answered(3, start), "nobody asked that");
        assert!(!width.answered(1, start), "nobody waits for that any more");
        assert!(width.answered(2, start));
        assert_eq!(width.due(), start + AGAIN);
        assert_eq!(width.carries(start + AGAIN), Carries::Yes);
        assert_eq!(width.carries(start + TRUST), Carries::Unknown);
        assert!(!width.answered(2, start), "answered already");
    }

    #[test]
    fn on_a_long_way_there_is_more_time() {
        let start = Instant::now();
        let mut width = Width::new(start);
        assert!(width.check(1, 400 * MS, start));
        assert_eq!(width.due(), start + 1200 * MS);
    }
}
