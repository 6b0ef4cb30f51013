//! How people prove who they are to the relay.
//!
//! There are four modes. `none` asks for nothing and therefore listens on the loopback interface
//! alone. `token` knows one person, who has the relay's token. `oidc` and `github` send people to a
//! provider; who comes back is known by what the provider calls them for good (issuer and subject,
//! or the number of the account), never by a name or an address that can change hands. The relay's
//! own token is good in every mode.
//!
//! Whoever has proved it gets a login: a token of their client's own ([`LoginToken`]), of which the
//! relay keeps a hash. Every request looks it up, so that it ends when it is ended. A login belongs
//! to the door by which it came, [`Gate::honours`]: with another provider, another list of groups or
//! another token, everybody has to come in again.

mod attempt;
mod github;
mod oidc;
mod settings;
mod web;

use sha2::{Digest as _, Sha256};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;

use super::app::random;
use super::error::ApiError;
use super::store::Subject;
use super::store::logins::Login;
use crate::error::Result;

pub(crate) use attempt::{Await, Device, Granted, Started, label};
pub(crate) use settings::Mode;
pub use settings::Providers;

use github::GitHub;
use oidc::Oidc;
pub(super) use web::chain;

/// How long a login is good, seconds: 30 days.
pub(crate) const LOGIN_TTL: u64 = 30 * 24 * 3600;

/// What the token of a login begins with, so that one that was lost is recognised.
pub(crate) const PREFIX: &str = "cws_";

/// Who somebody is, as a provider vouches.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Identity {
    /// Never changes and is never given to anybody else.
    pub(crate) subject: String,
    /// For people.
    pub(crate) name: String,
}

/// The token of a login. Never shown after the answer that makes it.
pub(crate) struct LoginToken(String);

impl LoginToken {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self::of(&random::<32>())
    }

    /// The one that belongs to a secret: whoever asks again with it gets the same.
    pub(crate) fn from_secret(secret: &str) -> Self {
        Self::of(&digest(&["login", secret]))
    }

    fn of(bytes: &[u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

/// What is kept of a secret.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// One value of several texts, in which none can pass for another's end.
fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The beginning of such a value, in hexadecimal.
fn short(parts: &[&str]) -> String {
    hex::encode(&digest(parts)[..6])
}

/// The door of this relay: its mode and its provider.
pub(crate) struct Gate {
    mode: &'static str,
    /// Logins by the provider, or by nothing, have this.
    via: String,
    /// Logins by the relay's token.
    token_via: String,
    provider: Option<Provider>,
}

enum Provider {
    Oidc(Box<Oidc>),
    GitHub(Box<GitHub>),
}

impl Gate {
    /// For a relay that is reached at `base_url` and has a token of this hash.
    ///
    /// # Errors
    ///
    /// `tls` when no certificate is trusted.
    pub(crate) fn new(mode: &Mode, base_url: &str, token: &[u8; 32]) -> Result<Self> {
        let callback = format!("{base_url}/auth/callback");
        let provider = match mode {
            Mode::None | Mode::Token => None,
            Mode::Oidc(settings) => {
                let oidc = Oidc::new(settings.clone(), callback)?;
                Some(Provider::Oidc(Box::new(oidc)))
            }
            Mode::GitHub(settings) => {
                let github = GitHub::new(settings.clone(), callback)?;
                Some(Provider::GitHub(Box::new(github)))
            }
        };
        Ok(Self {
            mode: mode.name(),
            via: mode.via(),
            token_via: format!("token:{}", short(&["token", &hex::encode(token)])),
            provider,
        })
    }

    /// `none`, `token`, `github`, `oidc`.
    pub(crate) const fn mode(&self) -> &'static str {
        self.mode
    }

    /// Nobody is asked for anything.
    pub(crate) fn is_open(&self) -> bool {
        self.mode == "none"
    }

    /// Whether a login came by a door that this relay has.
    pub(crate) fn honours(&self, login: &Login) -> bool {
        [&self.via, &self.token_via].contains(&&login.via)
    }

    /// The login of somebody who has shown the relay's token, or was asked for nothing.
    pub(crate) fn admin_login(&self, label: String, token: &LoginToken, now: u64) -> Login {
        let via = if self.is_open() {
            &self.via
        } else {
            &self.token_via
        };
        let identity = Identity {
            subject: Subject::admin().as_str().to_owned(),
            name: "the relay's administrator".to_owned(),
        };
        new_login(identity, via.clone(), label, token, now)
    }

    /// The login of somebody for whom the provider vouches.
    pub(crate) fn login(&self, granted: Granted, token: &LoginToken, now: u64) -> Login {
        let Granted { identity, label } = granted;
        new_login(identity, self.via.clone(), label, token, now)
    }

    /// Begins a login for which a person types a code at the provider.
    pub(crate) async fn device(&self) -> Result<Device, ApiError> {
        match self.provider()? {
            Provider::Oidc(oidc) => oidc.device().await,
            Provider::GitHub(github) => github.device().await,
        }
    }

    /// Asks the provider once whether the person has.
    pub(crate) async fn poll(&self, device_code: &str) -> Result<Await, ApiError> {
        match self.provider()? {
            Provider::Oidc(oidc) => oidc.poll(device_code).await,
            Provider::GitHub(github) => github.poll(device_code).await,
        }
    }

    /// Begins a login by a redirection to the provider.
    pub(crate) async fn start(&self) -> Result<Started, ApiError> {
        match self.provider()? {
            Provider::Oidc(oidc) => oidc.start().await,
            Provider::GitHub(github) => github.start(),
        }
    }

    /// Who it is that came back with `code`, and with the `iss` that came beside it.
    pub(crate) async fn finish(
        &self,
        started: &Started,
        code: &str,
        iss: Option<&str>,
    ) -> Result<Identity, ApiError> {
        match self.provider()? {
            Provider::Oidc(oidc) => oidc.finish(started, code, iss).await,
            Provider::GitHub(github) => github.finish(started, code).await,
        }
    }

    fn provider(&self) -> Result<&Provider, ApiError> {
        self.provider.as_ref().ok_or_else(|| {
            let text = format!("this relay has no provider, its mode is {}", self.mode);
            let hint = "'cw login --token-file FILE' logs in with the relay's token";
            ApiError::new(StatusCode::CONFLICT, "no_provider", text).hint(hint)
        })
    }
}

fn new_login(
    identity: Identity,
    via: String,
    label: String,
    token: &LoginToken,
    now: u64,
) -> Login {
    Login {
        hash: token.hash(),
        id: format!("login_{}", hex::encode(&digest(&["id", token.text()])[..8])),
        subject: Subject::named(identity.subject),
        name: identity.name,
        via,
        label,
        created: now,
        expires: now + LOGIN_TTL,
    }
}

/// The subject of somebody whom the provider of that id calls `who`, in 64 bytes: a record of a node
/// has no room for more. What is plain stays readable, the rest becomes its hash, which no plain one
/// can be mistaken for.
fn subject(kind: &str, provider: &str, who: &str) -> String {
    let is_plain =
        who.len() <= 43 && who.bytes().all(|byte| byte.is_ascii_graphic()) && !who.starts_with('~');
    let who = if is_plain {
        who.to_owned()
    } else {
        format!("~{}", &URL_SAFE_NO_PAD.encode(digest(&["who", who]))[..42])
    };
    format!("{kind}:{provider}:{who}")
}

/// Whether a host, as URLs and the header `Host` have it, is this machine and no other.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host).parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// A name as it is shown: without what would move a terminal, and not longer than a line.
fn shown(name: &str) -> String {
    crate::show::cut(name, 100).into_owned()
}

/// The provider does not answer, or not as one.
fn away(why: &str) -> ApiError {
    // What exactly is for the relay's keeper alone.
    tracing::warn!(%why, "the provider cannot be asked");
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "provider_unreachable",
        "the provider of this relay cannot be asked now",
    )
    .hint("try again later; who is logged in stays so")
}

/// What the provider says cannot be believed.
fn unbelievable(why: &str) -> ApiError {
    tracing::warn!(%why, "what the provider says is not believed");
    ApiError::new(
        StatusCode::FORBIDDEN,
        "login_invalid",
        "what the provider says of you cannot be verified",
    )
    .hint("the relay's log says why")
}

/// Somebody who is known and not let in.
fn not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "not_allowed",
        "you are not among those whom this relay lets in",
    )
    .hint("ask whoever runs the relay")
}

/// The person, or the provider, said no.
pub(crate) fn denied() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "login_denied",
        "the login was refused at the provider",
    )
}

/// The time for it is over, or it was used before.
pub(crate) fn gone() -> ApiError {
    ApiError::new(
        StatusCode::GONE,
        "login_expired",
        "this login took too long, or was used before",
    )
    .hint("begin again with 'cw login'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_fits_and_names_one() {
        let long = "x".repeat(300);
        let hashed = subject("oidc", "0123456789ab", &long);
        let mut seen = std::collections::BTreeSet::new();
        for who in [
            "248289761001",
            "a b",
            "",
            "ä",
            "~plain",
            &long,
            &long[1..],
            &"y".repeat(43),
            &"y".repeat(44),
            &hashed["oidc:0123456789ab:".len()..],
        ] {
            let subject = subject("github", "0123456789ab", who);
            assert!(subject.len() <= 64, "{subject}");
            assert!(seen.insert(subject), "{who:?}");
        }
        assert_eq!(
            subject("oidc", "0123456789ab", "248289761001"),
            "oidc:0123456789ab:248289761001"
        );
    }

    #[test]
    fn loopback_is_this_machine_alone() {
        for here in ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LocalHost"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in [
            "",
            "0.0.0.0",
            "192.0.2.1",
            "[::]",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "127.0.0.1:80",
            "[127.0.0.1",
        ] {
            assert!(!is_loopback(there), "{there}");
        }
    }

    #[test]
    fn a_token_is_found_again_by_its_secret_alone() {
        let one = LoginToken::from_secret("a secret");
        assert_eq!(one.hash(), LoginToken::from_secret("a secret").hash());
        assert_ne!(one.hash(), LoginToken::from_secret("another").hash());
        assert_ne!(LoginToken::new().hash(), LoginToken::new().hash());
        assert!(one.text().starts_with(PREFIX) && one.text().len() == 4 + 43);
    }

    #[test]
    fn logins_belong_to_their_door() {
        let gate = |mode: &Mode, token: u8| Gate::new(mode, "http://relay.test", &[token; 32]);
        let (one, other) = (
            gate(&Mode::Token, 1).unwrap(),
            gate(&Mode::Token, 2).unwrap(),
        );
        let open = gate(&Mode::None, 1).unwrap();
        let login = one.admin_login(String::new(), &LoginToken::new(), 0);
        assert!(one.honours(&login) && open.honours(&login));
        assert!(!other.honours(&login), "another token");
        let login = open.admin_login(String::new(), &LoginToken::new(), 0);
        assert!(open.honours(&login));
        assert!(!one.honours(&login), "somebody who was asked for nothing");
    }
}
