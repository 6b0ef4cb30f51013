//! The yardstick: quinn as it comes, with the cipher, windows and datagram size of the mesh.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::far;

/// The size of a QUIC datagram, as the mesh has it.
const MTU: u16 = 1232;

/// Starts a server on core 1 and connects to it.
pub async fn connect() -> Result<Connection> {
    let certificate = rcgen::generate_simple_self_signed(vec!["x".into()])?;
    let der = certificate.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
    let (tell, told) = tokio::sync::oneshot::channel();
    let server_der = der.clone();
    std::thread::spawn(move || {
        far::pin(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(serve(server_der, key, tell));
        }
    });
    let address = told.await?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"bench".to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let mut endpoint = Endpoint::new(
        EndpointConfig::default(),
        None,
        socket()?,
        Arc::new(quinn::TokioRuntime),
    )?;
    endpoint.set_default_client_config(config);
    Ok(endpoint.connect(address, "x")?.await?)
}

async fn serve(
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    tell: tokio::sync::oneshot::Sender<SocketAddr>,
) -> Result<()> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![der], key)?;
    tls.alpn_protocols = vec![b"bench".to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket()?, runtime)?;
    let _ = tell.send(endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else {
            continue;
        };
        tokio::spawn(async move {
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(far::answer(send, recv));
            }
        });
    }
    Ok(())
}

fn socket() -> Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.set_send_buffer_size(4 << 20)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    Ok(socket.into())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(8 << 20))
        .receive_window(VarInt::from_u32(16 << 20))
        .send_window(16 << 20)
        .initial_mtu(MTU)
        .mtu_discovery_config(None);
    Arc::new(transport)
}
