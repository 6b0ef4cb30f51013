//! How often one address may try to prove something.

use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

use super::error::ApiError;
use super::limiter::Limiter;

/// How often one address may try what. Each has a count of its own: machines
/// that hold an outdated membership and try in a loop must not lock out the
/// person who sits at the same address.
pub(crate) struct Guards {
    joins: Mutex<Limiter>,
    tokens: Mutex<Limiter>,
    logins: Mutex<Limiter>,
    attempts: Mutex<Limiter>,
    polls: Mutex<Limiter>,
    hellos: Mutex<Limiter>,
}

impl Guards {
    pub(super) fn new() -> Self {
        Self {
            // A rack of machines behind one address joins at once; each join
            // costs a signature check and a transaction.
            joins: Mutex::new(Limiter::new(128, 2.0)),
            // Wrong ones. Somebody mistypes; a guesser gets nowhere.
            tokens: Mutex::new(Limiter::new(30, 0.5)),
            // Those that are over. They cannot be guessed, and a client that holds one and tries in
            // a loop must not keep others of its address from logging in.
            logins: Mutex::new(Limiter::new(128, 8.0)),
            // Each takes a place among those under way, and asks the provider.
            attempts: Mutex::new(Limiter::new(30, 0.5)),
            // A client asks every few seconds; an office of them is behind one address.
            polls: Mutex::new(Limiter::new(128, 8.0)),
            // Wrong ones. They cannot be guessed, but cost a signature check.
            hellos: Mutex::new(Limiter::new(256, 16.0)),
        }
    }

    /// Counts a join; an error when the address has to wait.
    pub(crate) fn join(&self, address: IpAddr) -> Result<(), ApiError> {
        allowed(self.joins.lock().take(address, Instant::now()))
    }

    /// An error when too many tokens from this address were wrong.
    pub(crate) fn may_show_token(&self, address: IpAddr) -> Result<(), ApiError> {
        allowed(self.tokens.lock().has(address, Instant::now()))
    }

    /// Counts a wrong token.
    pub(crate) fn wrong_token(&self, address: IpAddr) {
        self.tokens.lock().take(address, Instant::now());
    }

    /// An error when too many logins from this address were over.
    pub(crate) fn may_show_login(&self, address: IpAddr) -> Result<(), ApiError> {
        allowed(self.logins.lock().has(address, Instant::now()))
    }

    /// Counts a login that is over.
    pub(crate) fn wrong_login(&self, address: IpAddr) {
        self.logins.lock().take(address, Instant::now());
    }

    /// Counts somebody who begins to log in; an error when the address has to wait.
    pub(crate) fn attempt(&self, address: IpAddr) -> Result<(), ApiError> {
        allowed(self.attempts.lock().take(address, Instant::now()))
    }

    /// Counts a step of a login under way; an error when the address has to wait.
    pub(crate) fn poll(&self, address: IpAddr) -> Result<(), ApiError> {
        allowed(self.polls.lock().take(address, Instant::now()))
    }

    /// An error when too many hellos from this address were wrong.
    pub(crate) fn may_say_hello(&self, address: IpAddr) -> Result<(), ApiError> {
        allowed(self.hellos.lock().has(address, Instant::now()))
    }

    /// Counts a wrong hello.
    pub(crate) fn wrong_hello(&self, address: IpAddr) {
        self.hellos.lock().take(address, Instant::now());
    }
}

fn allowed(may: bool) -> Result<(), ApiError> {
    may.then_some(()).ok_or_else(ApiError::rate_limited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b18_u22_a_guesser_has_to_wait() {
        let guards = Guards::new();
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..1_000 {
            guards.wrong_token(guesser);
        }
        assert!(guards.may_show_token(guesser).is_err());
        assert!(guards.may_show_token(other).is_ok());
    }
}
