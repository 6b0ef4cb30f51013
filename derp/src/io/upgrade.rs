//! The HTTP upgrade in front of the protocol.
//!
//! A client sends `GET /derp` with `Upgrade: DERP`; the server answers 101,
//! repeats the `Upgrade`, and names its version and key. From the empty line on
//! both speak frames. Anything else is answered with 426.
//!
//! An HTTP server checks a request with [`check`], answers with
//! [`response_headers`] and status 101, or with [`REFUSAL_STATUS`] and
//! [`REFUSAL_TEXT`], and hands the upgraded connection to
//! [`Server::serve`](super::server::Server::serve). Where there is no HTTP
//! server, [`accept_http`] does all of it on the raw connection.
//!
//! A client that has met the server before may ask for a *fast start*
//! (`Derp-Fast-Start: 1`): no HTTP answer at all, the frames follow at once.
//! Only [`accept_http`] can do that; such a request must not be answered with
//! 101.

use bytes::BytesMut;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::head::{self, Head, read_head};
use super::step;
use crate::handshake::VERSION;
use crate::{Error, NodeKey};

/// Where relays listen, by convention.
pub const PATH: &str = "/derp";

/// The protocol to upgrade to.
pub const PROTOCOL: HeaderValue = HeaderValue::from_static("DERP");

/// Header with the version of the protocol.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("derp-version");

/// Header with the public key of the server, 64 hex digits.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("derp-public-key");

/// Header with which a client asks for no answer.
pub const FAST_START_HEADER: HeaderName = HeaderName::from_static("derp-fast-start");

/// Status for a request that [`check`] refuses.
pub const REFUSAL_STATUS: StatusCode = StatusCode::UPGRADE_REQUIRED;

/// Body for a request that [`check`] refuses.
pub const REFUSAL_TEXT: &str = "DERP requires connection upgrade\n";

/// What an acceptable request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Not to be answered, see the head of this module.
    pub fast_start: bool,
}

/// Whether the headers of a request ask for the upgrade to this protocol;
/// `None` is to be answered with [`REFUSAL_STATUS`].
pub fn check(headers: &HeaderMap) -> Option<Request> {
    let asks = lists(headers, &UPGRADE, "derp") && lists(headers, &CONNECTION, "upgrade");
    asks.then(|| Request {
        fast_start: headers
            .get(FAST_START_HEADER)
            .is_some_and(|value| value == "1"),
    })
}

/// Whether bytes begin with the whole head of a request that [`accept_http`]
/// takes.
pub fn is_request(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let Some(head) = head::parse(&bytes[..end]) else {
        return false;
    };
    let mut words = head.line.split(' ');
    let gets = words.next() == Some("GET") && words.next() == Some(PATH);
    gets && check(&head.headers).is_some()
}

/// The headers of the answer with status 101, for a server with this key.
pub fn response_headers(key: &NodeKey) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(UPGRADE, PROTOCOL);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(VERSION_HEADER, HeaderValue::from(VERSION));
    if let Ok(key) = HeaderValue::from_str(&key.to_string()) {
        headers.insert(KEY_HEADER, key);
    }
    headers
}

/// Reads a request from a raw connection and answers it, as a server with this
/// key. Returns what the client has sent after its request, which belongs in
/// front of what the connection brings next.
///
/// # Errors
///
/// When the client asks for something else (it has its answer then), hangs up,
/// or takes more than ten seconds.
pub async fn accept_http<S>(io: &mut S, key: &NodeKey) -> Result<BytesMut, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    accept_begun(io, key, BytesMut::new()).await
}

/// The same, when `bytes` of the request have been read already.
///
/// # Errors
///
/// As for [`accept_http`].
pub async fn accept_begun<S>(
    io: &mut S,
    key: &NodeKey,
    mut bytes: BytesMut,
) -> Result<BytesMut, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    step("the HTTP upgrade", async {
        let head = read_head(io, &mut bytes).await?;
        let target = head.line.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let request = check(&head.headers).filter(|_| head.line.starts_with("GET "));
        match request {
            Some(_) if path != PATH => {
                refuse(io, StatusCode::NOT_FOUND, "not found\n").await?;
                Err(Error::Upgrade(format!("a request for {path:?}")))
            }
            None => {
                refuse(io, REFUSAL_STATUS, REFUSAL_TEXT).await?;
                Err(Error::Upgrade("a request without upgrade".into()))
            }
            Some(Request { fast_start: true }) => Ok(bytes),
            Some(_) => {
                let answer = write_head("HTTP/1.1 101 Switching Protocols", response_headers(key));
                io.write_all(&answer).await?;
                io.flush().await?;
                Ok(bytes)
            }
        }
    })
    .await
}

/// Asks the server for the upgrade, as a client. Returns what the server has
/// sent after its answer.
pub(super) async fn request_http<S>(
    io: &mut S,
    authority: &str,
    path: &str,
) -> Result<BytesMut, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let host = HeaderValue::from_str(authority).map_err(|_| Error::BadUrl(authority.into()))?;
    let mut headers = HeaderMap::new();
    headers.insert(http::header::HOST, host);
    headers.insert(UPGRADE, PROTOCOL);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let request = write_head(&format!("GET {path} HTTP/1.1"), headers);
    io.write_all(&request).await?;
    io.flush().await?;
    let mut bytes = BytesMut::new();
    let Head { line, headers } = read_head(io, &mut bytes).await?;
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    if !is_http || words.next() != Some("101") || !lists(&headers, &UPGRADE, "derp") {
        return Err(Error::Upgrade(line));
    }
    Ok(bytes)
}

async fn refuse(
    io: &mut (impl AsyncWrite + Unpin),
    status: StatusCode,
    text: &str,
) -> Result<(), Error> {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    io.write_all(answer.as_bytes()).await?;
    io.shutdown().await?;
    Ok(())
}

fn write_head(line: &str, headers: HeaderMap) -> Vec<u8> {
    let mut out = line.as_bytes().to_vec();
    for (name, value) in &headers {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// Whether a header, which may be a list and occur more than once, contains a
/// word, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    const KEY: NodeKey = NodeKey::from_bytes([0xee; 32]);

    /// What a client reads that sends `request`, and what is left over.
    async fn ask(request: &str) -> (String, Result<BytesMut, Error>) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
        theirs.write_all(request.as_bytes()).await.unwrap();
        let accepted = accept_http(&mut ours, &KEY).await;
        drop(ours);
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        (answer, accepted)
    }

    #[tokio::test]
    async fn an_upgrade_is_answered_in_any_case() {
        let request = "GET /derp HTTP/1.1\r\nHost: x\r\nupgrade: derp\r\n\
                       Connection: keep-alive, Upgrade\r\n\r\nmore";
        let (answer, accepted) = ask(request).await;
        assert_eq!(&accepted.unwrap()[..], b"more");
        let answer = answer.to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        let key = format!("\r\nderp-public-key: {}\r\n", "ee".repeat(32));
        for header in [
            "\r\nupgrade: derp\r\n",
            "\r\nconnection: upgrade\r\n",
            "\r\nderp-version: 2\r\n",
            &key,
        ] {
            assert!(answer.contains(header), "{header} in {answer}");
        }
        assert!(answer.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_fast_start_is_not_answered() {
        let request = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: upgrade\r\n\
                       Derp-Fast-Start: 1\r\n\r\nmore";
        let (answer, accepted) = ask(request).await;
        assert_eq!(answer, "");
        assert_eq!(&accepted.unwrap()[..], b"more");
    }

    #[tokio::test]
    async fn anything_else_is_told_what_is_missing() {
        for (request, status) in [
            ("GET /derp HTTP/1.1\r\nHost: x\r\n\r\n", "426"),
            (
                "GET /derp HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                "426",
            ),
            (
                "POST /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: upgrade\r\n\r\n",
                "426",
            ),
            (
                "GET /x HTTP/1.1\r\nUpgrade: DERP\r\nConnection: upgrade\r\n\r\n",
                "404",
            ),
        ] {
            let (answer, accepted) = ask(request).await;
            assert!(accepted.is_err());
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn both_ends_fit() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
        let (asked, accepted) = tokio::join!(
            request_http(&mut theirs, "relay.test:80", PATH),
            accept_http(&mut ours, &KEY),
        );
        assert!(asked.unwrap().is_empty());
        assert!(accepted.unwrap().is_empty());
    }

    #[tokio::test]
    async fn another_answer_is_reported() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
        let answer = b"HTTP/1.1 502 Bad Gateway\r\nVia: proxy\r\n\r\n";
        ours.write_all(answer).await.unwrap();
        let asked = request_http(&mut theirs, "relay.test", PATH).await;
        assert!(matches!(asked, Err(Error::Upgrade(line)) if line.contains("502")));
    }
}
