//! A client of either relay: sends packets to a key, receives them.

use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;

use crate::serve::At;

/// Whose relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    /// iroh's.
    Theirs,
    /// iroh's, with ten datagrams in a message.
    Batched,
}

/// Datagrams in a message, for [`Kind::Batched`].
pub const BATCH: usize = 10;

/// Messages that are given to theirs before they are flushed.
#[cfg(feature = "iroh")]
const FLUSH_EVERY: usize = 16;

impl Kind {
    /// The kinds of which the relays were built.
    pub fn built() -> Vec<Self> {
        let all = [Self::Ours, Self::Theirs, Self::Batched];
        all.into_iter().filter(|kind| kind.is_here()).collect()
    }

    pub const fn is_here(self) -> bool {
        matches!(self, Self::Ours) || cfg!(feature = "iroh")
    }

    /// As `cw-relays serve` is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs | Self::Batched => "theirs",
        }
    }

    /// What has that name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "ours" => Ok(Self::Ours),
            "theirs" => Ok(Self::Theirs),
            _ => bail!("no such relay: {name}"),
        }
    }

    /// Datagrams in a message.
    pub const fn batch(self) -> usize {
        match self {
            Self::Ours | Self::Theirs => 1,
            Self::Batched => BATCH,
        }
    }
}

/// A connection.
pub enum Client {
    Ours(derp::io::client::Sender, Box<derp::io::client::Receiver>),
    #[cfg(feature = "iroh")]
    Theirs(Box<iroh_relay::client::Client>),
}

/// The half that sends.
pub enum Sender {
    Ours(derp::io::client::Sender, derp::NodeKey),
    #[cfg(feature = "iroh")]
    Theirs {
        sink: iroh_relay::client::ClientSink,
        to: iroh_base::EndpointId,
        unflushed: usize,
    },
}

/// The half that receives.
pub enum Receiver {
    Ours(Box<derp::io::client::Receiver>),
    #[cfg(feature = "iroh")]
    Theirs(iroh_relay::client::ClientStream),
}

fn seed(number: usize) -> [u8; 32] {
    let mut seed = [0x5a; 32];
    // Not at either end: of an X25519 secret the lowest three bits and the highest two say nothing.
    seed[8..16].copy_from_slice(&number.to_le_bytes());
    seed
}

impl Client {
    /// Connects as client number so and so.
    pub async fn connect(kind: Kind, relay: &At, number: usize) -> Result<Self> {
        match kind {
            Kind::Ours => {
                let config = derp::io::client::Config {
                    url: relay.url(),
                    secret: derp::NodeSecret::from_bytes(seed(number)),
                    tls: Some(Arc::clone(&relay.trust)),
                    proxy: None,
                };
                let (sender, receiver) = derp::io::client::connect(&config).await?;
                Ok(Self::Ours(sender, Box::new(receiver)))
            }
            #[cfg(feature = "iroh")]
            Kind::Theirs | Kind::Batched => {
                let url: iroh_base::RelayUrl = relay.url().parse()?;
                let key = iroh_base::SecretKey::from_bytes(&seed(number));
                let resolver = iroh_dns::dns::DnsResolver::new();
                let builder = iroh_relay::client::ClientBuilder::new(url, key, resolver);
                let client = builder
                    .tls_client_config((*relay.trust).clone())
                    .connect()
                    .await?;
                Ok(Self::Theirs(Box::new(client)))
            }
            #[cfg(not(feature = "iroh"))]
            Kind::Theirs | Kind::Batched => bail!("not built"),
        }
    }

    /// Its halves; what is sent goes to client number so and so.
    pub fn split(self, to: usize) -> Result<(Sender, Receiver)> {
        Ok(match self {
            Self::Ours(sender, receiver) => {
                let to = derp::NodeSecret::from_bytes(seed(to)).public();
                (Sender::Ours(sender, to), Receiver::Ours(receiver))
            }
            #[cfg(feature = "iroh")]
            Self::Theirs(client) => {
                let (stream, sink) = client.split();
                let sender = Sender::Theirs {
                    sink,
                    to: iroh_base::SecretKey::from_bytes(&seed(to)).public(),
                    unflushed: 0,
                };
                (sender, Receiver::Theirs(stream))
            }
        })
    }
}

impl Sender {
    /// Sends datagrams of `size` bytes that are one message, when there is room.
    pub async fn send(&mut self, datagrams: &Bytes, size: usize) -> Result<()> {
        match self {
            Self::Ours(sender, to) => loop {
                match sender.try_send(to, &datagrams[..size]) {
                    Ok(()) => return Ok(()),
                    Err(derp::io::client::SendError::Full) => sender.room().await,
                    Err(error) => bail!("{error}"),
                }
            },
            #[cfg(feature = "iroh")]
            Self::Theirs {
                sink,
                to,
                unflushed,
            } => {
                use futures_util::SinkExt as _;
                let mut message = iroh_relay::protos::relay::Datagrams {
                    ecn: None,
                    segment_size: None,
                    contents: datagrams.clone(),
                };
                if datagrams.len() > size {
                    message.segment_size = u16::try_from(size)?.try_into().ok();
                }
                sink.feed(iroh_relay::protos::relay::ClientToRelayMsg::Datagrams {
                    dst_endpoint_id: *to,
                    datagrams: message,
                })
                .await?;
                *unflushed += 1;
                if *unflushed >= FLUSH_EVERY {
                    self.flush().await?;
                }
                Ok(())
            }
        }
    }

    /// Sees that what was sent is on its way.
    pub async fn flush(&mut self) -> Result<()> {
        match self {
            Self::Ours(..) => Ok(()),
            #[cfg(feature = "iroh")]
            Self::Theirs {
                sink, unflushed, ..
            } => {
                use futures_util::SinkExt as _;
                *unflushed = 0;
                Ok(sink.flush().await?)
            }
        }
    }
}

impl Receiver {
    /// The next message; how many bytes.
    pub async fn recv(&mut self) -> Result<usize> {
        match self {
            Self::Ours(receiver) => loop {
                if let derp::io::client::Event::Packet { data, .. } = receiver.recv().await? {
                    return Ok(data.len());
                }
            },
            #[cfg(feature = "iroh")]
            Self::Theirs(stream) => loop {
                use futures_util::StreamExt as _;
                use iroh_relay::protos::relay::RelayToClientMsg;
                match stream.next().await {
                    Some(message) => {
                        if let RelayToClientMsg::Datagrams { datagrams, .. } = message? {
                            return Ok(datagrams.contents.len());
                        }
                    }
                    None => bail!("the relay hung up"),
                }
            },
        }
    }
}
