//! One HTTP request to the relay: JSON in, JSON or an error with a code out.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tls;
use super::url::RelayUrl;
use crate::error::{Error, Result};

/// How long to wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a request may take altogether.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// The longest answer that is read, bytes: a list of ten thousand nodes is a
/// fifth of it.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A relay's HTTP side.
pub(crate) struct Http {
    client: Client,
    base: String,
    token: Option<String>,
}

impl Http {
    /// Prepares requests to `relay_url`. Redirects are not followed: they would see the token. A
    /// proxy is asked for a tunnel, and to relays with TLS only, for the same reason.
    pub(crate) fn new(relay_url: &str, token: Option<&str>) -> Result<Self> {
        Self::within(relay_url, token, Some(REQUEST_LIMIT))
    }

    /// For answers that go on and on, whose reader has its own limits.
    pub(crate) fn streaming(relay_url: &str) -> Result<Self> {
        Self::within(relay_url, None, None)
    }

    fn within(relay_url: &str, token: Option<&str>, limit: Option<Duration>) -> Result<Self> {
        let url: RelayUrl = relay_url.parse()?;
        // The client wants a TLS configuration even for plain HTTP.
        let config = if url.tls {
            tls::client_config()?
        } else {
            tls::config_with(rustls::RootCertStore::empty())?
        };
        let mut builder = Client::builder().no_proxy();
        if let Some(proxy) = super::proxy(&url.to_string())? {
            let mut through = reqwest::Proxy::https(proxy.url()).map_err(Error::internal)?;
            if let Some(who) = proxy.authorization() {
                through = through.custom_http_auth(who.clone());
            }
            builder = builder.proxy(through);
        }
        if let Some(limit) = limit {
            builder = builder.timeout(limit);
        }
        let client = builder
            .tls_backend_preconfigured((*config).clone())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .build()
            .map_err(Error::internal)?;
        Ok(Self {
            client,
            base: url.to_string(),
            token: token.map(str::to_owned),
        })
    }

    /// A request for `path`, which starts with a slash.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends `request` and reads the answer.
    ///
    /// # Errors
    ///
    /// The relay's own code and text; `relay_unreachable` when there is no
    /// answer; `relay_invalid` for an answer that is not a relay's.
    pub(crate) async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let body = self.send_raw(request).await?;
        serde_json::from_slice(&body).map_err(|error| self.not_a_relay(&error.to_string()))
    }

    /// Sends `request`; the answer, whose body has not been read.
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<reqwest::Response> {
        let sent = tokio::time::timeout(REQUEST_LIMIT, request.send()).await;
        let late = || Error::new("relay_unreachable", format!("no answer from {}", self.base));
        let answer = sent.map_err(|_| late())?;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = answer
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        Err(self.refused(status, &body))
    }

    /// Like [`Http::send`], for answers without content.
    pub(crate) async fn send_raw(&self, request: RequestBuilder) -> Result<Vec<u8>> {
        self.send_whole(request).await.map(|(_, body)| body)
    }

    /// Like [`Http::send_raw`], with the head of the answer.
    pub(crate) async fn send_whole(&self, request: RequestBuilder) -> Result<(HeaderMap, Vec<u8>)> {
        let unreachable = |error: reqwest::Error| self.unreachable(&error);
        let mut answer = request.send().await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.not_a_relay("the answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        if answer.status().is_success() {
            Ok((answer.headers().clone(), body))
        } else {
            Err(self.refused(answer.status().as_u16(), &body))
        }
    }

    fn refused(&self, status: u16, body: &[u8]) -> Error {
        #[derive(Deserialize)]
        struct Refusal {
            code: String,
            // Relays before they spoke RFC 9457 called it a message.
            #[serde(alias = "message")]
            detail: String,
            hint: Option<String>,
        }
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => Error {
                code: refusal.code,
                message: refusal.detail,
                hint: refusal.hint,
            },
            Err(_) => self.not_a_relay(&format!("it answered with HTTP status {status}")),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let mut why = error as &(dyn std::error::Error + 'static);
        let mut untrusted = is_about_trust(why);
        while let Some(cause) = why.source() {
            why = cause;
            untrusted |= is_about_trust(why);
        }
        let base = &self.base;
        if untrusted {
            let message = format!("the certificate of {base} is not trusted");
            return Error::new("relay_untrusted", message)
                .hint("SSL_CERT_FILE may name a file with the certificates to trust");
        }
        Error::new("relay_unreachable", format!("no answer from {base}: {why}"))
    }

    fn not_a_relay(&self, why: &str) -> Error {
        let base = &self.base;
        Error::new(
            "relay_invalid",
            format!("{base} does not answer as a relay: {why}"),
        )
        .hint("check the relay's URL")
    }
}

/// Whether the certificate was the reason. TLS errors travel inside IO errors,
/// and those inside each other.
fn is_about_trust(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return io.get_ref().is_some_and(|inner| is_about_trust(inner));
    }
    matches!(
        error.downcast_ref(),
        Some(rustls::Error::InvalidCertificate(_))
    )
}
