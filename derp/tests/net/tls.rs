//! The same over TLS.

use std::sync::Arc;

use crate::common::{Relay, packet, send, within};
use derp::Error;
use derp::io::client::{self, Config};

/// A relay with a certificate for `localhost`, and who trusts it.
async fn start() -> (Relay, Arc<rustls::ClientConfig>) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = certified.cert.der().clone();
    let key = certified.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let relay = Relay::patient(Some(Arc::new(server))).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = trusting(roots);
    (relay, Arc::new(client))
}

fn trusting(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn config(relay: &Relay, host: &str, byte: u8, tls: Option<Arc<rustls::ClientConfig>>) -> Config {
    Config {
        url: format!("https://{host}:{}", relay.address.port()),
        tls,
        ..relay.config(byte)
    }
}

#[tokio::test]
async fn packets_pass_both_ways() {
    within(async {
        let (relay, tls) = start().await;
        // By name and by address.
        let by_name = config(&relay, "localhost", 1, Some(tls.clone()));
        let (a, mut a_in) = client::connect(&by_name).await.unwrap();
        let by_address = config(&relay, "127.0.0.1", 2, Some(tls));
        let (b, mut b_in) = client::connect(&by_address).await.unwrap();
        for number in 0..1000_u32 {
            let data = number.to_be_bytes().repeat(300);
            send(&a, 2, &data).await;
            send(&b, 1, &data).await;
        }
        for number in 0..1000_u32 {
            let data = number.to_be_bytes().repeat(300);
            assert_eq!(packet(&mut a_in).await.1, data);
            assert_eq!(packet(&mut b_in).await.1, data);
        }
        // One small packet is on its way at once, too.
        send(&a, 2, b"small").await;
        assert_eq!(packet(&mut b_in).await.1, b"small");
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused() {
    within(async {
        let (relay, _) = start().await;
        let stranger = Arc::new(trusting(rustls::RootCertStore::empty()));
        let connected = client::connect(&config(&relay, "localhost", 1, Some(stranger))).await;
        assert!(matches!(connected, Err(Error::Io(_))));
        let connected = client::connect(&config(&relay, "localhost", 1, None)).await;
        assert!(matches!(connected, Err(Error::BadUrl(_))));
        assert_eq!(relay.server.clients(), 0);
    })
    .await;
}
