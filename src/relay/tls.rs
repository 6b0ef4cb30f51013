//! TLS before the relay's HTTP: with a certificate from files, or with one that the relay gets by
//! itself ([`super::acme`]).

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WantsServerCert;
use rustls::{ConfigBuilder, ServerConfig};

use super::acme::Settings;
use crate::error::{Error, Result};

/// What is spoken inside.
pub(super) const HTTP: &[u8] = b"http/1.1";

/// Where the certificate is from.
pub(crate) enum Tls {
    Files(Arc<ServerConfig>),
    Acme(Box<Settings>),
}

/// Of a certificate chain and its key, in PEM.
///
/// # Errors
///
/// `config_invalid`.
pub(super) fn of_files(cert: &Path, key: &Path) -> Result<Tls> {
    let unusable = |path: &Path, why: &dyn std::fmt::Display| {
        Error::new(
            "config_invalid",
            format!("{} is not usable: {why}", path.display()),
        )
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let config = builder()?.with_single_cert(chain, secret);
    let mut config = config.map_err(|error| unusable(cert, &error))?;
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(Tls::Files(Arc::new(config)))
}

/// What every server here has in common.
///
/// # Errors
///
/// `internal`.
pub(super) fn builder() -> Result<ConfigBuilder<ServerConfig, WantsServerCert>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    Ok(builder.with_no_client_auth())
}
