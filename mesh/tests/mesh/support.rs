//! Meshes and relays on loopback, for the tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use derp::handshake::MeshKey;
use derp::io::region::Neighbour;
use derp::io::server;
use mesh::io::{Config, Mesh, Path, Peer, Relay};
use mesh::{Identity, NodeKey, NodeSecret, Seed};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Nothing in these tests takes longer, however loaded the machine is.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Runs a test with its time limit. An ERROR in the log fails it.
pub(crate) async fn limited<T>(test: impl Future<Output = T>) -> T {
    static LOG: Once = Once::new();
    LOG.call_once(|| {
        let layer = Alarm.with_filter(LevelFilter::ERROR);
        tracing_subscriber::registry().with(layer).init();
    });
    let result = tokio::time::timeout(LIMIT, test).await;
    assert_eq!(*ALARM.lock().unwrap(), None, "an ERROR was logged");
    result.expect("took too long")
}

static ALARM: Mutex<Option<String>> = Mutex::new(None);

/// Notices errors in the log.
struct Alarm;

impl<S: Subscriber> Layer<S> for Alarm {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        *ALARM.lock().unwrap() = Some(format!("{event:?}"));
    }
}

/// A relay on loopback that can die and come back on the same port.
pub(crate) struct TestRelay {
    pub(crate) addr: SocketAddr,
    pub(crate) key: NodeKey,
    task: tokio::task::JoinHandle<()>,
}

impl TestRelay {
    pub(crate) async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn at(addr: SocketAddr) -> Self {
        let secret = NodeSecret::from_bytes([77; 32]);
        let server = server::Server::new(secret, Arc::new(|_: &NodeKey| true));
        Self::serve(listen(addr).await, server, None)
    }

    /// Two relays that pass on packets for each other's clients.
    pub(crate) async fn region() -> [Self; 2] {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = [listen(nowhere).await, listen(nowhere).await];
        let addrs = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap());
        let [one, two] = listeners;
        [
            Self::in_region(one, addrs[1]),
            Self::in_region(two, addrs[0]),
        ]
    }

    /// One of them, which was killed.
    pub(crate) async fn back_in_region(addr: SocketAddr, other: SocketAddr) -> Self {
        Self::in_region(listen(addr).await, other)
    }

    fn in_region(listener: TcpListener, other: SocketAddr) -> Self {
        let options = server::Options {
            mesh_key: MeshKey::from_hex(&"5a".repeat(32)),
            ..server::Options::default()
        };
        let admission = Arc::new(|_: &NodeKey| true);
        let mut bytes = [77; 32];
        bytes[16..18].copy_from_slice(&listener.local_addr().unwrap().port().to_be_bytes());
        let secret = NodeSecret::from_bytes(bytes);
        let server = server::Server::with_options(secret, admission, options);
        Self::serve(listener, server, Some(other))
    }

    fn serve(listener: TcpListener, server: server::Server, other: Option<SocketAddr>) -> Self {
        let (addr, key) = (listener.local_addr().unwrap(), server.public_key());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            if let Some(other) = other {
                let server = server.clone();
                let to = Neighbour {
                    url: format!("http://{other}"),
                    tls: None,
                    key: None,
                };
                connections.spawn(async move { server.keep_link(to).await });
            }
            while let Ok((io, remote)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(async move { serve(server, io, remote).await });
            }
        });
        Self { addr, key, task }
    }

    pub(crate) fn relay(&self) -> Relay {
        Relay {
            url: format!("http://{}", self.addr),
            tls: None,
            proxy: None,
            stun: None,
        }
    }

    /// Dies at once, with all its connections.
    pub(crate) async fn kill(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.addr
    }
}

/// Stands between nodes and a relay, and can stop passing anything on without
/// closing a connection, as a relay on a machine that has lost its power.
pub(crate) struct Cable {
    pub(crate) addr: SocketAddr,
    cut: tokio::sync::watch::Sender<bool>,
}

impl Cable {
    pub(crate) async fn to(relay: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (cut, is_cut) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(relay).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        _ = is_cut.wait_for(|cut| *cut) => {}
                    }
                    // Both ends stay open and hear nothing any more.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { addr, cut }
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn listen(addr: SocketAddr) -> TcpListener {
    loop {
        // The port of a relay that has just died may take a moment.
        match bind(addr) {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(64)
}

async fn serve(server: server::Server, io: TcpStream, remote: SocketAddr) {
    io.set_nodelay(true).unwrap();
    // How a connection ends is up to the tests.
    let _ = server.serve_http(io, remote).await;
}

pub(crate) fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&Seed::from_bytes([n; 32])))
}

pub(crate) fn peer(n: u8) -> Peer {
    let identity = identity(n);
    Peer {
        key: identity.key(),
        sign_key: identity.verifying_key(),
    }
}

pub(crate) async fn mesh(n: u8, direct: bool) -> Mesh {
    let config = Config {
        identity: identity(n),
        udp_port: 0,
        port_mapping: false,
        direct,
    };
    Mesh::start(config).await.unwrap()
}

/// Two nodes that know each other, connected to the relay.
pub(crate) async fn pair(relay: &TestRelay, direct: bool) -> (Mesh, Mesh) {
    let (a, b) = (mesh(1, direct).await, mesh(2, direct).await);
    a.upsert_peer(peer(2));
    b.upsert_peer(peer(1));
    for mesh in [&a, &b] {
        mesh.set_relay(Some(relay.relay()));
        until(|| mesh.relay_connected()).await;
    }
    (a, b)
}

/// Waits until something is so.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Answers every stream with what it carries, until the mesh ends.
pub(crate) fn echo(mesh: &Mesh) -> tokio::task::JoinHandle<()> {
    let mesh = mesh.clone();
    tokio::spawn(async move {
        while let Some(mut incoming) = mesh.accept().await {
            tokio::spawn(async move {
                let mut buf = vec![0; 64 << 10];
                while let Ok(Some(len)) = incoming.recv.read(&mut buf).await {
                    if incoming.send.write_all(&buf[..len]).await.is_err() {
                        return;
                    }
                }
                let _ = incoming.send.finish();
            });
        }
    })
}

/// Sends bytes on a new stream and reads them back.
pub(crate) async fn call(mesh: &Mesh, to: u8, len: usize) -> Result<(), String> {
    let (mut send, mut recv) = mesh
        .open(&identity(to).key())
        .await
        .map_err(|error| format!("{}: {error}", error.code()))?;
    let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        let _ = send.write_all(&sent).await;
        let _ = send.finish();
        send
    });
    let got = recv.read_to_end(len + 1).await.map_err(|e| e.to_string())?;
    let _ = writing.await;
    if got == expected {
        Ok(())
    } else {
        Err("other bytes".to_owned())
    }
}

/// A call that is repeated until it works.
pub(crate) async fn call_until_ok(mesh: &Mesh, to: u8) {
    while call(mesh, to, 100).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn path(mesh: &Mesh, to: u8) -> Path {
    mesh.status(&identity(to).key())
        .map_or(Path::None, |status| status.path)
}

/// Calls until the path is direct.
pub(crate) async fn until_direct(mesh: &Mesh, to: u8) {
    while !matches!(path(mesh, to), Path::Direct(_)) {
        call_until_ok(mesh, to).await;
    }
}
