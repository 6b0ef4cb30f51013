//! Thousands who stall in their handshake, at every door of a relay and at every point of it: how
//! long somebody new waits meanwhile, and how much memory the relay takes for them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};

use crate::report::{Samples, load};

/// Who stall, unless told.
const STALLED: usize = 5_000;
/// Connections that are being opened at a time: not more than wait to be accepted.
const OPENING: usize = 256;
/// Somebody new comes so often, at least.
const ASKS: usize = 30;
const PAUSE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Door {
    Http,
    Https,
    Ssh,
}

/// Measures and prints. `arguments` is nothing, or how many stall.
pub fn run(program: &str, arguments: &[String]) -> Result<()> {
    let count = match arguments {
        [] => STALLED,
        [count, ..] => count.parse().context("usage: stalled [connections]")?,
    };
    crate::relay::raise_limit();
    let program = std::path::absolute(program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("{count} stall; load before: {}", load());
    println!(
        "{:<30} {:>5} {:>10} {:>10} {:>9} {:>7}   goal: max <= 1000 ms, memory <= 64 MiB",
        "in their handshake", "asked", "median ms", "max ms", "MiB more", "held"
    );
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let client = client(&certificate.cert)?;
    let hello = hello(&client)?;
    let has_ssh = Command::new("ssh").arg("-V").output().is_ok();
    let points: [(&str, Door, &[u8]); 8] = [
        ("http: nothing", Door::Http, b""),
        (
            "http: half a head",
            Door::Http,
            b"GET / HTTP/1.1\r\nHost: x\r\n",
        ),
        ("https: nothing", Door::Https, b""),
        (
            "https: half a hello",
            Door::Https,
            &hello[..hello.len() / 2],
        ),
        ("https: a hello", Door::Https, &hello),
        ("ssh: nothing", Door::Ssh, b""),
        ("ssh: a banner", Door::Ssh, b"SSH-2.0-stalled\r\n"),
        ("ssh: a key exchange", Door::Ssh, &key_exchange()),
    ];
    for (name, door, bytes) in points {
        if door == Door::Ssh && !has_ssh {
            println!("{name:<30} skipped: ssh is not here");
            continue;
        }
        let relay = Relay::start(&program, &certificate, door)?;
        runtime.block_on(measure(&relay, &client, name, bytes, count))?;
    }
    println!("load after: {}", load());
    Ok(())
}

async fn measure(
    relay: &Relay,
    client: &Arc<rustls::ClientConfig>,
    name: &str,
    bytes: &[u8],
    count: usize,
) -> Result<()> {
    // The first is slower, and whatever it needs is not for those who stall.
    relay.ask(client).await?;
    let before = relay.resident()?;
    let (open, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(OPENING));
    let mut stalled = JoinSet::new();
    for _ in 0..count {
        let (at, bytes, gate) = (relay.at, bytes.to_vec(), Arc::clone(&gate));
        let (open, opened) = (Arc::clone(&open), Arc::clone(&opened));
        stalled.spawn(async move {
            let place = gate.acquire_owned().await?;
            let mut stream = TcpStream::connect(at).await?;
            stream.write_all(&bytes).await?;
            drop(place);
            open.fetch_add(1, Ordering::Relaxed);
            opened.fetch_add(1, Ordering::Relaxed);
            // Whatever the relay says, until it hangs up.
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            open.fetch_sub(1, Ordering::Relaxed);
            anyhow::Ok(())
        });
    }
    let (mut asked, mut most) = (Samples::default(), before);
    let start = Instant::now();
    while opened.load(Ordering::Relaxed) < count || asked.values().len() < ASKS {
        ensure!(start.elapsed() < LIMIT, "{name}: they cannot even stall");
        asked.number(relay.ask(client).await?.as_secs_f64() * 1e3);
        most = most.max(relay.resident()?);
        tokio::time::sleep(PAUSE).await;
    }
    println!(
        "{name:<30} {:>5} {:>10.1} {:>10.1} {:>9.1} {:>7}",
        asked.values().len(),
        asked.median(),
        asked.quantile(1.0),
        (most - before) / 1024.0,
        open.load(Ordering::Relaxed),
    );
    Ok(())
}

/// A relay; ended when dropped.
struct Relay {
    child: Child,
    door: Door,
    at: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Relay {
    fn start(
        program: &Path,
        certificate: &rcgen::CertifiedKey<rcgen::KeyPair>,
        door: Door,
    ) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (http, ssh) = (free()?, free()?);
        let scheme = if door == Door::Https { "https" } else { "http" };
        let mut command = Command::new(program);
        command
            .args(["relay", "serve", "--stun-listen", "", "--data-dir"])
            .arg(dir.path().join("relay"))
            .args(["--base-url", &format!("{scheme}://{http}")])
            .args(["--listen", &http.to_string()])
            .args(["--ssh-listen", &ssh.to_string()])
            .env("CODEWIRE_RELAY_AUTH_TOKEN", "bench-token")
            .stderr(Stdio::null());
        if door == Door::Https {
            let (chain, key) = (dir.path().join("chain"), dir.path().join("key"));
            std::fs::write(&chain, certificate.cert.pem())?;
            std::fs::write(&key, certificate.signing_key.serialize_pem())?;
            command.arg("--tls-cert").arg(chain);
            command.arg("--tls-key").arg(key);
        }
        let at = if door == Door::Ssh { ssh } else { http };
        let relay = Self {
            child: command.spawn()?,
            door,
            at,
            _dir: dir,
        };
        let start = Instant::now();
        while std::net::TcpStream::connect(at).is_err() {
            ensure!(start.elapsed() < LIMIT, "the relay does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(relay)
    }

    /// How long somebody new waits until they are served.
    async fn ask(&self, client: &Arc<rustls::ClientConfig>) -> Result<Duration> {
        let (door, at, client) = (self.door, self.at, Arc::clone(client));
        spawn_blocking(move || {
            let start = Instant::now();
            match door {
                Door::Http => health(&mut connect(at)?)?,
                Door::Https => {
                    let name = at.ip().into();
                    let connection = rustls::ClientConnection::new(client, name)?;
                    health(&mut rustls::StreamOwned::new(connection, connect(at)?))?;
                }
                Door::Ssh => knock(at)?,
            }
            Ok(start.elapsed())
        })
        .await?
    }

    /// Its memory, KiB.
    fn resident(&self) -> Result<f64> {
        crate::relay::resident(self.child.id())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(at: SocketAddr) -> Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(at)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn health(stream: &mut (impl std::io::Read + std::io::Write)) -> Result<()> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // Its end may come without a farewell.
    let _ = stream.read_to_end(&mut answer);
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "it is not healthy");
    Ok(())
}

/// OpenSSH with nothing to show: the keys are exchanged, and the login is refused.
fn knock(at: SocketAddr) -> Result<()> {
    let options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "IdentityAgent=none",
        "IdentityFile=/nonexistent",
    ];
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-p", &at.port().to_string()]);
    // Another address than theirs: of those at one address who have come equally far, none can be
    // told from the others.
    command.args(["-b", "127.0.0.9"]);
    for option in options {
        command.args(["-o", option]);
    }
    let done = command.arg(format!("nobody@{}", at.ip())).output()?;
    let told = String::from_utf8_lossy(&done.stderr);
    ensure!(told.contains("Permission denied"), "ssh: {told}");
    Ok(())
}

fn free() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn client(certificate: &rcgen::Certificate) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What a client of TLS says first.
fn hello(client: &Arc<rustls::ClientConfig>) -> Result<Vec<u8>> {
    let name = std::net::IpAddr::from([127, 0, 0, 1]).into();
    let mut connection = rustls::ClientConnection::new(Arc::clone(client), name)?;
    let mut said = Vec::new();
    connection.write_tls(&mut said)?;
    Ok(said)
}

/// A banner and what a client of SSH says of its algorithms (RFC 4253, 7.1).
fn key_exchange() -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([7; 16]);
    let lists = [
        "curve25519-sha256",
        "ssh-ed25519",
        "aes256-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
        "none",
        "none",
        "",
        "",
    ];
    for list in lists {
        payload.extend((list.len() as u32).to_be_bytes());
        payload.extend(list.bytes());
    }
    payload.extend([0; 5]);
    let padding = 16 - (payload.len() + 5) % 8;
    let length = (payload.len() + 1 + padding) as u32;
    let mut said = b"SSH-2.0-stalled\r\n".to_vec();
    said.extend(length.to_be_bytes());
    said.push(padding as u8);
    said.extend(&payload);
    said.extend(std::iter::repeat_n(0, padding));
    said
}
