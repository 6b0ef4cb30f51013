//! Which door the relay has: the arguments of `cw relay serve` about it, checked.
//!
//! Secrets come from files or the environment, never from arguments, which everybody on the machine
//! can see.

use std::path::{Path, PathBuf};

use reqwest::Url;

use super::{is_loopback, short};
use crate::error::{Error, Result};

/// The longest file with a secret, bytes.
const MAX_SECRET: u64 = 4096;

/// GitHub itself.
pub(super) const GITHUB: &str = "https://github.com";

/// Who vouches for people, with `--auth-mode oidc` or `github`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Providers {
    /// oidc: the provider, as it names itself in what it signs
    #[arg(long, value_name = "URL", env = "CW_OIDC_ISSUER")]
    pub oidc_issuer: Option<String>,

    /// oidc: what the provider calls this relay
    #[arg(long, value_name = "ID", env = "CW_OIDC_CLIENT_ID")]
    pub oidc_client_id: Option<String>,

    /// oidc: a file with the relay's secret at the provider; CW_OIDC_CLIENT_SECRET is another way
    #[arg(long, value_name = "FILE", env = "CW_OIDC_CLIENT_SECRET_FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// oidc: who is in one of these groups is let in; everybody the provider knows, without
    #[arg(
        long,
        value_name = "GROUP,…",
        value_delimiter = ',',
        env = "CW_OIDC_ALLOWED_GROUPS"
    )]
    pub oidc_allowed_groups: Vec<String>,

    /// oidc: where the provider says in which groups somebody is [default: groups]
    #[arg(long, value_name = "CLAIM", env = "CW_OIDC_GROUPS_CLAIM")]
    pub oidc_groups_claim: Option<String>,

    /// oidc: what to ask for beside `openid` [default: profile, and groups if they matter]
    #[arg(
        long,
        value_name = "SCOPE,…",
        value_delimiter = ',',
        env = "CW_OIDC_SCOPES"
    )]
    pub oidc_scopes: Vec<String>,

    /// github: the client id of your OAuth app
    #[arg(long, value_name = "ID", env = "CW_GITHUB_CLIENT_ID")]
    pub github_client_id: Option<String>,

    /// github: a file with its secret, for 'cw login --browser'; CW_GITHUB_CLIENT_SECRET is another
    /// way
    #[arg(long, value_name = "FILE", env = "CW_GITHUB_CLIENT_SECRET_FILE")]
    pub github_client_secret_file: Option<PathBuf>,

    /// github: who is let in, by login name or number of the account
    #[arg(
        long,
        value_name = "USER,…",
        value_delimiter = ',',
        env = "CW_GITHUB_ALLOWED_USERS"
    )]
    pub github_allowed_users: Vec<String>,

    /// github: another server than GitHub's own
    #[arg(long, value_name = "URL", env = "CW_GITHUB_URL")]
    pub github_url: Option<String>,
}

/// A mode that makes sense.
pub(crate) enum Mode {
    /// Whoever reaches the relay is its administrator.
    None,
    /// Whoever has the relay's token.
    Token,
    /// Whomever a provider of OpenID Connect vouches for.
    Oidc(Settings),
    /// Whomever GitHub vouches for.
    GitHub(Settings),
}

/// A provider.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The issuer, or the URL of the server.
    pub(crate) url: String,
    /// What the provider calls the relay.
    pub(crate) client_id: String,
    /// Proves to the provider that it is the relay.
    pub(crate) client_secret: Option<String>,
    /// Groups, or users in small letters, sorted; everybody if empty.
    pub(crate) allowed: Vec<String>,
    /// The claim with the groups.
    pub(crate) groups_claim: String,
    /// What to ask for, beside `openid`.
    pub(crate) scopes: Vec<String>,
}

impl Mode {
    /// Of the arguments.
    ///
    /// # Errors
    ///
    /// `config_invalid`.
    pub(crate) fn of(name: &str, providers: &Providers) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "token" => Ok(Self::Token),
            "oidc" => providers.oidc().map(Self::Oidc),
            "github" => providers.github().map(Self::GitHub),
            _ => Err(invalid(format!("there is no --auth-mode {name:?}"))
                .hint("there are: none, token, github, oidc")),
        }
    }

    /// As it is typed.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::Oidc(_) => "oidc",
            Self::GitHub(_) => "github",
        }
    }

    /// The door, as a login remembers it: another provider, another client or another list of those
    /// who may come in is another door.
    pub(super) fn via(&self) -> String {
        match self {
            Self::None | Self::Token => self.name().to_owned(),
            Self::Oidc(settings) | Self::GitHub(settings) => {
                let mut parts = vec![&*settings.url, &settings.client_id, &settings.groups_claim];
                parts.extend(settings.allowed.iter().map(String::as_str));
                format!("{}:{}", self.name(), short(&parts))
            }
        }
    }
}

impl Providers {
    fn oidc(&self) -> Result<Settings> {
        let url = needed("--oidc-issuer", self.oidc_issuer.as_deref())?;
        let client_id = needed("--oidc-client-id", self.oidc_client_id.as_deref())?;
        let allowed = list(&self.oidc_allowed_groups);
        let mut scopes = list(&self.oidc_scopes);
        if scopes.is_empty() {
            scopes.push("profile".to_owned());
            if !allowed.is_empty() {
                scopes.push("groups".to_owned());
            }
        }
        Ok(Settings {
            // As it is: it is compared with what the provider signs, letter by letter.
            url: provider("--oidc-issuer", url)?.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: secret(
                "CW_OIDC_CLIENT_SECRET",
                self.oidc_client_secret_file.as_deref(),
            )?,
            allowed,
            groups_claim: self
                .oidc_groups_claim
                .clone()
                .filter(|claim| !claim.is_empty())
                .unwrap_or_else(|| "groups".to_owned()),
            scopes,
        })
    }

    fn github(&self) -> Result<Settings> {
        let client_id = needed("--github-client-id", self.github_client_id.as_deref())?;
        let url = self.github_url.as_deref().filter(|url| !url.is_empty());
        let url = provider("--github-url", url.unwrap_or(GITHUB))?;
        let allowed = list(&self.github_allowed_users);
        if allowed.is_empty() {
            // Everybody on earth has an account there.
            return Err(
                invalid("--github-allowed-users is empty: nobody could log in".to_owned())
                    .hint("name those who may, separated by commas"),
            );
        }
        let mut allowed: Vec<_> = allowed.iter().map(|user| user.to_lowercase()).collect();
        allowed.sort();
        Ok(Settings {
            url: url.trim_end_matches('/').to_owned(),
            client_id: client_id.to_owned(),
            client_secret: secret(
                "CW_GITHUB_CLIENT_SECRET",
                self.github_client_secret_file.as_deref(),
            )?,
            allowed,
            groups_claim: String::new(),
            scopes: Vec::new(),
        })
    }
}

fn needed<'a>(flag: &str, value: Option<&'a str>) -> Result<&'a str> {
    let value = value.map(str::trim).filter(|value| !value.is_empty());
    value.ok_or_else(|| {
        invalid(format!("this --auth-mode needs {flag}"))
            .hint("'cw relay serve --help' says what it is, and its variable")
    })
}

/// Without what is empty: a variable that is set to nothing is a list of one empty word.
fn list(words: &[String]) -> Vec<String> {
    let words = words.iter().map(|word| word.trim().to_owned());
    let mut words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.sort();
    words.dedup();
    words
}

/// The URL of a provider: what it says decides who comes in, so that it is asked over TLS, or on
/// this machine.
fn provider<'a>(flag: &str, url: &'a str) -> Result<&'a str> {
    let url = url.trim();
    let is_good = Url::parse(url).is_ok_and(|url| {
        let host = url.host_str().unwrap_or_default();
        let is_safe = match url.scheme() {
            "https" => !host.is_empty(),
            "http" => is_loopback(host),
            _ => false,
        };
        is_safe
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if is_good {
        return Ok(url);
    }
    Err(invalid(format!(
        "{flag} {url:?} is no https:// URL without query and fragment"
    )))
}

fn secret(variable: &str, file: Option<&Path>) -> Result<Option<String>> {
    use std::io::Read as _;
    let secret = match file {
        Some(path) => {
            let mut text = String::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(MAX_SECRET).read_to_string(&mut text))
                .map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))?;
            if text.trim().is_empty() {
                return Err(invalid(format!("{} is empty", path.display())));
            }
            text
        }
        None => std::env::var(variable).unwrap_or_default(),
    };
    let secret = secret.trim();
    Ok((!secret.is_empty()).then(|| secret.to_owned()))
}

fn invalid(message: String) -> Error {
    Error::new("config_invalid", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oidc(change: impl FnOnce(&mut Providers)) -> Result<Mode> {
        let mut providers = Providers {
            oidc_issuer: Some("https://id.example.com".to_owned()),
            oidc_client_id: Some("relay".to_owned()),
            oidc_allowed_groups: vec!["staff".to_owned(), String::new(), "admins".to_owned()],
            ..Providers::default()
        };
        change(&mut providers);
        Mode::of("oidc", &providers)
    }

    fn via(change: impl FnOnce(&mut Providers)) -> String {
        oidc(change).map(|mode| mode.via()).unwrap()
    }

    #[test]
    fn what_is_missing_or_unsafe_is_refused() {
        assert!(oidc(|_| ()).is_ok());
        for url in [
            "",
            "id.example.com",
            "http://id.example.com",
            "https://id.example.com?x=1",
            "https://id.example.com#x",
            "https://me:secret@id.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
        ] {
            let set = |providers: &mut Providers| providers.oidc_issuer = Some(url.to_owned());
            assert!(oidc(set).is_err(), "{url:?}");
        }
        assert!(oidc(|it| it.oidc_issuer = Some("http://127.0.0.1:80/x".to_owned())).is_ok());
        assert!(oidc(|it| it.oidc_client_id = None).is_err());
        assert!(oidc(|it| it.oidc_client_secret_file = Some("/none".into())).is_err());
        assert!(Mode::of("github", &Providers::default()).is_err());
        let nobody = Providers {
            github_client_id: Some("x".to_owned()),
            github_allowed_users: vec![String::new()],
            ..Providers::default()
        };
        assert!(Mode::of("github", &nobody).is_err());
        assert!(Mode::of("magic", &nobody).is_err());
    }

    #[test]
    fn another_list_is_another_door() {
        let same = via(|it| it.oidc_allowed_groups.reverse());
        assert_eq!(same, via(|_| ()));
        for other in [
            via(|it| drop(it.oidc_allowed_groups.pop())),
            via(|it| it.oidc_issuer = Some("https://id.example.org".to_owned())),
            via(|it| it.oidc_client_id = Some("other".to_owned())),
            via(|it| it.oidc_groups_claim = Some("roles".to_owned())),
        ] {
            assert_ne!(same, other);
        }
    }
}
