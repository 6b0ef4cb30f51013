//! A relay on a loopback port, and clients of it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp::io::client::{self, Config, Event, Receiver, Sender};
use derp::io::server::{Admission, Options, Server};
use derp::router::Limits;
use derp::{Error, NodeKey, NodeSecret};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Runs a test that must not hang.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future)
        .await
        .expect("a test that hangs")
}

pub(crate) fn secret(byte: u8) -> NodeSecret {
    NodeSecret::from_bytes([byte; 32])
}

/// Admits everybody but those on the list.
#[derive(Default)]
pub(crate) struct Banned(pub(crate) Mutex<HashSet<NodeKey>>);

impl Admission for Banned {
    fn admits(&self, key: &NodeKey) -> bool {
        !self.0.lock().unwrap().contains(key)
    }
}

pub(crate) struct Relay {
    pub(crate) server: Server,
    pub(crate) banned: Arc<Banned>,
    pub(crate) address: SocketAddr,
    /// How connections ended.
    pub(crate) ended: tokio::sync::mpsc::UnboundedReceiver<Result<(), Error>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        Self::start_as(0xfe, "127.0.0.1:0".parse().unwrap(), Options::default()).await
    }

    /// Drops nothing, however long a busy machine leaves a receiver without
    /// a turn.
    pub(crate) async fn patient(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let patience = Duration::from_secs(3600);
        let limits = Limits {
            patience,
            ..Limits::default()
        };
        let options = Options {
            limits,
            ..Options::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve_on(listener, 0xfe, tls, options)
    }

    /// A relay with this key at this address.
    pub(crate) async fn start_as(key: u8, at: SocketAddr, options: Options) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        Self::serve_on(listener, key, None, options)
    }

    fn serve_on(
        listener: TcpListener,
        key: u8,
        tls: Option<Arc<rustls::ServerConfig>>,
        options: Options,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let banned = Arc::new(Banned::default());
        let server = Server::with_options(secret(key), banned.clone(), options);
        let (ended_tx, ended) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let accepting = server.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, remote)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (server, tls, ended) = (accepting.clone(), tls.clone(), ended_tx.clone());
                connections.spawn(async move {
                    let result = serve(&server, tls, tcp, remote).await;
                    let _ = ended.send(result);
                });
            }
        });
        Self {
            server,
            banned,
            address,
            ended,
            _tasks: tasks,
        }
    }

    pub(crate) fn config(&self, byte: u8) -> Config {
        Config {
            url: format!("http://{}", self.address),
            secret: secret(byte),
            tls: None,
            proxy: None,
        }
    }

    pub(crate) async fn connect(&self, byte: u8) -> (Sender, Receiver) {
        client::connect(&self.config(byte)).await.unwrap()
    }
}

async fn serve(
    server: &Server,
    tls: Option<Arc<rustls::ServerConfig>>,
    tcp: TcpStream,
    remote: SocketAddr,
) -> Result<(), Error> {
    let Some(tls) = tls else {
        return server.serve_http(tcp, remote).await;
    };
    let stream = tokio_rustls::TlsAcceptor::from(tls).accept(tcp).await?;
    server.serve_http(stream, remote).await
}

/// Waits until something is so; the test's own limit bounds it.
pub(crate) async fn until(mut is: impl FnMut() -> bool) {
    while !is() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sends, waiting for room.
pub(crate) async fn send(sender: &Sender, to: u8, data: &[u8]) {
    let to = secret(to).public();
    while let Err(error) = sender.try_send(&to, data) {
        assert_eq!(error, client::SendError::Full);
        sender.room().await;
    }
}

/// The next packet; other events are not expected.
pub(crate) async fn packet(receiver: &mut Receiver) -> (NodeKey, Vec<u8>) {
    match receiver.recv().await.unwrap() {
        Event::Packet { from, data } => (from, data.to_vec()),
        other => panic!("{other:?} instead of a packet"),
    }
}
