//! How a connection begins: with a request for DERP, which is served at once, or with
//! anything else, which is for the HTTP server. Either is told by a whole head, which is read
//! here: a server that waits for one would take ten times as much room.
//!
//! DERP goes past the HTTP server for two reasons. Its *fast start* wants no answer at all,
//! which an HTTP server cannot give; and ten thousand nodes that rest should not keep ten
//! thousand HTTP connections around them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use derp::io::upgrade::is_request;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The end of a request's head.
const END: &[u8] = b"\r\n\r\n";

/// The longest head that is waited for here, bytes; a longer one is the HTTP server's matter.
const MAX_HEAD: usize = 8 << 10;

/// The head of a TLS record, and what is in the first byte when it is a part of a handshake.
const RECORD_HEAD: usize = 5;
const HANDSHAKE: u8 = 22;

/// The longest first record of a client, bytes: with keys for what is to come it is below 2000.
const MAX_GREETING: usize = 8 << 10;

/// A connection of which the first bytes were read.
pub(super) enum Begun<S> {
    /// A request for DERP, and its bytes.
    Derp(S, BytesMut),
    /// Anything else, as if nothing had been read.
    Other(Again<S>),
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Reads as much as it takes to tell.
    pub(super) async fn read(mut io: S) -> io::Result<Self> {
        let mut bytes = BytesMut::new();
        // What was looked through already is not looked through again.
        let mut looked = 0;
        while is_part(&bytes, &mut looked) {
            if io.read_buf(&mut bytes).await? == 0 {
                break;
            }
        }
        Ok(match is_request(&bytes) {
            true => Self::Derp(io, bytes),
            false => Self::Other(Again { bytes, io }),
        })
    }
}

/// Whether these are the beginning of a head, and no more. What cannot be a request is let
/// through: the HTTP server says so at once.
fn is_part(bytes: &[u8], looked: &mut usize) -> bool {
    let fresh = &bytes[looked.saturating_sub(END.len() - 1)..];
    let whole = fresh.windows(END.len()).any(|four| four == END);
    *looked = bytes.len();
    bytes.first().is_none_or(u8::is_ascii_uppercase) && bytes.len() < MAX_HEAD && !whole
}

/// Waits for the whole of what a client of TLS says first.
///
/// # Errors
///
/// What the stream says, or that it is too long.
pub(super) async fn greeting<S: AsyncRead + Unpin>(mut io: S) -> io::Result<Again<S>> {
    let mut bytes = BytesMut::new();
    loop {
        if let [kind, _, _, high, low, ..] = bytes[..] {
            let length = RECORD_HEAD + usize::from(u16::from_be_bytes([high, low]));
            if kind == HANDSHAKE && length > MAX_GREETING {
                let why = "the first record is too long";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            // What is no handshake is told so by who knows how to.
            if kind != HANDSHAKE || bytes.len() >= length {
                break;
            }
        }
        if io.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(Again { bytes, io })
}

/// A stream with bytes that were read before.
pub(super) struct Again<S> {
    bytes: BytesMut,
    io: S,
}

impl<S> Again<S> {
    /// As if `bytes` had not been read.
    pub(super) const fn new(bytes: BytesMut, io: S) -> Self {
        Self { bytes, io }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Again<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let len = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..len]);
        self.bytes.advance(len);
        if self.bytes.is_empty() && buf.remaining() > 0 {
            self.bytes = BytesMut::new();
            // As if it had been one read; what is not there yet comes with the next.
            if let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, buf) {
                return Poll::Ready(read);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Again<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n";

    async fn begin(request: &[u8]) -> (bool, Vec<u8>) {
        match Begun::read(request).await.unwrap() {
            Begun::Derp(mut rest, bytes) => {
                let mut all = bytes.to_vec();
                rest.read_to_end(&mut all).await.unwrap();
                (true, all)
            }
            Begun::Other(mut again) => {
                let mut all = Vec::new();
                again.read_to_end(&mut all).await.unwrap();
                (false, all)
            }
        }
    }

    #[tokio::test]
    async fn no_byte_is_lost_whatever_it_is() {
        let long = format!("GET /derp HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000));
        for (request, derp) in [
            (HEAD.to_owned(), true),
            (format!("{HEAD}more"), true),
            (String::new(), false),
            ("GET".to_owned(), false),
            ("GET /derp".to_owned(), false),
            (HEAD[..HEAD.len() - 1].to_owned(), false),
            ("GET /derp/probe HTTP/1.1\r\n\r\n".to_owned(), false),
            ("GET /derp HTTP/1.1\r\n\r\n".to_owned(), false),
            (HEAD.replace("Upgrade: DERP", "Upgrade: websocket"), false),
            (HEAD.replace("GET", "PUT"), false),
            (long, false),
        ] {
            let (is, all) = begin(request.as_bytes()).await;
            assert_eq!(is, derp, "{request:?}");
            assert_eq!(all, request.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_greeting_is_waited_for_and_is_whole() {
        let record = |kind: u8, length: u16, there: usize| {
            let [high, low] = length.to_be_bytes();
            [&[kind, 3, 1, high, low][..], &vec![7; there]].concat()
        };
        for bytes in [
            record(22, 700, 700),
            record(22, 8000, 8100),
            record(22, 700, 300),
            record(21, 2, 0),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"GE".to_vec(),
            Vec::new(),
        ] {
            let mut all = Vec::new();
            let mut again = greeting(&bytes[..]).await.unwrap();
            again.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, bytes);
        }
        let long = record(22, 16_000, 10);
        assert!(greeting(&long[..]).await.is_err());
        // Not before it is there.
        let (mut near, far) = tokio::io::duplex(1000);
        let waiting = tokio::spawn(greeting(far));
        use tokio::io::AsyncWriteExt as _;
        near.write_all(&record(22, 4, 3)).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        near.write_all(&[7]).await.unwrap();
        assert!(waiting.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_head_may_come_byte_by_byte() {
        let (mut near, far) = tokio::io::duplex(1);
        let writing = async move {
            use tokio::io::AsyncWriteExt as _;
            near.write_all(HEAD.as_bytes()).await.unwrap();
            near
        };
        let (begun, _near) = tokio::join!(Begun::read(far), writing);
        assert!(matches!(begun.unwrap(), Begun::Derp(_, bytes) if bytes == HEAD));
    }
}
