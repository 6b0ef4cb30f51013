//! Logins under way: what is kept of them between two requests.

use serde::{Deserialize, Serialize};

use super::Identity;

/// The longest that a client calls itself, characters.
const MAX_LABEL: usize = 64;

/// A login for which a person types a code at the provider, as the provider has begun it.
pub(crate) struct Device {
    /// The provider's secret.
    pub(crate) device_code: String,
    /// What the person types.
    pub(crate) user_code: String,
    /// Where.
    pub(crate) verification_uri: String,
    /// The same with the code in it.
    pub(crate) verification_uri_complete: Option<String>,
    /// How long it is good, seconds.
    pub(crate) expires_in: u64,
    /// How long to wait between two polls, seconds.
    pub(crate) interval: u64,
}

/// What a provider says of such a login.
pub(crate) enum Await {
    /// The person has not decided yet.
    Pending,
    /// The same, and whoever asks has to ask less often.
    SlowDown,
    /// It is over: too late.
    Expired,
    /// This is who it is.
    Granted(Identity),
}

/// A login by a redirection to the provider, as the relay has begun it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Started {
    /// Where to send the person.
    pub(crate) url: String,
    /// Comes back with them.
    pub(crate) state: String,
    /// Comes back in what the provider signs; none where it signs nothing.
    pub(crate) nonce: Option<String>,
    /// What the relay proves to the provider that it has begun this.
    pub(crate) verifier: String,
}

/// Somebody whom the provider has vouched for, and what their client calls itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Granted {
    /// Who.
    pub(crate) identity: Identity,
    /// On what.
    pub(crate) label: String,
}

/// What a client calls itself, as it is kept.
pub(crate) fn label(text: &str) -> String {
    crate::show::cut(text, MAX_LABEL).into_owned()
}
