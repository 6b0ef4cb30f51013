//! Requests of the relay to an authority: short, bounded, and to where they were sent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{self, HeaderMap, Request, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use parking_lot::Mutex;
use reqwest::Client;
use rustls::ClientConfig;

use crate::error::{Error, Result};

/// How long an authority may take for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// The longest answer, bytes.
const MAX_ANSWER: usize = 1 << 20;

/// A client of one authority.
#[derive(Clone)]
pub(super) struct Web {
    client: Client,
    retry_after: Arc<Mutex<Option<Duration>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("it answers with HTTP status {0}")]
    Status(StatusCode),
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

impl Web {
    /// Redirections are not followed, and everything is over TLS.
    pub(super) fn new(trust: &ClientConfig) -> Result<Self> {
        let client = Client::builder()
            .tls_backend_preconfigured(trust.clone())
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .build()
            .map_err(Error::internal)?;
        let retry_after = Arc::default();
        Ok(Self {
            client,
            retry_after,
        })
    }

    /// For how long the last answer that was a refusal has put us off.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after.lock().take()
    }

    async fn whole(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Failed> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await;
        let request = self
            .client
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(body.to_bytes());
        let mut answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers());
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
            *self.retry_after.lock() = retry_after(headers);
        }
        if status.is_server_error() && !is_problem(headers) {
            return Err(Failed::Status(status));
        }
        let mut whole = http::Response::new(());
        *whole.status_mut() = status;
        *whole.headers_mut() = headers.clone();
        bound_retry_after(whole.headers_mut());
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failed::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(BytesResponse {
            parts: whole.into_parts().0,
            body: Box::new(body.freeze()),
        })
    }
}

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let web = self.clone();
        Box::pin(async move {
            let answer = web.whole(request).await;
            answer.map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/problem+json"))
}

/// The longest time that an authority is told to have asked for: added to the present, some larger
/// ones are no times any more, for which `instant_acme` is not prepared.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Makes of what is said about when to come back a number of seconds that can be waited, or nothing.
fn bound_retry_after(headers: &mut HeaderMap) {
    match retry_after(headers) {
        Some(time) => {
            let seconds = time.min(MAX_RETRY_AFTER).as_secs();
            headers.insert(RETRY_AFTER, seconds.into());
        }
        None => drop(headers.remove(RETRY_AFTER)),
    }
}

/// In seconds, or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_beyond_all_times() {
        let told = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            bound_retry_after(&mut headers);
            let told = headers.get(RETRY_AFTER)?.to_str().unwrap();
            Some(told.parse::<u64>().unwrap())
        };
        assert_eq!(told("5"), Some(5));
        let day = Some(MAX_RETRY_AFTER.as_secs());
        assert_eq!(told("18446744073709551615"), day);
        assert_eq!(told("Fri, 31 Dec 9999 23:59:59 GMT"), day);
        assert_eq!(told("soon"), None);
        assert_eq!(told("99999999999999999999999"), None);
    }

    #[test]
    fn an_authority_says_when_to_come_back() {
        let told = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(told(" 60 "), Some(Duration::from_secs(60)));
        assert!(told("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
        for text in ["", "-1", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
