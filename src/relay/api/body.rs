//! Request bodies and queries, with our own words when they are wrong.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use mesh::NetworkId;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::relay::error::ApiError;
use crate::relay::signed::check_body;

/// A JSON body, whatever its content type says.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|rejection| unreadable(&rejection))?;
        // The signature is over a hash of the body; this is where the body is seen.
        check_body(&headers, &bytes)?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the body is not right: {error}")))
    }
}

fn unreadable(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        ApiError::new(status, "body_too_large", "a body may have 64 KiB")
    } else {
        ApiError::bad_request("the body ended early")
    }
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
