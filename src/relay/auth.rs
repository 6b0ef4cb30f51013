//! Who calls: the bearer token of a request, judged.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use mesh::NetworkId;

use super::app::App;
use super::error::ApiError;
use super::policy::{Action, As, may};
use super::store::Subject;

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
        let Remote(remote) = Remote::from_request_parts(parts, app).await?;
        app.guards.may_show_token(remote.ip())?;
        let token = bearer(parts).ok_or_else(ApiError::unauthorized)?;
        if app.is_admin(token) {
            return Ok(Self(Subject::admin()));
        }
        app.guards.wrong_token(remote.ip());
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
    if !app.hub.has(network) {
        return Err(ApiError::network_unknown());
    }
    Ok(())
}

/// The token of `Authorization: Bearer …`; `None` if there is not exactly one
/// such header.
fn bearer(parts: &Parts) -> Option<&str> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (header, None) = (headers.next()?, headers.next()) else {
        return None;
    };
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
    is_bearer.then_some(token)
}
