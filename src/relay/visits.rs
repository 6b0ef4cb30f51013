//! Ways from the relay to a node, for SSH.
//!
//! A node listens nowhere, so the relay tells it over its coordination connection that somebody is
//! there ([`ToNode::Visit`]), with a ticket; the node comes to `GET /api/v1/back/{ticket}`, and the
//! WebSocket that this becomes is the way. A ticket is random, told to one node over a connection
//! on which it has proven itself, good once and for [`COME_LIMIT`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use derp::NodeKey;
use mesh::NetworkId;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::app::{App, random};
use super::auth::Remote;
use super::directory::ConnectionId;
use super::error::ApiError;
use super::server::Place;
use crate::coord::ToNode;
use crate::ssh::{Door, Frame, Pipe, pipe};

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
}

/// Somebody who waits for a node.
struct Waiting {
    network: NetworkId,
    key: NodeKey,
    come: oneshot::Sender<Pipe>,
}

/// A node that is connected.
struct Seat {
    connection: ConnectionId,
    doors: Vec<Door>,
    tell: mpsc::Sender<ToNode>,
}

/// Why there is no way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoWay {
    /// It has no connection to this relay.
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

    /// Opens a way to a node in the name of `subject`.
    pub(crate) async fn open(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        door: Door,
        subject: &str,
    ) -> Result<Pipe, NoWay> {
        let ticket = URL_SAFE_NO_PAD.encode(random::<24>());
        let (come, came) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            waiting.retain(|_, waiting| !waiting.come.is_closed());
            if waiting.len() >= WAITING {
                return Err(NoWay::Busy);
            }
            let (network, key) = (network.clone(), *key);
            waiting.insert(ticket.clone(), Waiting { network, key, come });
        }
        let visit = ToNode::Visit {
            ticket,
            door,
            subject: subject.to_owned(),
        };
        {
            let seats = self.seats.lock();
            let seat = seats.get(&(network.clone(), *key)).ok_or(NoWay::Away)?;
            if !seat.doors.contains(&door) {
                return Err(NoWay::Closed);
            }
            seat.tell.try_send(visit).map_err(|_| NoWay::Busy)?;
        }
        match timeout(COME_LIMIT, came).await {
            Ok(Ok(pipe)) => Ok(pipe),
            Ok(Err(_)) | Err(_) => Err(NoWay::Silent),
        }
    }

    fn take(&self, ticket: &str) -> Option<Waiting> {
        let waiting = self.waiting.lock().remove(ticket)?;
        (!waiting.come.is_closed()).then_some(waiting)
    }
}

/// `GET /api/v1/back/{ticket}`.
pub(crate) async fn back(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    place: Place,
    Path(ticket): Path<String>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    // Nodes send none; a page in somebody's browser has no business here.
    if headers.contains_key(header::ORIGIN) {
        return ApiError::forbidden().into_response();
    }
    if let Err(wait) = app.guards.may_say_hello(remote.ip()) {
        return wait.into_response();
    }
    let Some(Waiting { network, key, come }) = app.visits.take(&ticket) else {
        app.guards.wrong_hello(remote.ip());
        let status = StatusCode::NOT_FOUND;
        return ApiError::new(status, "not_found", "nobody waits for this").into_response();
    };
    let mut stop = app.stop.clone();
    upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(async move |socket| {
            let (near, run) = pipe(socket, read, Message::Binary, || {
                Message::Ping(Vec::new().into())
            });
            if come.send(near).is_ok() {
                tokio::select! {
                    () = run => {}
                    () = put_out(&app, &network, &key) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
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
