//! Ours: a node of the mesh at each end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mesh::io::{Config, Mesh, Path, Peer, Relay};
use mesh::{Identity, NodeKey, Seed};

use super::{Kind, Receiving, Sending};

/// How often a state is looked at.
const GLANCE: Duration = Duration::from_millis(1);

/// The end that asks.
pub struct Near {
    pub mesh: Mesh,
    pub peer: NodeKey,
}

impl Near {
    pub async fn start(kind: Kind, relay: Option<&str>) -> Result<Self> {
        let [near, far] = identities();
        let peer = far.key();
        let mesh = start(kind, near, &far, relay).await?;
        Ok(Self { mesh, peer })
    }

    pub async fn open(&self) -> Result<(Sending, Receiving)> {
        let (send, receive) = self.mesh.open(&self.peer).await?;
        Ok((Sending::Quinn(send), Receiving::Quinn(receive)))
    }

    /// A stream for what may be done twice, and whether it is early.
    pub async fn open_early(&self) -> Result<(Sending, Receiving, bool)> {
        let (send, receive) = self.mesh.open_early(&self.peer).await?;
        let early = receive.is_0rtt();
        Ok((Sending::Quinn(send), Receiving::Quinn(receive), early))
    }

    pub async fn online(&self) -> Result<()> {
        while !self.mesh.relay_connected() {
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// `direct`, `relayed` or `none`.
    pub fn path(&self) -> &'static str {
        match self.mesh.status(&self.peer).map(|status| status.path) {
            Some(Path::Direct(_)) => "direct",
            Some(Path::Relayed) => "relayed",
            Some(Path::None) | None => "none",
        }
    }

    /// Waits until the path is that one.
    pub async fn until(&self, path: &str) {
        while self.path() != path {
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// An echo by WireGuard alone.
    pub async fn ping(&self) -> Result<()> {
        self.mesh.ping(&self.peer).await?;
        Ok(())
    }
}

/// Answers until the process ends.
pub async fn serve(kind: Kind, relay: Option<&str>) -> Result<String> {
    let [near, far] = identities();
    let mesh = start(kind, far, &near, relay).await?;
    while !mesh.relay_connected() {
        tokio::time::sleep(GLANCE).await;
    }
    tokio::spawn(async move {
        while let Some(incoming) = mesh.accept().await {
            let (send, receive) = (incoming.send, incoming.recv);
            let (send, receive) = (Sending::Quinn(send), Receiving::Quinn(receive));
            tokio::spawn(super::answer_stream(send, receive));
        }
    });
    Ok("ours".to_owned())
}

fn identities() -> [Arc<Identity>; 2] {
    [1, 2].map(|seed| Arc::new(Identity::from_seed(&Seed::from_bytes([seed; 32]))))
}

async fn start(
    kind: Kind,
    own: Arc<Identity>,
    other: &Identity,
    relay: Option<&str>,
) -> Result<Mesh> {
    let mesh = Mesh::start(Config {
        identity: own,
        udp_port: 0,
        port_mapping: false,
        direct: kind != Kind::OursRelayed,
    })
    .await?;
    match kind {
        Kind::OursSingly => mesh.test_send_singly(),
        Kind::Ours | Kind::OursRelayed => {}
        _ => bail!("not ours"),
    }
    mesh.set_relay(Some(Relay {
        url: relay.context("a relay is needed")?.to_owned(),
        tls: None,
        proxy: None,
        stun: None,
    }));
    mesh.upsert_peer(Peer {
        key: other.key(),
        sign_key: other.verifying_key(),
    });
    Ok(mesh)
}
