//! How this machine checks the certificate of a relay.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Result};

/// TLS with the certificates this system trusts, or those in the files that
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Reads files; call it when TLS is
/// needed and keep the result.
///
/// # Errors
///
/// `tls` when no certificate could be read.
pub fn client_config() -> Result<Arc<ClientConfig>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "the system has none".to_owned());
        return Err(
            Error::new("tls", format!("no certificates to trust: {why}"))
                .hint("install ca-certificates, or name a file in SSL_CERT_FILE"),
        );
    }
    config_with(roots)
}

/// TLS that trusts `roots`.
pub(crate) fn config_with(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
