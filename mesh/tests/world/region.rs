//! Two relays of one region: how they find and lose each other, and the bytes between them, which
//! arrive late but whole and in order.

use std::time::Duration;

use super::relay::{RELAY_DELAY, State};
use super::run::{Between, MS, What, World};

/// Until relays that can have found each other.
const FIND: Duration = Duration::from_millis(200);
/// Until they have, if their links were dead without a word: twelve seconds of silence, up to four
/// and a half more until it is looked at.
const FIND_ANEW: Duration = Duration::from_secs(18);

impl World {
    /// Something has happened to the relays, or between them: the links that there were are over,
    /// and made anew if they can be.
    pub(super) fn relink(&mut self) {
        self.links += 1;
        self.cut_links = None;
        self.linked = false;
        self.together = self.now;
        if self.relays.len() < 2 {
            return;
        }
        let links = self.links;
        for relay in 0..2 {
            // A machine that is dark says nothing.
            if self.relays[1 - relay].state != State::Dark {
                self.push(self.now + 2 * RELAY_DELAY, What::Unlink(relay, links));
            }
        }
        if !self.apart && self.relays.iter().all(|relay| relay.state == State::Up) {
            self.push(self.now + FIND, What::Link(links));
        }
    }

    /// The links lead nowhere any more, and nobody is told: the relays have to miss each other.
    pub(super) fn cut_links(&mut self) {
        self.cut_links = Some(self.links);
        self.linked = false;
    }

    /// Relays could reach each other again. Who has missed the other tries that all the time.
    pub(super) fn uncut_links(&mut self) {
        self.together = self.now;
        if self.relays.iter().any(|relay| !relay.has_links()) {
            self.relink();
        }
    }

    /// Relays that can reach each other have found each other.
    pub(super) fn check_links(&self) -> Result<(), String> {
        let up = self.relays.iter().all(|relay| relay.state == State::Up);
        if self.relays.len() < 2 || self.linked || self.apart || !up {
            return Ok(());
        }
        let since = self.together.max(self.relay_disturbed);
        if self.now.saturating_duration_since(since) > FIND_ANEW {
            return Err(self.fail("the relays do not find each other"));
        }
        Ok(())
    }

    /// Relays find each other.
    pub(super) fn link_relays(&mut self, links: u64) {
        if links != self.links || self.cut_links == Some(links) {
            return;
        }
        self.note(|| "the relays find each other".to_owned());
        self.linked = true;
        let now = self.now;
        for relay in 0..2 {
            self.relays[relay].link(1 - relay, now);
        }
        for relay in 0..2 {
            self.serve_relay(relay);
        }
    }

    /// A relay hears that its links are over.
    pub(super) fn unlink_relay(&mut self, relay: usize, links: u64) {
        if links == self.links && self.relays[relay].state == State::Up {
            self.relays[relay].unlink();
            self.serve_relay(relay);
        }
    }

    /// Bytes of one relay have arrived at the other.
    pub(super) fn reach_other_relay(&mut self, between: &Between, bytes: &[u8]) {
        let relay = between.to;
        let arrives = between.links == self.links && self.cut_links != Some(between.links);
        if arrives && self.relays[relay].state == State::Up {
            self.relays[relay].hear_relay(between.by_own, bytes, self.now);
            self.serve_relay(relay);
        }
    }

    /// Writes to the links between the relays.
    pub(super) fn write_links(&mut self, relay: usize) {
        let (written, over) = self.relays[relay].collect_links();
        for (by_ours, bytes) in written {
            let between = Between {
                to: 1 - relay,
                by_own: !by_ours,
                links: self.links,
            };
            self.push(self.now + MS, What::ToOtherRelay(between, bytes));
        }
        if over {
            self.note(|| format!("relay {relay} misses the other one"));
            if !self.apart {
                self.relink();
            }
        }
    }
}
