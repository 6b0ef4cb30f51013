//! Ways from the relay to a node, for SSH.
//!
//! A node listens nowhere, so the relay tells it over its coordination connection that somebody is
//! there ([`ToNode::Visit`]), with a ticket; the node comes to `GET /api/v1/back/{ticket}`, and the
//! WebSocket that this becomes is the way. A ticket is random, told to one node over a connection
//! on which it has proven itself, good once and for [`COME_LIMIT`].
//!
//! The node may be connected to another relay over the same database. Then that relay tells it, and
//! when the node comes there, connects in its turn to where the visitor is, with the same ticket,
//! and passes on what both say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use derp::NodeKey;
use mesh::NetworkId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::copy_bidirectional;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::api::{Path, Upgrade};
use super::app::{App, random};
use super::auth::Remote;
use super::directory::ConnectionId;
use super::error::ApiError;
use super::server::Place;
use crate::coord::ToNode;
use crate::ssh::{Door, Frame, Pipe, pipe};
use crate::uplink;

/// How long a node may take to come back.
pub(crate) const COME_LIMIT: Duration = Duration::from_secs(10);

/// Visits that one node is told of and has not taken up, at most.
const WAITING_AT_A_NODE: usize = 16;

/// Visits that wait for their nodes, at most, on the whole relay.
const WAITING: usize = 1024;

/// The longest message on a way, bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Visits {
    seats: Mutex<HashMap<(NetworkId, NodeKey), Seat>>,
    waiting: Mutex<HashMap<String, Waiting>>,
    /// Tickets of visitors at other relays: where those are, and until when.
    passed_on: Mutex<HashMap<String, (String, Instant)>>,
}

/// The way that comes, or why none does.
type Coming = oneshot::Receiver<Result<Pipe, NoWay>>;

/// Somebody who waits for a node.
struct Waiting {
    network: NetworkId,
    key: NodeKey,
    come: oneshot::Sender<Result<Pipe, NoWay>>,
}

/// A node that is connected.
struct Seat {
    connection: ConnectionId,
    doors: Vec<Door>,
    tell: mpsc::Sender<ToNode>,
}

/// Why there is no way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NoWay {
    /// It has no connection to a relay.
    #[error("node not connected")]
    Away,
    /// It does not take such visits.
    #[error("the node does not take this")]
    Closed,
    /// It, or the relay, has too many that wait.
    #[error("too many connections wait for their nodes; try again")]
    Busy,
    /// It was told and did not come.
    #[error("node connection timed out")]
    Silent,
}

impl Visits {
    /// A node is connected; the channel says what it has to be told.
    pub(crate) fn sit(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        connection: ConnectionId,
        doors: Vec<Door>,
    ) -> mpsc::Receiver<ToNode> {
        let (tell, told) = mpsc::channel(WAITING_AT_A_NODE);
        let seat = Seat {
            connection,
            doors,
            tell,
        };
        self.seats.lock().insert((network.clone(), *key), seat);
        told
    }

    /// That connection is over.
    pub(crate) fn leave(&self, network: &NetworkId, key: &NodeKey, connection: ConnectionId) {
        let mut seats = self.seats.lock();
        let place = (network.clone(), *key);
        if seats
            .get(&place)
            .is_some_and(|seat| seat.connection == connection)
        {
            seats.remove(&place);
        }
    }

    /// A ticket for a node, and what it brings.
    fn expect(&self, network: &NetworkId, key: &NodeKey) -> Result<(String, Coming), NoWay> {
        let ticket = URL_SAFE_NO_PAD.encode(random::<24>());
        let (come, came) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, waiting| !waiting.come.is_closed());
        if waiting.len() >= WAITING {
            return Err(NoWay::Busy);
        }
        let (network, key) = (network.clone(), *key);
        waiting.insert(ticket.clone(), Waiting { network, key, come });
        Ok((ticket, came))
    }

    /// Tells a node that is connected here of a visit.
    pub(super) fn tell(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        ticket: &str,
        door: Door,
        subject: &str,
    ) -> Result<(), NoWay> {
        let visit = ToNode::Visit {
            ticket: ticket.to_owned(),
            door,
            subject: subject.to_owned(),
        };
        let seats = self.seats.lock();
        let seat = seats.get(&(network.clone(), *key)).ok_or(NoWay::Away)?;
        if !seat.doors.contains(&door) {
            return Err(NoWay::Closed);
        }
        seat.tell.try_send(visit).map_err(|_| NoWay::Busy)
    }

    /// The visitor with this ticket is at another relay.
    pub(super) fn pass_on(&self, ticket: String, url: String) -> Result<(), NoWay> {
        let now = Instant::now();
        let mut passed_on = self.passed_on.lock();
        passed_on.retain(|_, (_, until)| *until > now);
        if passed_on.len() >= WAITING {
            return Err(NoWay::Busy);
        }
        passed_on.insert(ticket, (url, now + COME_LIMIT));
        Ok(())
    }

    /// The node will not come.
    pub(super) fn give_up(&self, ticket: &str, why: NoWay) {
        if let Some(waiting) = self.take(ticket) {
            // Whoever waited may have gone meanwhile.
            let _ = waiting.come.send(Err(why));
        }
    }

    /// Where the visitor with this ticket is, if at another relay.
    pub(super) fn take_passed_on(&self, ticket: &str) -> Option<String> {
        let (url, until) = self.passed_on.lock().remove(ticket)?;
        (until > Instant::now()).then_some(url)
    }

    fn take(&self, ticket: &str) -> Option<Waiting> {
        let waiting = self.waiting.lock().remove(ticket)?;
        (!waiting.come.is_closed()).then_some(waiting)
    }
}

impl App {
    /// Opens a way to a node in the name of `subject`, wherever the node is connected.
    pub(crate) async fn way(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        door: Door,
        subject: &str,
    ) -> Result<Pipe, NoWay> {
        let (ticket, came) = self.visits.expect(network, key)?;
        match self.visits.tell(network, key, &ticket, door, subject) {
            Err(NoWay::Away) => {
                let visit = (door, subject);
                self.visit_elsewhere(network, key, &ticket, visit).await?;
            }
            told => told?,
        }
        match timeout(COME_LIMIT, came).await {
            Ok(Ok(come)) => come,
            Ok(Err(_)) | Err(_) => Err(NoWay::Silent),
        }
    }
}

/// `GET /api/v1/back/{ticket}`.
pub(crate) async fn back(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    place: Place,
    Path(ticket): Path<String>,
    headers: HeaderMap,
    Upgrade(upgrade): Upgrade,
) -> Response {
    // Nodes send none; a page in somebody's browser has no business here.
    if headers.contains_key(header::ORIGIN) {
        return ApiError::forbidden().into_response();
    }
    if let Err(wait) = app.guards.may_say_hello(remote.ip()) {
        return wait.into_response();
    }
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE);
    if let Some(url) = app.visits.take_passed_on(&ticket) {
        return pass_on(&app, url, ticket, upgrade, place).await;
    }
    let Some(Waiting { network, key, come }) = app.visits.take(&ticket) else {
        app.guards.wrong_hello(remote.ip());
        let status = StatusCode::NOT_FOUND;
        return ApiError::new(status, "not_found", "nobody waits for this").into_response();
    };
    let mut stop = app.stop.clone();
    upgrade.on_upgrade(async move |socket| {
        let (near, run) = pipe(socket, read, Message::Binary, || {
            Message::Ping(Vec::new().into())
        });
        if come.send(Ok(near)).is_ok() {
            tokio::select! {
                () = run => {}
                () = put_out(&app, &network, &key) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        drop(place);
    })
}

/// Connects to the relay where the visitor is, and passes on what it and the node say.
async fn pass_on(
    app: &App,
    url: String,
    ticket: String,
    upgrade: WebSocketUpgrade,
    place: Place,
) -> Response {
    let tls = app.cluster.as_ref().map(|cluster| cluster.tls(&url));
    let there = match tls.transpose() {
        Ok(tls) => uplink::come(&url, tls.flatten().as_ref(), &ticket).await,
        Err(error) => Err(std::io::Error::other(error)),
    };
    let (mut there, _gone) = match there {
        Ok(there) => there,
        Err(error) => {
            tracing::warn!(relay = %url, %error, "a visitor's relay cannot be reached");
            let status = StatusCode::BAD_GATEWAY;
            let why = "the relay of the visitor cannot be reached";
            return ApiError::new(status, "relay_unreachable", why).into_response();
        }
    };
    let mut stop = app.stop.clone();
    upgrade.on_upgrade(async move |socket| {
        let (mut near, run) = pipe(socket, read, Message::Binary, || {
            Message::Ping(Vec::new().into())
        });
        // Both end with either; what was said last still gets there.
        let both = async { tokio::join!(run, copy_bidirectional(&mut near, &mut there)) };
        tokio::select! {
            _ = both => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop(place);
    })
}

/// Resolves when the node does not belong to the network any more.
async fn put_out(app: &App, network: &NetworkId, key: &NodeKey) {
    let mut bell = app.hub.bell(network);
    loop {
        let standing = app.hub.standing(network, key);
        if standing.is_none_or(|standing| standing.revoked) || bell.changed().await.is_err() {
            return;
        }
    }
}

fn read(message: Message) -> Frame {
    match message {
        Message::Binary(bytes) => Frame::Data(bytes),
        Message::Ping(_) | Message::Pong(_) => Frame::Alive,
        Message::Text(_) | Message::Close(_) => Frame::End,
    }
}
