//! The coordination connection, kept for ever.
//!
//! One attempt after another: dial, hello, then frames until something breaks.
//! Between attempts it waits a little, longer each time, with jitter so that
//! the nodes of a restarted relay do not come back in step. The relay's
//! silence counts as a break: both ends ping.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh::{Identity, NodeRecord, SignedRecord};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::dial::{Stream, dial, within};
use super::join::unix_now;
use super::netmap::Netmap;
use super::papers::{Papers, Rules};
use super::url::RelayUrl;
use super::{Membership, NetworkView, cache, tls};
use crate::coord::{DEAD_AFTER, HelloProof, KEEPALIVE, Signature, ToNode, ToRelay, VERSION};
use crate::error::{Error, Result};

/// The first wait after a break, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The wait after the relay said no. It may change its mind (its database is
/// put back), but not soon.
const REFUSED_WAIT: Duration = Duration::from_secs(10);

/// How long the WebSocket handshake, and each step of ours, may take.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// The longest frame that is read, bytes. A part of a snapshot is below 1 MiB
/// even when every record is at its limit; the list of who is online in the
/// largest network is 670 KB.
const MAX_FRAME: usize = 4 * 1024 * 1024;

/// What is read at once, bytes.
const READ_BUFFER: usize = 16 * 1024;

/// How often peers are checked for records that ended.
const EXPIRY_CHECK: Duration = Duration::from_secs(60);

/// How long changes are collected before the cache is written.
const SAVE_AFTER: Duration = Duration::from_millis(200);

type Socket = WebSocketStream<Box<dyn Stream>>;

/// See the module.
pub(crate) struct Link {
    url: RelayUrl,
    tls: Option<Arc<ClientConfig>>,
    membership: Membership,
    identity: Arc<Identity>,
    netmap: Netmap,
    papers: Papers,
    rules: Arc<Rules>,
    stun: Option<SocketAddr>,
    view: watch::Sender<Arc<NetworkView>>,
    disk: watch::Sender<Option<Vec<u8>>>,
    /// When to write what changed; changes that come together go together.
    save_at: Option<Instant>,
}

/// Why a connection is over, or never was.
enum End {
    /// It broke; the relay was reached or not.
    Broken(io::Error),
    /// The relay does not want this node.
    Refused(String),
    /// There is no such network any more.
    Deleted(String),
}

impl Link {
    /// Checks the membership and reads the cache. Nothing runs yet, except
    /// what writes the cache.
    pub(crate) fn new(
        membership: Membership,
        identity: Arc<Identity>,
        path: PathBuf,
    ) -> Result<(Self, watch::Receiver<Arc<NetworkView>>)> {
        let url: RelayUrl = membership.relay_url.parse()?;
        let tls = if url.tls {
            Some(tls::client_config()?)
        } else {
            None
        };
        let record = own_record(&membership, &identity)?;
        let mut netmap = Netmap::new(membership.issuer, membership.record.clone(), record);
        let saved = cache::read(&path);
        netmap.restore(saved.netmap, unix_now());
        let mut papers = Papers::new(membership.network.clone(), membership.issuer);
        papers.restore(saved.papers);
        let rules = Arc::new(papers.rules());
        let (disk, writes) = watch::channel(None);
        tokio::spawn(cache::keep(path, writes));
        let (view, seen) = watch::channel(Arc::new(NetworkView {
            network: membership.network.clone(),
            me: netmap.me().clone(),
            connected: false,
            back: None,
            revision: netmap.revision(),
            peers: netmap.peers(unix_now()),
            rules: Arc::clone(&rules),
            stun: None,
            last_error: None,
        }));
        let link = Self {
            url,
            tls,
            membership,
            identity,
            netmap,
            papers,
            rules,
            stun: None,
            view,
            disk,
            save_at: None,
        };
        Ok((link, seen))
    }

    /// Connects again and again.
    pub(crate) async fn run(mut self) {
        let mut wait = BACKOFF.0;
        loop {
            let end = self.attempt().await;
            if self.view.borrow().connected {
                wait = BACKOFF.0;
            }
            let why = match &end {
                End::Broken(error) => error.to_string(),
                End::Refused(why) | End::Deleted(why) => why.clone(),
            };
            if matches!(end, End::Deleted(_)) {
                // Nobody belongs to anybody any more.
                self.netmap.forget_peers();
                self.save_soon();
                self.save();
            }
            tracing::debug!(relay = %self.url, %why, "the relay is away");
            self.publish(Some(why));
            if matches!(end, End::Refused(_) | End::Deleted(_)) {
                wait = REFUSED_WAIT;
            }
            sleep(jittered(wait)).await;
            wait = (wait * 2).clamp(BACKOFF.0, BACKOFF.1);
        }
    }

    /// One connection, from dialling to its end.
    async fn attempt(&mut self) -> End {
        match self.connect().await {
            Ok(socket) => {
                let end = self.follow(socket).await;
                self.save();
                end
            }
            Err(end) => end,
        }
    }

    async fn connect(&mut self) -> Result<Socket, End> {
        let (stream, address) = dial(&self.url, self.tls.as_ref()).await?;
        let url = self.url.websocket("/api/v1/coordinate");
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME))
            .read_buffer_size(READ_BUFFER);
        let handshake = async {
            let done = client_async_with_config(url, stream, Some(config)).await;
            done.map_err(io::Error::other)
        };
        let (mut socket, _) = within(STEP_LIMIT, "the WebSocket handshake", handshake).await?;
        let ToNode::Challenge { nonce } = next_frame(&mut socket).await? else {
            return Err(unexpected("no challenge"));
        };
        let key = self.identity.key();
        let proof = HelloProof {
            issuer: &self.membership.issuer,
            nonce: &nonce,
            network: &self.membership.network,
            key: &key,
        };
        let hello = ToRelay::Hello {
            network: self.membership.network.clone(),
            key,
            version: VERSION,
            revision: self.netmap.revision(),
            papers: self.papers.serial(),
            signature: Signature::sign(self.identity.signing_key(), &proof.message()),
        };
        let hello = serde_json::to_string(&hello).map_err(io::Error::from)?;
        let sent = async {
            let sent = socket.send(Message::Text(hello.into())).await;
            sent.map_err(io::Error::other)
        };
        within(STEP_LIMIT, "the hello", sent).await?;
        match next_frame(&mut socket).await? {
            ToNode::Welcome {
                record, stun_port, ..
            } => {
                self.welcome(record)?;
                self.stun = stun_port.map(|port| SocketAddr::new(address.ip(), port));
                Ok(socket)
            }
            _ => Err(unexpected("no welcome")),
        }
    }

    fn welcome(&mut self, record: SignedRecord) -> Result<(), End> {
        self.netmap.handle_connected();
        let known = self.netmap.handle_own(record, unix_now());
        known.map_err(|bad| End::Refused(format!("the relay has no record of ours: {}", bad.0)))
    }

    /// Takes frames until the connection breaks.
    async fn follow(&mut self, socket: Socket) -> End {
        let (sink, mut stream) = socket.split();
        let mut pings = std::pin::pin!(ping(sink));
        let mut expiry = interval(EXPIRY_CHECK);
        loop {
            let frame = tokio::select! {
                frame = timeout(DEAD_AFTER, stream.next()) => frame,
                error = &mut pings => return End::Broken(error),
                () = sleep_until(self.save_at.unwrap_or_else(Instant::now)), if self.save_at.is_some() => {
                    self.save();
                    continue;
                }
                _ = expiry.tick(), if self.view.borrow().connected => {
                    self.publish(None);
                    continue;
                }
            };
            let message = match frame {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return End::Broken(io::Error::other(error)),
                Ok(None) => return broken("the relay closed the connection"),
                Err(_) => return broken("the relay is silent"),
            };
            match parse(&message) {
                Ok(Some(frame)) => {
                    if let Err(end) = self.handle(frame) {
                        return end;
                    }
                }
                Ok(None) => {}
                Err(end) => return end,
            }
        }
    }

    fn handle(&mut self, frame: ToNode) -> Result<(), End> {
        let (now, before) = (unix_now(), self.netmap.revision());
        let (complete, bad) = match frame {
            ToNode::Snapshot {
                revision,
                peers,
                more,
            } => self.netmap.handle_snapshot(revision, peers, more, now),
            ToNode::Delta(delta) => (true, self.netmap.handle_delta(delta, now)),
            ToNode::Papers {
                papers,
                serial,
                more,
            } => {
                for bad in self.papers.handle(papers, serial, more) {
                    tracing::warn!(relay = %self.url, error = %bad, "a paper is not believed");
                }
                self.rules = Arc::new(self.papers.rules());
                self.save_soon();
                // The first ones come before the peers: the view is not current yet.
                if self.view.borrow().connected && !more {
                    self.publish(None);
                }
                return Ok(());
            }
            ToNode::Challenge { .. } | ToNode::Welcome { .. } => {
                return Err(unexpected("a second greeting"));
            }

            ToNode::Error { code, message } => return Err(refusal(&code, message)),
        };
        for bad in bad {
            tracing::warn!(relay = %self.url, error = %bad.0, "a record is not believed");
        }
        if complete {
            self.publish(None);
        }
        if self.netmap.revision() != before {
            self.save_soon();
        }
        Ok(())
    }

    fn save_soon(&mut self) {
        self.save_at
            .get_or_insert_with(|| Instant::now() + SAVE_AFTER);
    }

    /// Hands the netmap to the cache if it changed.
    fn save(&mut self) {
        if self.save_at.take().is_some() {
            let saved = cache::Saved {
                netmap: self.netmap.save(),
                papers: self.papers.save(),
            };
            let saved = serde_json::to_vec(&saved).ok();
            self.disk.send_replace(saved);
        }
    }

    /// Shows what is known now; connected if there is no error.
    fn publish(&self, last_error: Option<String>) {
        let connected = last_error.is_none();
        let shown = self.view.borrow().clone();
        let view = NetworkView {
            network: self.membership.network.clone(),
            me: self.netmap.me().clone(),
            connected,
            // The revision is known from before, so this is not the first connection.
            back: if connected && !shown.connected && shown.revision.is_some() {
                Some(Instant::now().into_std())
            } else {
                shown.back
            },
            revision: self.netmap.revision(),
            peers: self.netmap.peers(unix_now()),
            rules: Arc::clone(&self.rules),
            stun: self.stun,
            last_error,
        };
        self.view.send_if_modified(|shown| {
            let is_news = **shown != view;
            if is_news {
                *shown = Arc::new(view);
            }
            is_news
        });
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Pings for ever, or until that fails.
async fn ping(mut sink: SplitSink<Socket, Message>) -> io::Error {
    let mut due = interval(KEEPALIVE);
    loop {
        due.tick().await;
        if let Err(error) = sink.send(Message::Ping(Vec::new().into())).await {
            return io::Error::other(error);
        }
    }
}

async fn next_frame(socket: &mut Socket) -> Result<ToNode, End> {
    let next = async {
        loop {
            let Some(message) = socket.next().await else {
                return Ok(Err(broken("the relay closed the connection")));
            };
            match parse(&message.map_err(io::Error::other)?) {
                Ok(Some(frame)) => return Ok(Ok(frame)),
                Ok(None) => {}
                Err(end) => return Ok(Err(end)),
            }
        }
    };
    let frame = within(STEP_LIMIT, "the relay's answer", next).await??;
    match frame {
        ToNode::Error { code, message } => Err(refusal(&code, message)),
        frame => Ok(frame),
    }
}

fn parse(message: &Message) -> Result<Option<ToNode>, End> {
    match message {
        Message::Text(text) => match serde_json::from_str(text) {
            Ok(frame) => Ok(Some(frame)),
            Err(error) => Err(unexpected(&error.to_string())),
        },
        Message::Close(_) => Err(broken("the relay closed the connection")),
        Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => Ok(None),
    }
}

fn refusal(code: &str, message: String) -> End {
    match code {
        "stopping" => End::Broken(io::Error::other(message)),
        "deleted" => End::Deleted(message),
        _ => End::Refused(message),
    }
}

fn unexpected(why: &str) -> End {
    End::Broken(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the relay says something else than expected: {why}"),
    ))
}

fn broken(why: &'static str) -> End {
    End::Broken(io::Error::new(io::ErrorKind::ConnectionAborted, why))
}

/// The record in the membership. That it has expired is no reason not to
/// start: the relay renews it.
fn own_record(membership: &Membership, identity: &Identity) -> Result<NodeRecord> {
    let signed = &membership.record;
    let record = match signed.verify(&membership.issuer, &membership.network, unix_now()) {
        Err(mesh::Error::RecordExpired) => {
            unchecked(signed).ok_or(mesh::Error::RecordInvalid("not the expected JSON"))?
        }
        verified => verified?,
    };
    if record.key == identity.key() {
        Ok(record)
    } else {
        Err(Error::new(
            "config_invalid",
            "the membership is of another identity than this node's",
        )
        .hint("join the network again"))
    }
}

/// The record inside, for one whose signature was found right before.
fn unchecked(signed: &SignedRecord) -> Option<NodeRecord> {
    let outer = serde_json::to_value(signed).ok()?;
    let bytes = URL_SAFE_NO_PAD
        .decode(outer.get("record")?.as_str()?)
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Between half of `wait` and all of it.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness there is no jitter, and no harm.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    wait.mul_f64(0.5 + share / 2.0)
}
