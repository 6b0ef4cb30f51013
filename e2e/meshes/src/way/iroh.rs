//! iroh, with the cipher, windows and datagram size of the mesh, and without discovery.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use iroh::endpoint::{Connection, PortmapperConfig, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey};
use tokio::sync::OnceCell;

use super::quinn::{ALPN, MTU, WINDOWS, provider};
use super::{Kind, Receiving, Sending};

/// The end that asks. It connects when it first has to.
pub struct Near {
    endpoint: Endpoint,
    to: EndpointAddr,
    relayed: bool,
    connection: OnceCell<Connection>,
}

impl Near {
    /// `about` is the other end's UDP port.
    pub async fn start(kind: Kind, relay: Option<&str>, about: &str) -> Result<Self> {
        let endpoint = bind(kind, relay, 1).await?;
        let to = EndpointAddr::new(secret(2).public());
        let to = match relay {
            Some(relay) => to.with_relay_url(relay.parse()?),
            None => to.with_ip_addr(SocketAddr::new(super::loopback(), about.parse()?)),
        };
        Ok(Self {
            endpoint,
            to,
            relayed: relay.is_some(),
            connection: OnceCell::new(),
        })
    }

    pub async fn online(&self) -> Result<()> {
        if self.relayed {
            self.endpoint.online().await;
        }
        Ok(())
    }

    pub async fn open(&self) -> Result<(Sending, Receiving)> {
        let connect = || self.endpoint.connect(self.to.clone(), ALPN);
        let connection = self.connection.get_or_try_init(connect).await?;
        let (send, receive) = connection.open_bi().await?;
        Ok((Sending::Iroh(send), Receiving::Iroh(receive)))
    }
}

/// Answers until the process ends.
pub async fn serve(kind: Kind, relay: Option<&str>) -> Result<String> {
    let endpoint = bind(kind, relay, 2).await?;
    if relay.is_some() {
        endpoint.online().await;
    }
    let sockets = endpoint.bound_sockets();
    let port = match kind {
        Kind::IrohRelayed => 0,
        _ => {
            let same = |socket: &&SocketAddr| socket.is_ipv6() == super::loopback().is_ipv6();
            let socket = sockets.iter().find(same);
            socket.context("no socket")?.port()
        }
    };
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await?;
                while let Ok((send, receive)) = connection.accept_bi().await {
                    let (send, receive) = (Sending::Iroh(send), Receiving::Iroh(receive));
                    tokio::spawn(super::answer_stream(send, receive));
                }
                anyhow::Ok(())
            });
        }
    });
    Ok(port.to_string())
}

async fn bind(kind: Kind, relay: Option<&str>, number: u8) -> Result<Endpoint> {
    let [stream, all] = WINDOWS;
    let transport = QuicTransportConfig::builder()
        .stream_receive_window(VarInt::from_u32(stream))
        .receive_window(VarInt::from_u32(all))
        .send_window(u64::from(all))
        .initial_mtu(MTU)
        .mtu_discovery_config(None)
        .build();
    let mode = match relay {
        // It looks for no addresses by QUIC, which this relay does not do.
        Some(relay) => {
            let relay = RelayConfig::new(relay.parse::<RelayUrl>()?, None);
            RelayMode::Custom(RelayMap::from(relay))
        }
        None => RelayMode::Disabled,
    };
    let builder = Endpoint::builder(presets::Minimal)
        .crypto_provider(provider())
        .secret_key(secret(number))
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(mode)
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport);
    let builder = match kind {
        Kind::IrohRelayed => builder.clear_ip_transports(),
        _ => builder,
    };
    Ok(builder.bind().await?)
}

fn secret(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}
