//! Repeating handshake messages early.
//!
//! WireGuard repeats an initiation after 5 s. Here the identical bytes go out
//! again after 50, 50, 50, 100, 200, 400, 800 and 1600 ms; a responder that has
//! already seen them refuses them as a replay, so repeating is safe. If it was
//! the response that got lost, the responder repeats that, for 10 s, when the
//! initiation comes again. After another 1600 ms a new initiation takes its
//! place, on a ladder that begins with 400 ms: whoever has not answered nine
//! times is not about to.

use std::time::{Duration, Instant};

use super::MAX_HANDSHAKE;

const STEPS_MS: [u64; 8] = [50, 50, 50, 100, 200, 400, 800, 1600];
/// Where the ladders after the first one begin.
const LATER: usize = 5;
/// From the last repetition to a new initiation.
const PAUSE: Duration = Duration::from_millis(1600);
/// How long a response may be repeated.
const ANSWER_LIFETIME: Duration = Duration::from_secs(10);

/// An initiation that has not been answered.
pub(super) struct Ladder {
    initiation: Vec<u8>,
    step: usize,
    due: Instant,
}

/// What to do about an initiation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Nothing yet.
    Wait,
    /// Send these bytes again.
    Repeat(&'a [u8]),
    /// Send a new one.
    Anew,
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

    /// The same for one that follows others in vain.
    pub(super) fn later(initiation: &[u8], now: Instant) -> Self {
        Self {
            initiation: initiation.to_vec(),
            step: LATER,
            due: now + Duration::from_millis(STEPS_MS[LATER]),
        }
    }

    /// When to send it again, or a new one.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// What is due.
    pub(super) fn poll(&mut self, now: Instant) -> Step<'_> {
        if self.due > now {
            return Step::Wait;
        }
        if self.step >= STEPS_MS.len() {
            return Step::Anew;
        }
        self.step += 1;
        let pause = STEPS_MS.get(self.step);
        self.due = now + pause.map_or(PAUSE, |ms| Duration::from_millis(*ms));
        Step::Repeat(&self.initiation)
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

    fn climb(mut ladder: Ladder, start: Instant) -> Vec<u128> {
        let mut times = vec![];
        loop {
            let due = ladder.due();
            assert_eq!(ladder.poll(due - Duration::from_millis(1)), Step::Wait);
            times.push(due.duration_since(start).as_millis());
            match ladder.poll(due) {
                Step::Repeat(bytes) => assert_eq!(bytes, b"init"),
                Step::Anew => return times,
                Step::Wait => panic!("it is due"),
            }
        }
    }

    #[test]
    fn the_ladder_climbs_and_ends_in_a_new_one() {
        let start = Instant::now();
        let times = climb(Ladder::new(b"init", start), start);
        assert_eq!(times, [50, 100, 150, 250, 450, 850, 1650, 3250, 4850]);
        let times = climb(Ladder::later(b"init", start), start);
        assert_eq!(times, [400, 1200, 2800, 4400]);
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
