//! A port of the NAT in front of us, asked of it: when to ask, to renew, to give up.
//!
//! Routers at home give out ports if they are asked (PCP, NAT-PMP, UPnP). Such a
//! port is open to everybody, so the address with it is one more that peers are
//! told: even one behind a NAT that gives each peer another port reaches it.
//!
//! A gateway is asked once there is a NAT, and again when the machine has moved.
//! It lends the port for a time, twenty minutes if we have a say; after half of
//! that we ask again, and again after half of what is left until it answers or
//! the time is over. A gateway that gives nothing is left alone for a minute,
//! then for longer, up to half an hour: most never will.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The time for which a port is asked.
pub(crate) const LEASE: Duration = Duration::from_secs(20 * 60);
/// A lease is renewed no more often than that.
const RENEW_MIN: Duration = Duration::from_secs(10);
/// How long a gateway is left alone that gives nothing, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(30 * 60);

/// How the gateway was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// The `WANIPConnection` of UPnP.
    Upnp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A port that the gateway has given us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// What it is to others.
    pub outside: SocketAddr,
    /// How it was asked for.
    pub by: Protocol,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask whoever is there.
    Ask,
    /// Ask for the same port again.
    Renew,
}

/// Keeps one port.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    wanted: bool,
    /// Whether an outcome is awaited. One of a question from before a move is not.
    asked: bool,
    held: Option<Held>,
    due: Option<Instant>,
    pause: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    mapped: Mapped,
    until: Instant,
}

impl Keeper {
    /// Whether there is a NAT in front of us. Returns whether that is new.
    pub(crate) fn set_wanted(&mut self, wanted: bool, now: Instant) -> bool {
        let new = std::mem::replace(&mut self.wanted, wanted) != wanted;
        if new {
            self.pause = None;
            self.due = match wanted {
                true => Some(now),
                // What is held may run out.
                false => self.held.map(|held| held.until),
            };
        }
        new
    }

    /// The machine is elsewhere: what was lent there is void.
    pub(crate) fn handle_move(&mut self, now: Instant) {
        *self = Self {
            wanted: self.wanted,
            due: self.wanted.then_some(now),
            ..Self::default()
        };
    }

    /// What is lent to us.
    pub(crate) fn mapped(&self) -> Option<Mapped> {
        self.held.map(|held| held.mapped)
    }

    /// The gateway has given a port for so long.
    pub(crate) fn handle_granted(&mut self, mapped: Mapped, lease: Duration, now: Instant) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        let until = now + lease;
        self.held = Some(Held { mapped, until });
        self.pause = None;
        self.due = Some(now + (lease / 2).max(RENEW_MIN));
    }

    /// It has not, or there is none.
    pub(crate) fn handle_refused(&mut self, now: Instant) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        if let Some(held) = self.held.filter(|held| held.until > now) {
            let left = held.until.saturating_duration_since(now);
            self.due = Some((now + (left / 2).max(RENEW_MIN)).min(held.until));
            return;
        }
        self.held = None;
        let pause = self.pause.map_or(PAUSE_MIN, |pause| pause * 2);
        let pause = pause.min(PAUSE_MAX);
        self.pause = Some(pause);
        self.due = self.wanted.then(|| now + pause);
    }

    /// When [`Keeper::handle_timeout`] wants to be called.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// What is due; its outcome is to be told.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Action> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        if self.held.is_some_and(|held| held.until <= now) {
            self.held = None;
        }
        self.asked = self.wanted;
        match (self.wanted, &self.held) {
            (true, Some(_)) => Some(Action::Renew),
            (true, None) => Some(Action::Ask),
            (false, held) => {
                self.due = held.map(|held| held.until);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPED: Mapped = Mapped {
        outside: SocketAddr::new(
            std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
            7,
        ),
        by: Protocol::Pcp,
    };
    const MINUTE: Duration = Duration::from_secs(60);

    /// One that has just been given a port.
    fn held() -> (Keeper, Instant) {
        let now = Instant::now();
        let mut keeper = Keeper::default();
        assert_eq!(keeper.poll_timeout(), None);
        assert!(keeper.set_wanted(true, now));
        assert_eq!(keeper.handle_timeout(now), Some(Action::Ask));
        assert_eq!(keeper.poll_timeout(), None, "one question at a time");
        keeper.handle_granted(MAPPED, LEASE, now);
        assert_eq!(keeper.mapped(), Some(MAPPED));
        (keeper, now)
    }

    #[test]
    fn a_lease_is_renewed_in_its_second_half_until_it_is_over() {
        let (mut keeper, start) = held();
        assert_eq!(keeper.poll_timeout(), Some(start + 10 * MINUTE));
        let mut asked = 0;
        while let Some(due) = keeper.poll_timeout()
            && keeper.handle_timeout(due) == Some(Action::Renew)
        {
            assert_eq!(keeper.mapped(), Some(MAPPED), "it is ours yet");
            keeper.handle_refused(due);
            asked += 1;
            assert!(asked < 100, "it ends");
        }
        assert!(asked >= 5, "asked {asked} times");
        assert_eq!(keeper.mapped(), None);
    }

    #[test]
    fn a_renewed_lease_goes_on() {
        let (mut keeper, _) = held();
        for _ in 0..100 {
            let now = keeper.poll_timeout().unwrap();
            assert_eq!(keeper.handle_timeout(now), Some(Action::Renew));
            keeper.handle_granted(MAPPED, LEASE, now);
        }
        // Whatever short time the gateway gives, it is not asked all the time.
        let now = keeper.poll_timeout().unwrap();
        assert_eq!(keeper.handle_timeout(now), Some(Action::Renew));
        keeper.handle_granted(MAPPED, Duration::ZERO, now);
        assert_eq!(keeper.poll_timeout(), Some(now + RENEW_MIN));
        assert_eq!(keeper.handle_timeout(now + RENEW_MIN), Some(Action::Ask));
    }

    #[test]
    fn a_gateway_that_gives_nothing_is_left_alone_for_longer_and_longer() {
        let mut now = Instant::now();
        let mut keeper = Keeper::default();
        keeper.set_wanted(true, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(keeper.handle_timeout(now), Some(Action::Ask));
            keeper.handle_refused(now);
            let due = keeper.poll_timeout().unwrap();
            pauses.push((due - now).as_secs() / 60);
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        keeper.handle_move(now);
        assert_eq!(keeper.handle_timeout(now), Some(Action::Ask));
    }

    #[test]
    fn what_was_asked_before_a_move_has_no_outcome() {
        let (mut keeper, start) = held();
        let now = keeper.poll_timeout().unwrap();
        for granted in [true, false] {
            assert!(keeper.handle_timeout(now).is_some());
            keeper.handle_move(now);
            match granted {
                true => keeper.handle_granted(MAPPED, LEASE, now),
                false => keeper.handle_refused(now),
            }
            assert_eq!(keeper.mapped(), None);
            assert_eq!(keeper.poll_timeout(), Some(now), "it is asked at once");
        }
        assert!(now > start);
    }

    #[test]
    fn nothing_is_asked_where_there_is_no_nat() {
        let (mut keeper, now) = held();
        assert!(keeper.set_wanted(false, now));
        assert!(!keeper.set_wanted(false, now));
        assert_eq!(keeper.mapped(), Some(MAPPED));
        let end = keeper.poll_timeout().unwrap();
        assert_eq!(end, now + LEASE);
        assert_eq!(keeper.handle_timeout(end), None);
        assert_eq!(keeper.mapped(), None);
        assert_eq!(keeper.poll_timeout(), None);
        keeper.handle_move(end);
        assert_eq!(keeper.poll_timeout(), None);
    }
}
