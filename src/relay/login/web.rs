//! Requests of the relay to a provider: short, bounded, and to where they were sent.

use std::time::Duration;

use openidconnect::{HttpRequest, HttpResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use super::away;
use crate::error::{Error, Result};
use crate::relay::error::ApiError;
use crate::uplink::tls;

/// How long a provider may take for an answer. A client waits for the relay meanwhile, which gives
/// it 15 s.
const LIMIT: Duration = Duration::from_secs(5);

/// The longest answer, bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// What is written as its bytes in a form.
const SPECIAL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A client of one provider.
#[derive(Clone)]
pub(super) struct Web {
    client: Client,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("{0}")]
    Shape(#[from] http::Error),
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

/// How the relay proves to a provider that it is the relay.
#[derive(Clone, Copy)]
pub(super) enum Secret<'a> {
    /// Not at all: PKCE alone.
    None,
    /// In the head, as RFC 6749 has it first.
    Basic(&'a str),
    /// In the form.
    Post(&'a str),
}

impl Web {
    /// Redirections are not followed: they would lead requests with secrets to where nobody has
    /// sent them.
    ///
    /// # Errors
    ///
    /// `tls` when nothing is trusted and `tls` is needed.
    pub(super) fn new(is_tls: bool) -> Result<Self> {
        let config = if is_tls {
            tls::client_config()?
        } else {
            tls::config_with(rustls::RootCertStore::empty())?
        };
        let client = Client::builder()
            .tls_backend_preconfigured((*config).clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("codewire-relay/", env!("CARGO_PKG_VERSION")))
            .timeout(LIMIT)
            .build()
            .map_err(Error::internal)?;
        Ok(Self { client })
    }

    /// A request as the library for OpenID Connect has made it.
    pub(super) async fn call(self, request: HttpRequest) -> Result<HttpResponse, WebError> {
        let (parts, body) = request.into_parts();
        let request = self
            .client
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(body);
        let (head, body) = self.whole(request).await?;
        let mut answer = http::Response::builder().status(head.0);
        if let Some(headers) = answer.headers_mut() {
            *headers = head.1;
        }
        Ok(answer.body(body)?)
    }

    /// Posts a form; the answer's JSON, whatever its status. An answer in between (5xx) is none.
    pub(super) async fn post(
        &self,
        url: &str,
        fields: &[(&str, &str)],
        client_id: &str,
        secret: Secret<'_>,
    ) -> Result<Value, ApiError> {
        let mut form = fields.to_vec();
        let mut request = self.client.post(url).header("accept", "application/json");
        match secret {
            Secret::None => form.push(("client_id", client_id)),
            Secret::Post(secret) => {
                form.extend([("client_id", client_id), ("client_secret", secret)]);
            }
            // RFC 6749 2.3.1: both are encoded as in a form first.
            Secret::Basic(secret) => {
                request = request.basic_auth(encode(client_id), Some(encode(secret)));
            }
        }
        let body: Vec<_> = form
            .iter()
            .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
            .collect();
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.join("&"));
        self.json(request).await
    }

    /// Reads JSON with an access token.
    pub(super) async fn get(&self, url: &str, token: &str) -> Result<Value, ApiError> {
        let request = self.client.get(url).bearer_auth(token);
        self.json(request.header("accept", "application/json"))
            .await
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, ApiError> {
        let answer = self.whole(request).await;
        let ((status, _), body) = answer.map_err(|error| away(&chain(&error)))?;
        if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(away(&format!("it answered with HTTP status {status}")));
        }
        serde_json::from_slice(&body)
            .map_err(|_| away(&format!("it answered {status} with what is no JSON")))
    }

    async fn whole(&self, request: RequestBuilder) -> Result<Whole, WebError> {
        let mut answer = request.send().await?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(WebError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(((answer.status(), answer.headers().clone()), body))
    }
}

type Whole = ((http::StatusCode, http::HeaderMap), Vec<u8>);

/// An error with everything that led to it.
pub(in crate::relay) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A word as a form has it: what is not plain is written as its bytes.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, SPECIAL).to_string()
}
