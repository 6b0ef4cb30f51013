//! The one QUIC endpoint of a node, and how its connections behave.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig};
use quinn::{ServerConfig, TokioRuntime, TransportConfig, VarInt};

use super::entry::Entry;
use super::node::Node;
use super::socket::Socket;
use super::tls::Tls;
use crate::Error;
use crate::packet::{QUIC_MTU, WIDE_MTU};

/// Streams a peer may have open at once. More wait.
const MAX_STREAMS: u32 = 1024;
/// Covers 80 ms at 800 Mbit/s; what nobody reads costs as much memory.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The first flight is repeated after three times this.
const INITIAL_RTT: Duration = Duration::from_millis(50);
const INITIAL_CONGESTION_WINDOW: u64 = 64 << 10;
/// While it may not be used, the larger datagram is tried so often, where there is traffic: up to
/// three times, which sends nothing before the path is known to carry it.
const WIDER_AFTER: Duration = Duration::from_secs(1);
/// After longer datagrams have ceased to arrive, they are not tried for so long.
const NARROW_FOR: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes of datagrams that are kept, of a byte each; a frame may be as long, its head of up to nine
/// bytes included.
const UNREAD_DATAGRAMS: usize = 64;
/// In milliseconds. The tunnel knows of a dead peer earlier; this is the net.
const IDLE_TIMEOUT: u32 = 30_000;

/// Opens the endpoint on the node's sockets. Needs a tokio runtime.
pub(super) fn open(node: &Arc<Node>, tls: &Tls) -> Result<Endpoint, Error> {
    let mut server = ServerConfig::with_crypto(Arc::new(tls.server()?));
    server.transport_config(transport());
    // A peer's inner address never changes.
    server.migration(false);
    let socket = Arc::new(Socket::new(Arc::clone(node)));
    let runtime = Arc::new(TokioRuntime);
    let config = EndpointConfig::default();
    let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)?;
    Ok(endpoint)
}

/// How to dial a peer.
pub(super) fn client(tls: &Tls, entry: &Entry) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::new(entry.tls(tls)?);
    config.transport_config(transport());
    Ok(config)
}

fn transport() -> Arc<TransportConfig> {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_CONGESTION_WINDOW);
    let mut wider = MtuDiscoveryConfig::default();
    wider
        .upper_bound(WIDE_MTU as u16)
        // There are two sizes, and nothing between them.
        .minimum_change((WIDE_MTU - QUIC_MTU) as u16)
        .interval(WIDER_AFTER)
        .black_hole_cooldown(NARROW_FOR);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(u64::from(CONNECTION_WINDOW))
        .initial_rtt(INITIAL_RTT)
        // The path agent guarantees this size, on every path. It lets larger datagrams through
        // where they arrive.
        .initial_mtu(QUIC_MTU as u16)
        .min_mtu(QUIC_MTU as u16)
        .mtu_discovery_config(Some(wider))
        // Nobody reads them; see `Links::hurry`. The oldest are dropped.
        .datagram_receive_buffer_size(Some(UNREAD_DATAGRAMS))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT))))
        .congestion_controller_factory(Arc::new(congestion));
    Arc::new(config)
}
