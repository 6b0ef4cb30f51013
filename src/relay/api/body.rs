//! What is read of a request, with our own words when it is wrong: body, query, path, upgrade.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use mesh::NetworkId;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::relay::error::ApiError;
use crate::relay::signed::check_body;

/// A JSON body. What says that it is something else is not read as one: a page of another place
/// can make a browser send text or a form, and nothing else without asking.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        if !is_json(&headers) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let text = "the body is said to be something else than JSON";
            return Err(ApiError::new(status, "media_type", text));
        }
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|rejection| unreadable(&rejection))?;
        // The signature is over a hash of the body; this is where the body is seen.
        check_body(&headers, &bytes)?;
        // A list would be taken for the fields in their order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::bad_request("the body is no JSON object"));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the body is not right: {error}")))
    }
}

/// Whether a body may be JSON: it says so, or nothing.
fn is_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_TYPE).iter().all(|kind| {
        let kind = kind.to_str().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}

fn unreadable(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        ApiError::new(status, "body_too_large", "a body may have 64 KiB")
    } else {
        ApiError::bad_request("the body ended early")
    }
}

/// What a query says.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let wrong = |why| ApiError::bad_request(format!("the query is not right: {why}"));
        let query = query.map_err(|rejection| {
            let why = std::error::Error::source(&rejection).map(ToString::to_string);
            wrong(why.unwrap_or_default())
        })?;
        Ok(Self(query.0))
    }
}

/// The parts of a path that are names.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let wrong = |_| ApiError::bad_request("the path is no UTF-8");
        Ok(Self(path.map_err(wrong)?.0))
    }
}

/// A connection that is to become a WebSocket.
pub(crate) struct Upgrade(pub(crate) WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        let upgrade = upgrade.map_err(|rejection: WebSocketUpgradeRejection| {
            upgrade_required(format!("this is for WebSockets: {rejection}"))
        });
        upgrade.map(Self)
    }
}

/// The request should have asked for another protocol.
pub(crate) fn upgrade_required(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", why)
}

/// `?network_id=…`, which most routes need.
pub(crate) struct InNetwork(pub(crate) NetworkId);

impl<S: Send + Sync> FromRequestParts<S> for InNetwork {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Params {
            network_id: String,
        }
        let params = Query::<Params>::from_request_parts(parts, state).await;
        let Query(params) = params.map_err(|_| ApiError::bad_request("network_id required"))?;
        network_id(&params.network_id).map(Self)
    }
}

/// Reads a network id.
pub(crate) fn network_id(text: &str) -> Result<NetworkId, ApiError> {
    text.parse().map_err(|_| ApiError::network_invalid())
}

/// The `network_id` of a request, outside of extraction.
pub(crate) async fn network_of(parts: &mut Parts) -> Result<NetworkId, ApiError> {
    let InNetwork(network) = InNetwork::from_request_parts(parts, &()).await?;
    Ok(network)
}
