//! A connection to the relay: TCP, and TLS if its URL says so.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::url::RelayUrl;

/// How long the name service may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// How long one address of the relay may take before the next is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// How long the TLS handshake may take.
const TLS_LIMIT: Duration = Duration::from_secs(10);

/// A byte stream, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects; also says which address it was.
pub(crate) async fn dial(
    url: &RelayUrl,
    tls: Option<&Arc<ClientConfig>>,
) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
    let (tcp, address) = connect(url).await?;
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
