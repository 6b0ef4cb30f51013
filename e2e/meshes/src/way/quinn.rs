//! The yardstick: quinn as it comes, with the cipher, windows and datagram size of the mesh.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Kind, Receiving, Sending};

/// The size of a QUIC datagram, as the mesh has it on a direct path that carries it.
pub const MTU: u16 = 1372;
/// Bytes in flight, on one stream and in all, as the mesh has it.
pub const WINDOWS: [u32; 2] = [8 << 20, 16 << 20];
/// What is spoken.
pub const ALPN: &[u8] = b"bench";

/// Connects to an end that said this of itself: its address, and its certificate in hexadecimal.
pub async fn connect(kind: Kind, about: &str) -> Result<Connection> {
    let (address, certificate) = about.split_once(' ').context("no certificate")?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(from_hex(certificate)?))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(kind));
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = Endpoint::new(EndpointConfig::default(), None, socket()?, runtime)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint.connect(address.parse()?, "x")?.await?)
}

/// Answers until the process ends.
pub async fn serve(kind: Kind) -> Result<String> {
    let made = rcgen::generate_simple_self_signed(vec!["x".into()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(kind));
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket()?, runtime)?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else {
                continue;
            };
            tokio::spawn(async move {
                while let Ok((send, receive)) = connection.accept_bi().await {
                    let (send, receive) = (Sending::Quinn(send), Receiving::Quinn(receive));
                    tokio::spawn(super::answer_stream(send, receive));
                }
            });
        }
    });
    Ok(format!("{address} {}", to_hex(&certificate)))
}

fn socket() -> Result<std::net::UdpSocket> {
    let address = SocketAddr::new(super::loopback(), 0);
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.set_send_buffer_size(4 << 20)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// AES-128 first, as the mesh has it.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    let suites = &mut provider.cipher_suites;
    suites.sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

fn transport(kind: Kind) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let [stream, all] = WINDOWS;
    transport
        .stream_receive_window(VarInt::from_u32(stream))
        .receive_window(VarInt::from_u32(all))
        .send_window(u64::from(all))
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(kind != Kind::QuinnSingly);
    Arc::new(transport)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let digits = (0..text.len()).step_by(2);
    let mut bytes = digits.map(|at| u8::from_str_radix(text.get(at..at + 2).unwrap_or(""), 16));
    Ok(bytes.by_ref().collect::<Result<_, _>>()?)
}
