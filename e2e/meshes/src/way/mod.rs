//! The ways that are measured, each with an end in two processes.
//!
//! The far end answers on streams. The first byte of a stream says what is wanted: `e` sends
//! everything back, `b` takes everything and answers with its length (8 bytes, little-endian).
//! Over TCP, whose connection is kept for all calls, an `e` is followed by 32 bytes.

#[cfg(feature = "iroh")]
mod iroh;
mod ours;
mod quinn;
mod tcp;

pub use self::quinn::MTU;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;

/// The address that all ways use: what the mesh prefers on one machine.
pub fn loopback() -> IpAddr {
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    match std::net::UdpSocket::bind((v6, 0)) {
        Ok(_) => v6,
        Err(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
    }
}

/// Bytes of a call's question, after the first one.
const QUESTION: usize = 32;
/// Bytes that are written at one time, in bulk.
const CHUNK: usize = 1 << 20;

/// A way, and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    /// Each datagram in a call of its own.
    OursSingly,
    OursRelayed,
    Quinn,
    QuinnSingly,
    Iroh,
    IrohRelayed,
    Tcp,
}

impl Kind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Ours, "ours"),
        (Self::OursSingly, "ours-singly"),
        (Self::OursRelayed, "ours-relayed"),
        (Self::Quinn, "quinn"),
        (Self::QuinnSingly, "quinn-singly"),
        (Self::Iroh, "iroh"),
        (Self::IrohRelayed, "iroh-relayed"),
        (Self::Tcp, "tcp"),
    ];

    pub fn name(self) -> &'static str {
        let mut named = Self::ALL.iter().filter(|(kind, _)| *kind == self);
        named.next().map_or("", |(_, name)| name)
    }

    fn parse(name: &str) -> Result<Self> {
        match Self::ALL.iter().find(|(_, known)| *known == name) {
            Some((kind, _)) => Ok(*kind),
            None => bail!("no such way: {name}"),
        }
    }

    /// Whether it was built.
    pub const fn is_here(self) -> bool {
        !matches!(self, Self::Iroh | Self::IrohRelayed) || cfg!(feature = "iroh")
    }

    /// Which relay it needs, as `cw-meshes relay` is told.
    pub const fn relay(self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::OursSingly | Self::OursRelayed => Some("ours"),
            Self::IrohRelayed => Some("iroh"),
            Self::Quinn | Self::QuinnSingly | Self::Iroh | Self::Tcp => None,
        }
    }
}

/// The half of a stream that sends.
pub enum Sending {
    Quinn(::quinn::SendStream),
    #[cfg(feature = "iroh")]
    Iroh(::iroh::endpoint::SendStream),
}

/// The half of a stream that receives.
pub enum Receiving {
    Quinn(::quinn::RecvStream),
    #[cfg(feature = "iroh")]
    Iroh(::iroh::endpoint::RecvStream),
}

/// The same for either library.
macro_rules! each {
    ($of:ident, $half:expr, $stream:ident => $work:expr) => {
        match $half {
            $of::Quinn($stream) => $work,
            #[cfg(feature = "iroh")]
            $of::Iroh($stream) => $work,
        }
    };
}

impl Sending {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        each!(Self, self, it => Ok(it.write_all(bytes).await?))
    }

    async fn write_chunk(&mut self, chunk: Bytes) -> Result<()> {
        each!(Self, self, it => Ok(it.write_chunk(chunk).await?))
    }

    fn finish(&mut self) -> Result<()> {
        each!(Self, self, it => Ok(it.finish()?))
    }

    /// Waits until the other side has everything.
    async fn taken(&mut self) {
        each!(Self, self, it => drop(it.stopped().await));
    }
}

impl Receiving {
    async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        each!(Self, self, it => Ok(it.read_exact(bytes).await?))
    }

    async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>> {
        each!(Self, self, it => Ok(it.read_to_end(limit).await?))
    }

    /// How many bytes came next; `None` at the end.
    async fn read_chunk(&mut self) -> Result<Option<usize>> {
        Ok(match self {
            Self::Quinn(it) => {
                let chunk = it.read_chunk(usize::MAX, true).await?;
                chunk.map(|chunk| chunk.bytes.len())
            }
            #[cfg(feature = "iroh")]
            Self::Iroh(it) => it.read_chunk(usize::MAX).await?.map(|chunk| chunk.len()),
        })
    }
}

/// The end that asks.
pub enum Near {
    Ours(ours::Near),
    Quinn(::quinn::Connection),
    #[cfg(feature = "iroh")]
    Iroh(iroh::Near),
    Tcp(tcp::Near),
}

impl Near {
    /// Starts an end of a way. `about` is what the far end said of itself.
    pub async fn start(kind: &str, relay: Option<&str>, about: &str) -> Result<Arc<Self>> {
        let kind = Kind::parse(kind)?;
        Ok(Arc::new(match kind {
            Kind::Ours | Kind::OursSingly | Kind::OursRelayed => {
                Self::Ours(ours::Near::start(kind, relay).await?)
            }
            Kind::Quinn | Kind::QuinnSingly => Self::Quinn(quinn::connect(kind, about).await?),
            #[cfg(feature = "iroh")]
            Kind::Iroh | Kind::IrohRelayed => {
                Self::Iroh(iroh::Near::start(kind, relay, about).await?)
            }
            #[cfg(not(feature = "iroh"))]
            Kind::Iroh | Kind::IrohRelayed => bail!("not built"),
            Kind::Tcp => Self::Tcp(tcp::Near::start(about).await?),
        }))
    }

    /// Ours, for what the others cannot tell.
    pub fn ours(&self) -> Result<&ours::Near> {
        match self {
            Self::Ours(near) => Ok(near),
            _ => bail!("only ours can tell"),
        }
    }

    /// Waits until the relay is connected.
    pub async fn online(&self) -> Result<()> {
        match self {
            Self::Ours(near) => near.online().await,
            #[cfg(feature = "iroh")]
            Self::Iroh(near) => near.online().await,
            Self::Quinn(_) | Self::Tcp(_) => Ok(()),
        }
    }

    async fn open(&self) -> Result<(Sending, Receiving)> {
        match self {
            Self::Ours(near) => near.open().await,
            Self::Quinn(connection) => {
                let (send, receive) = connection.open_bi().await?;
                Ok((Sending::Quinn(send), Receiving::Quinn(receive)))
            }
            #[cfg(feature = "iroh")]
            Self::Iroh(near) => near.open().await,
            Self::Tcp(_) => bail!("TCP has no streams"),
        }
    }

    /// One question and its answer, on a stream of its own.
    pub async fn call(&self) -> Result<()> {
        if let Self::Tcp(near) = self {
            return near.call().await;
        }
        let (send, receive) = self.open().await?;
        ask_on(send, receive).await
    }

    /// The same, without waiting for a connection if it can be resumed. Whether it could.
    pub async fn call_early(&self) -> Result<bool> {
        let (send, receive, early) = self.ours()?.open_early().await?;
        ask_on(send, receive).await?;
        Ok(early)
    }

    /// Sends so many bytes on one stream, until the other end has them all.
    pub async fn bulk(&self, length: u64) -> Result<()> {
        let answer = if let Self::Tcp(near) = self {
            near.bulk(length).await?
        } else {
            let (mut send, mut receive) = self.open().await?;
            send.write_all(b"b").await?;
            let chunk = Bytes::from(vec![7; CHUNK]);
            let mut left = length;
            while left > 0 {
                let part = chunk.slice(..(left as usize).min(CHUNK));
                left -= part.len() as u64;
                send.write_chunk(part).await?;
            }
            send.finish()?;
            receive.read_to_end(8).await?
        };
        ensure!(answer == length.to_le_bytes(), "not everything arrived");
        Ok(())
    }
}

/// Starts the end that answers, and says what the near one needs to know of it; it runs in tasks.
pub async fn answer(kind: &str, relay: Option<&str>) -> Result<String> {
    let kind = Kind::parse(kind)?;
    match kind {
        Kind::Ours | Kind::OursSingly | Kind::OursRelayed => ours::serve(kind, relay).await,
        Kind::Quinn | Kind::QuinnSingly => quinn::serve(kind).await,
        #[cfg(feature = "iroh")]
        Kind::Iroh | Kind::IrohRelayed => iroh::serve(kind, relay).await,
        #[cfg(not(feature = "iroh"))]
        Kind::Iroh | Kind::IrohRelayed => bail!("not built"),
        Kind::Tcp => tcp::serve().await,
    }
}

/// Asks one question on a stream, and waits for the answer.
async fn ask_on(mut send: Sending, mut receive: Receiving) -> Result<()> {
    send.write_all(&[b'e'; QUESTION + 1]).await?;
    send.finish()?;
    let answer = receive.read_to_end(2 * QUESTION).await?;
    ensure!(answer.len() == QUESTION, "{} bytes of answer", answer.len());
    Ok(())
}

/// Answers one stream.
async fn answer_stream(mut send: Sending, mut receive: Receiving) -> Result<()> {
    let mut wanted = [0; 1];
    receive.read_exact(&mut wanted).await?;
    if wanted == *b"e" {
        let question = receive.read_to_end(1 << 16).await?;
        send.write_all(&question).await?;
    } else {
        let mut length = 0u64;
        while let Some(read) = receive.read_chunk().await? {
            length += read as u64;
        }
        send.write_all(&length.to_le_bytes()).await?;
    }
    send.finish()?;
    send.taken().await;
    Ok(())
}
