//! The head of an HTTP/1.1 message on a raw connection: as much of HTTP as an
//! upgrade needs.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Error;

/// Longest head in bytes; what common servers and proxies allow.
const MAX_HEAD: usize = 16 << 10;

const END: &[u8] = b"\r\n\r\n";

/// The first line, and the headers after it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
}

/// Reads a head. What came after it is left in `bytes`.
pub(super) async fn read_head(
    io: &mut (impl AsyncRead + Unpin),
    bytes: &mut BytesMut,
) -> Result<Head, Error> {
    loop {
        let end = bytes.windows(END.len()).position(|four| four == END);
        if let Some(end) = end.filter(|end| *end <= MAX_HEAD) {
            let head = bytes.split_to(end + END.len());
            return parse(&head[..end]).ok_or_else(|| Error::Upgrade("not HTTP".into()));
        }
        if bytes.len() > MAX_HEAD {
            return Err(Error::Upgrade("endless HTTP headers".into()));
        }
        bytes.reserve(1 << 10);
        if io.read_buf(bytes).await? == 0 {
            return Err(Error::Closed("hung up during the HTTP upgrade"));
        }
    }
}

/// Reads a head without the empty line at its end; `None` if it is none.
pub(crate) fn parse(head: &[u8]) -> Option<Head> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = std::str::from_utf8(lines.next()?).ok()?.to_owned();
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        headers.append(
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(value.trim_ascii()).ok()?,
        );
    }
    Some(Head { line, headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut input: &[u8]) -> Result<(Head, BytesMut), Error> {
        let mut bytes = BytesMut::new();
        let head = read_head(&mut input, &mut bytes).await?;
        Ok((head, bytes))
    }

    #[tokio::test]
    async fn the_head_ends_where_it_says() {
        let input = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade:DERP\r\n\r\nrest";
        let (head, rest) = read(input).await.unwrap();
        assert_eq!(head.line, "GET /derp HTTP/1.1");
        assert_eq!(head.headers["host"], "x");
        assert_eq!(head.headers["upgrade"], "DERP");
        assert_eq!(&rest[..], b"rest");
    }

    #[tokio::test]
    async fn what_is_not_http_is_refused() {
        for bad in [
            &b"GET /\r\nno colon\r\n\r\n"[..],
            b"GET /\r\nb ad: x\r\n\r\n",
            b"\xff\xfe\r\n\r\n",
            b"GET / HTTP/1.1\r\nunfinished",
            &[b'a'; 40_000],
        ] {
            assert!(read(bad).await.is_err());
        }
    }
}
