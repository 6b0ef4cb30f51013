//! `cw health`: does the node of this machine answer, or a relay? For health checks of containers,
//! where there is neither a shell nor `curl`: status 0 means yes.
//!
//! Unlike every other verb it starts no node: a check that repairs what it checks hides the fault.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use reqwest::tls::TlsInfo;
use reqwest::{Client, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::cli::Cli;
use crate::error::{Error, Result};

/// How much of a bad answer is shown, bytes.
const SHOWN: usize = 200;

/// Say by the exit status whether the node, or a relay, answers. Starts nothing.
#[derive(Args, Clone, Debug)]
pub struct Health {
    /// Ask the relay at this URL instead of the node of this machine; without a path, /healthz.
    #[arg(long, value_name = "URL", env = "CODEWIRE_HEALTH_URL")]
    pub url: Option<String>,
    /// Take any certificate: only whether somebody answers is asked, and nothing secret is sent.
    #[arg(long, requires = "url")]
    pub insecure: bool,
    /// How many seconds the answer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub timeout: u32,
}

impl Health {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let limit = Duration::from_secs(self.timeout.into());
        let check = async {
            match self.url.as_deref().filter(|url| !url.is_empty()) {
                Some(url) => answer(&health_url(url)?, self.insecure).await.map(drop),
                None => crate::client::connect(&cli.home).await.map(drop),
            }
        };
        tokio::time::timeout(limit, check)
            .await
            .map_err(|_| Error::new("timeout", format!("no answer within {} s", self.timeout)))??;
        cli.print("ok\n")
    }
}

/// How a relay has answered.
pub(crate) struct Answer {
    pub(crate) headers: reqwest::header::HeaderMap,
    /// Its certificate in DER, if it was asked over TLS.
    pub(crate) certificate: Option<Vec<u8>>,
}

/// Asks a relay; the head of its answer. Proxies and redirects are not followed: the answer of
/// another says nothing.
///
/// # Errors
///
/// `relay_unreachable`; `unhealthy` when it answers by an error.
pub(crate) async fn answer(url: &Url, insecure: bool) -> Result<reqwest::header::HeaderMap> {
    ask(url, insecure).await.map(|answer| answer.headers)
}

/// The same, with the certificate.
///
/// # Errors
///
/// Those of [`answer`].
pub(crate) async fn ask(url: &Url, insecure: bool) -> Result<Answer> {
    let config = match url.scheme() {
        "https" if !insecure => crate::uplink::tls::client_config()?,
        _ => any_certificate()?,
    };
    let client = Client::builder()
        .tls_backend_preconfigured((*config).clone())
        .tls_info(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(Error::internal)?;
    let unreachable = |error: reqwest::Error| {
        let mut why = &error as &dyn std::error::Error;
        while let Some(cause) = why.source() {
            why = cause;
        }
        Error::new("relay_unreachable", format!("no answer from {url}: {why}"))
    };
    let mut answer = client.get(url.clone()).send().await.map_err(unreachable)?;
    if answer.status().is_success() {
        let tls = answer.extensions().get::<TlsInfo>();
        return Ok(Answer {
            headers: answer.headers().clone(),
            certificate: tls.and_then(TlsInfo::peer_certificate).map(<[u8]>::to_vec),
        });
    }
    // One piece is enough to see what it is; a whole answer may be of any length.
    let start = answer.chunk().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(start.get(..SHOWN).unwrap_or(&start)).into_owned();
    let status = answer.status();
    Err(Error::new(
        "unhealthy",
        format!("{url} answers {status}: {}", text.trim()),
    ))
}

/// Where to ask a relay: at /healthz, unless the URL has a path.
///
/// # Errors
///
/// `config_invalid`.
pub(crate) fn health_url(text: &str) -> Result<Url> {
    let invalid = || {
        Error::new(
            "config_invalid",
            format!("{text:?} is not the URL of a relay"),
        )
        .hint("a relay's URL is http(s)://host[:port]")
    };
    let mut url: Url = text.parse().map_err(|_| invalid())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid());
    }
    if url.path() == "/" {
        url.set_path("/healthz");
    }
    Ok(url)
}

/// TLS that trusts everybody.
fn any_certificate() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Anybody(provider.signature_verification_algorithms));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::home::Home;

    #[test]
    fn the_path_is_healthz_unless_told() {
        for (text, asked) in [
            ("http://relay:8080", "http://relay:8080/healthz"),
            ("https://relay.example/", "https://relay.example/healthz"),
            ("http://[::1]:8080/readyz", "http://[::1]:8080/readyz"),
        ] {
            assert_eq!(health_url(text).unwrap().as_str(), asked);
        }
        for text in ["", "relay:8080", "ftp://relay", "http://", "/healthz"] {
            assert_eq!(
                health_url(text).unwrap_err().code,
                "config_invalid",
                "{text:?}"
            );
        }
    }

    fn health(url: Option<String>) -> Health {
        Health {
            url,
            insecure: false,
            timeout: 5,
        }
    }

    /// A server that gives everybody the same answer.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn a_relay_is_well_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let cli = Cli::at(Home::at(dir.path().join("home")).unwrap());
        let well = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        health(Some(well)).run(&cli).await.unwrap();
        let ill = server("HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nfull").await;
        let error = health(Some(ill)).run(&cli).await.unwrap_err();
        assert_eq!(error.code, "unhealthy");
        assert!(error.message.contains("full"), "{error}");
        let moved = server("HTTP/1.1 302 F\r\nlocation: /\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(
            health(Some(moved)).run(&cli).await.unwrap_err().code,
            "unhealthy"
        );
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let error = health(Some(format!("http://{closed}")))
            .run(&cli)
            .await
            .unwrap_err();
        assert_eq!(error.code, "relay_unreachable");
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        let cli = Cli::at(Home::at(dir.path().join("home")).unwrap());
        let error = health(None).run(&cli).await.unwrap_err();
        assert_eq!(error.code, "node_not_running");
        assert!(!cli.home.dir().exists());
    }

    #[tokio::test]
    async fn a_node_that_says_nothing_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let cli = Cli::at(Home::at(dir.path().to_path_buf()).unwrap());
        let _silent = tokio::net::UnixListener::bind(cli.home.socket()).unwrap();
        let mut check = health(None);
        check.timeout = 1;
        assert_eq!(check.run(&cli).await.unwrap_err().code, "timeout");
    }
}
