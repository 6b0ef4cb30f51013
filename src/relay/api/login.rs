//! Logging in by a provider: with a code that a person types there, or by a browser.
//!
//! By a code (RFC 8628): the client asks the relay, the relay the provider; the person goes to the
//! provider; the client polls the relay with a secret of its own, and the relay the provider. The
//! token of the login is made from that secret, so that a client whose answer was lost asks again
//! and gets the same.
//!
//! By a browser: the client listens on its loopback interface and opens `/auth/login`. The relay
//! sends the browser on to the provider, with PKCE and a nonce; the provider sends it back to
//! `/auth/callback`, the relay to the client with a code, good once and for a minute; the client
//! shows that it has begun this (PKCE again) and gets its token. A cookie ties the two visits to one
//! browser.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::body::{Body, Query};
use super::logins::{self, granted};
use crate::relay::app::{App, random};
use crate::relay::auth::{Remote, login_of};
use crate::relay::clock::unix_now;
use crate::relay::error::ApiError;
use crate::relay::login::{
    Await, Granted, Identity, LoginToken, Started, denied, gone, hash, is_loopback, label,
};
use crate::relay::page::session;
use crate::relay::store::logins::{Attempt, Turn};

/// How long somebody may take at the provider, seconds.
const BROWSER_TTL: u64 = 600;

/// How long the code is good with which a browser comes back to the client, seconds.
const CODE_TTL: u64 = 60;

/// How long a poll may take, seconds: until then nobody else has a turn.
const TURN: u64 = 15;

/// By how much a client that asks too often has to slow down, seconds (RFC 8628, 3.5).
const SLOWER: u64 = 5;

/// The longest state that a client gives to get back, bytes.
const MAX_STATE: usize = 128;

/// What is kept of a login under way.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Stage {
    /// Somebody types a code.
    Device {
        device_code: String,
        interval: u64,
        label: String,
    },
    /// A browser is at the provider.
    Browser {
        started: Started,
        redirect: String,
        state: String,
        challenge: String,
        label: String,
    },
    /// A browser is at the provider, for the status page.
    Page { started: Started },
    /// It is on its way back to the client.
    Back { granted: Granted, challenge: String },
}

/// Who wants to log in by a code.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DeviceRequest")]
pub(crate) struct Device {
    /// What the client calls itself.
    #[serde(default)]
    label: String,
}

/// The code, and where it is typed (RFC 8628).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeviceCode")]
pub(crate) struct Code {
    /// For the client alone.
    poll_token: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    /// Seconds.
    expires_in: u64,
    /// Between two polls, seconds.
    interval: u64,
}

/// `POST /api/v1/device/authorize`.
pub(crate) async fn device(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    Body(ask): Body<Device>,
) -> Result<Json<Code>, ApiError> {
    app.guards.attempt(remote.ip())?;
    let device = app.gate.device().await?;
    let poll_token = secret();
    let stage = Stage::Device {
        device_code: device.device_code,
        interval: device.interval,
        label: label(&ask.label),
    };
    keep(&app, &poll_token, &stage, device.expires_in).await?;
    Ok(Json(Code {
        poll_token,
        user_code: device.user_code,
        verification_uri: device.verification_uri,
        verification_uri_complete: device.verification_uri_complete,
        expires_in: device.expires_in,
        interval: device.interval,
    }))
}

/// Which login is asked after.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DevicePoll")]
pub(crate) struct Poll {
    poll_token: String,
}

/// How far it is.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "DeviceStatus")]
pub(crate) enum Polled {
    /// It is there.
    Granted(logins::Granted),
    /// Not yet.
    Waiting {
        /// pending or slow_down
        status: &'static str,
        /// Seconds until the next poll.
        interval: Option<u64>,
    },
}

/// `POST /api/v1/device/poll`: 200 with the login, or 202 while there is none yet.
pub(crate) async fn poll(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    Body(poll): Body<Poll>,
) -> Result<(StatusCode, Json<Polled>), ApiError> {
    app.guards.poll(remote.ip())?;
    let token = LoginToken::from_secret(&poll.poll_token);
    if let Some(login) = login_of(token.text(), &app).await? {
        return Ok((
            StatusCode::OK,
            Json(Polled::Granted(granted(&login, &token))),
        ));
    }
    let (key, now) = (hash(&poll.poll_token), unix_now());
    let attempt = match app.store.turn(key, now, now + TURN).await? {
        Turn::Gone => return Err(gone()),
        Turn::Early => return Ok(wait("slow_down", None)),
        Turn::Due(attempt) => attempt,
    };
    let Ok(Stage::Device {
        device_code,
        interval,
        label,
    }) = serde_json::from_str(&attempt.state)
    else {
        return Err(gone());
    };
    let (status, interval) = match app.gate.poll(&device_code).await {
        Ok(Await::Granted(identity)) => {
            let now = unix_now();
            let login = app.gate.login(Granted { identity, label }, &token, now);
            app.store.add_login(login.clone(), now).await?;
            app.store.take_attempt(key, now).await?;
            tracing::info!(subject = login.subject.as_str(), id = %login.id, "logged in");
            return Ok((
                StatusCode::OK,
                Json(Polled::Granted(granted(&login, &token))),
            ));
        }
        Ok(Await::Pending) => ("pending", interval),
        Ok(Await::SlowDown) => ("slow_down", interval + SLOWER),
        Ok(Await::Expired) => {
            app.store.take_attempt(key, now).await?;
            return Err(gone());
        }
        // Whoever asks again may be luckier.
        Err(error) if error.code() == "provider_unreachable" => {
            again(&app, &attempt, attempt.state.clone(), interval).await?;
            return Err(error);
        }
        Err(error) => {
            app.store.take_attempt(key, now).await?;
            return Err(error);
        }
    };
    let stage = Stage::Device {
        device_code,
        interval,
        label,
    };
    again(&app, &attempt, write(&stage)?, interval).await?;
    Ok(wait(status, Some(interval)))
}

async fn again(app: &App, attempt: &Attempt, state: String, interval: u64) -> Result<(), ApiError> {
    let next = unix_now() + interval;
    app.store.change_attempt(attempt.hash, state, next).await?;
    Ok(())
}

fn wait(status: &'static str, interval: Option<u64>) -> (StatusCode, Json<Polled>) {
    (
        StatusCode::ACCEPTED,
        Json(Polled::Waiting { status, interval }),
    )
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Start {
    /// Where the client waits for its browser: http://127.0.0.1:PORT/ without a query.
    redirect_uri: String,
    /// SHA-256 of the client's secret (RFC 7636, S256).
    code_challenge: String,
    /// Comes back as it is.
    state: String,
    /// What the client calls itself.
    #[serde(default)]
    label: String,
}

/// `GET /auth/login`: sends a browser to the provider.
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    Query(start): Query<Start>,
) -> Result<Response, ApiError> {
    app.guards.attempt(remote.ip())?;
    let redirect = client_url(&start.redirect_uri)?;
    let challenge = URL_SAFE_NO_PAD.decode(&start.code_challenge);
    if challenge.map_or(0, |challenge| challenge.len()) != 32 {
        return Err(ApiError::bad_request("code_challenge is no SHA-256"));
    }
    if start.state.len() > MAX_STATE {
        return Err(ApiError::bad_request("state is too long"));
    }
    let started = app.gate.start().await?;
    let cookie = cookie(&app, &started.state, BROWSER_TTL);
    let (state, url) = (started.state.clone(), started.url.clone());
    let stage = Stage::Browser {
        started,
        redirect: redirect.to_string(),
        state: start.state,
        challenge: start.code_challenge,
        label: label(&start.label),
    };
    keep(&app, &state, &stage, BROWSER_TTL).await?;
    Ok(see(&url, cookie))
}

/// `GET /page/login`: sends a browser to the provider, for the status page.
pub(crate) async fn start_page(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
) -> Result<Response, ApiError> {
    app.guards.attempt(remote.ip())?;
    let started = app.gate.start().await?;
    let cookie = cookie(&app, &started.state, BROWSER_TTL);
    let (state, url) = (started.state.clone(), started.url.clone());
    keep(&app, &state, &Stage::Page { started }, BROWSER_TTL).await?;
    Ok(see(&url, cookie))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Callback {
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /auth/callback`: the provider sends a browser back.
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    headers: HeaderMap,
    Query(back): Query<Callback>,
) -> Result<Response, ApiError> {
    app.guards.poll(remote.ip())?;
    if !has_cookie(&headers, &back.state) {
        let text = "this login was begun by another browser";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "login_invalid", text)
            .hint("open the address that 'cw login --browser' prints, and go on there"));
    }
    let attempt = app
        .store
        .take_attempt(hash(&back.state), unix_now())
        .await?;
    let stage = attempt.and_then(|attempt| serde_json::from_str(&attempt.state).ok());
    let (started, redirect, state, challenge, label) = match stage {
        Some(Stage::Browser {
            started,
            redirect,
            state,
            challenge,
            label,
        }) => (started, redirect, state, challenge, label),
        Some(Stage::Page { started }) => {
            let mut answer = session::back(&app, outcome(&app, &started, &back).await).await;
            if let Ok(cookie) = cookie(&app, &back.state, 0).parse() {
                answer.headers_mut().append(SET_COOKIE, cookie);
            }
            return Ok(answer);
        }
        _ => return Err(gone()),
    };
    let mut to = client_url(&redirect)?;
    match outcome(&app, &started, &back).await {
        Ok(identity) => {
            let code = secret();
            let granted = Granted { identity, label };
            keep(&app, &code, &Stage::Back { granted, challenge }, CODE_TTL).await?;
            to.query_pairs_mut().append_pair("code", &code);
        }
        Err(error) => {
            to.query_pairs_mut()
                .append_pair("error", error.code())
                .append_pair("error_description", error.message());
        }
    }
    to.query_pairs_mut().append_pair("state", &state);
    Ok(see(to.as_str(), cookie(&app, &back.state, 0)))
}

/// Whom the provider vouches for, or why for nobody.
async fn outcome(app: &App, started: &Started, back: &Callback) -> Result<Identity, ApiError> {
    match (&back.error, &back.code) {
        (None, Some(code)) => app.gate.finish(started, code, back.iss.as_deref()).await,
        (Some(error), _) if error != "access_denied" => {
            tracing::warn!(error = %crate::show::cut(error, 100), "the provider refuses");
            Err(gone())
        }
        _ => Err(denied()),
    }
}

/// What a browser has brought back.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "LoginExchange")]
pub(crate) struct Exchange {
    code: String,
    /// The client's secret (RFC 7636).
    code_verifier: String,
}

/// `POST /api/v1/auth/token`: the client that a browser has come back to gets its login.
pub(crate) async fn token(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    Body(exchange): Body<Exchange>,
) -> Result<Json<logins::Granted>, ApiError> {
    app.guards.poll(remote.ip())?;
    let now = unix_now();
    let attempt = app.store.take_attempt(hash(&exchange.code), now).await?;
    let stage = attempt.and_then(|attempt| serde_json::from_str(&attempt.state).ok());
    let Some(Stage::Back { granted, challenge }) = stage else {
        return Err(gone());
    };
    let shown = URL_SAFE_NO_PAD.encode(Sha256::digest(&exchange.code_verifier));
    if !bool::from(shown.as_bytes().ct_eq(challenge.as_bytes())) {
        return Err(gone());
    }
    let token = LoginToken::new();
    let login = app.gate.login(granted, &token, now);
    app.store.add_login(login.clone(), now).await?;
    tracing::info!(subject = login.subject.as_str(), id = %login.id, "logged in");
    Ok(Json(logins::granted(&login, &token)))
}

/// A secret of 256 bits.
fn secret() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

async fn keep(app: &App, secret: &str, stage: &Stage, ttl: u64) -> Result<(), ApiError> {
    let now = unix_now();
    let attempt = Attempt {
        hash: hash(secret),
        state: write(stage)?,
        expires: now + ttl,
    };
    Ok(app.store.add_attempt(attempt, now).await?)
}

fn write(stage: &Stage) -> Result<String, ApiError> {
    serde_json::to_string(stage).map_err(|_| ApiError::internal())
}

/// Where a client waits for its browser: on the machine of the browser and nowhere else (RFC 8252).
fn client_url(text: &str) -> Result<Url, ApiError> {
    let url = Url::parse(text).ok().filter(|url| {
        url.scheme() == "http"
            && url.host_str().is_some_and(is_loopback)
            && url.port().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    url.ok_or_else(|| {
        ApiError::bad_request("redirect_uri is no http://127.0.0.1:PORT/ without a query")
    })
}

fn see(url: &str, cookie: String) -> Response {
    let headers = [(LOCATION, url.to_owned()), (SET_COOKIE, cookie)];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Each login has a cookie of its own, for two at once.
fn cookie_name(state: &str) -> String {
    format!("cw_login_{}", hex::encode(&hash(state)[..8]))
}

fn cookie(app: &App, state: &str, ttl: u64) -> String {
    let name = cookie_name(state);
    let secure = if app.info.base_url.starts_with("https:") {
        "; Secure"
    } else {
        ""
    };
    format!("{name}=1; Path=/auth; Max-Age={ttl}; HttpOnly; SameSite=Lax{secure}")
}

fn has_cookie(headers: &HeaderMap, state: &str) -> bool {
    let wanted = format!("{}=1", cookie_name(state));
    let cookies = headers.get_all(COOKIE).iter();
    let mut cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
    cookies.any(|cookies| cookies.split(';').any(|cookie| cookie.trim() == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_back_to_its_own_machine_alone() {
        for url in ["http://127.0.0.1:4000/callback", "http://[::1]:4000/"] {
            assert!(client_url(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "http://127.0.0.1/callback",
            "https://127.0.0.1:4000/",
            "http://evil.example:4000/",
            "http://127.0.0.1.evil.example:4000/",
            "http://127.0.0.1:4000@evil.example:4000/",
            "http://user@127.0.0.1:4000/",
            "http://127.0.0.1:4000/?code=x",
            "http://127.0.0.1:4000/#x",
            "javascript:alert(1)",
        ] {
            assert!(client_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_cookie_is_of_one_login() {
        let mut headers = HeaderMap::new();
        assert!(!has_cookie(&headers, "one"));
        let text = format!("other=1; {}=1", cookie_name("one"));
        headers.insert(COOKIE, text.parse().unwrap());
        assert!(has_cookie(&headers, "one"));
        assert!(!has_cookie(&headers, "two"));
    }
}
