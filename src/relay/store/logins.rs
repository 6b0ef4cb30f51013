//! Who has logged in, and logins that are under way.
//!
//! Of a token only the SHA-256 is kept. Both kinds are here and not in memory, so that a login goes
//! on at whichever relay of one database its next request reaches.

use super::{Answer, Subject};

/// Logins of one person. When there are more, the oldest ends: nobody is locked out by clients that
/// were never logged out.
pub(crate) const MAX_LOGINS: u32 = 100;

/// Logins under way, of everybody. Anybody may begin one, so that there has to be an end.
pub(crate) const MAX_ATTEMPTS: u32 = 2_000;

/// Somebody's client that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// SHA-256 of its token.
    pub(crate) hash: [u8; 32],
    /// What to end it by; no secret.
    pub(crate) id: String,
    /// Who it is.
    pub(crate) subject: Subject,
    /// What the provider calls them; for people only, nothing is decided by it.
    pub(crate) name: String,
    /// The door by which they came.
    pub(crate) via: String,
    /// What the client calls itself.
    pub(crate) label: String,
    /// Unix seconds, as is `expires`.
    pub(crate) created: u64,
    pub(crate) expires: u64,
}

/// A login under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// SHA-256 of the secret that goes on with it.
    pub(crate) hash: [u8; 32],
    /// JSON.
    pub(crate) state: String,
    /// Unix seconds.
    pub(crate) expires: u64,
}

/// What [`Logins::turn`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// No such attempt, or its time is over.
    Gone,
    /// It was asked for too soon.
    Early,
    /// Go on with it.
    Due(Attempt),
}

/// The part of a [`super::Store`] about logins. `now` is unix seconds.
pub(crate) trait Logins: Send + Sync {
    /// Adds a login, and ends what is over [`MAX_LOGINS`] of its subject. The same hash again
    /// changes nothing.
    fn add_login(&self, login: Login, now: u64) -> Answer<'_, ()>;

    /// The login of a token, unless it is over.
    fn login(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<Login>>;

    /// The logins of a person, or all, that are not over; the newest first.
    fn logins(&self, subject: Option<Subject>, now: u64) -> Answer<'_, Vec<Login>>;

    /// Ends logins: of a person or of everybody, the one of that id or all; how many.
    fn end_logins(&self, subject: Option<Subject>, id: Option<String>) -> Answer<'_, u64>;

    /// Adds an attempt; [`super::Refusal::TooManyAttempts`] over [`MAX_ATTEMPTS`].
    fn add_attempt(&self, attempt: Attempt, now: u64) -> Answer<'_, ()>;

    /// Takes a turn with an attempt if it is `now` time for one; the next may be taken at `next`.
    fn turn(&self, hash: [u8; 32], now: u64, next: u64) -> Answer<'_, Turn>;

    /// Gives an attempt another state and another time for the next turn; whether there was one.
    fn change_attempt(&self, hash: [u8; 32], state: String, next: u64) -> Answer<'_, bool>;

    /// Uses an attempt up; `None` if there is none, or its time is over. Of many that try it at
    /// once, one gets it.
    fn take_attempt(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<Attempt>>;
}
