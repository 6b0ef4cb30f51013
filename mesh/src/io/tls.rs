//! TLS 1.3 with raw public keys (RFC 7250), both ways.
//!
//! A node shows its Ed25519 key, nothing else: no certificate, no name, no
//! authority. Who dials accepts exactly the key of the peer's record. Who is
//! dialled accepts any Ed25519 key here, and compares it with the record of the
//! peer that WireGuard has already authenticated before anything is handed out
//! (`super::accept`).
//!
//! The server name carries the dialler's boot id, so that the accepting side
//! knows at once to which run of the peer a connection belongs.
//!
//! The first connection with a peer proves both keys. The next ones resume it by
//! a ticket, which is worth as much: only who proved the key has its secret, and
//! the key comes with it, so that it is compared with the record as ever. A
//! ticket may carry early data (0-RTT) along. It is good for one connection, and
//! both sides have it in memory alone: who is started again resumes nothing.
//!
//! Early data can usually be repeated by the network. Not here: WireGuard, around
//! it, takes no packet twice. Only the peer can, and a ticket only once.

use std::sync::Arc;

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, ServerSessionMemoryCache, StoresServerSessions as _,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::{Error, Identity, SignKey};

/// The protocol spoken on the streams; another version is another name.
const ALPN: &[u8] = b"cw/2";
/// The fixed DER header of an Ed25519 public key (RFC 8410).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Tickets that each accepted connection gives out: for the next connection, and
/// for the one after it if the next breaks before it has brought others.
const TICKETS: usize = 2;
/// Tickets of all peers that are accepted, about 200 bytes each; then the oldest
/// are forgotten, and who comes with one proves its key anew.
const MAX_SESSIONS: usize = 1024;
/// Tickets of one peer that are kept, the latest; rustls keeps no fewer.
const MAX_TICKETS: usize = 8;
/// The one value, besides none, that QUIC allows (RFC 9001, 4.6.1): how much
/// comes early is up to the windows.
const EARLY_DATA: u32 = u32::MAX;

/// The TLS side of a node.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    /// What tickets of ours stand for.
    sessions: Arc<ServerSessionMemoryCache>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Result<Self, Error> {
        let tls = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
        let pkcs8 = identity.signing_key().to_pkcs8_der().map_err(|e| tls(&e))?;
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_bytes());
        let key = ring::sign::any_eddsa_type(&pkcs8).map_err(|e| tls(&e))?;
        let spki = CertificateDer::from(spki_of(&identity.verifying_key()));
        Ok(Self {
            provider: Arc::new(provider()),
            key: Arc::new(CertifiedKey::new(vec![spki], key)),
            sessions: ServerSessionMemoryCache::new(MAX_SESSIONS),
        })
    }

    /// How to accept connections.
    pub(super) fn server(&self) -> Result<QuicServerConfig, Error> {
        let config = self.accepting()?;
        QuicServerConfig::try_from(config).map_err(|error| Error::Tls(error.to_string()))
    }

    fn accepting(&self) -> Result<rustls::ServerConfig, Error> {
        let verifier = AnyKey(self.provider.signature_verification_algorithms);
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // rustls takes early data only with tickets that it remembers.
        config.session_storage = Arc::<ServerSessionMemoryCache>::clone(&self.sessions);
        config.send_tls13_tickets = TICKETS;
        config.max_early_data_size = EARLY_DATA;
        Ok(config)
    }

    /// As when many others have come: the oldest tickets are forgotten.
    pub(super) fn forget_tickets(&self) {
        for number in 0..MAX_SESSIONS {
            self.sessions.put(number.to_le_bytes().to_vec(), Vec::new());
        }
    }

    /// How to dial the peer with this key. To be kept: it has the tickets, which
    /// are found by the server name, the same for all peers.
    pub(super) fn client(&self, peer: &SignKey) -> Result<QuicClientConfig, Error> {
        let verifier = OneKey {
            spki: spki_of(peer),
            algorithms: self.provider.signature_verification_algorithms,
        };
        let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Error::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::in_memory_sessions(MAX_TICKETS);
        config.enable_early_data = true;
        QuicClientConfig::try_from(config).map_err(|error| Error::Tls(error.to_string()))
    }
}

/// The name to dial with: it says which run of the program dials.
pub(super) fn server_name(boot: u64) -> String {
    format!("b{boot:016x}.mesh")
}

/// The boot id in the name a connection was dialled with.
pub(super) fn dialler_boot(connection: &quinn::Connection) -> Option<u64> {
    let data = connection
        .handshake_data()?
        .downcast::<HandshakeData>()
        .ok()?;
    let name = data.server_name?;
    let digits = name.strip_prefix('b')?.strip_suffix(".mesh")?;
    u64::from_str_radix(digits, 16).ok()
}

/// Whether the other end of a connection has proven to hold this key: by a
/// signature at the handshake's end, or by a ticket before that.
pub(super) fn is_held_by(connection: &quinn::Connection, key: &SignKey) -> bool {
    let identity = connection.peer_identity();
    let keys = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    keys.is_some_and(|keys| keys.len() == 1 && keys[0].as_ref() == spki_of(key))
}

/// ring, with AES-128 first: on these machines three times as fast as the
/// others, and inside WireGuard's encryption it is the second layer.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != first);
    provider
}

fn spki_of(key: &SignKey) -> Vec<u8> {
    [&ED25519_SPKI[..], key.as_bytes()].concat()
}

/// Accepts the server that holds one key.
#[derive(Debug)]
struct OneKey {
    spki: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OneKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.spki && intermediates.is_empty() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts any client that proves to hold the Ed25519 key it shows.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let spki = end_entity.as_ref();
        let is_key = spki.len() == ED25519_SPKI.len() + 32 && spki.starts_with(&ED25519_SPKI);
        if is_key && intermediates.is_empty() {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn verify(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
    verify_tls13_signature_with_raw_key(message, &spki, dss, algorithms)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use quinn::{ClientConfig, Connecting, Endpoint, ReadError, ServerConfig};

    use super::*;
    use crate::Seed;

    /// An end that dials and one that accepts, over real sockets, and the keys.
    struct Ends {
        near: Endpoint,
        far: Endpoint,
        client: ClientConfig,
        keys: [SignKey; 2],
        tls: Tls,
    }

    impl Ends {
        fn new() -> Self {
            let [near, far] = [1, 2].map(|n| Identity::from_seed(&Seed::from_bytes([n; 32])));
            let keys = [&near, &far].map(Identity::verifying_key);
            let tls = Tls::new(&far).unwrap();
            let client = Tls::new(&near).unwrap().client(&keys[1]).unwrap();
            let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let config = ServerConfig::with_crypto(Arc::new(tls.server().unwrap()));
            Self {
                near: Endpoint::client(anywhere).unwrap(),
                far: Endpoint::server(config, anywhere).unwrap(),
                client: ClientConfig::new(Arc::new(client)),
                keys,
                tls,
            }
        }

        fn dial(&self, boot: u64) -> Connecting {
            let (config, to) = (self.client.clone(), self.far.local_addr().unwrap());
            let name = server_name(boot);
            self.near.connect_with(config, to, &name).unwrap()
        }

        async fn accept(&self) -> quinn::Connection {
            self.far.accept().await.unwrap().await.unwrap()
        }

        /// A first connection, until its tickets have come.
        async fn first(&self) {
            let (near, far) = tokio::join!(self.dial(1), self.accept());
            let near = near.unwrap();
            assert!(is_held_by(&far, &self.keys[0]) && is_held_by(&near, &self.keys[1]));
            // Sent after them.
            far.open_uni().await.unwrap().write_all(b"!").await.unwrap();
            let mut recv = near.accept_uni().await.unwrap();
            recv.read_exact(&mut [0]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_resumed_connection_has_the_keys_of_the_first() {
        let ends = Ends::new();
        ends.first().await;
        let (near, early) = ends.dial(1).into_0rtt().ok().unwrap();
        let mut connecting = ends.far.accept().await.unwrap().accept().unwrap();
        connecting.handshake_data().await.unwrap();
        let (far, _) = connecting.into_0rtt().ok().unwrap();
        assert!(is_held_by(&far, &ends.keys[0]));
        assert!(!is_held_by(&far, &ends.keys[1]));
        assert_eq!(dialler_boot(&far), Some(1));
        assert!(early.await);
        assert!(is_held_by(&near, &ends.keys[1]));
    }

    #[tokio::test]
    async fn a_key_that_is_still_to_be_proven_is_not_held() {
        let ends = Ends::new();
        let dialling = ends.dial(1);
        let mut connecting = ends.far.accept().await.unwrap().accept().unwrap();
        connecting.handshake_data().await.unwrap();
        let (far, handshake) = connecting.into_0rtt().ok().unwrap();
        assert!(!is_held_by(&far, &ends.keys[0]));
        let near = dialling.await.unwrap();
        handshake.await;
        assert!(is_held_by(&far, &ends.keys[0]));
        drop(near);
    }

    #[tokio::test]
    async fn another_run_of_the_dialler_has_no_ticket() {
        let ends = Ends::new();
        ends.first().await;
        assert!(ends.dial(2).into_0rtt().is_err());
    }

    #[tokio::test]
    async fn who_resumes_may_still_be_refused_early_data() {
        let ends = Ends::new();
        ends.first().await;
        let mut config = ends.tls.accepting().unwrap();
        config.max_early_data_size = 0;
        let config = QuicServerConfig::try_from(config).unwrap();
        let config = ServerConfig::with_crypto(Arc::new(config));
        ends.far.set_server_config(Some(config));

        let (near, early) = ends.dial(1).into_0rtt().ok().unwrap();
        let (mut send, mut recv) = near.open_bi().await.unwrap();
        assert!(recv.is_0rtt());
        send.write_all(b"early").await.unwrap();
        let far = ends.accept().await;
        assert!(is_held_by(&far, &ends.keys[0]));
        assert!(!early.await);
        let refused = recv.read(&mut [0]).await;
        assert_eq!(refused, Err(ReadError::ZeroRttRejected));
        // Only what comes now is there.
        let (mut send, _recv) = near.open_bi().await.unwrap();
        send.write_all(b"late").await.unwrap();
        send.finish().unwrap();
        let (_send, mut recv) = far.accept_bi().await.unwrap();
        assert_eq!(recv.read_to_end(10).await.unwrap(), b"late");
    }

    #[tokio::test]
    async fn a_ticket_is_good_for_one_connection() {
        let ends = Ends::new();
        ends.first().await;
        let first: Vec<_> = (0..TICKETS).map(|_| ends.dial(1).into_0rtt()).collect();
        assert!(first.iter().all(Result::is_ok));
        assert!(ends.dial(1).into_0rtt().is_err());
    }
}
