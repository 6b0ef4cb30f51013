//! The node's place in its network: the uplink to the relay, which says who there is, and the
//! mesh, which reaches them.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh::io::{Mesh, Peer, Relay};
use mesh::{NodeKey, NodeName};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Host, enrol, groups, report, serve, standby, visits};
use crate::error::{Error, Result};
use crate::uplink::kv::Shared;
use crate::uplink::{Files, Membership, NetworkView, PeerView, Uplink};

/// How long the relay must hold a node for absent before calls to it are given up.
const ABSENT: Duration = Duration::from_secs(5);
/// And how long nothing must have been heard of it; its connection is kept alive more often.
const SILENT: Duration = Duration::from_secs(12);
/// How long who has joined waits to hear who else is in the network.
const INTRODUCED: Duration = Duration::from_secs(5);

/// A network that the node is in.
pub struct Network {
    /// Reaches the other nodes.
    pub mesh: Mesh,
    /// As it was joined.
    pub(super) membership: Membership,
    name: NodeName,
    view: watch::Receiver<Arc<NetworkView>>,
    shared: Shared,
    tasks: Vec<JoinHandle<()>>,
    /// Its task ends when this is dropped.
    _uplink: Uplink,
}

impl Network {
    /// This node's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.to_string()
    }

    /// Where its relay is.
    #[must_use]
    pub fn relay_url(&self) -> &str {
        &self.membership.relay_url
    }

    /// The relay that says who there is, if it is not the one where the node joined.
    #[must_use]
    pub fn instead(&self) -> Option<String> {
        let view = self.view();
        let is_other = view.relays.iter().any(|other| other.url == view.relay);
        is_other.then(|| view.relay.clone())
    }

    /// The relay that stands by for packets, if there are several.
    #[must_use]
    pub fn standby(&self) -> Option<String> {
        let (view, first) = (self.view(), *self.mesh.relay_key().borrow());
        let chosen = standby::choose(&view.me.key, first.as_ref(), &view.relays);
        chosen.map(|place| place.url.clone())
    }

    /// The values that the network shares.
    #[must_use]
    pub const fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Who there is, as last heard.
    #[must_use]
    pub fn view(&self) -> Arc<NetworkView> {
        self.view.borrow().clone()
    }

    /// Tells when something of it has changed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<NetworkView>> {
        self.view.clone()
    }

    /// Whether there is still such a network.
    ///
    /// # Errors
    ///
    /// `network_deleted`.
    pub fn exists(&self) -> Result<()> {
        if !self.view().deleted {
            return Ok(());
        }
        let network = &self.membership.network;
        Err(Error::new(
            "network_deleted",
            format!("network \"{network}\" was deleted; this node is in none any more"),
        ))
    }

    /// A node by its name.
    ///
    /// # Errors
    ///
    /// `node_unknown`, `this_node`, `network_deleted`.
    pub fn peer(&self, name: &str) -> Result<PeerView> {
        self.exists()?;
        let view = self.view();
        let unknown = || {
            Error::new(
                "node_unknown",
                format!("no node named {name:?} in this network"),
            )
            .hint("'cw node list' shows them")
        };
        let name = name.parse::<NodeName>().map_err(|_| unknown())?;
        if name == view.me.name {
            return Err(this_node(&name));
        }
        view.peers.get(&name).cloned().ok_or_else(unknown)
    }

    /// The node that has a key.
    #[must_use]
    pub fn by_key(&self, key: &NodeKey) -> Option<PeerView> {
        self.view()
            .peers
            .values()
            .find(|peer| peer.record.key == *key)
            .cloned()
    }

    /// Resolves when the relay has said who is in the network, or seems not to say so now: what is
    /// asked next finds them.
    pub(super) async fn introduced(&self) {
        let mut view = self.view.clone();
        let told =
            view.wait_for(|view| view.connected || view.deleted || view.last_error.is_some());
        // Who is still not told is told later.
        let _ = tokio::time::timeout(INTRODUCED, told).await;
    }

    /// Resolves when a node has gone: the relay says so, it stays so, and the node is not heard on
    /// a path of its own either. A relay that has just come back holds everybody for absent for a
    /// moment; that is not it.
    pub async fn gone(&self, name: &NodeName, key: &NodeKey) {
        let mut view = self.view.clone();
        let is_absent = |view: &NetworkView| {
            view.connected && view.peers.get(name).is_none_or(|peer| !peer.online)
        };
        loop {
            if view.wait_for(|view| is_absent(view)).await.is_err() {
                // The uplink ends only together with the network.
                return;
            }
            tokio::time::sleep(ABSENT).await;
            if self.is_silent(key) && is_absent(&view.borrow()) {
                return;
            }
        }
    }

    /// Whether the relay holds a node for absent and knows: not when the relay has just come back
    /// and the node, heard a moment ago, may only be about to return to it.
    #[must_use]
    pub fn is_absent(&self, peer: &PeerView) -> bool {
        let view = self.view();
        let is_back = view.back.is_some_and(|at| at.elapsed() < ABSENT);
        let may_return = is_back && !self.is_silent(&peer.record.key);
        view.connected && !peer.online && !may_return
    }

    fn is_silent(&self, key: &NodeKey) -> bool {
        let heard = self.mesh.status(key).and_then(|status| status.last_heard);
        heard.is_none_or(|at| at.elapsed() > SILENT)
    }

    /// Why a node cannot be reached, if that is because this one is cut off.
    #[must_use]
    pub fn cut_off(&self) -> Option<String> {
        self.view().last_error.clone()
    }

    /// Ends every connection.
    pub async fn close(&self) {
        for task in &self.tasks {
            task.abort();
        }
        self.mesh.close().await;
    }
}

/// What somebody has to know who cannot reach a node because this one is cut off.
#[must_use]
pub fn no_relay(cause: &str) -> String {
    format!("this node has no connection to the relay: {cause}")
}

fn this_node(name: &NodeName) -> Error {
    Error::new("this_node", format!("{name} is this node"))
        .hint("name another one; 'cw node list' shows them, 'cw node status' says how this one is")
}

impl Drop for Network {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Takes up the network that the node has joined earlier. A node whose membership cannot be read
/// serves its own machine all the same, and says why.
pub(super) async fn resume(host: &Arc<Host>) {
    let path = host.home.membership();
    let membership = match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice::<Membership>(&bytes).map_err(|error| error.to_string())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // The relay may take its time; this machine is served meanwhile.
            tokio::spawn(enrol::keep_trying(Arc::downgrade(host)));
            return;
        }
        Err(error) => Err(error.to_string()),
    };
    let started = match membership {
        Ok(membership) => start(host, membership)
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    if let Err(error) = started {
        let what = format!("{} cannot be taken up: {error}", path.display());
        tracing::warn!("{what}");
        host.set_no_network(
            Error::new("corrupt", what).hint("join the network again with a new invite"),
        );
    }
}

pub(super) async fn start(host: &Arc<Host>, membership: Membership) -> Result<()> {
    let config = mesh::io::Config {
        identity: Arc::clone(&host.identity),
        udp_port: host.config.udp_port,
        direct: host.config.direct,
        port_mapping: host.config.port_mapping,
    };
    let mesh = Mesh::start(config).await?;
    let tls = membership
        .relay_url
        .starts_with("https://")
        .then(crate::uplink::tls::client_config)
        .transpose()?;
    mesh.set_relay(Some(Relay {
        url: membership.relay_url.clone(),
        tls: tls.clone(),
        proxy: crate::uplink::proxy(&membership.relay_url)?,
        stun: None,
    }));
    let name = membership.name.clone();
    let visited = visits::node(host)?;
    let (uplink, visits) = Uplink::start(
        membership.clone(),
        Arc::clone(&host.identity),
        Files {
            cache: host.home.netmap(),
            issuers: host.home.issuers(),
        },
        host.config.ssh.told(),
    )?;
    let view = uplink.view();
    let seen = view.clone();
    let shared = Shared::new(&membership, Arc::clone(&host.identity), move || {
        seen.borrow().relay.clone()
    });
    let tasks = vec![
        tokio::spawn(standby::keep(mesh.clone(), view.clone(), tls.clone())),
        tokio::spawn(follow(mesh.clone(), view.clone(), Arc::downgrade(host))),
        tokio::spawn(serve::mesh(mesh.clone(), Arc::downgrade(host))),
        tokio::spawn(groups::keep(view.clone(), Arc::downgrade(host))),
        tokio::spawn(report::keep(
            mesh.clone(),
            view.clone(),
            Arc::downgrade(host),
            uplink.teller(),
        )),
        tokio::spawn(visits::serve(visited, tls, visits, Arc::downgrade(host))),
    ];
    host.set_network(Arc::new(Network {
        mesh,
        membership,
        name,
        view,
        shared,
        tasks,
        _uplink: uplink,
    }));
    host.post.handle_news();
    Ok(())
}

/// Keeps the mesh's peers what the relay says they are.
async fn follow(mesh: Mesh, mut view: watch::Receiver<Arc<NetworkView>>, host: Weak<Host>) {
    let mut known: BTreeSet<NodeKey> = BTreeSet::new();
    let mut online = BTreeSet::new();
    loop {
        let now = view.borrow_and_update().clone();
        mesh.set_stun(now.stun);
        let mut next = BTreeSet::new();
        for peer in now.peers.values() {
            next.insert(peer.record.key);
            mesh.upsert_peer(Peer {
                key: peer.record.key,
                sign_key: peer.record.sign_key,
            });
        }
        for gone in known.difference(&next) {
            mesh.remove_peer(gone);
        }
        let there = now.peers.values().filter(|peer| peer.online);
        let there: BTreeSet<NodeKey> = there.map(|peer| peer.record.key).collect();
        for back in there.difference(&online) {
            mesh.handle_return(back);
        }
        online = there;
        known = next;
        if let Some(host) = host.upgrade() {
            // Somebody may be back for whom there are messages.
            host.post.handle_news();
        }
        if view.changed().await.is_err() {
            // The uplink ends only together with the network.
            tokio::time::sleep(Duration::MAX).await;
        }
    }
}
