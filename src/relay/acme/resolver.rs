//! Which certificate a client of the TLS port is shown: that of the relay, or, if it is an authority
//! that looks whether a domain is ours, the answer to its question.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// What an authority asks for instead of HTTP (RFC 8737).
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

/// Whether a connection was a question of an authority, and is over with the handshake.
pub(crate) fn is_challenge(protocol: Option<&[u8]>) -> bool {
    protocol == Some(PROTOCOL)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    current: RwLock<Option<Arc<CertifiedKey>>>,
    answers: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Resolver {
    /// From now on this is the relay's certificate.
    pub(super) fn set(&self, key: Arc<CertifiedKey>) {
        *self.current.write() = Some(key);
    }

    /// Whether there is one.
    pub(super) fn has_one(&self) -> bool {
        self.current.read().is_some()
    }

    /// Answers who asks for a domain, until [`Resolver::forget`]; `digest` is that of the key
    /// authorization.
    ///
    /// # Errors
    ///
    /// Why the answer cannot be made.
    pub(super) fn answer(&self, domain: &str, digest: &[u8]) -> Result<(), String> {
        if digest.len() != 32 {
            return Err("the digest of a challenge has 32 bytes".to_owned());
        }
        let key = answer(domain, digest).map_err(|error| error.to_string())?;
        self.answers.lock().insert(domain.to_owned(), key);
        Ok(())
    }

    /// Nobody asks any more.
    pub(super) fn forget(&self) {
        self.answers.lock().clear();
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks = hello
            .alpn()
            .is_some_and(|protocols| protocols.eq([PROTOCOL]));
        if asks {
            let domain = hello.server_name()?.to_ascii_lowercase();
            return self.answers.lock().get(&domain).cloned();
        }
        self.current.read().clone()
    }
}

/// A certificate that nobody but the authority believes: for the domain, with the digest in it.
fn answer(
    domain: &str,
    digest: &[u8],
) -> Result<Arc<CertifiedKey>, Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let chain = vec![params.self_signed(&key)?.der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not looked at any further: that extension is critical, and nobody but an authority knows it.
    let key = ring::default_provider()
        .key_provider
        .load_private_key(key)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_until_it_is_forgotten() {
        let resolver = Resolver::default();
        assert!(resolver.answer("relay.test", &[0; 31]).is_err());
        resolver.answer("relay.test", &[7; 32]).unwrap();
        let kept = resolver.answers.lock().get("relay.test").cloned();
        let shown = kept.unwrap().cert[0].clone();
        let digest = [&[0x04, 0x20][..], &[7; 32]].concat();
        assert!(shown.windows(34).any(|part| part == digest));
        assert!(!resolver.has_one(), "it is no certificate of the relay");
        resolver.forget();
        assert!(resolver.answers.lock().is_empty());
    }
}
