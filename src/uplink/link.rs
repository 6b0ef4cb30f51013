//! The coordination connection, kept for ever.
//!
//! One attempt after another: dial, hello, then frames until something breaks.
//! Between attempts it waits a little ([`pause`]), and another relay over the
//! same database may be tried next ([`relays`]). The relay's silence counts as a
//! break: both ends ping.

mod frames;
mod pause;
mod relays;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use mesh::{Identity, SignedRecord};
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use self::frames::{
    End, STEP_LIMIT, Socket, broken, next_frame, parse, refusal, speak, unexpected,
};
use self::pause::Pause;
pub(crate) use self::pause::jittered;
use self::relays::Relays;
use super::back::Visit;
use super::chain::own_record;
use super::dial::{dial, within};
use super::join::unix_now;
use super::netmap::Netmap;
use super::papers::{Papers, Rules};
use super::url::RelayUrl;
use super::{Files, Membership, NetworkView, cache, chain, tls};
use crate::coord::handover::{SignedHandover, SignedObituary};
use crate::coord::report::Report;
use crate::coord::{DEAD_AFTER, HelloProof, Signature, ToNode, ToRelay, VERSION};
use crate::error::Result;
use crate::paper::SignedPaper;
use crate::ssh::Door;

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

/// What is told of a network that is no more.
const DELETED: &str = "this network was deleted";

/// What is told of a relay that knows less of the issuer than this node.
const ROLLED_BACK: &str = "the relay knows an earlier issuer of this network than this node: \
     its database was put back, or it is another relay";

/// See the module.
pub(crate) struct Link {
    relays: Relays,
    tls: Option<Arc<ClientConfig>>,
    membership: Membership,
    identity: Arc<Identity>,
    netmap: Netmap,
    papers: Papers,
    rules: Arc<Rules>,
    stun: Option<SocketAddr>,
    view: watch::Sender<Arc<NetworkView>>,
    disk: watch::Sender<Option<Vec<u8>>>,
    /// Where the hand-overs are kept.
    kept: PathBuf,
    /// The network is no more.
    deleted: bool,
    /// What this node takes over SSH, and who is told of visits.
    doors: Vec<Door>,
    visits: mpsc::Sender<Visit>,
    /// What the relay is told of this node.
    told: watch::Receiver<Option<Report>>,
    /// When to write what changed; changes that come together go together.
    save_at: Option<Instant>,
}

impl Link {
    /// Checks the membership and reads the cache. Nothing runs yet, except
    /// what writes the cache.
    pub(crate) fn new(
        membership: Membership,
        identity: Arc<Identity>,
        files: Files,
        (doors, visits): (Vec<Door>, mpsc::Sender<Visit>),
        told: watch::Receiver<Option<Report>>,
    ) -> Result<(Self, watch::Receiver<Arc<NetworkView>>)> {
        let home: RelayUrl = membership.relay_url.parse()?;
        let tls = if home.tls {
            Some(tls::client_config()?)
        } else {
            None
        };
        let (issuers, deleted) = chain::load(&membership, &files.issuers)?;
        let record = own_record(&membership, &issuers, &identity)?;
        let mut netmap = Netmap::new(issuers.clone(), membership.record.clone(), record);
        let saved = cache::read(&files.cache);
        let mut papers = Papers::new(membership.network.clone());
        if !deleted {
            netmap.restore(saved.netmap, unix_now());
            papers.restore(saved.papers, &issuers, unix_now());
        }
        let rules = Arc::new(papers.rules());
        let relays = Relays::new(home, &saved.relays);
        let (disk, writes) = watch::channel(None);
        tokio::spawn(cache::keep(files.cache, writes));
        let (view, seen) = watch::channel(Arc::new(NetworkView {
            network: membership.network.clone(),
            me: netmap.me().clone(),
            connected: false,
            back: None,
            revision: netmap.revision(),
            peers: netmap.peers(unix_now()),
            rules: Arc::clone(&rules),
            stun: None,
            relay: relays.current().to_string(),
            relays: relays.others(),
            issuer: *issuers.current(),
            handovers: issuers.count(),
            deleted,
            last_error: deleted.then(|| DELETED.to_owned()),
        }));
        let link = Self {
            relays,
            tls,
            membership,
            identity,
            netmap,
            papers,
            rules,
            stun: None,
            view,
            disk,
            kept: files.issuers,
            deleted,
            doors,
            visits,
            told,
            save_at: None,
        };
        Ok((link, seen))
    }

    /// Connects again and again.
    pub(crate) async fn run(mut self) {
        let mut pause = Pause::new();
        // What is over stays over: another network of this name is another network.
        while !self.deleted {
            let end = self.attempt().await;
            let was_up = self.view.borrow().connected;
            if was_up {
                pause.handle_up();
            }
            let why = match &end {
                End::Broken(error) => error.to_string(),
                End::Refused(why) => why.clone(),
                End::Deleted => DELETED.to_owned(),
            };
            match &end {
                End::Broken(_) => {
                    tracing::debug!(relay = %self.relays.current(), %why, "the relay is away");
                }
                End::Refused(_) => {
                    self.say_once(&why);
                    pause.handle_refused();
                }
                End::Deleted => {
                    tracing::warn!(network = %self.membership.network, "{DELETED}");
                    // Nobody belongs to anybody any more.
                    self.deleted = true;
                    self.netmap.forget_peers();
                    self.save_soon();
                    self.save();
                }
            }
            // After a break the same relay is tried alone, which is a round of its own.
            let was_last = self.relays.handle_over(was_up) || was_up;
            self.publish(Some(why));
            sleep(pause.take(was_last)).await;
        }
    }

    /// A refusal is tried again and again, and told once.
    fn say_once(&self, why: &str) {
        if self.view.borrow().last_error.as_deref() != Some(why) {
            tracing::warn!(relay = %self.relays.current(), %why, "the relay and this node do not agree");
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
        let at = self.relays.current();
        let (stream, address) = dial(at, self.tls.as_ref()).await?;
        let url = at.websocket("/api/v1/coordinate");
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
            handovers: self.netmap.issuers().count(),
            ssh: self.doors.clone(),
            relays: true,
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
                record,
                stun_port,
                handovers,
                issuer,
                ..
            } => {
                self.hand_over(&handovers).await?;
                if issuer < self.netmap.issuers().count() {
                    return Err(End::Refused(ROLLED_BACK.to_owned()));
                }
                self.welcome(record)?;
                let at = address.map(|address| address.ip()).zip(stun_port);
                self.stun = at.map(SocketAddr::from);
                Ok(socket)
            }
            ToNode::Deleted {
                handovers,
                obituary,
            } => Err(self.bury(&handovers, obituary).await),
            _ => Err(unexpected("no welcome")),
        }
    }

    fn welcome(&mut self, record: SignedRecord) -> Result<(), End> {
        self.netmap.handle_connected();
        let known = self.netmap.handle_own(record, unix_now());
        known.map_err(|bad| End::Refused(format!("the relay has no record of ours: {bad}")))
    }

    /// The issuer has handed over, if its key says so. It is kept before anything that the new
    /// key has signed is believed.
    async fn hand_over(&mut self, handovers: &[SignedHandover]) -> Result<(), End> {
        let taken = self.netmap.handle_handovers(handovers);
        let is_news = taken.map_err(|error| {
            End::Refused(format!(
                "the relay names an issuer of this network that is not to be trusted: {error}"
            ))
        })?;
        if is_news {
            let issuers = self.netmap.issuers();
            let (issuer, number) = (issuers.current(), issuers.count());
            tracing::info!(network = %self.membership.network, %issuer, number, "the issuer has handed over");
            self.keep(None).await;
        }
        Ok(())
    }

    /// The relay says that the network is no more. That is believed from its issuer alone.
    async fn bury(&mut self, handovers: &[SignedHandover], obituary: SignedObituary) -> End {
        if let Err(end) = self.hand_over(handovers).await {
            return end;
        }
        match obituary.verify(self.netmap.issuers()) {
            Ok(_) => {
                self.keep(Some(obituary)).await;
                End::Deleted
            }
            Err(error) => End::Refused(format!(
                "the relay says that this network was deleted, and its issuer does not: {error}"
            )),
        }
    }

    async fn keep(&self, obituary: Option<SignedObituary>) {
        let (path, issuers) = (self.kept.clone(), self.netmap.issuers());
        if let Err(error) = chain::store(path, issuers, obituary).await {
            // It is told again by the relay after a restart.
            tracing::error!(path = %self.kept.display(), %error, "what the issuer said cannot be kept");
        }
    }

    /// Takes frames until the connection breaks.
    async fn follow(&mut self, socket: Socket) -> End {
        let (sink, mut stream) = socket.split();
        let mut pings = std::pin::pin!(speak(sink, self.told.clone()));
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
                    if let Err(end) = self.handle(frame).await {
                        return end;
                    }
                }
                Ok(None) => {}
                Err(end) => return end,
            }
        }
    }

    async fn handle(&mut self, frame: ToNode) -> Result<(), End> {
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
                self.take_papers(papers, serial, more, now);
                return Ok(());
            }
            ToNode::Handovers { handovers } => return self.hand_over(&handovers).await,
            ToNode::Deleted {
                handovers,
                obituary,
            } => return Err(self.bury(&handovers, obituary).await),
            ToNode::Visit {
                ticket,
                door,
                subject,
            } => {
                // When many wait already, this one is not come for, and the relay says so.
                let _ = self.visits.try_send(Visit {
                    relay: self.relays.current().to_string(),
                    ticket,
                    door,
                    subject,
                });
                return Ok(());
            }
            ToNode::Relays { relays } => {
                if self.relays.handle_told(&relays) {
                    self.save_soon();
                    if self.view.borrow().connected {
                        self.publish(None);
                    }
                }
                return Ok(());
            }
            ToNode::Challenge { .. } | ToNode::Welcome { .. } => {
                return Err(unexpected("a second greeting"));
            }
            ToNode::Error { code, message } => return Err(refusal(&code, message)),
        };
        for bad in bad {
            tracing::warn!(relay = %self.relays.current(), error = %bad, "a record is not believed");
        }
        if complete {
            self.publish(None);
        }
        if self.netmap.revision() != before {
            self.save_soon();
        }
        Ok(())
    }

    fn take_papers(&mut self, papers: Vec<SignedPaper>, serial: u64, more: bool, now: u64) {
        let by = (self.netmap.issuers(), now);
        for bad in self.papers.handle(papers, serial, more, by) {
            tracing::warn!(relay = %self.relays.current(), error = %bad, "a paper is not believed");
        }
        self.rules = Arc::new(self.papers.rules());
        self.save_soon();
        // The first ones come before the peers: the view is not current yet.
        if self.view.borrow().connected && !more {
            self.publish(None);
        }
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
                relays: self.relays.others(),
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
            relay: self.relays.current().to_string(),
            relays: self.relays.others(),
            issuer: *self.netmap.issuers().current(),
            handovers: self.netmap.issuers().count(),
            deleted: self.deleted,
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
