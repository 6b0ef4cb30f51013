//! HTTPS, with a certificate for `localhost` that nobody trusts.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{code, config, limited};
use crate::relay::acme::{Acme, standing};
use crate::relay::config::Config;
use crate::relay::server::Relay;
use crate::uplink::api::Api;
use crate::uplink::dial::dial;
use crate::uplink::tls::config_with;

const CERT: &[u8] = include_bytes!("localhost.cert.pem");
const KEY: &[u8] = include_bytes!("localhost.key.pem");

#[tokio::test]
async fn the_relay_speaks_tls_to_those_who_trust_it() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, CERT).unwrap();
        std::fs::write(&key, KEY).unwrap();
        let mut config = config(dir.path().join("relay"), "127.0.0.1:0");
        config.tls_cert = Some(cert);
        config.tls_key = Some(key);
        let relay = Relay::start(&config).await.unwrap();
        let url = format!("https://127.0.0.1:{}", relay.http().port());
        let url = url.parse().unwrap();

        let api = Api::new(&format!("https://127.0.0.1:{}", relay.http().port()), "x");
        assert_eq!(code(api.unwrap().validate().await), "relay_untrusted");
        let stranger = config_with(RootCertStore::empty()).unwrap();
        assert!(dial(&url, Some(&stranger)).await.is_err());
        let mut plain = TcpStream::connect(relay.http()).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // An alert, or nothing; in any case the connection ends.
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));

        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(CERT).unwrap())
            .unwrap();
        let trusting = config_with(roots).unwrap();
        let (mut stream, _) = dial(&url, Some(&trusting)).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.ends_with("ok"), "{answer}");
        relay.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_none_is_an_error_with_its_name() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        std::fs::write(&path, b"nothing").unwrap();
        let mut config = config(dir.path().join("relay"), "127.0.0.1:0");
        config.tls_cert = Some(path.clone());
        config.tls_key = Some(path);
        let error = Relay::start(&config).await.err().unwrap();
        assert_eq!(error.code, "config_invalid");
        assert!(error.message.contains("x.pem"), "{}", error.message);
    })
    .await;
}

/// A configuration of a relay that is to get its certificate by itself, from where nobody is.
fn by_itself(dir: &std::path::Path) -> Config {
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, CERT).unwrap();
    let mut config = config(dir.join("relay"), "127.0.0.1:0");
    config.base_url = "https://relay.test".to_owned();
    config.acme.acme_domain = vec!["relay.test".to_owned()];
    config.acme.acme_directory = Some("https://127.0.0.1:1/dir".to_owned());
    config.acme.acme_ca = Some(ca);
    config
}

#[tokio::test]
async fn a_certificate_is_from_a_file_or_asked_for() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let mut config = by_itself(dir.path());
        config.tls_cert = Some(dir.path().join("cert.pem"));
        config.tls_key = Some(dir.path().join("key.pem"));
        let error = Relay::start(&config).await.err().unwrap();
        assert_eq!(error.code, "config_invalid");
        let hint = error.hint.unwrap_or_default();
        assert!(hint.contains("--tls-cert"), "{hint}");
        config.tls_key = None;
        config.acme = Acme::default();
        let error = Relay::start(&config).await.err().unwrap();
        assert_eq!(error.code, "config_invalid");
    })
    .await;
}

#[tokio::test]
async fn a_relay_without_a_certificate_runs_and_refuses_tls() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let config = by_itself(dir.path());
        let relay = Relay::start(&config).await.unwrap();
        let url = format!("https://127.0.0.1:{}", relay.http().port());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(CERT).unwrap())
            .unwrap();
        let trusting = config_with(roots).unwrap();
        // It speaks TLS, and says why not: it is not that nobody is there, or another protocol.
        let refused = dial(&url.parse().unwrap(), Some(&trusting)).await;
        let why = refused.err().unwrap().to_string();
        assert!(why.contains("alert"), "{why}");
        let data = dir.path().join("relay");
        let stands = loop {
            let stands = standing(&data).unwrap();
            if stands.as_ref().is_some_and(|it| it.last_failure.is_some()) {
                break stands.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert!(stands.info.is_none());
        relay.stop().await;
        // Without the flag the doctor has nothing to say of it.
        let mut plain = config.clone();
        plain.acme = Acme::default();
        let relay = Relay::start(&plain).await.unwrap();
        assert!(standing(&data).unwrap().is_none());
        relay.stop().await;
    })
    .await;
}
