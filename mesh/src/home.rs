//! When to connect to the relay, when to ask whether it is still there, and
//! when to give a connection up.
//!
//! A relay that has vanished sends no farewell, so a connection is asked with a
//! ping: 5 s after the last word of the relay, or 250 ms after a packet was
//! given to it that nothing has followed. Four round trips without an answer, at
//! least 0.9 s, end the connection. The next one is made at once if the last one
//! held for 5 s, else after 50 ms, growing to 1 s; an attempt may take 2 s, the
//! ones after it 4 s.
//!
//! When the machine has other addresses, or has slept, the connection is made
//! anew without asking: packets of the old one leave from an address that is
//! not ours any more, or come to a NAT that has forgotten them.

use std::time::{Duration, Instant};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection that held for that long was a success: begin anew.
const STABLE: Duration = Duration::from_secs(5);
/// Nobody has said anything for that long: ask.
const ASK_IDLE: Duration = Duration::from_secs(5);
/// Something was sent, and nothing has come for that long: ask.
const ASK_USED: Duration = Duration::from_millis(250);
/// An answer takes no longer than that, or four round trips.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// An answer takes no longer than that, whatever round trips were measured.
const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(5);
/// A relay that restarts is left alone for no longer than that.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// The first attempt to connect may take that long.
const CONNECT_MIN: Duration = Duration::from_secs(2);
/// And the later ones that long.
const CONNECT_MAX: Duration = Duration::from_secs(4);

/// What is to be done about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin to connect.
    Connect,
    /// Send a ping.
    Ping,
    /// End the connection, or the attempt at one, for this reason; say
    /// [`Home::handle_lost`] then.
    Drop(&'static str),
}

/// Decides about the connection to one relay.
#[derive(Debug)]
pub(crate) struct Home {
    state: State,
    backoff: Duration,
    patience: Duration,
    /// The connection is to end: its machine has moved.
    moved: bool,
    /// The relay has said that it is away for so long.
    away: Option<Duration>,
    /// When the caller's timer goes off.
    armed: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// No relay is wanted.
    Off,
    /// The next attempt is due then.
    Waiting(Instant),
    /// An attempt is given up then.
    Connecting(Instant),
    Up(Up),
}

#[derive(Debug)]
struct Up {
    since: Instant,
    heard: Instant,
    /// When the first packet was sent that nothing has followed.
    used: Option<Instant>,
    asked: Option<Instant>,
    rtt: Option<Duration>,
}

impl Default for Home {
    fn default() -> Self {
        Self {
            state: State::Off,
            backoff: BACKOFF_MIN,
            patience: CONNECT_MIN,
            moved: false,
            away: None,
            armed: None,
        }
    }
}

impl Home {
    /// A relay is wanted, another one than before, or none. Whatever connection
    /// there is has to be ended by the caller.
    pub(crate) fn set_wanted(&mut self, wanted: bool, now: Instant) {
        *self = Self::default();
        if wanted {
            self.state = State::Waiting(now);
        }
    }

    /// Whether a connection is up.
    #[cfg(test)]
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether the relay was asked if it is there, and has not answered yet.
    pub(crate) const fn is_in_doubt(&self) -> bool {
        matches!(&self.state, State::Up(up) if up.asked.is_some())
    }

    /// The connection is up. Its round trip is measured at once.
    pub(crate) fn handle_connected(&mut self, now: Instant) {
        self.patience = CONNECT_MIN;
        self.moved = false;
        self.away = None;
        self.state = State::Up(Up {
            since: now,
            heard: now,
            used: Some(now - ASK_USED),
            asked: None,
            rtt: None,
        });
    }

    /// The connection, or an attempt at one, is over. `chance` is a random
    /// number; it keeps a thousand nodes from coming back in the same moment.
    pub(crate) fn handle_lost(&mut self, now: Instant, chance: u16) {
        match &self.state {
            State::Off => return,
            State::Up(up) if now.saturating_duration_since(up.since) >= STABLE => {
                self.backoff = BACKOFF_MIN;
            }
            _ => {}
        }
        let pause = if std::mem::take(&mut self.moved) {
            self.backoff = BACKOFF_MIN;
            Duration::ZERO
        } else if let Some(away) = self.away.take() {
            self.backoff = BACKOFF_MIN;
            jittered(away.max(BACKOFF_MIN), chance)
        } else {
            jittered(self.backoff, chance)
        };
        self.backoff = self.backoff.mul_f32(1.5).min(BACKOFF_MAX);
        self.state = State::Waiting(now + pause);
    }

    /// A packet was given to the relay. Returns whether the timer that was set
    /// with [`Home::arm`] goes off too late now.
    pub(crate) fn handle_sent(&mut self, now: Instant) -> bool {
        let State::Up(up) = &mut self.state else {
            return false;
        };
        up.used.get_or_insert(now);
        // Setting it for each packet would cost more than the packet.
        let due = up.due();
        let late = self.armed.is_none_or(|armed| due < armed);
        if late {
            self.armed = Some(due);
        }
        late
    }

    /// The relay ends its connections in a moment, and asks to be left alone for
    /// so long; it may ask for no more than ten seconds.
    pub(crate) fn handle_restarting(&mut self, reconnect_in: Duration) {
        self.away = Some(reconnect_in.min(AWAY_MAX));
    }

    /// The relay has said something.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        if let State::Up(up) = &mut self.state {
            if let Some(asked) = up.asked.take() {
                up.rtt = Some(now.saturating_duration_since(asked));
            }
            up.heard = now;
            up.used = None;
        }
    }

    /// The machine has other addresses now, or has slept.
    pub(crate) fn handle_move(&mut self, now: Instant) {
        match &mut self.state {
            State::Off => {}
            State::Waiting(at) => {
                self.backoff = BACKOFF_MIN;
                *at = (*at).min(now);
            }
            State::Connecting(_) | State::Up(_) => self.moved = true,
        }
        self.patience = CONNECT_MIN;
    }

    /// The round-trip time to the relay, as the last ping measured it.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        match &self.state {
            State::Up(up) => up.rtt,
            _ => None,
        }
    }

    /// When [`Home::handle_timeout`] wants to be called; `None` while no relay
    /// is wanted.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.moved {
            return Some(now);
        }
        match &self.state {
            State::Off => None,
            State::Waiting(at) | State::Connecting(at) => Some(*at),
            State::Up(up) => Some(up.due()),
        }
    }

    /// The same, for a caller that sets its timer accordingly.
    pub(crate) fn arm(&mut self, now: Instant) -> Option<Instant> {
        self.armed = self.poll_timeout(now);
        self.armed
    }

    /// What is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Action> {
        if self.moved {
            return Some(Action::Drop("the machine has moved"));
        }
        match &mut self.state {
            State::Waiting(at) if *at <= now => {
                self.state = State::Connecting(now + self.patience);
                self.patience = (self.patience * 2).min(CONNECT_MAX);
                Some(Action::Connect)
            }
            State::Connecting(until) if *until <= now => Some(Action::Drop("no answer")),
            State::Up(up) if up.due() <= now => Some(match up.asked {
                Some(_) => Action::Drop("no answer to a ping"),
                None => {
                    up.asked = Some(now);
                    Action::Ping
                }
            }),
            _ => None,
        }
    }
}

impl Up {
    fn due(&self) -> Instant {
        match self.asked {
            Some(asked) => {
                let four = self.rtt.map_or(ANSWER_WITHIN, |rtt| rtt * 4);
                asked + four.clamp(ANSWER_WITHIN, ANSWER_WITHIN_MAX)
            }
            None => {
                let idle = self.heard + ASK_IDLE;
                self.used.map_or(idle, |used| idle.min(used + ASK_USED))
            }
        }
    }
}

/// Between half and all of a pause.
fn jittered(pause: Duration, chance: u16) -> Duration {
    pause.mul_f32(0.5 + f32::from(chance) / 131_070.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A connection that came up at the returned time and has answered once.
    fn up() -> (Home, Instant) {
        let start = Instant::now();
        let mut home = Home::default();
        assert_eq!(home.poll_timeout(start), None);
        home.set_wanted(true, start);
        assert_eq!(home.handle_timeout(start), Some(Action::Connect));
        let now = start + 100 * MS;
        home.handle_connected(now);
        assert_eq!(home.handle_timeout(now), Some(Action::Ping));
        let now = now + 20 * MS;
        home.handle_heard(now);
        assert_eq!(home.rtt(), Some(20 * MS));
        (home, now)
    }

    /// As near as a pause that was multiplied by a number of 24 bits can be.
    fn is_near(one: Instant, other: Instant) -> bool {
        one.max(other) - one.min(other) < MS
    }

    #[test]
    fn a_relay_that_restarts_is_left_alone_for_as_long_as_it_says() {
        let (mut home, now) = up();
        home.handle_restarting(2 * ANSWER_WITHIN);
        home.handle_lost(now, u16::MAX);
        let again = home.poll_timeout(now).unwrap();
        assert!(is_near(again, now + 2 * ANSWER_WITHIN));
        // Once; and nobody is sent away for an hour.
        let (mut home, now) = up();
        home.handle_restarting(3600 * Duration::from_secs(1));
        home.handle_lost(now, u16::MAX);
        let again = home.poll_timeout(now).unwrap();
        assert!(is_near(again, now + AWAY_MAX));
        assert_eq!(home.handle_timeout(again), Some(Action::Connect));
        home.handle_lost(again, u16::MAX);
        assert!(home.poll_timeout(again).unwrap() <= again + BACKOFF_MAX);
    }

    #[test]
    fn a_silent_relay_is_given_up_in_less_than_two_seconds_when_it_is_needed() {
        let (mut home, now) = up();
        home.handle_sent(now + 50 * MS);
        home.handle_sent(now + 100 * MS);
        let ask = now + 300 * MS;
        assert_eq!(home.poll_timeout(now), Some(ask));
        assert_eq!(home.handle_timeout(ask - MS), None);
        assert_eq!(home.handle_timeout(ask), Some(Action::Ping));
        let end = ask + ANSWER_WITHIN;
        assert_eq!(home.poll_timeout(ask), Some(end));
        assert!(matches!(home.handle_timeout(end), Some(Action::Drop(_))));
        home.handle_lost(end, u16::MAX);
        let pause = home.poll_timeout(end).unwrap() - end;
        assert!(pause <= BACKOFF_MIN + MS, "{pause:?}");
    }

    #[test]
    fn the_timer_is_set_anew_only_when_it_would_be_late() {
        let (mut home, now) = up();
        assert_eq!(home.arm(now), Some(now + ASK_IDLE));
        assert!(home.handle_sent(now));
        assert!(!home.handle_sent(now + MS));
        home.handle_heard(now + 2 * MS);
        assert!(
            !home.handle_sent(now + 3 * MS),
            "what is armed is early enough"
        );
        let armed = now + ASK_USED;
        assert_eq!(home.handle_timeout(armed), None);
        assert_eq!(home.arm(armed), Some(now + 3 * MS + ASK_USED));
    }

    #[test]
    fn an_idle_relay_is_asked_now_and_then() {
        let (mut home, mut now) = up();
        for _ in 0..5 {
            let due = home.poll_timeout(now).unwrap();
            assert_eq!(due, now + ASK_IDLE);
            assert_eq!(home.handle_timeout(due), Some(Action::Ping));
            now = due + 20 * MS;
            home.handle_heard(now);
        }
    }

    #[test]
    fn a_slow_relay_gets_four_round_trips() {
        let (mut home, now) = up();
        let due = home.poll_timeout(now).unwrap();
        assert_eq!(home.handle_timeout(due), Some(Action::Ping));
        home.handle_heard(due + 1000 * MS);
        let due = home.poll_timeout(due).unwrap();
        assert_eq!(home.handle_timeout(due), Some(Action::Ping));
        assert_eq!(home.poll_timeout(due), Some(due + 4000 * MS));
    }

    #[test]
    fn attempts_get_slower_and_a_success_makes_them_fast_again() {
        let start = Instant::now();
        let mut now = start;
        let mut home = Home::default();
        home.set_wanted(true, now);
        for _ in 0..20 {
            assert_eq!(home.handle_timeout(now), Some(Action::Connect));
            home.handle_lost(now, u16::MAX);
            now = home.poll_timeout(now).unwrap();
        }
        let pause = now - start;
        assert!(pause > Duration::from_secs(10) && pause < Duration::from_secs(20));
        assert_eq!(home.handle_timeout(now), Some(Action::Connect));
        home.handle_connected(now);
        home.handle_lost(now + STABLE, 0);
        let next = home.poll_timeout(now).unwrap();
        let pause = next - (now + STABLE);
        assert!(pause <= BACKOFF_MIN / 2 + MS, "{pause:?}");
    }

    #[test]
    fn an_attempt_without_an_answer_ends() {
        let start = Instant::now();
        let mut home = Home::default();
        home.set_wanted(true, start);
        assert_eq!(home.handle_timeout(start), Some(Action::Connect));
        let end = start + CONNECT_MIN;
        assert_eq!(home.handle_timeout(end - MS), None);
        assert_eq!(home.handle_timeout(end), Some(Action::Drop("no answer")));
        home.handle_lost(end, u16::MAX);
        let next = home.poll_timeout(end).unwrap();
        assert_eq!(home.handle_timeout(next), Some(Action::Connect));
        assert_eq!(home.poll_timeout(next), Some(next + 2 * CONNECT_MIN));
    }

    #[test]
    fn a_machine_that_moved_connects_anew_at_once() {
        let (mut home, now) = up();
        home.handle_move(now);
        assert_eq!(home.poll_timeout(now), Some(now));
        assert!(matches!(home.handle_timeout(now), Some(Action::Drop(_))));
        home.handle_lost(now, u16::MAX);
        assert_eq!(home.handle_timeout(now), Some(Action::Connect));
        home.set_wanted(false, now);
        home.handle_move(now);
        assert_eq!(home.poll_timeout(now), None);
        assert!(!home.is_up());
    }

    #[test]
    fn a_pause_is_never_longer_and_at_least_half() {
        for chance in 0..=u16::MAX {
            let pause = jittered(BACKOFF_MAX, chance);
            assert!(pause >= BACKOFF_MAX / 2 - MS && pause <= BACKOFF_MAX + MS);
        }
    }
}
