//! Who calls: the bearer token of a request, judged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use mesh::NetworkId;

use super::app::App;
use super::clock::unix_now;
use super::error::ApiError;
use super::login;
use super::page::session;
use super::policy::{Action, As, may};
use super::store::Subject;
use super::store::logins::Login;

/// Between two looks whether a login is over, while its request or its stream goes on.
const LOOK: Duration = Duration::from_secs(1);

/// The other end of the TCP connection. Headers that claim something else are
/// not believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

impl<S: Sync> FromRequestParts<S> for Remote {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let remote = parts.extensions.get::<Self>().copied();
        remote.ok_or_else(|| ApiError::bad_request("the connection has no address"))
    }
}

/// A user whose token was right.
#[derive(Debug, Clone)]
pub(crate) struct User(pub(crate) Subject);

impl FromRequestParts<Arc<App>> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let person = Person::from_request_parts(parts, app).await?;
        Ok(Self(person.subject))
    }
}

/// A user, and by what they are known.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    /// Who.
    pub(crate) subject: Subject,
    /// Their login; none for who has shown the relay's token, or was asked for nothing.
    pub(crate) login: Option<Login>,
}

impl FromRequestParts<Arc<App>> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Remote(remote) = Remote::from_request_parts(parts, app).await?;
        if app.gate.is_open() {
            is_from_here(&parts.headers)?;
            let login = match bearer(&parts.headers) {
                Some(token) => login_of(token, app).await?,
                None => None,
            };
            let subject = Subject::admin();
            return Ok(Self { subject, login });
        }
        app.guards.may_show_token(remote.ip())?;
        let token = bearer(&parts.headers).ok_or_else(ApiError::unauthorized)?;
        if app.is_admin(token) {
            let subject = Subject::admin();
            return Ok(Self {
                subject,
                login: None,
            });
        }
        if token.starts_with(login::PREFIX) {
            app.guards.may_show_login(remote.ip())?;
            let login = login_of(token, app).await?;
            // That of the page is in a cookie, which a browser shows to every port of this host.
            if let Some(login) = login.filter(|login| login.label != session::LABEL) {
                let subject = login.subject.clone();
                return Ok(Self {
                    subject,
                    login: Some(login),
                });
            }
            app.guards.wrong_login(remote.ip());
        } else {
            app.guards.wrong_token(remote.ip());
        }
        Err(ApiError::unauthorized())
    }
}

impl User {
    /// Passes if this user may do `action` in `network`. Whether a network
    /// exists is told only to those who may see all of them.
    pub(crate) async fn may(
        &self,
        action: Action,
        network: &NetworkId,
        app: &App,
    ) -> Result<(), ApiError> {
        permit(&self.0, As::User, action, network, app).await
    }
}

/// Passes if `subject` may.
pub(super) async fn permit(
    subject: &Subject,
    by: As,
    action: Action,
    network: &NetworkId,
    app: &App,
) -> Result<(), ApiError> {
    let role = app.store.role(network.clone(), subject.clone()).await?;
    if !may(subject, by, role, action) {
        return Err(ApiError::forbidden());
    }
    app.freshen(network).await?;
    if !app.hub.has(network) {
        return Err(ApiError::network_unknown());
    }
    Ok(())
}

/// The login of a token, if it is good now.
pub(crate) async fn login_of(token: &str, app: &App) -> Result<Option<Login>, ApiError> {
    let login = app.store.login(login::hash(token), unix_now()).await?;
    Ok(login.filter(|login| app.gate.honours(login)))
}

/// Waits until a login is over, if the token is one's: whoever was let in by it is then cut off.
/// Relays that share a database hear of it from there, which is why they look.
pub(crate) async fn until_over(token: Option<String>, app: Arc<App>) {
    let Some(token) = token.filter(|token| token.starts_with(login::PREFIX)) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(LOOK).await;
        if !matches!(login_of(&token, &app).await, Ok(Some(_))) {
            return;
        }
    }
}

/// The token of `Authorization: Bearer …`; `None` if there is not exactly one
/// such header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut headers = headers.get_all(AUTHORIZATION).iter();
    let (header, None) = (headers.next()?, headers.next()) else {
        return None;
    };
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
    is_bearer.then_some(token)
}

/// Where everybody is let in, a page that somebody of this machine looks at must not be: its
/// requests say where it came from, or are for a host whose name was made to lead here.
pub(super) fn is_from_here(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host: Option<Uri> = host.and_then(|host| host.parse().ok());
    let authority = host.as_ref().and_then(Uri::authority);
    let is_here = authority.is_some_and(|authority| login::is_loopback(authority.host()));
    let is_own = headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        let from = origin.map(|(_, from)| from);
        from.is_some() && from == authority.map(|authority| authority.as_str())
    });
    if is_here && is_own {
        return Ok(());
    }
    let text = "this relay lets in everybody, but no pages of others";
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", text)
        .hint("ask for it at 127.0.0.1, and not from a page of another place"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_are_not_from_here() {
        for (host, origin, is_ok) in [
            ("127.0.0.1:8080", None, true),
            ("localhost", None, true),
            ("[::1]:8080", None, true),
            ("127.0.0.1:8080", Some("http://127.0.0.1:8080"), true),
            ("127.0.0.1:8080", Some("http://127.0.0.1:9090"), false),
            ("127.0.0.1:8080", Some("http://evil.example"), false),
            ("127.0.0.1:8080", Some("null"), false),
            ("evil.example:8080", None, false),
            ("evil.example:8080", Some("http://evil.example:8080"), false),
            ("", None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            let found = is_from_here(&headers).is_ok();
            assert_eq!(found, is_ok, "{host} {origin:?}");
        }
        assert!(is_from_here(&HeaderMap::new()).is_err());
    }
}
