//! What the HTTP API answers when it does not do it: a [`Problem`] (RFC 9457), whose `code` is for
//! programs and whose `detail` and `hint` are for people. The codes are in [`codes`].

pub(crate) mod codes;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::store::{self, Refusal};

/// The content type of a [`Problem`].
pub(crate) const PROBLEM: &str = "application/problem+json";

/// A refusal, ready to be sent.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<&'static str>,
}

/// What was wrong (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Problem {
    /// Names the kind: urn:codewire:problem: and the code.
    r#type: String,
    /// What HTTP calls the status.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What was wrong this time, for people.
    detail: String,
    /// What was wrong, for programs. Codes never change.
    code: String,
    /// What to do about it, for people.
    hint: String,
}

/// Goes with an answer, for the tests that check that it was promised.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code(pub(crate) &'static str);

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
    }

    /// No such network.
    pub(crate) fn network_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "network_unknown",
            "there is no such network on this relay",
        )
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
        let (status, code) = match refusal {
            Refusal::InviteInvalid => (StatusCode::FORBIDDEN, "invite_invalid"),
            Refusal::InviteUsedUp => (StatusCode::FORBIDDEN, "invite_used_up"),
            Refusal::InviteExpired => (StatusCode::FORBIDDEN, "invite_expired"),
            Refusal::NameTaken => (StatusCode::CONFLICT, "name_taken"),
            Refusal::AlreadyJoined => (StatusCode::CONFLICT, "already_joined"),
            Refusal::Revoked => (StatusCode::FORBIDDEN, "revoked"),
            Refusal::NetworkFull => (StatusCode::CONFLICT, "network_full"),
            Refusal::TooManyInvites
            | Refusal::TooManyPapers
            | Refusal::TooManyHandovers
            | Refusal::GroupFull
            | Refusal::TooManyKeys => (StatusCode::CONFLICT, "too_many"),
            Refusal::NameBound => (StatusCode::FORBIDDEN, "name_bound"),
            Refusal::LastOwner => (StatusCode::CONFLICT, "last_owner"),
            Refusal::TooManyAttempts => (StatusCode::SERVICE_UNAVAILABLE, "login_busy"),
            Refusal::KeyTaken => (StatusCode::CONFLICT, "key_taken"),
            Refusal::GroupTaken => (StatusCode::CONFLICT, "group_taken"),
            Refusal::GroupUnknown => (StatusCode::NOT_FOUND, "group_unknown"),
            Refusal::NotInGroup => (StatusCode::NOT_FOUND, "not_in_group"),
            Refusal::GrantUnknown => (StatusCode::NOT_FOUND, "grant_unknown"),
            Refusal::NetworkTaken => (StatusCode::CONFLICT, "network_taken"),
            Refusal::SharedFull => (StatusCode::INSUFFICIENT_STORAGE, "kv_full"),
            Refusal::SharedChanged => (StatusCode::PRECONDITION_FAILED, "conflict"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

/// Nothing was changed.
fn of_database(error: &store::Error) -> ApiError {
    if error.is_away() {
        tracing::warn!(%error, "the database is away");
        return ApiError::store_unavailable();
    }
    if error.is_no_text() {
        return ApiError::bad_request(
            "there is a character in it that cannot be stored, such as NUL",
        );
    }
    tracing::error!(%error, "store");
    ApiError::internal()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let hint = self.hint.or_else(|| codes::known(self.code).map(|it| it.1));
        let title = self.status.canonical_reason();
        let problem = Problem {
            r#type: format!("urn:codewire:problem:{}", self.code),
            title: title.unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            detail: self.message,
            code: self.code.to_owned(),
            hint: hint.unwrap_or_default().to_owned(),
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut answer = (self.status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response();
        // What RFC 9110 wants beside these statuses.
        let beside = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::UPGRADE_REQUIRED => Some((header::UPGRADE, "websocket")),
            _ => None,
        };
        if let Some((name, value)) = beside {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        #[cfg(test)]
        answer.extensions_mut().insert(Code(self.code));
        answer
    }
}
