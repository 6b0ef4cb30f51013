//! One HTTPS request at a time, by whom a test wants it to be trusted, and under what name.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::PATIENCE;

/// A client.
#[derive(Clone)]
pub struct Https(ClientConfig);

/// An answer.
#[derive(Debug, Clone)]
pub struct Secured {
    /// Everything after the head.
    pub body: String,
    /// What the server has shown, in DER.
    pub certificate: Vec<u8>,
}

impl Https {
    /// One that trusts those in a file (PEM), and nobody else.
    ///
    /// # Panics
    ///
    /// When there is none in it.
    #[must_use]
    pub fn trusting(file: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_file_iter(file).expect("the file is there");
        for certificate in found {
            let certificate = certificate.expect("it is PEM");
            roots.add(certificate).expect("it is a certificate");
        }
        assert!(!roots.is_empty(), "nobody in {}", file.display());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("it has all of them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(config)
    }

    /// The same, which asks for another protocol than HTTP.
    #[must_use]
    pub fn speaking(mut self, protocol: &str) -> Self {
        self.0.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        self
    }

    /// Asks the server at `address` (`host:port`) that says that it is `name`.
    ///
    /// # Errors
    ///
    /// What the system says, or TLS.
    pub fn get(&self, address: &str, name: &str, path: &str) -> std::io::Result<Secured> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let server = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
        let config = Arc::new(self.0.clone());
        let connection = ClientConnection::new(config, server).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, tcp);
        let request = format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        // Not everybody says goodbye.
        match stream.read_to_string(&mut answer) {
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
        let shown = shown.ok_or_else(|| std::io::Error::other("no certificate"))?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok(Secured {
            body: body.to_owned(),
            certificate: shown.to_vec(),
        })
    }
}
