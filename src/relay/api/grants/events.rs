//! Grants as they are revoked, told to those whom it concerns.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use mesh::NetworkId;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Me;
use crate::relay::api::body::InNetwork;
use crate::relay::app::App;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::papers::{GRANTS_KEPT, Papers};
use crate::relay::policy::{Action, Own};
use crate::relay::signed::Visitor;

/// How often a stream of events says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// `GET /api/v1/access/cache/events?network_id=`: grants as they are revoked, server-sent. The id
/// of an event is the serial of its paper, so that `Last-Event-ID` holds across restarts.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    InNetwork(network): InNetwork,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    visitor
        .may(Action::SeeGrant(Own::Yes), &network, &app)
        .await?;
    let cursor = match headers.get("last-event-id") {
        None => None,
        Some(header) => {
            let parsed = header
                .to_str()
                .ok()
                .and_then(|text| text.parse::<u64>().ok());
            Some(parsed.ok_or_else(|| ApiError::bad_request("Last-Event-ID is no cursor"))?)
        }
    };
    let bell = app.hub.bell(&network);
    let last = app.hub.papers(&network, Papers::serial);
    let last = last.ok_or_else(ApiError::network_unknown)?;
    // What was revoked longer ago than grants are kept is not told any more.
    let oldest = unix_now().saturating_sub(GRANTS_KEPT).saturating_mul(1000);
    let lost = cursor.is_some_and(|cursor| cursor < oldest.min(last) || cursor > last);
    let told = Told {
        all: visitor
            .may(Action::SeeGrant(Own::No), &network, &app)
            .await
            .is_ok(),
        app,
        visitor,
        network,
        cursor: cursor.filter(|_| !lost).unwrap_or(last),
        queue: Vec::new(),
        bell,
        reset: lost.then_some(last),
    };
    let events = stream::unfold(told, async |mut told| {
        let event = told.next().await?;
        Some((Ok(event), told))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keepalive")))
}

/// A stream of events, and how far it has come.
struct Told {
    app: Arc<App>,
    visitor: Visitor,
    network: NetworkId,
    all: bool,
    cursor: u64,
    queue: Vec<(u64, String, u64)>,
    bell: watch::Receiver<()>,
    reset: Option<u64>,
}

impl Told {
    /// The next event; `None` when the relay stops or the visitor no longer belongs here.
    async fn next(&mut self) -> Option<Event> {
        if let Some(last) = self.reset.take() {
            let data = json!({ "seq": last, "type": "stream.reset", "network_id": self.network });
            return Some(event(last, "stream.reset", &data));
        }
        let mut stop = self.app.stop.clone();
        loop {
            if let Some((serial, id, at)) = self.queue.pop() {
                self.cursor = serial;
                let data = json!({
                    "seq": serial,
                    "type": "access.grant.revoked",
                    "network_id": self.network,
                    "grant_id": id,
                    "revoked_at": rfc3339(at),
                });
                return Some(event(serial, "access.grant.revoked", &data));
            }
            self.bell.borrow_and_update();
            self.look()?;
            if self.queue.is_empty() {
                tokio::select! {
                    changed = self.bell.changed() => changed.ok()?,
                    _ = stop.wait_for(|stop| *stop) => return None,
                }
            }
        }
    }

    /// Queues what was revoked since the cursor, the last first.
    fn look(&mut self) -> Option<()> {
        let (app, network) = (&self.app, &self.network);
        if let Visitor::Node { key, .. } = &self.visitor {
            // A node that was put out hears nothing more.
            app.hub.record(network, key)?;
        }
        let me = Me::of(app, &self.visitor, network);
        let (all, cursor) = (self.all, self.cursor);
        self.queue = app.hub.papers(network, |papers| {
            let revoked = papers.grants().filter_map(|(serial, grant)| {
                let concerns = all || me.gave(grant) || me.is_audience(grant);
                let at = grant.revoked.filter(|_| serial > cursor && concerns)?;
                Some((serial, grant.id.clone(), at))
            });
            revoked.collect()
        })?;
        self.queue
            .sort_by_key(|(serial, ..)| std::cmp::Reverse(*serial));
        Some(())
    }
}

fn event(id: u64, name: &str, data: &Value) -> Event {
    let event = Event::default().id(id.to_string()).event(name);
    event.data(data.to_string())
}
