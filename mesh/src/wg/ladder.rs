//! Repeating handshake messages early.
//!
//! WireGuard repeats an initiation after 5 s. Here the identical bytes go out
//! again after 50, 50, 50, 100, 200, 400, 800 and 1600 ms; a responder that has
//! already seen them refuses them as a replay, so repeating is safe. If it was
//! the response that got lost, the responder repeats that, for 10 s, when the
//! initiation comes again.

use std::time::{Duration, Instant};

use super::MAX_HANDSHAKE;

const STEPS_MS: [u64; 8] = [50, 50, 50, 100, 200, 400, 800, 1600];
/// How long a response may be repeated.
const ANSWER_LIFETIME: Duration = Duration::from_secs(10);

/// An initiation that has not been answered.
pub(super) struct Ladder {
    initiation: Vec<u8>,
    step: usize,
    due: Instant,
}

impl Ladder {
    /// The initiation has just been sent for the first time.
    pub(super) fn new(initiation: &[u8], now: Instant) -> Self {
        Self {
            initiation: initiation.to_vec(),
            step: 0,
            due: now + Duration::from_millis(STEPS_MS[0]),
        }
    }

    /// When to send it again; `None` at the end of the ladder.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.step < STEPS_MS.len()).then_some(self.due)
    }

    /// The bytes, if they are due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<&[u8]> {
        if self.due()? > now {
            return None;
        }
        self.step += 1;
        if let Some(pause) = STEPS_MS.get(self.step) {
            self.due = now + Duration::from_millis(*pause);
        }
        Some(&self.initiation)
    }
}

/// The last initiation that was answered, and the answer.
#[derive(Default)]
pub(super) struct Answers {
    last: Option<(Vec<u8>, Vec<u8>, Instant)>,
}

impl Answers {
    pub(super) fn remember(&mut self, initiation: &[u8], response: &[u8], now: Instant) {
        if initiation.len() <= MAX_HANDSHAKE {
            self.last = Some((initiation.to_vec(), response.to_vec(), now));
        }
    }

    /// The answer that this very datagram got before.
    pub(super) fn repeat(&self, datagram: &[u8], now: Instant) -> Option<&[u8]> {
        let (initiation, response, at) = self.last.as_ref()?;
        let fresh = now.saturating_duration_since(*at) < ANSWER_LIFETIME;
        (fresh && initiation == datagram).then_some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_climbs_and_ends() {
        let start = Instant::now();
        let mut ladder = Ladder::new(b"init", start);
        let mut at = start;
        let mut times = vec![];
        while let Some(due) = ladder.due() {
            assert_eq!(ladder.poll(due - Duration::from_millis(1)), None);
            at = due;
            assert_eq!(ladder.poll(at), Some(&b"init"[..]));
            times.push(at.duration_since(start).as_millis());
        }
        assert_eq!(times, [50, 100, 150, 250, 450, 850, 1650, 3250]);
        assert_eq!(ladder.poll(at + Duration::from_secs(60)), None);
    }

    #[test]
    fn an_answer_is_repeated_to_the_same_initiation_only() {
        let start = Instant::now();
        let mut answers = Answers::default();
        assert_eq!(answers.repeat(b"a", start), None);
        answers.remember(b"a", b"answer", start);
        assert_eq!(answers.repeat(b"a", start), Some(&b"answer"[..]));
        assert_eq!(answers.repeat(b"b", start), None);
        assert_eq!(answers.repeat(b"a", start + ANSWER_LIFETIME), None);
    }
}
