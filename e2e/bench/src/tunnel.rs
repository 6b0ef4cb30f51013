//! Ours: two meshes in one process, on threads and cores of their own, and a relay between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use mesh::io::{Config, Mesh, Path, Peer, Relay};
use mesh::{Identity, NodeKey, Seed};

use crate::far;

/// Our end, and the key of the other.
pub struct Tunnel {
    pub mesh: Mesh,
    pub peer: NodeKey,
}

struct Everybody;

impl derp::io::server::Admission for Everybody {
    fn admits(&self, _: &NodeKey) -> bool {
        true
    }
}

/// Starts both and waits until the path is what `direct` says.
pub async fn connect(direct: bool) -> Result<Tunnel> {
    let relay = relay().await?;
    let near = Arc::new(Identity::from_seed(&Seed::from_bytes([1; 32])));
    let far_identity = Arc::new(Identity::from_seed(&Seed::from_bytes([2; 32])));
    let peer = Peer {
        key: near.key(),
        sign_key: near.verifying_key(),
    };
    let other = Peer {
        key: far_identity.key(),
        sign_key: far_identity.verifying_key(),
    };
    let key = other.key;
    std::thread::spawn(move || {
        far::pin(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(serve(far_identity, relay, peer, direct));
        }
    });
    let mesh = Mesh::start(Config {
        identity: near,
        udp_port: 0,
        port_mapping: false,
        direct,
    })
    .await?;
    mesh.set_relay(Some(Relay {
        url: format!("http://{relay}"),
        tls: None,
        proxy: None,
        stun: None,
    }));
    mesh.upsert_peer(other);
    for _ in 0..1000 {
        let arrived = match mesh.ping(&key).await {
            Ok(pong) => matches!(pong.path, Path::Direct(_)) == direct,
            Err(_) => false,
        };
        if arrived {
            return Ok(Tunnel { mesh, peer: key });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!(
        "no {} path within ten seconds",
        if direct { "direct" } else { "relayed" }
    )
}

async fn serve(identity: Arc<Identity>, relay: SocketAddr, peer: Peer, direct: bool) -> Result<()> {
    let mesh = Mesh::start(Config {
        identity,
        udp_port: 0,
        port_mapping: false,
        direct,
    })
    .await?;
    mesh.set_relay(Some(Relay {
        url: format!("http://{relay}"),
        tls: None,
        proxy: None,
        stun: None,
    }));
    mesh.upsert_peer(peer);
    while let Some(incoming) = mesh.accept().await {
        tokio::spawn(far::answer(incoming.send, incoming.recv));
    }
    Ok(())
}

/// A relay on a thread of its own, on any core.
async fn relay() -> Result<SocketAddr> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
                let _ = tell.send(listener.local_addr()?);
                let secret = derp::NodeSecret::from_bytes([3; 32]);
                let server = derp::io::server::Server::new(secret, Arc::new(Everybody));
                loop {
                    let (stream, from) = listener.accept().await?;
                    let server = server.clone();
                    tokio::spawn(async move {
                        let _ = server.serve_http(stream, from).await;
                    });
                }
                #[expect(unreachable_code, reason = "gives the block its type")]
                Ok::<(), std::io::Error>(())
            });
        }
    });
    Ok(told.await?)
}
