//! What the HTTP API answers when it does not do it:
//! `{"code": "…", "message": "…", "hint": "…"}`, the code for programs and the
//! rest for people.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::store::{self, Refusal};

/// A refusal, ready to be sent.
#[derive(Debug, Serialize)]
pub(crate) struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

impl ApiError {
    /// With a code that never changes once released.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The text.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The request makes no sense.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// No token, or not the right one.
    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the relay does not know who you are",
        )
        .hint("'cw login' logs you in; or pass the relay's token, by --token-file or CODEWIRE_RELAY_AUTH_TOKEN")
    }

    /// Known, but not allowed.
    pub(crate) fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "you may not do this in this network",
        )
    }

    /// Too many tries from one address.
    pub(crate) fn rate_limited() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "too many tries from this address",
        )
        .hint("wait a minute")
    }

    /// No such network.
    pub(crate) fn network_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "network_unknown",
            "there is no such network on this relay",
        )
        .hint("create it with 'cw network create <name>'")
    }

    /// No such node.
    pub(crate) fn node_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "node_unknown",
            "there is no such node in this network",
        )
    }

    /// A network id that breaks the rules.
    pub(crate) fn network_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "network_invalid",
            "a network id is 1 to 63 letters, digits, '-' or '_', starting with a letter or digit",
        )
    }

    /// The relay's database cannot be reached.
    pub(crate) fn store_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "the relay cannot reach its database now",
        )
        .hint("try again in a moment; whoever keeps the relay finds more in its log")
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the relay failed; its log says more",
        )
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        let store::Error::Refused(refusal) = error else {
            return of_database(&error);
        };
        let (status, code, hint) = match refusal {
            Refusal::InviteInvalid => (StatusCode::FORBIDDEN, "invite_invalid", Some(NEW_INVITE)),
            Refusal::InviteUsedUp => (StatusCode::FORBIDDEN, "invite_used_up", Some(NEW_INVITE)),
            Refusal::InviteExpired => (StatusCode::FORBIDDEN, "invite_expired", Some(NEW_INVITE)),
            Refusal::NameTaken => (
                StatusCode::CONFLICT,
                "name_taken",
                Some("choose another name for this node"),
            ),
            Refusal::AlreadyJoined => (
                StatusCode::CONFLICT,
                "already_joined",
                Some("join under the name this node has, or revoke that name first"),
            ),
            Refusal::Revoked => (
                StatusCode::FORBIDDEN,
                "revoked",
                Some("a revoked key stays out; the machine needs a new identity"),
            ),
            Refusal::NetworkFull => (StatusCode::CONFLICT, "network_full", None),
            Refusal::TooManyInvites
            | Refusal::TooManyPapers
            | Refusal::TooManyHandovers
            | Refusal::GroupFull
            | Refusal::TooManyKeys => (StatusCode::CONFLICT, "too_many", None),
            Refusal::NameBound => (
                StatusCode::FORBIDDEN,
                "name_bound",
                Some("join under the name that the invite was made for"),
            ),
            Refusal::LastOwner => (
                StatusCode::CONFLICT,
                "last_owner",
                Some("make somebody else an owner first, or delete the network"),
            ),
            Refusal::TooManyAttempts => (StatusCode::SERVICE_UNAVAILABLE, "login_busy", None),
            Refusal::KeyTaken => (StatusCode::CONFLICT, "key_taken", None),
            Refusal::GroupTaken => (StatusCode::CONFLICT, "group_taken", None),
            Refusal::GroupUnknown => (StatusCode::NOT_FOUND, "group_unknown", Some(GROUPS)),
            Refusal::NotInGroup => (StatusCode::NOT_FOUND, "not_in_group", None),
            Refusal::GrantUnknown => (StatusCode::NOT_FOUND, "grant_unknown", None),
            Refusal::NetworkTaken => (
                StatusCode::CONFLICT,
                "network_taken",
                Some("choose another name, or ask its owner for an invite"),
            ),
            Refusal::SharedFull => (
                StatusCode::INSUFFICIENT_STORAGE,
                "kv_full",
                Some("delete keys that are no longer needed, or give them a --ttl"),
            ),
            Refusal::SharedChanged => (
                StatusCode::PRECONDITION_FAILED,
                "conflict",
                Some("read it again, and decide again"),
            ),
        };
        Self {
            status,
            code,
            message: refusal.to_string(),
            hint,
        }
    }
}

/// Nothing was changed.
fn of_database(error: &store::Error) -> ApiError {
    if error.is_away() {
        tracing::warn!(%error, "the database is away");
        return ApiError::store_unavailable();
    }
    tracing::error!(%error, "store");
    ApiError::internal()
}

const GROUPS: &str = "'cw group list' shows the groups";

const NEW_INVITE: &str = "ask for a new invite";

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self).unwrap_or_default();
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        (self.status, content_type, body).into_response()
    }
}
