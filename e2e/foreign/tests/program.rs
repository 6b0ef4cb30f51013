//! The DERP client of tailscale-rs against the program itself, as its relay is reached: over plain
//! TCP and TLS, by an upgrade and by WebSocket.
//!
//! The variable `CW` names the program. The foreign clients have the keys of two nodes that have
//! joined a network and are gone: who is no member is not admitted.

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use ts_keys::NodeKeyPair;

use common::talk;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Foreign = ts_derp::Client<Box<dyn Io>>;

const LIMIT: Duration = Duration::from_secs(60);

/// Packets that each side sends.
const COUNT: u32 = 1000;

const TOKEN: &str = "of-the-administrator";

/// How the protocol begins on a connection.
#[derive(Clone, Copy, Debug)]
enum Way {
    Upgrade,
    WebSocket,
}

/// A directory with the homes of a relay and its nodes, and the relay's certificate.
struct Place {
    dir: tempfile::TempDir,
    certificate: CertificateDer<'static>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let certificate = made.cert.der().clone();
        Self { dir, certificate }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, home: &str) -> Command {
        let program = std::env::var_os("CW").expect("the variable CW names the program");
        let mut command = Command::new(program);
        command
            .env("CODEWIRE_HOME", self.path(home))
            .env("CODEWIRE_NODE_NAME", home)
            .env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
        command
    }

    fn cw(&self, home: &str, words: &[&str]) -> String {
        let done = self.command(home).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "cw {words:?}: {said}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// The key of a node that joins and goes.
    fn member(&self, node: &str, url: &str) -> NodeKeyPair {
        let invite = self.cw(
            "dev-1",
            &["network", "invite", "--mine", "--relay-url", url],
        );
        self.cw(node, &["network", "join", "--relay-url", url, &invite]);
        self.cw(node, &["stop", "--grace", "0"]);
        let seed = std::fs::read(self.path(node).join("seed")).unwrap();
        let seed = mesh::Seed::from_bytes(seed.try_into().unwrap());
        let secret = mesh::Identity::from_seed(&seed).secret().to_bytes();
        ts_keys::Export::<NodeKeyPair>::from_bytes(secret).import()
    }
}

/// The relay; killed when dropped.
struct Relay {
    child: Child,
    address: SocketAddr,
    tls: Option<tokio_rustls::TlsConnector>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Relay {
    fn start(place: &Place, with_tls: bool) -> Self {
        let mut command = place.command("relay");
        let scheme = if with_tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:0");
        command.args(["relay", "serve", "--listen", "127.0.0.1:0"]);
        command.args(["--stun-listen", "", "--base-url", &url]);
        command.arg("--data-dir").arg(place.path("data"));
        if with_tls {
            command.arg("--tls-cert").arg(place.path("cert.pem"));
            command.arg("--tls-key").arg(place.path("key.pem"));
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut lines = said.lines().map_while(Result::ok);
        let mut seen = Vec::new();
        let address = lines.by_ref().find_map(|line| {
            let found = line.split_once("HTTP listening on ");
            let address = found.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            seen.push(line);
            address
        });
        // It goes on saying things, and must not have to wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        let tls = with_tls.then(|| trusting(place.certificate.clone()));
        Self {
            child,
            address: address.unwrap_or_else(|| panic!("it does not listen: {seen:?}")),
            tls,
        }
    }

    async fn connect(&self) -> Box<dyn Io> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(tls.connect(name, tcp).await.unwrap())
            }
        }
    }

    async fn foreign(&self, way: Way, keys: &NodeKeyPair) -> Result<Arc<Foreign>, ts_derp::Error> {
        let io = self.connect().await;
        let io = match way {
            Way::Upgrade => upgraded(io).await,
            Way::WebSocket => websocket(io).await,
        };
        Foreign::handshake(io, keys).await.map(Arc::new)
    }
}

fn trusting(certificate: CertificateDer<'static>) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

/// Past the HTTP upgrade, where the foreign client takes over.
async fn upgraded(mut io: Box<dyn Io>) -> Box<dyn Io> {
    let request = "GET /derp HTTP/1.1\r\nHost: localhost\r\nUpgrade: DERP\r\n\
                   Connection: Upgrade\r\n\r\n";
    io.write_all(request.as_bytes()).await.unwrap();
    // No byte more than the head: the rest is for the client.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
    io
}

/// The bytes in the messages of a WebSocket.
async fn websocket(io: Box<dyn Io>) -> Box<dyn Io> {
    let mut request = "ws://localhost/derp".into_client_request().unwrap();
    let protocol = "derp".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let (socket, _) = tokio_tungstenite::client_async(request, io).await.unwrap();
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let (mut to_relay, mut from_relay) = socket.split();
        let (mut from_client, mut to_client) = tokio::io::split(far);
        let inwards = async {
            while let Some(Ok(message)) = from_relay.next().await {
                if let Message::Binary(bytes) = message
                    && to_client.write_all(&bytes).await.is_err()
                {
                    break;
                }
            }
        };
        let outwards = async {
            let mut buffer = vec![0; 4096];
            while let Ok(len @ 1..) = from_client.read(&mut buffer).await {
                let message = Message::Binary(buffer[..len].to_vec().into());
                if to_relay.send(message).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = inwards => {}
            () = outwards => {}
        }
    });
    Box::new(near)
}

async fn each_way(relay: &Relay, one: &NodeKeyPair, two: &NodeKeyPair) {
    // Both the same way, and each another.
    for (first, second) in [
        (Way::Upgrade, Way::Upgrade),
        (Way::WebSocket, Way::WebSocket),
        (Way::Upgrade, Way::WebSocket),
    ] {
        let a = (relay.foreign(first, one).await.unwrap(), one.public);
        let b = (relay.foreign(second, two).await.unwrap(), two.public);
        let mut tasks = JoinSet::new();
        talk(&mut tasks, COUNT, a.clone(), b.clone());
        talk(&mut tasks, COUNT, b, a);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let stranger = NodeKeyPair::random();
        assert!(relay.foreign(second, &stranger).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_is_served_over_tcp_and_tls_by_upgrade_and_by_websocket() {
    let place = Place::new();
    let relay = Relay::start(&place, false);
    let url = format!("http://{}", relay.address);
    place.cw(
        "dev-1",
        &["network", "create", "alpha", "--relay-url", &url],
    );
    let (one, two) = (place.member("dev-1", &url), place.member("dev-2", &url));
    let plain = tokio::time::timeout(LIMIT, each_way(&relay, &one, &two));
    plain.await.expect("a test that hangs");
    drop(relay);
    let relay = Relay::start(&place, true);
    let tls = tokio::time::timeout(LIMIT, each_way(&relay, &one, &two));
    tls.await.expect("a test that hangs");
}
