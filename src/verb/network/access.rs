//! How to reach the relay as oneself.

use clap::Args;

use super::{joined, no_relay};
use crate::cli::Cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::logins;
use crate::uplink::api::Api;

/// The variable that holds the relay's token.
const VARIABLE: &str = "CODEWIRE_RELAY_AUTH_TOKEN";

/// How to reach the relay as yourself.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,
    /// A file with the relay's token; else CODEWIRE_RELAY_AUTH_TOKEN holds it, else you have logged in.
    // Text, as the option of every verb that has this name.
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<String>,
}

impl Access {
    /// The relay that was named, else the configured one, else that of the joined network.
    ///
    /// # Errors
    ///
    /// `config_invalid`.
    pub(in crate::verb) fn url(&self, cli: &Cli) -> Result<String> {
        let named = self.relay_url.clone();
        let joined = || Some(joined(cli)?.relay_url);
        named
            .or(Config::load(&cli.home)?.relay_url)
            .or_else(joined)
            .ok_or_else(no_relay)
    }

    /// A client of the relay as this person.
    ///
    /// # Errors
    ///
    /// `unauthorized` when nothing says who that is, `config_invalid`.
    pub(in crate::verb) fn api(&self, cli: &Cli) -> Result<Api> {
        let url = self.url(cli)?;
        match self.token(cli)? {
            Some(token) => Api::new(&url, &token),
            None => Api::nobody(&url),
        }
    }

    /// Whether there is something to be known by.
    pub(in crate::verb) fn has_token(&self, cli: &Cli) -> bool {
        self.token_file.is_some()
            || from_environment().is_some()
            || self.login(cli).is_ok_and(|login| login.is_some())
    }

    /// What this person is known by; none at a relay that asks for nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::api`].
    pub(super) fn token(&self, cli: &Cli) -> Result<Option<String>> {
        if let Some(token) = self.given()? {
            return Ok(Some(token));
        }
        let login = self.login(cli)?.ok_or_else(|| {
            Error::new("unauthorized", "relay user authentication not configured").hint(
                "'cw login' logs you in; else set CODEWIRE_RELAY_AUTH_TOKEN or pass --token-file",
            )
        })?;
        Ok(login.token)
    }

    /// The token in the file, else in the environment.
    ///
    /// # Errors
    ///
    /// `not_found`.
    pub(in crate::verb) fn given(&self) -> Result<Option<String>> {
        let Some(path) = &self.token_file else {
            return Ok(from_environment());
        };
        let token = std::fs::read_to_string(path)
            .map_err(|error| Error::new("not_found", format!("cannot read {path}: {error}")))?;
        Ok(Some(token.trim().to_owned()))
    }

    fn login(&self, cli: &Cli) -> Result<Option<logins::Login>> {
        logins::find(&cli.home, &self.url(cli)?)
    }
}

fn from_environment() -> Option<String> {
    let token = std::env::var(VARIABLE).ok()?.trim().to_owned();
    Some(token).filter(|token| !token.is_empty())
}
