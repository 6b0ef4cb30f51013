//! The relay itself.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Error, NodeKey, NodeSecret};

/// Who may use the relay.
pub trait Admission: Send + Sync {
    /// Whether the holder of `key` may connect. Called once per connection,
    /// after the client has proven that it holds the key.
    fn admits(&self, key: &NodeKey) -> bool;
}

/// A relay; clones share it.
#[derive(Debug, Clone)]
pub struct Server {
    key: NodeKey,
}

impl Server {
    /// A relay with the given key pair.
    pub fn new(secret: NodeSecret, admission: Arc<dyn Admission>) -> Self {
        drop(admission);
        Self {
            key: secret.public(),
        }
    }

    /// The public key, which the HTTP upgrade announces.
    pub fn public_key(&self) -> NodeKey {
        self.key
    }

    /// Serves one client on a connection that is past the HTTP upgrade, until
    /// it is gone.
    #[expect(clippy::unused_async, reason = "the body is yet to come")]
    pub async fn serve<S>(&self, io: S, remote: SocketAddr) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let _ = (io, remote);
        Err(Error::Closed("not connected"))
    }

    /// Cuts every connection of `key`.
    pub fn disconnect(&self, key: &NodeKey) {
        let _ = key;
    }

    /// How many connections there are.
    pub fn clients(&self) -> usize {
        0
    }
}
