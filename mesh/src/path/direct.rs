//! The direct path in use, and how far it is trusted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::width::Width;

/// A path in use is probed this often.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// Nothing heard for that long, or two round trips, after something was sent:
/// time for a probe, and for sending both ways. Whatever was sent, its acknowledgement is due earlier.
const SILENCE: Duration = Duration::from_millis(250);
/// An unanswered probe casts doubt after that long, or three round trips.
const DOUBT_AFTER: Duration = Duration::from_millis(400);
/// An answer older than that (one and a half heartbeats) is not enough to send
/// on the direct path alone.
const TRUST: Duration = Duration::from_secs(3);
/// While a probe is unanswered the next ones follow this often.
const DOUBT_PROBE: Duration = Duration::from_millis(300);
/// A path is given up when probes have gone unanswered for that long.
const GIVE_UP: Duration = Duration::from_secs(5);

/// An address that has answered a full-size probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    pub(super) addr: SocketAddr,
    pub(super) rtt: Duration,
    /// Whether it carries datagrams of the larger size.
    pub(super) width: Width,
    /// When the last probe was answered.
    confirmed: Instant,
    /// When the oldest probe went out that nothing has answered since.
    waiting_since: Option<Instant>,
    /// When the oldest packet went out after which nothing has come in.
    silent_since: Option<Instant>,
    /// When the last packet went out.
    last_sent: Option<Instant>,
    next_probe: Instant,
    /// `silent_since` is too long ago.
    silent: bool,
    /// Something has happened that may have ended it.
    suspect: bool,
}

/// What to do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Nothing yet.
    Fine,
    /// Send a probe.
    Probe,
    /// It is dead.
    GiveUp,
}

impl Direct {
    /// A probe has just been answered.
    pub(super) fn new(addr: SocketAddr, rtt: Duration, now: Instant) -> Self {
        Self {
            addr,
            rtt,
            width: Width::new(now),
            confirmed: now,
            waiting_since: None,
            silent_since: None,
            last_sent: None,
            next_probe: now + HEARTBEAT,
            silent: false,
            suspect: false,
        }
    }

    /// A probe that went out at `sent` has been answered again. That says nothing
    /// about what was sent after it.
    pub(super) fn confirm(&mut self, sent: Instant, now: Instant) {
        let rtt = now.saturating_duration_since(sent);
        *self = Self {
            silent_since: self.silent_after(sent),
            last_sent: self.last_sent,
            width: self.width,
            ..Self::new(self.addr, rtt, now)
        };
    }

    /// Something has happened that may have ended the path: it is in doubt
    /// until a probe is answered.
    pub(super) const fn handle_suspicion(&mut self, now: Instant) {
        self.suspect = true;
        self.next_probe = now;
        self.width = Width::new(now);
    }

    /// Something is being sent.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
        self.last_sent = Some(now);
    }

    /// Something authentic came in this way. What comes earlier than a round
    /// trip after we sent something was on its way already, and says nothing
    /// about that.
    pub(super) fn handle_heard(&mut self, now: Instant) {
        let could_answer = |since: Instant| now.saturating_duration_since(since) >= self.rtt;
        if self.silent_since.is_some_and(could_answer) {
            self.silent_since = now
                .checked_sub(self.rtt)
                .and_then(|at| self.silent_after(at));
            self.silent = false;
        }
    }

    /// Since when nothing has come in, if what was sent until `arrived` did
    /// arrive. Of what was sent later the last packet stands for all.
    fn silent_after(&self, arrived: Instant) -> Option<Instant> {
        let later = |at: &Instant| *at > arrived;
        let first = self.silent_since.filter(later);
        first.or_else(|| self.last_sent.filter(later))
    }

    /// The path is used again after a pause. Questions from before it say
    /// nothing about now.
    pub(super) fn handle_wake(&mut self, now: Instant) {
        self.waiting_since = None;
        self.silent_since = None;
        self.silent = false;
        if now.saturating_duration_since(self.confirmed) >= HEARTBEAT {
            self.next_probe = now;
        }
    }

    /// What is due.
    pub(super) fn check(&mut self, now: Instant) -> Check {
        if self.probe_at() > now {
            return Check::Fine;
        }
        let in_vain = |since: Instant| now.saturating_duration_since(since) >= GIVE_UP;
        if self.waiting_since.is_some_and(in_vain) {
            return Check::GiveUp;
        }
        self.silent |= self.silent_at().is_some_and(|at| at <= now);
        self.waiting_since.get_or_insert(now);
        self.next_probe = now + DOUBT_PROBE;
        Check::Probe
    }

    /// When [`Direct::check`] has something to say.
    pub(super) fn probe_at(&self) -> Instant {
        match self.silent_at().filter(|_| !self.silent) {
            Some(at) => self.next_probe.min(at),
            None => self.next_probe,
        }
    }

    /// When whatever was sent has waited too long for a sign of life.
    fn silent_at(&self) -> Option<Instant> {
        let patience = SILENCE.max(self.rtt * 2);
        self.silent_since.map(|since| since + patience)
    }

    /// Whether to send on another path, too.
    pub(super) fn in_doubt(&self, now: Instant) -> bool {
        let patience = DOUBT_AFTER.max(self.rtt * 3);
        let late = |since: Instant| now.saturating_duration_since(since) >= patience;
        self.suspect
            || self.silent
            || self.waiting_since.is_some_and(late)
            || now.saturating_duration_since(self.confirmed) >= TRUST
    }

    /// Whether an address with this round-trip time should take its place: it
    /// is a fifth and a millisecond faster, or this one is in doubt.
    pub(super) fn is_beaten_by(&self, rtt: Duration, now: Instant) -> bool {
        self.in_doubt(now) || (rtt + Duration::from_millis(1)) * 5 < self.rtt * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_nothing_about_what_was_sent_after_its_probe() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let rtt = ms(100);
        let mut direct = Direct::new(([192, 0, 2, 1], 1).into(), rtt, start);
        direct.handle_sent(start + ms(10));
        direct.confirm(start + ms(20), start + ms(120));
        let later = start + ms(500);
        assert_eq!(direct.check(later), Check::Fine, "sent before it");
        direct.handle_sent(start + ms(510));
        direct.confirm(start + ms(500), start + ms(600));
        assert!(!direct.in_doubt(start + ms(600)));
        // Nor does what comes before a round trip is over, about the last packet.
        direct.handle_sent(start + ms(580));
        direct.handle_heard(start + ms(615));
        let silent = start + ms(580) + SILENCE;
        assert_eq!(direct.probe_at(), silent);
        assert_eq!(direct.check(silent), Check::Probe);
        assert!(direct.in_doubt(silent));
    }
}
