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

use std::sync::Arc;

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::{Error, Identity, SignKey};

/// The protocol spoken on the streams; another version is another name.
const ALPN: &[u8] = b"cw/2";
/// The fixed DER header of an Ed25519 public key (RFC 8410).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The TLS side of a node.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
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
        })
    }

    /// How to accept connections.
    pub(super) fn server(&self) -> Result<QuicServerConfig, Error> {
        let verifier = AnyKey(self.provider.signature_verification_algorithms);
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection proves the key anew.
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(|error| Error::Tls(error.to_string()))
    }

    /// How to dial the peer with this key.
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
        config.resumption = rustls::client::Resumption::disabled();
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

/// Whether the other end of a connection has proven to hold this key.
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
