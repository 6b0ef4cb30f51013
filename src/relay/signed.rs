//! Who calls, where nodes may call as well as users: a bearer token, or a
//! request that a node has signed ([`crate::coord::request`]).
//!
//! The head is judged before the body is read, so that only those who belong
//! here can make the relay hold one.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use derp::NodeKey;
use mesh::NetworkId;

use super::api::network_of;
use super::app::App;
use super::auth::{Remote, User};
use super::clock::unix_now;
use super::error::ApiError;
use super::policy::{Action, node_may};
use crate::coord::request::{self, Credential, REQUEST_WINDOW, SCHEME};
use crate::coord::{BodyHash, Nonce};

/// Nonces remembered, for all networks together. Each is good for four minutes
/// at most, and each came with a right signature.
const MAX_NONCES: usize = 500_000;

/// A request of somebody who may share values in a network.
pub(crate) struct Sharer {
    pub(crate) network: NetworkId,
    /// Whoever it is, as others are told.
    pub(crate) by: String,
    /// The node, if it is one.
    pub(crate) node: Option<NodeKey>,
    pub(crate) body: Bytes,
}

impl FromRequest<Arc<App>> for Sharer {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let credential = credential(&parts)?;
        let (network, by, node) = match &credential {
            Some(credential) => {
                let name = signer(&mut parts, app, credential).await?;
                (credential.network.clone(), name, Some(credential.key))
            }
            None => {
                let user = User::from_request_parts(&mut parts, app).await?;
                let network = network_of(&mut parts).await?;
                user.may(Action::Share, &network, app).await?;
                (network, user.0.as_str().to_owned(), None)
            }
        };
        let request = Request::from_parts(parts, body);
        let body = Bytes::from_request(request, app).await;
        let body = body.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                too_large()
            } else {
                ApiError::bad_request("the body ended early")
            }
        })?;
        if credential.is_some_and(|credential| credential.body != BodyHash::of(&body)) {
            return Err(not_signed("the body is not the one that was signed"));
        }
        Ok(Self {
            network,
            by,
            node,
            body,
        })
    }
}

/// A value over the limit.
pub(crate) fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        "a value may have 1 MiB",
    )
}

fn credential(parts: &Parts) -> Result<Option<Credential>, ApiError> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Ok(None);
    };
    let text = header.to_str().ok().and_then(|text| text.split_once(' '));
    match text {
        Some((scheme, text)) if scheme == SCHEME => {
            let credential = text.parse();
            credential
                .map(Some)
                .map_err(|_| not_signed("the credential cannot be read"))
        }
        _ => Ok(None),
    }
}

/// The name of the node that signed. Whatever is wrong is told in the same
/// words, but for a clock that is off: that its owner has to hear.
async fn signer(
    parts: &mut Parts,
    app: &Arc<App>,
    credential: &Credential,
) -> Result<String, ApiError> {
    let Remote(remote) = Remote::from_request_parts(parts, app).await?;
    app.guards.may_say_hello(remote.ip())?;
    let wrong = || {
        app.guards.wrong_hello(remote.ip());
        not_signed("no node of this relay could be recognised")
    };
    let standing = app.hub.standing(&credential.network, &credential.key);
    let standing = standing.ok_or_else(wrong)?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = request::Request {
        issuer: &standing.issuer,
        method: parts.method.as_str(),
        path,
    };
    if !credential.is_by(&standing.record.sign_key, &request) {
        return Err(wrong());
    }
    if standing.revoked {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "revoked",
            "this node was revoked",
        ));
    }
    let now = unix_now();
    if now.abs_diff(credential.time) > REQUEST_WINDOW {
        return Err(not_signed("the clocks of node and relay are too far apart")
            .hint("set the clock of the node, or the relay's"));
    }
    if !app.nonces.lock().take(&credential.nonce, now)? {
        return Err(not_signed("this request was made before"));
    }
    if !node_may(Action::Share) {
        return Err(ApiError::forbidden());
    }
    Ok(standing.record.name.to_string())
}

fn not_signed(why: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", why)
}

/// The nonces of the last requests, in two generations: when the younger is as
/// old as a request may be, the elder has nothing that could come again.
#[derive(Default)]
pub(crate) struct Nonces {
    young: HashSet<Nonce>,
    old: HashSet<Nonce>,
    since: u64,
}

impl Nonces {
    /// False if it was used before.
    fn take(&mut self, nonce: &Nonce, now: u64) -> Result<bool, ApiError> {
        // A request from the furthest future is good for twice the window. The
        // clock may also have been set back.
        if now.abs_diff(self.since) > 2 * REQUEST_WINDOW {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        if self.young.len() + self.old.len() >= MAX_NONCES {
            return Err(ApiError::rate_limited());
        }
        Ok(!self.old.contains(nonce) && self.young.insert(*nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once() {
        let mut nonces = Nonces::default();
        let mut now = 1_800_000_000;
        assert!(nonces.take(&Nonce([1; 32]), now).unwrap());
        // As long as a request with it could be believed, and longer.
        for _ in 0..=2 * REQUEST_WINDOW {
            assert!(!nonces.take(&Nonce([1; 32]), now).unwrap());
            now += 1;
        }
        assert!(nonces.take(&Nonce([2; 32]), now).unwrap());
        // They do not stay for ever.
        now += 5 * REQUEST_WINDOW;
        assert!(nonces.take(&Nonce([3; 32]), now).unwrap());
        now += 5 * REQUEST_WINDOW;
        assert!(nonces.take(&Nonce([4; 32]), now).unwrap());
        assert_eq!(nonces.young.len() + nonces.old.len(), 2);
    }
}
