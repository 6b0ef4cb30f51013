//! A connection to a relay.

use std::sync::Arc;

pub use crate::client::{Event, SendError};
use crate::{Error, NodeKey, NodeSecret};

/// Where the relay is and who we are.
#[derive(Debug, Clone)]
pub struct Config {
    /// `http://host[:port]` or `https://host[:port]`; the path `/derp` is
    /// added.
    pub url: String,
    /// The key pair to be reached by.
    pub secret: NodeSecret,
    /// How to check the relay's certificate; needed for `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// Connects, asks for the upgrade and proves who we are.
#[expect(clippy::unused_async, reason = "the body is yet to come")]
pub async fn connect(config: &Config) -> Result<(Sender, Receiver), Error> {
    Err(Error::BadUrl(config.url.clone()))
}

/// The half of a connection that sends.
#[derive(Debug, Clone)]
pub struct Sender {}

impl Sender {
    /// Queues a packet for `to`.
    pub fn try_send(&self, to: &NodeKey, packet: &[u8]) -> Result<(), SendError> {
        let _ = (to, packet);
        Err(SendError::Closed)
    }

    /// Waits until the queue is below its limit.
    pub async fn room(&self) {
        std::future::ready(()).await;
    }

    /// Asks the relay to answer with [`Event::Pong`].
    pub fn ping(&self, data: [u8; 8]) {
        let _ = data;
    }
}

/// The half of a connection that receives.
#[derive(Debug)]
pub struct Receiver {}

impl Receiver {
    /// The next event; an error means that the connection is over.
    #[expect(clippy::unused_async, reason = "the body is yet to come")]
    pub async fn recv(&mut self) -> Result<Event, Error> {
        Err(Error::Closed("not connected"))
    }
}
