//! `GET /api/v1/coordinate`: one node, one WebSocket, for as long as it is
//! there. The messages are in [`crate::coord`].
//!
//! A connection has a reader and a writer that do not wait for each other:
//! while a large snapshot goes out over a slow link, the node's pings still
//! count as life. The writer takes news from the hub when its bell rings, and
//! what happens in one [`PACE`] is told together there.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use derp::NodeKey;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use mesh::{NetworkId, SignKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::api::Upgrade;
use super::app::{App, random};
use super::auth::Remote;
use super::clock::unix_now;
use super::cluster::Cluster;
use super::directory::{ConnectionId, Cursor, Line, Slot, line};
use super::error::ApiError;
use super::hub::{Cut, Opened};
use super::papers::Has;
use super::server::Place;
use super::store::{self, Death};
use crate::coord::report::Report;
use crate::coord::{
    DEAD_AFTER, HelloProof, KEEPALIVE, Nonce, RelayPlace, ToNode, ToRelay, VERSION,
};
use crate::ssh::Door;

/// The longest message a node sends, bytes. A hello is below 1 KiB.
const MAX_MESSAGE: usize = 16 * 1024;

/// What a connection reads into, bytes: after the hello come pings only, and
/// there are thousands of connections.
const READ_BUFFER: usize = 1024;

/// How long a node may take for its hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Changes of one network are told at most this often. The first change
/// after a quiet time goes out at once; when a thousand nodes come back
/// together, each hears of them in twenty frames a second and not in a
/// thousand, and all hear the same, which is written once.
const PACE: Duration = Duration::from_millis(50);

/// Reports of one node are taken this often; they come less often.
const REPORT_PACE: Duration = Duration::from_secs(1);

/// How long the relay tries to say why it ends a connection.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// The clock of the slots in which changes are told together.
pub(crate) struct Pace {
    start: Instant,
}

impl Pace {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The present slot, and when the next one begins.
    fn now(&self) -> (Slot, Instant) {
        let passed = self.start.elapsed().as_millis() / PACE.as_millis();
        let slot = u32::try_from(passed).unwrap_or(u32::MAX);
        (
            Slot(slot.into()),
            self.start + PACE * slot.saturating_add(1),
        )
    }
}

type Sink = SplitSink<WebSocket, Message>;
type Stream = SplitStream<WebSocket>;

/// See the module.
pub(crate) async fn coordinate(
    State(app): State<Arc<App>>,
    remote: Remote,
    place: Place,
    headers: HeaderMap,
    Upgrade(upgrade): Upgrade,
) -> Response {
    // Nodes send none; a page in somebody's browser has no business here.
    if headers.contains_key(header::ORIGIN) {
        return ApiError::forbidden().into_response();
    }
    if let Err(wait) = app.guards.may_say_hello(remote.0.ip()) {
        return wait.into_response();
    }
    if *app.stop.borrow() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return ApiError::new(status, "not_ready", "the relay is stopping").into_response();
    }
    upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .on_upgrade(async move |socket| {
            serve(app, remote, socket).await;
            drop(place);
        })
}

/// A refusal of the handshake.
enum Refused {
    /// A code and a text.
    Told(&'static str, String),
    /// The network is no more.
    Deleted(Death),
}

impl Refused {
    fn frame(self) -> ToNode {
        match self {
            Self::Told(code, message) => ToNode::Error {
                code: code.to_owned(),
                message,
            },
            Self::Deleted(death) => deleted(&death),
        }
    }
}

/// Nothing can be said of the node now; it comes again.
fn unavailable(error: &store::Error) -> Refused {
    // That the database is away is told elsewhere, and once.
    if !error.is_away() {
        tracing::warn!(%error, "could not look for a node");
    }
    Refused::Told(
        "store_unavailable",
        "the relay cannot reach its database now".to_owned(),
    )
}

fn deleted(death: &Death) -> ToNode {
    ToNode::Deleted {
        handovers: death.handovers.clone(),
        obituary: death.obituary.clone(),
    }
}

async fn serve(app: Arc<App>, remote: Remote, mut socket: WebSocket) {
    let entered = timeout(HELLO_LIMIT, enter(&app, remote, &mut socket)).await;
    let (node, opened, (doors, asks)) = match entered {
        Ok(Some(Ok(entered))) => entered,
        Ok(Some(Err(refused))) => {
            return farewell(socket.split(), &refused.frame()).await;
        }
        Ok(None) | Err(_) => return,
    };
    app.note_seen(&node.network, &node.key);
    if let Some(cluster) = &app.cluster {
        cluster.sit(&node.network, &node.key, opened.id);
    }
    let _on_the_books = OnTheBooks {
        app: &app,
        node: &node,
        id: opened.id,
    };
    let told = app.visits.sit(&node.network, &node.key, opened.id, doors);
    let relays = asks.then(|| app.cluster.as_ref().map(Cluster::places));
    run(&app, &node, opened, (told, relays), socket).await;
}

/// Takes a connection off the books, however it ends.
struct OnTheBooks<'a> {
    app: &'a App,
    node: &'a Node,
    id: ConnectionId,
}

impl Drop for OnTheBooks<'_> {
    fn drop(&mut self) {
        let Node { network, key } = self.node;
        self.app.visits.leave(network, key, self.id);
        self.app.reports.leave(network, key, self.id);
        self.app.hub.close(network, key, self.id, unix_now());
        if let Some(cluster) = &self.app.cluster {
            cluster.rise(network, key, self.id);
        }
        self.app.note_seen(network, key);
    }
}

/// A node that is in, its connection, and what it takes over SSH; and whether it asks for other
/// relays.
type Entered = (Node, Opened, (Vec<Door>, bool));

/// The other relays, if the node asked for them; if there can be any.
type Others = Option<Option<watch::Receiver<Vec<RelayPlace>>>>;

/// A node that has proven who it is.
struct Node {
    network: NetworkId,
    key: NodeKey,
}

/// Challenge, hello, judgement. `None` when the connection broke.
async fn enter(
    app: &Arc<App>,
    remote: Remote,
    socket: &mut WebSocket,
) -> Option<Result<Entered, Refused>> {
    let nonce = Nonce(random());
    socket.send(text(&ToNode::Challenge { nonce })).await.ok()?;
    let hello = loop {
        match socket.recv().await?.ok()? {
            Message::Text(hello) => break hello,
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Close(_) => return None,
        }
    };
    let judged = judge(app, &nonce, &hello).await;
    if matches!(judged, Err(Refused::Told("unauthorized", _))) {
        app.guards.wrong_hello(remote.0.ip());
    }
    Some(judged)
}

async fn judge(app: &Arc<App>, nonce: &Nonce, hello: &str) -> Result<Entered, Refused> {
    let refuse = |code, message: &str| Err(Refused::Told(code, message.to_owned()));
    let Ok(ToRelay::Hello {
        network,
        key,
        version,
        revision,
        papers,
        handovers,
        ssh,
        relays,
        signature,
    }) = serde_json::from_str(hello)
    else {
        return refuse("bad_request", "this is no hello");
    };
    if version != VERSION {
        return Err(Refused::Told(
            "version_unsupported",
            format!("this relay speaks version {VERSION} and not {version}"),
        ));
    }
    let proven = |root: &SignKey, sign_key: &SignKey| {
        let proof = HelloProof {
            issuer: root,
            nonce,
            network: &network,
            key: &key,
        };
        signature.verifies(sign_key, &proof.message())
    };
    let standing = app.find_standing(&network, &key).await;
    let standing = standing.map_err(|error| unavailable(&error))?;
    let Some(standing) = standing.filter(|it| proven(&it.root, &it.record.sign_key)) else {
        let deaths = app.store.deaths(network.clone(), key).await;
        let deaths = deaths.map_err(|error| unavailable(&error))?;
        let mourner = deaths
            .into_iter()
            .find(|mourner| proven(&mourner.root, &mourner.sign_key));
        return Err(match mourner {
            Some(mourner) => Refused::Deleted(mourner.death),
            None => Refused::Told(
                "unauthorized",
                "no node of this relay could be recognised".to_owned(),
            ),
        });
    };
    let node = Node { network, key };
    if standing.revoked {
        return refuse("revoked", "this node was revoked");
    }
    let has = Has {
        revision,
        papers,
        handovers,
    };
    let (node, opened) = open(app, node, has).await?;
    Ok((node, opened, (ssh, relays)))
}

async fn open(app: &Arc<App>, node: Node, has: Has) -> Result<(Node, Opened), Refused> {
    if let Err(error) = app.renew_if_due(&node.network, &node.key).await {
        tracing::warn!(code = error.code(), "could not renew a record");
    }
    match app
        .hub
        .open(&node.network, &node.key, has, app.pace.now().0)
    {
        Ok(opened) => Ok((node, opened)),
        Err(_) => Err(Refused::Told("revoked", "this node was revoked".to_owned())),
    }
}

/// Why a connection ended.
enum End {
    /// The node is gone or silent.
    Lost,
    Cut(Cut),
    Stopping,
}

async fn run(
    app: &Arc<App>,
    node: &Node,
    opened: Opened,
    (told, others): (mpsc::Receiver<ToNode>, Others),
    socket: WebSocket,
) {
    let (mut sink, mut stream) = socket.split();
    let Opened {
        id,
        cut,
        bell,
        greeting,
    } = opened;
    let welcome = ToNode::Welcome {
        record: greeting.record,
        stun_port: app.info.stun_port,
        keepalive_ms: millis(KEEPALIVE),
        dead_after_ms: millis(DEAD_AFTER),
        handovers: greeting.handovers,
        issuer: greeting.issuer,
    };
    let alone = matches!(others, Some(None)).then(|| ToNode::Relays { relays: Vec::new() });
    let first = [Some(welcome), alone].into_iter().flatten();
    let first = first.map(|frame| line(&frame)).chain(greeting.frames);
    let end = tokio::select! {
        () = listen(app, node, id, &mut stream) => End::Lost,
        () = tell(app, node, first.collect(), greeting.cursor, (bell, told, others.flatten()), &mut sink) => End::Lost,
        why = cut_or_stop(cut, app.stop.clone()) => why,
    };
    let (code, message) = match end {
        End::Lost => return,
        End::Cut(Cut::Replaced) => ("replaced", "this node has connected again from elsewhere"),
        End::Cut(Cut::Revoked) => ("revoked", "this node was revoked"),
        End::Cut(Cut::Deleted(death)) => {
            return farewell((sink, stream), &deleted(&death)).await;
        }
        End::Stopping => ("stopping", "the relay is stopping"),
    };
    let error = ToNode::Error {
        code: code.to_owned(),
        message: message.to_owned(),
    };
    farewell((sink, stream), &error).await;
}

/// Takes reports; returns when the node closed the connection or was silent for too long.
async fn listen(app: &App, node: &Node, id: ConnectionId, stream: &mut Stream) {
    let mut next = Instant::now();
    loop {
        match timeout(DEAD_AFTER, stream.next()).await {
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_)))) => {}
            // Too many of them wait, before they are read even: each may be the last for long. What
            // is none is passed over: a later version may say more, which this one does not
            // understand.
            Ok(Some(Ok(Message::Text(text)))) => {
                sleep_until(next).await;
                next = Instant::now() + REPORT_PACE;
                let report = serde_json::from_str(&text).ok().and_then(sound);
                if let Some(report) = report {
                    app.reports.put(&node.network, &node.key, id, report);
                    app.hub.ring_any();
                }
            }
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return,
        }
    }
}

fn sound(frame: ToRelay) -> Option<Report> {
    match frame {
        ToRelay::Report(report) => Some(report).filter(Report::is_sound),
        ToRelay::Hello { .. } => None,
    }
}

/// Sends what there is to say; returns when the connection broke.
async fn tell(
    app: &Arc<App>,
    node: &Node,
    first: Vec<Line>,
    mut cursor: Cursor,
    (mut bell, mut told, mut others): (
        watch::Receiver<()>,
        mpsc::Receiver<ToNode>,
        Option<watch::Receiver<Vec<RelayPlace>>>,
    ),
    sink: &mut Sink,
) {
    for line in first {
        if sink.send(Message::Text(line)).await.is_err() {
            return;
        }
    }
    let mut ping = interval(KEEPALIVE);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = Instant::now();
    // Kept apart from the waiting, so that a ping in between loses nothing. And what came after
    // the round of the greeting has rung already.
    let mut rung = true;
    // None is known before the relay has looked itself.
    if let Some(others) = others.as_mut().filter(|others| !others.borrow().is_empty()) {
        others.mark_changed();
    }
    loop {
        let messages = tokio::select! {
            _ = ping.tick() => vec![Message::Ping(Vec::new().into())],
            Some(frame) = told.recv() => vec![text(&frame)],
            Some(relays) = news(&mut others) => vec![text(&ToNode::Relays { relays })],
            changed = bell.changed(), if !rung => {
                if changed.is_err() {
                    return;
                }
                rung = true;
                continue;
            }
            () = sleep_until(next), if rung => {
                let (slot, after) = app.pace.now();
                let news = app.hub.news(&node.network, &node.key, cursor, slot);
                let Some(news) = news else {
                    rung = false;
                    continue;
                };
                cursor = news.cursor;
                rung = news.more;
                if rung {
                    next = after;
                }
                news.frames.into_iter().map(Message::Text).collect()
            }
        };
        for message in messages {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// The relays, when they have changed; at once `None` when nobody asks.
async fn news(relays: &mut Option<watch::Receiver<Vec<RelayPlace>>>) -> Option<Vec<RelayPlace>> {
    let relays = relays.as_mut()?;
    relays.changed().await.ok()?;
    Some(relays.borrow_and_update().clone())
}

async fn cut_or_stop(cut: oneshot::Receiver<Cut>, mut stop: watch::Receiver<bool>) -> End {
    tokio::select! {
        why = cut => why.map_or(End::Lost, End::Cut),
        _ = stop.wait_for(|stop| *stop) => End::Stopping,
    }
}

/// Says why, and waits for the node to hang up: closing with something unread
/// would take the last words back.
async fn farewell((mut sink, mut stream): (Sink, Stream), last: &ToNode) {
    let close = Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    }));
    let said = async {
        sink.send(text(last)).await?;
        sink.send(close).await?;
        while let Some(Ok(_)) = stream.next().await {}
        Ok::<_, axum::Error>(())
    };
    // A node that does not listen is not owed more.
    let _ = timeout(FAREWELL_LIMIT, said).await;
}

fn text(frame: &ToNode) -> Message {
    Message::Text(line(frame))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
