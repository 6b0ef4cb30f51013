//! Connections to the other servers of the region, made again for ever.
//!
//! `router::region` has the protocol. Each server keeps a link to each of the
//! others, and each of them one to it: packets leave by one's own links and
//! come in by those of the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::shake_hands;
use super::dial::{Address, dial};
use super::driver::Driver;
use super::input::Input;
use super::server::Server;
use super::{fill, nonce, step, upgrade};
use crate::frame::Receives;
use crate::handshake;
use crate::{Error, NodeKey};

/// The pause before a link is made again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A link that held for that long was a success: begin anew.
const STABLE: Duration = Duration::from_secs(10);

/// Where another server of the region is.
#[derive(Debug, Clone)]
pub struct Neighbour {
    /// `http://host[:port]` or `https://host[:port]`; the path `/derp` is
    /// added.
    pub url: String,
    /// How to check its certificate; needed for `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Its public key, if that is known: then no other server is told the mesh
    /// key, and where several answer at the URL the link is tried until it is
    /// the right one.
    pub key: Option<NodeKey>,
}

impl Server {
    /// Keeps a link to another server of the region, whose clients can be
    /// reached from here while it is up. Both need the same mesh key. Ends when
    /// dropped, or at once when there is no mesh key, or when the other server
    /// turns out to be this one.
    pub async fn keep_link(&self, to: Neighbour) {
        if self.shared.mesh_key.is_none() {
            tracing::error!(url = to.url, "no mesh key: the other relay is left alone");
            return;
        }
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        loop {
            let start = Instant::now();
            let why = match self.link(&to).await {
                Err(Error::Itself) => {
                    tracing::info!(url = to.url, "this is the relay itself: no link");
                    return;
                }
                Err(error) => error.to_string(),
                Ok(()) => "it was closed".to_owned(),
            };
            if start.elapsed() >= STABLE {
                pause = PAUSE_MIN;
                told.clear();
            }
            // A relay may be away for days: once is enough.
            if why != told {
                tracing::warn!(url = to.url, why, "no link to the other relay");
            }
            told = why;
            sleep(jittered(pause)).await;
            pause = pause.mul_f32(1.5).min(PAUSE_MAX);
        }
    }

    async fn link(&self, to: &Neighbour) -> Result<(), Error> {
        let address = Address::parse(&to.url)?;
        let mut io = dial(&address, to.tls.as_ref(), None).await?;
        let asked = upgrade::request_http(&mut io, &address.authority, &address.path);
        let early = step("the HTTP upgrade", asked).await?;
        let mut input = Input::new(Receives::Client, early);
        let mut us = handshake::Client::new(self.shared.secret.clone(), nonce()?);
        if let Some(key) = to.key {
            us = us.with_server(key);
        }
        if let Some(key) = &self.shared.mesh_key {
            us = us.with_mesh_key(key.clone());
        }
        let shaking = shake_hands(&mut io, &mut input, us);
        let server: NodeKey = step("the handshake", shaking).await?;
        if server == self.public_key() {
            return Err(Error::Itself);
        }
        let link = self
            .register(|router, handle, now, seed| router.handle_link(server, handle, now, seed))?;
        tracing::info!(
            url = to.url,
            ?server,
            "linked to another relay of the region"
        );
        let (reader, writer) = tokio::io::split(io);
        Driver::new(&link, reader, writer, input, Vec::new())
            .run()
            .await
    }
}

/// Between half and all of a pause; without randomness all of it.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    if fill(&mut random).is_err() {
        return pause;
    }
    pause.mul_f32(0.5 + f32::from(u16::from_le_bytes(random)) / 131_070.0)
}
