//! A connection to the relay: TCP, by way of an HTTP proxy if the environment names one, and
//! TLS if the relay's URL says so.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::io::Proxy;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::url::RelayUrl;
use crate::error::{Error, Result};

/// How long the name service may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// How long one address of the relay may take before the next is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// How long a proxy may take to connect.
const PROXY_LIMIT: Duration = Duration::from_secs(8);

/// How long the TLS handshake may take.
const TLS_LIMIT: Duration = Duration::from_secs(10);

/// A byte stream, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The proxy that leads to a relay, as `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say. Only a relay
/// with TLS is asked for through one: without, the proxy would see the token.
///
/// # Errors
///
/// `config_invalid` when a variable makes no sense.
pub(crate) fn proxy(url: &str) -> Result<Option<Proxy>> {
    let env = |name: &str| std::env::var(name).ok();
    Proxy::choose(url, env).map_err(|error| {
        Error::new("config_invalid", error.to_string())
            .hint("HTTPS_PROXY and ALL_PROXY name an HTTP proxy, NO_PROXY the hosts without one")
    })
}

/// Connects; also says which address the relay has, if that is known here and not to a proxy.
pub(crate) async fn dial(
    url: &RelayUrl,
    tls: Option<&Arc<ClientConfig>>,
) -> io::Result<(Box<dyn Stream>, Option<SocketAddr>)> {
    let (tcp, address) = match proxy(&url.to_string()).map_err(io::Error::other)? {
        Some(proxy) => {
            let tunnel = async {
                let tunnel = proxy.connect(&url.host, url.port).await;
                tunnel.map_err(io::Error::other)
            };
            (within(PROXY_LIMIT, "the proxy", tunnel).await?, None)
        }
        None => {
            let (tcp, address) = connect(url).await?;
            (tcp, Some(address))
        }
    };
    // Small frames, each of which somebody waits for.
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok((Box::new(tcp), address));
    };
    let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
    let stream = within(TLS_LIMIT, "the TLS handshake", handshake).await?;
    Ok((Box::new(stream), address))
}

async fn connect(url: &RelayUrl) -> io::Result<(TcpStream, SocketAddr)> {
    let lookup = lookup_host((url.host.as_str(), url.port));
    let addresses = within(LOOKUP_LIMIT, "the name service", lookup).await?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let attempt = TcpStream::connect(address);
        match within(CONNECT_LIMIT, "the connection", attempt).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `work`, or an error that says what took too long.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("{what} took more than {} s", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}
