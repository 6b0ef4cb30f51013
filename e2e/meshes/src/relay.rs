//! The relays, each in a process of its own, without TLS.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, bail};

/// Serves until killed. Says where it listens.
pub fn run(whose: &str, at: &str) -> Result<()> {
    let at = at.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match whose {
            "ours" => ours(at).await,
            #[cfg(feature = "iroh")]
            "iroh" => iroh(at).await,
            _ => bail!("no such relay: {whose}"),
        }
    })
}

fn tell(address: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready http://{address}")?;
    Ok(out.flush()?)
}

/// The key of our relay at a port; whoever is to reach it knows it so.
pub fn secret(port: u16) -> derp::NodeSecret {
    let mut bytes = [3; 32];
    bytes[16..18].copy_from_slice(&port.to_be_bytes());
    derp::NodeSecret::from_bytes(bytes)
}

async fn ours(at: SocketAddr) -> Result<()> {
    let listener = match at {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // It is started again where another one has just died.
    listener.set_reuseaddr(true)?;
    listener.bind(at)?;
    let listener = listener.listen(64)?;
    tell(listener.local_addr()?)?;
    let everybody = Arc::new(|_: &derp::NodeKey| true);
    let secret = secret(listener.local_addr()?.port());
    let server = derp::io::server::Server::new(secret, everybody);
    loop {
        let (tcp, from) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let server = server.clone();
        tokio::spawn(async move {
            let _ = Box::pin(server.serve_http(tcp, from)).await;
        });
    }
}

#[cfg(feature = "iroh")]
async fn iroh(at: SocketAddr) -> Result<()> {
    use anyhow::Context as _;
    use iroh_relay::server::{RelayConfig, Server, ServerConfig};
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(at));
    let mut server = Server::spawn(config).await?;
    tell(server.http_addr().context("no address")?)?;
    server.join().await??;
    Ok(())
}
