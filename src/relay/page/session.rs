//! The browser of somebody who looks at the status page.
//!
//! It is known by a cookie, which no script can read and which is sent with what this page itself
//! asks for alone. In the cookie is the token of a login: the one that was typed in, or, for who has
//! typed in the relay's own token or comes from the provider, a new one for this browser, so that
//! the relay's token stays out of it. The login is what is looked up with every request; whoever
//! ends it ends what the page shows. What changes something is taken from the page's own origin only.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::relay::api::JsonBody;
use crate::relay::app::App;
use crate::relay::auth::{Remote, is_from_here, login_of};
use crate::relay::clock::unix_now;
use crate::relay::error::ApiError;
use crate::relay::login::{self, Granted, Identity, LoginToken};
use crate::relay::store::Subject;
use crate::relay::store::logins::Login;

/// What the logins of browsers are called in `cw login list`.
pub(crate) const LABEL: &str = "status page";

/// How long a browser stays signed in, seconds: a working day.
const TTL: u64 = 12 * 3600;

/// Over TLS it is bound to this host, and never sent without.
const NAMES: [&str; 2] = ["cw_page", "__Host-cw_page"];

/// Whoever looks.
pub(crate) struct Viewer {
    pub(crate) subject: Subject,
    login: Option<Login>,
}

impl FromRequestParts<Arc<App>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if app.gate.is_open() {
            is_from_here(&parts.headers)?;
            let subject = Subject::admin();
            return Ok(Self {
                subject,
                login: None,
            });
        }
        let Remote(remote) = Remote::from_request_parts(parts, app).await?;
        app.guards.may_show_login(remote.ip())?;
        let token = token_of(&parts.headers, app).ok_or_else(ApiError::unauthorized)?;
        let Some(login) = login_of(token, app).await? else {
            app.guards.wrong_login(remote.ip());
            return Err(ApiError::unauthorized());
        };
        Ok(Self {
            subject: login.subject.clone(),
            login: Some(login),
        })
    }
}

/// The token in the cookie of the page; `None` if there is not exactly one.
pub(crate) fn token_of<'a>(headers: &'a HeaderMap, app: &App) -> Option<&'a str> {
    let name = name(app);
    let cookies = headers.get_all(COOKIE).iter();
    let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
    let mut found = cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='));
    let (token, None) = (found.next()?, found.next()) else {
        return None;
    };
    Some(token).filter(|token| token.starts_with(login::PREFIX))
}

fn is_secure(app: &App) -> bool {
    app.info.base_url.starts_with("https:")
}

fn name(app: &App) -> &'static str {
    NAMES[usize::from(is_secure(app))]
}

fn cookie(app: &App, token: &str, ttl: u64) -> String {
    let (name, secure) = (name(app), if is_secure(app) { "; Secure" } else { "" });
    format!("{name}={token}; Path=/; Max-Age={ttl}; HttpOnly; SameSite=Strict{secure}")
}

/// Passes if a request comes from a page of this relay. A browser says where it comes from, and no
/// page can make it say something else.
fn is_own(headers: &HeaderMap, app: &App) -> Result<(), ApiError> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (origin, None) = (origins.next(), origins.next()) else {
        return Err(foreign());
    };
    let origin = origin.and_then(|origin| origin.to_str().ok());
    let from = origin.and_then(|origin| origin.split_once("://"));
    let from = from.map(|(_, from)| from).ok_or_else(foreign)?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let base = app.info.base_url.parse::<Uri>().ok();
    let base = base.as_ref().and_then(Uri::authority).map(|it| it.as_str());
    if [host, base].contains(&Some(from)) {
        Ok(())
    } else {
        Err(foreign())
    }
}

fn foreign() -> ApiError {
    let text = "this is for the relay's own page";
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", text)
        .hint("programs show a token, by the header Authorization")
}

/// Who looks.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PageViewer")]
pub(crate) struct Who {
    subject: String,
    /// What the provider calls them.
    name: Option<String>,
    /// Whether there is something to sign out of.
    signed_in: bool,
}

/// `GET /page/session`.
pub(crate) async fn show(viewer: Viewer) -> Json<Who> {
    Json(Who {
        subject: viewer.subject.as_str().to_owned(),
        signed_in: viewer.login.is_some(),
        name: viewer.login.map(|login| login.name),
    })
}

/// Who signs in.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "PageSignIn")]
pub(crate) struct SignIn {
    /// The relay's own, or that of a login.
    token: String,
}

/// `POST /page/session`: signs a browser in.
pub(crate) async fn open(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    headers: HeaderMap,
    JsonBody(sign_in): JsonBody<SignIn>,
) -> Result<Response, ApiError> {
    is_own(&headers, &app)?;
    app.guards.may_show_token(remote.ip())?;
    if app.is_admin(&sign_in.token) {
        let (token, now) = (LoginToken::new(), unix_now());
        let mut login = app.gate.admin_login(LABEL.to_owned(), &token, now);
        login.expires = now + TTL;
        app.store.add_login(login, now).await?;
        return Ok(signed_in(&app, token.text()));
    }
    if sign_in.token.starts_with(login::PREFIX) {
        app.guards.may_show_login(remote.ip())?;
        if login_of(&sign_in.token, &app).await?.is_some() {
            return Ok(signed_in(&app, &sign_in.token));
        }
        app.guards.wrong_login(remote.ip());
    } else {
        app.guards.wrong_token(remote.ip());
    }
    Err(ApiError::unauthorized())
}

fn signed_in(app: &App, token: &str) -> Response {
    let cookie = [(SET_COOKIE, cookie(app, token, TTL))];
    (StatusCode::NO_CONTENT, cookie).into_response()
}

/// `DELETE /page/session`: signs a browser out, and ends its login if it is of this browser alone.
pub(crate) async fn close(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    is_own(&headers, &app)?;
    if let Some(token) = token_of(&headers, &app) {
        let login = login_of(token, &app).await?;
        if let Some(login) = login.filter(|login| login.label == LABEL) {
            let id = Some(login.id);
            app.store.end_logins(Some(login.subject), id).await?;
        }
    }
    let cookie = [(SET_COOKIE, cookie(&app, "", 0))];
    Ok((StatusCode::NO_CONTENT, cookie).into_response())
}

/// Somebody for whom the provider vouches is back, or was refused. The page is gone to by another
/// page of ours: what the provider leads to directly would not have the cookie yet.
pub(crate) async fn back(app: &App, found: Result<Identity, ApiError>) -> Response {
    let identity = match found {
        Ok(identity) => identity,
        Err(error) => return go(&format!("/?refused={}", error.code())),
    };
    let (token, now) = (LoginToken::new(), unix_now());
    let label = LABEL.to_owned();
    let mut login = app.gate.login(Granted { identity, label }, &token, now);
    login.expires = now + TTL;
    tracing::info!(subject = login.subject.as_str(), id = %login.id, "logged in");
    if let Err(error) = app.store.add_login(login, now).await {
        return ApiError::from(error).into_response();
    }
    let mut answer = go("/");
    if let Ok(cookie) = cookie(app, token.text(), TTL).parse() {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    answer
}

fn go(place: &str) -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"refresh\" content=\"0;url={place}\">\n<title>cw relay</title>\n\
         <a href=\"{place}\">On to the page</a>\n</html>\n"
    );
    super::file("text/html; charset=utf-8", page)
}
