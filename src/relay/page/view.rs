//! What somebody may see: the nodes of networks whose nodes they may list, the ways that these have
//! told of, and the sessions of their own nodes, if those tell of them.

use std::collections::HashMap;

use mesh::NetworkId;
use serde::Serialize;

use crate::coord::report::{Report, Session};
use crate::relay::app::App;
use crate::relay::auth::permit;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::policy::{Action, As};
use crate::relay::store::Subject;

/// Networks, and nodes of each, that are shown; a page with more would be read by nobody.
const MAX_NETWORKS: usize = 50;
const MAX_NODES: usize = 500;

/// All of it.
#[derive(Serialize)]
pub(super) struct State {
    networks: Vec<Network>,
    more: bool,
}

#[derive(Serialize)]
struct Network {
    id: NetworkId,
    /// The viewer belongs to it, but may not see its nodes.
    hidden: bool,
    nodes: Vec<Node>,
    more: bool,
}

#[derive(Serialize)]
struct Node {
    name: String,
    owner: String,
    online: bool,
    /// RFC 3339; when it was last connected.
    last_seen: Option<String>,
    /// None when it has told of none.
    paths: Option<Vec<Way>>,
    /// None when it does not tell, or not to this viewer.
    sessions: Option<Vec<Session>>,
}

#[derive(Serialize)]
struct Way {
    to: String,
    direct: bool,
    /// Milliseconds.
    rtt_ms: Option<f64>,
}

/// What `viewer` may see now.
pub(super) async fn state(app: &App, viewer: &Subject) -> Result<State, ApiError> {
    let whose = Some(viewer.clone()).filter(|viewer| *viewer != Subject::admin());
    let found = app.store.networks(whose, unix_now()).await?;
    let more = found.len() > MAX_NETWORKS;
    let mut networks = Vec::new();
    for found in found.into_iter().take(MAX_NETWORKS) {
        networks.push(network(app, viewer, found.id).await);
    }
    Ok(State { networks, more })
}

async fn network(app: &App, viewer: &Subject, id: NetworkId) -> Network {
    let may = permit(viewer, As::User, Action::ListNodes, &id, app).await;
    if may.is_err() {
        return Network {
            id,
            hidden: true,
            nodes: Vec::new(),
            more: false,
        };
    }
    let mut listed = app.hub.list(&id);
    let names: HashMap<_, _> = listed
        .iter()
        .map(|node| (node.key, node.name.to_string()))
        .collect();
    let more = listed.len() > MAX_NODES;
    listed.truncate(MAX_NODES);
    let nodes = listed.into_iter().map(|node| {
        let report = app.reports.of(&id, &node.key).filter(|_| node.connected);
        let Report { paths, sessions } = report.clone().unwrap_or_default();
        let ways = paths.into_iter().filter_map(|way| {
            // A peer that has been put out meanwhile has no name any more.
            Some(Way {
                to: names.get(&way.peer)?.clone(),
                direct: way.direct,
                rtt_ms: way.rtt_us.map(|us| (f64::from(us) / 100.0).round() / 10.0),
            })
        });
        let mut ways: Vec<_> = ways.collect();
        ways.sort_by(|a, b| a.to.cmp(&b.to));
        Node {
            name: node.name.to_string(),
            sessions: sessions.filter(|_| node.owner == viewer.as_str()),
            owner: node.owner,
            online: node.connected,
            // While it is there, that is now, and no news.
            last_seen: node.last_seen.filter(|_| !node.connected).map(rfc3339),
            paths: report.map(|_| ways),
        }
    });
    let mut nodes: Vec<_> = nodes.collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Network {
        id,
        hidden: false,
        nodes,
        more,
    }
}
