//! The relays, each in a process of its own, and a plain echo of TCP.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::client::Kind;

/// The files of a server with TLS.
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Whether there is TLS around a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Plain,
    Tls,
}

impl Tls {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "TLS",
        }
    }
}

/// Where something is served, for its clients.
pub struct At {
    pub address: SocketAddr,
    pub tls: Tls,
    /// How to check its certificate.
    pub trust: Arc<rustls::ClientConfig>,
}

impl At {
    /// By its address and the directory in which its certificate is, if it has one.
    pub fn of(address: SocketAddr, dir: &Path) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let cert = dir.join(CERT);
        let tls = if cert.exists() { Tls::Tls } else { Tls::Plain };
        if tls == Tls::Tls {
            roots.add(CertificateDer::from_pem_file(cert)?)?;
        }
        let trust = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let trust = Arc::new(trust);
        Ok(Self {
            address,
            tls,
            trust,
        })
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls == Tls::Tls {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }
}

/// A process that serves; killed when dropped.
pub struct Served {
    child: Child,
    pub at: At,
    dir: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    /// Starts a relay, and waits until it says where it listens.
    pub fn relay(kind: Kind, tls: Tls) -> Result<Self> {
        Self::start(kind.name(), tls, None)
    }

    /// The same on one core, with as many threads as it has there.
    pub fn relay_on(core: usize, kind: Kind, tls: Tls) -> Result<Self> {
        Self::start(kind.name(), tls, Some(core))
    }

    /// Starts an echo on one core.
    pub fn echo_on(core: usize, tls: Tls) -> Result<Self> {
        Self::start("echo", tls, Some(core))
    }

    fn start(what: &str, tls: Tls, core: Option<usize>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        if tls == Tls::Tls {
            std::fs::write(dir.path().join(CERT), made.cert.pem())?;
            std::fs::write(dir.path().join(KEY), made.signing_key.serialize_pem())?;
        }
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", what])
            .arg(dir.path())
            .args(core.map(|core| core.to_string()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().parse();
        let address = address.with_context(|| format!("{what} does not serve: {line:?}"))?;
        let at = At::of(address, dir.path())?;
        Ok(Self { child, at, dir })
    }

    /// Where its certificate is, if it has one.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its memory, KiB.
    pub fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }

    /// Its processor time so far, seconds.
    pub fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(')').context("no stat")?;
        let ticks = |at| {
            rest.split_whitespace()
                .nth(at)
                .and_then(|it| it.parse().ok())
        };
        let (user, system): (f64, f64) = ticks(11).zip(ticks(12)).context("no times")?;
        // USER_HZ is 100 on every Linux.
        Ok((user + system) / 100.0)
    }
}

/// Keeps all threads of a process on these cores, as far as there are any; those that it starts
/// later stay with whoever starts them.
#[cfg(target_os = "linux")]
pub fn stay(process: u32, cores: &[usize]) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.file_name().into_string().unwrap_or_default();
        let id = name.parse().ok().and_then(rustix::process::Pid::from_raw);
        // A thread may end meanwhile, and a core may not be there.
        let _ = rustix::thread::sched_setaffinity(id, &set);
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub fn stay(_: u32, _: &[usize]) -> Result<()> {
    bail!("there is no way to choose cores here")
}

/// The same order of ciphers for both.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Serves until killed, on one core if one is named. A thread for each core, as the relay has: two
/// threads on one would take turns of milliseconds.
pub fn run(what: &str, dir: &str, core: Option<&str>) -> Result<()> {
    if let Some(core) = core {
        stay(std::process::id(), &[core.parse()?])?;
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if what == "ours" {
        // As `cw relay` does.
        runtime.event_interval(derp::io::server::EVENT_INTERVAL);
    }
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        match what {
            "echo" => echo(server_tls(dir)?).await,
            "ours" => ours(server_tls(dir)?).await,
            #[cfg(feature = "iroh")]
            "theirs" => theirs(server_tls(dir)?).await,
            _ => bail!("no such relay: {what}"),
        }
    })
}

fn tell(address: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

fn server_tls(dir: &str) -> Result<Option<rustls::ServerConfig>> {
    let (cert, key) = (Path::new(dir).join(CERT), Path::new(dir).join(KEY));
    if !cert.exists() {
        return Ok(None);
    }
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Some(config))
}

async fn echo(tls: Option<rustls::ServerConfig>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tell(listener.local_addr()?)?;
    let acceptor = tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                None => echo_back(tcp).await,
                Some(acceptor) => echo_back(acceptor.accept(tcp).await?).await,
            }
        });
    }
}

async fn echo_back(mut io: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    while let read @ 1.. = io.read(&mut buffer).await? {
        io.write_all(&buffer[..read]).await?;
        io.flush().await?;
    }
    Ok(())
}

async fn ours(tls: Option<rustls::ServerConfig>) -> Result<()> {
    let listener = tokio::net::TcpSocket::new_v4()?;
    listener.bind(([127, 0, 0, 1], 0).into())?;
    let listener = listener.listen(4096)?;
    tell(listener.local_addr()?)?;
    let everybody = Arc::new(|_: &derp::NodeKey| true);
    let secret = derp::NodeSecret::from_bytes([3; 32]);
    let server = derp::io::server::Server::new(secret, everybody);
    let acceptor = tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
    loop {
        let (tcp, from) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let (server, acceptor) = (server.clone(), acceptor.clone());
        tokio::spawn(async move {
            let Some(acceptor) = acceptor else {
                let _ = Box::pin(server.serve_http(tcp, from)).await;
                return;
            };
            if let Ok(stream) = acceptor.accept(tcp).await {
                let _ = Box::pin(server.serve_http(stream, from)).await;
            }
        });
    }
}

#[cfg(feature = "iroh")]
async fn theirs(tls: Option<rustls::ServerConfig>) -> Result<()> {
    use iroh_relay::server::{CertConfig, RelayConfig, Server, ServerConfig, TlsConfig};
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut relay = RelayConfig::new(any);
    relay.tls = tls.map(|server_config| TlsConfig::new(any, CertConfig::Manual { server_config }));
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    let mut server = Server::spawn(config).await?;
    let address = server.https_addr().or_else(|| server.http_addr());
    tell(address.context("no address")?)?;
    server.join().await??;
    Ok(())
}
