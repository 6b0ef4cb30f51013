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
    stands_by: bool,
}

impl Near {
    pub async fn start(kind: Kind, relay: Option<&str>) -> Result<Self> {
        let [near, far] = identities();
        let peer = far.key();
        let mesh = start(kind, near, &far, relay).await?;
        let stands_by = stands_by(relay);
        Ok(Self {
            mesh,
            peer,
            stands_by,
        })
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
        until_online(&self.mesh, self.stands_by).await;
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

/// Two relays are named by both URLs, with a bar between them.
fn stands_by(relay: Option<&str>) -> bool {
    relay.is_some_and(|relay| relay.contains('|'))
}

async fn until_online(mesh: &Mesh, stands_by: bool) {
    while !mesh.first_connected() || stands_by && !mesh.standby_connected() {
        tokio::time::sleep(GLANCE).await;
    }
}

/// Answers until the process ends.
pub async fn serve(kind: Kind, relay: Option<&str>) -> Result<String> {
    let [near, far] = identities();
    let mesh = start(kind, far, &near, relay).await?;
    until_online(&mesh, stands_by(relay)).await;
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

fn at(url: &str) -> Relay {
    Relay {
        url: url.to_owned(),
        tls: None,
        proxy: None,
        stun: None,
    }
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
    let relay = relay.context("a relay is needed")?;
    let (first, standby) = match relay.split_once('|') {
        Some((first, standby)) => (first, Some(standby)),
        None => (relay, None),
    };
    mesh.set_relay(Some(at(first)));
    if let Some(standby) = standby {
        let port = standby.rsplit_once(':').context("no port")?.1;
        let key = crate::relay::secret(port.parse()?).public();
        mesh.set_standby(Some((at(standby), key)));
    }
    mesh.upsert_peer(Peer {
        key: other.key(),
        sign_key: other.verifying_key(),
    });
    Ok(mesh)
}
