//! Who calls, where nodes may call as well as users: a bearer token, or a
//! request that a node has signed ([`crate::coord::request`]).
//!
//! The head is judged before the body is read, so that only those who belong
//! here can make the relay hold one.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use derp::NodeKey;
use mesh::{NetworkId, NodeRecord};

use super::api::network_of;
use super::app::App;
use super::auth::{Remote, User, permit};
use super::clock::unix_now;
use super::error::ApiError;
use super::policy::{Action, As, may};
use super::store::Subject;
use crate::coord::BodyHash;
use crate::coord::request::{self, Credential, REQUEST_WINDOW, SCHEME};

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
        let (network, by, node) = match credential(&parts.headers)? {
            Some(credential) => {
                let record = signer(&mut parts, app, &credential).await?;
                let owner = Subject::named(record.owner);
                if !may(&owner, As::Node, None, Action::Share) {
                    return Err(ApiError::forbidden());
                }
                (record.network, record.name.to_string(), Some(record.key))
            }
            None => {
                let user = User::from_request_parts(&mut parts, app).await?;
                let network = network_of(&mut parts).await?;
                user.may(Action::Share, &network, app).await?;
                (network, user.0.as_str().to_owned(), None)
            }
        };
        let headers = parts.headers.clone();
        let request = Request::from_parts(parts, body);
        let body = Bytes::from_request(request, app).await;
        let body = body.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                too_large()
            } else {
                ApiError::bad_request("the body ended early")
            }
        })?;
        check_body(&headers, &body)?;
        Ok(Self {
            network,
            by,
            node,
            body,
        })
    }
}

/// A user, or a node that speaks for its owner.
#[derive(Debug, Clone)]
pub(crate) enum Visitor {
    User(Subject),
    Node {
        network: NetworkId,
        key: NodeKey,
        owner: Subject,
    },
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Some(credential) = credential(&parts.headers)? else {
            let User(subject) = User::from_request_parts(parts, app).await?;
            return Ok(Self::User(subject));
        };
        let record = signer(parts, app, &credential).await?;
        Ok(Self::Node {
            network: record.network,
            key: record.key,
            owner: Subject::named(record.owner),
        })
    }
}

impl Visitor {
    /// See [`User::may`]; a node has no business in another network.
    pub(crate) async fn may(
        &self,
        action: Action,
        network: &NetworkId,
        app: &App,
    ) -> Result<(), ApiError> {
        match self {
            Self::User(subject) => permit(subject, As::User, action, network, app).await,
            Self::Node {
                network: own,
                owner,
                ..
            } if own == network => permit(owner, As::Node, action, network, app).await,
            Self::Node { .. } => Err(ApiError::forbidden()),
        }
    }

    /// In whose name it is.
    pub(crate) const fn subject(&self) -> &Subject {
        match self {
            Self::User(subject) => subject,
            Self::Node { owner, .. } => owner,
        }
    }
}

/// Whether a body is the one that was signed, if the request was signed at all.
pub(crate) fn check_body(headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    match credential(headers)? {
        Some(credential) if credential.body != BodyHash::of(body) => {
            Err(not_signed("the body is not the one that was signed"))
        }
        _ => Ok(()),
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

pub(crate) fn credential(headers: &HeaderMap) -> Result<Option<Credential>, ApiError> {
    let mut headers = headers.get_all(AUTHORIZATION).iter();
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

/// The record of the node that signed. Whatever is wrong is told in the same
/// words, but for a clock that is off: that its owner has to hear.
async fn signer(
    parts: &mut Parts,
    app: &Arc<App>,
    credential: &Credential,
) -> Result<NodeRecord, ApiError> {
    let Remote(remote) = Remote::from_request_parts(parts, app).await?;
    app.guards.may_say_hello(remote.ip())?;
    let wrong = || {
        app.guards.wrong_hello(remote.ip());
        not_signed("no node of this relay could be recognised")
    };
    let standing = app.find_standing(&credential.network, &credential.key);
    let standing = standing.await?.ok_or_else(wrong)?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = request::Request {
        issuer: &standing.root,
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
    if !app.take_nonce(&credential.nonce).await? {
        return Err(not_signed("this request was made before"));
    }
    Ok(standing.record)
}

fn not_signed(why: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", why)
}
