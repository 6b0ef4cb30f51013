//! GitHub, or a server of one's own that is like it: OAuth without id tokens.
//!
//! Who somebody is comes from the server itself, asked with the token that it has just given: the
//! number of the account, since names of accounts change hands. The token is thrown away then.

use axum::http::StatusCode;
use openidconnect::{CsrfToken, PkceCodeChallenge};
use reqwest::Url;
use serde_json::Value;

use super::attempt::{Await, Device, Started};
use super::oidc::DEVICE_GRANT;
use super::settings::Settings;
use super::web::{Secret, Web};
use super::{Identity, away, gone, not_allowed, short, shown, subject};
use crate::error::{Error, Result};
use crate::relay::error::ApiError;

/// Where people's names are asked for, of GitHub itself.
const API: &str = "https://api.github.com";

/// See the module.
pub(super) struct GitHub {
    settings: Settings,
    authorize: Url,
    api: String,
    callback: String,
    web: Web,
}

impl GitHub {
    /// # Errors
    ///
    /// `config_invalid`, `tls`.
    pub(super) fn new(settings: Settings, callback: String) -> Result<Self> {
        let authorize = Url::parse(&format!("{}/login/oauth/authorize", settings.url));
        let authorize = authorize.map_err(|error| {
            Error::new("config_invalid", format!("no URL of a server: {error}"))
        })?;
        let api = if is_githubs(&settings) {
            API.to_owned()
        } else {
            format!("{}/api/v3", settings.url)
        };
        Ok(Self {
            authorize,
            api,
            callback,
            web: Web::new(settings.url.starts_with("https"))?,
            settings,
        })
    }

    pub(super) async fn device(&self) -> Result<Device, ApiError> {
        let url = format!("{}/login/device/code", self.settings.url);
        Device::of(&self.post(&url, &[], Secret::None).await?)
    }

    pub(super) async fn poll(&self, device_code: &str) -> Result<Await, ApiError> {
        let fields = [("grant_type", DEVICE_GRANT), ("device_code", device_code)];
        let answer = self.post(&self.token_url(), &fields, Secret::None).await?;
        match Await::of(&answer)? {
            Some(answer) => Ok(answer),
            None => self.identity(&answer).await.map(Await::Granted),
        }
    }

    pub(super) fn start(&self) -> Result<Started, ApiError> {
        if self.settings.client_secret.is_none() {
            let text = "this relay has no secret at GitHub, which a login by the browser needs";
            let error = ApiError::new(StatusCode::CONFLICT, "no_browser_flow", text);
            return Err(error.hint("use 'cw login' without --browser"));
        }
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = CsrfToken::new_random_len(32);
        let mut url = self.authorize.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.callback)
            .append_pair("state", state.secret())
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256");
        Ok(Started {
            url: url.to_string(),
            state: state.secret().clone(),
            nonce: None,
            verifier: verifier.secret().clone(),
        })
    }

    pub(super) async fn finish(&self, started: &Started, code: &str) -> Result<Identity, ApiError> {
        let fields = [
            ("code", code),
            ("redirect_uri", self.callback.as_str()),
            ("code_verifier", &started.verifier),
        ];
        let secret = self.settings.client_secret.as_deref();
        let secret = secret.map_or(Secret::None, Secret::Post);
        let answer = self.post(&self.token_url(), &fields, secret).await?;
        match Await::of(&answer)? {
            None => self.identity(&answer).await,
            Some(_) => Err(gone()),
        }
    }

    fn token_url(&self) -> String {
        format!("{}/login/oauth/access_token", self.settings.url)
    }

    async fn post(
        &self,
        url: &str,
        fields: &[(&str, &str)],
        secret: Secret<'_>,
    ) -> Result<Value, ApiError> {
        self.web
            .post(url, fields, &self.settings.client_id, secret)
            .await
    }

    async fn identity(&self, answer: &Value) -> Result<Identity, ApiError> {
        let token = answer["access_token"].as_str();
        let token = token.ok_or_else(|| away("it gives no token"))?;
        let user = self.web.get(&format!("{}/user", self.api), token).await?;
        let (Some(number), Some(login)) = (user["id"].as_u64(), user["login"].as_str()) else {
            return Err(away("it does not say who somebody is"));
        };
        let number = number.to_string();
        if !is_allowed(&self.settings.allowed, &number, login) {
            tracing::info!(%number, "not among those who are allowed");
            return Err(not_allowed());
        }
        let subject = if is_githubs(&self.settings) {
            format!("github:{number}")
        } else {
            let server = short(&["server", &self.settings.url]);
            subject("github", &server, &number)
        };
        Ok(Identity {
            subject,
            name: shown(login),
        })
    }
}

/// A word of digits is the number of an account and never a name: names may be of digits, too, and
/// are anybody's to take.
fn is_allowed(allowed: &[String], number: &str, login: &str) -> bool {
    let login = login.to_lowercase();
    allowed.iter().any(|word| {
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            word == number
        } else {
            *word == login
        }
    })
}

fn is_githubs(settings: &Settings) -> bool {
    settings.url == super::settings::GITHUB
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn a_name_of_digits_is_not_the_account_of_that_number() {
        let allowed = ["583231".to_owned(), "octocat".to_owned()];
        assert!(is_allowed(&allowed, "583231", "somebody"));
        assert!(is_allowed(&allowed, "1", "OctoCat"));
        assert!(!is_allowed(&allowed, "2", "583231"));
        assert!(!is_allowed(&allowed, "2", "octocat2"));
        assert!(!is_allowed(&[], "2", ""));
    }
}
