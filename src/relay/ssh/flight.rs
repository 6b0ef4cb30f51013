//! The first words of a connection to the SSH front door: our name, then theirs and the whole of
//! what they say of their algorithms (RFC 4253, 4.2 and 7.1).
//!
//! Nothing large is made for who has not said so much, and no key exchange is begun: that of
//! thousands who stall costs a few system calls each. The library that serves the connection then
//! says our name, too; here that is swallowed.
//!
//! A client may wait for the other side's algorithms before it says its own. Few do; they are served
//! a little later, and are among the first to go until keys are exchanged ([`Flown::is_whole`]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use russh::SshId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use crate::relay::begun::Again;

/// The longest name, bytes with the end of its line.
const MAX_NAME: usize = 255;

/// The longest packet that is waited for, bytes; OpenSSH's is below 2 KiB.
const MAX_PACKET: usize = 8 << 10;

/// How long a client that has said its name may wait for us.
const WAITS: Duration = Duration::from_secs(1);

/// A connection that has begun.
pub(super) struct Flown<S> {
    stream: Again<S>,
    /// What the library says once more.
    name: Vec<u8>,
    /// How much of that it has said.
    said: usize,
    /// Whether the client has said all that is waited for.
    pub(super) is_whole: bool,
}

/// Says our name, and reads what the client says first.
///
/// # Errors
///
/// What the stream says, or that this is no client of SSH.
pub(super) async fn begin<S>(stream: S, name: &SshId) -> io::Result<Flown<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    begin_within(WAITS, stream, name).await
}

async fn begin_within<S>(waits: Duration, mut stream: S, name: &SshId) -> io::Result<Flown<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = match name {
        SshId::Standard(name) => format!("{name}\r\n").into_bytes(),
        SshId::Raw(name) => name.as_bytes().to_vec(),
    };
    stream.write_all(&name).await?;
    let mut bytes = BytesMut::new();
    while stage(&bytes)? == Stage::Nobody {
        read(&mut stream, &mut bytes).await?;
    }
    let rest = timeout(waits, async {
        while stage(&bytes)? != Stage::Whole {
            read(&mut stream, &mut bytes).await?;
        }
        io::Result::Ok(())
    });
    let is_whole = match rest.await {
        Ok(ended) => ended.map(|()| true)?,
        Err(_) => false,
    };
    Ok(Flown {
        stream: Again::new(bytes, stream),
        name,
        said: 0,
        is_whole,
    })
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// They have not said their name.
    Nobody,
    /// Their name alone.
    Named,
    /// Their name, and a whole packet.
    Whole,
}

fn stage(bytes: &[u8]) -> io::Result<Stage> {
    let line = bytes.iter().take(MAX_NAME).position(|byte| *byte == b'\n');
    let is_name = bytes.iter().zip(b"SSH-").all(|(one, other)| one == other);
    if !is_name || (line.is_none() && bytes.len() >= MAX_NAME) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no SSH"));
    }
    let Some(end) = line else {
        return Ok(Stage::Nobody);
    };
    let Some((length, packet)) = bytes[end + 1..].split_first_chunk::<4>() else {
        return Ok(Stage::Named);
    };
    let length = u32::from_be_bytes(*length) as usize;
    // What is too long is refused by who knows how to.
    if packet.len() >= length || length > MAX_PACKET {
        return Ok(Stage::Whole);
    }
    Ok(Stage::Named)
}

impl<S: AsyncRead + Unpin> AsyncRead for Flown<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flown<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = &self.name[self.said..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let again = left.len().min(bytes.len());
        if left[..again] != bytes[..again] {
            let why = "another name than before";
            return Poll::Ready(Err(io::Error::other(why)));
        }
        self.said += again;
        Poll::Ready(Ok(again))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn name() -> SshId {
        SshId::Standard("SSH-2.0-relay".into())
    }

    const PACKET: &[u8] = b"SSH-2.0-x\r\n\0\0\0\x05\x01\x14abc";

    #[test]
    fn a_client_has_said_enough_when_its_packet_is_whole() {
        for length in 0..=PACKET.len() {
            let expected = match length {
                0..11 => Stage::Nobody,
                11..20 => Stage::Named,
                _ => Stage::Whole,
            };
            assert_eq!(stage(&PACKET[..length]).unwrap(), expected, "{length}");
        }
        let long = [b"SSH-2.0-x\n", &u32::MAX.to_be_bytes()[..]].concat();
        assert_eq!(stage(&long).unwrap(), Stage::Whole);
        let endless = [b'S', b'S', b'H', b'-'].repeat(64);
        for stranger in [
            &b"G"[..],
            b"GET / HTTP/1.1\r",
            b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
            b"ssh-",
            b"\x16\x03\x01",
            &endless,
        ] {
            assert!(stage(stranger).is_err(), "{stranger:?}");
        }
    }

    #[tokio::test]
    async fn our_name_is_said_once_and_nothing_of_theirs_is_lost() {
        let (near, mut far) = duplex(64);
        let begun = tokio::spawn(async move { begin(near, &name()).await });
        let mut heard = [0; 15];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"SSH-2.0-relay\r\n");
        for byte in PACKET {
            far.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut begun = begun.await.unwrap().unwrap();
        assert!(begun.is_whole);
        let mut read = vec![0; PACKET.len()];
        begun.read_exact(&mut read).await.unwrap();
        assert_eq!(read, PACKET);
        for part in ["SSH-2.", "0-relay\r\n", "more"] {
            begun.write_all(part.as_bytes()).await.unwrap();
        }
        drop(begun);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"more");
    }

    #[tokio::test]
    async fn a_client_that_waits_for_us_is_waited_for_a_little() {
        let (near, mut far) = duplex(64);
        far.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let waits = Duration::from_millis(1);
        let mut begun = begin_within(waits, near, &name()).await.unwrap();
        assert!(!begun.is_whole);
        assert!(begun.write_all(b"SSH-1").await.is_err(), "another name");
        // Without a name nothing is begun, however long it takes.
        let (near, far) = duplex(64);
        let late = timeout(waits * 50, begin_within(waits, near, &name())).await;
        assert!(late.is_err());
        drop(far);
    }
}
