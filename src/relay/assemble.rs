//! A relay is put together: what it knows, who is asked who they are, and who forwards packets.

use std::net::SocketAddr;
use std::sync::Arc;

use derp::io::server::Server as DerpServer;
use tokio::sync::watch;

use super::app::{self, App, TokenHash};
use super::backup::of_database;
use super::clock::unix_now;
use super::cluster::{Cluster, Members, Sight};
use super::config::Checked;
use super::database;
use super::hub::Hub;
use super::login::Gate;
use super::nonces::Nonces;
use super::store::Store;
use crate::coord::RelayInfo;
use crate::error::Result;

/// What the routes of a relay share; `places` are where HTTP, STUN and SSH are served.
///
/// # Errors
///
/// What the store and the data directory say.
pub(super) async fn assemble(
    checked: &Checked,
    (store, token): (Arc<dyn Store>, TokenHash),
    (http, stun, ssh): (SocketAddr, Option<SocketAddr>, Option<SocketAddr>),
    stop: watch::Receiver<bool>,
) -> Result<Arc<App>> {
    let hub = Arc::new(Hub::default());
    for network in store.load().await.map_err(of_database)? {
        hub.add(network);
    }
    let secret = checked.data.derp_secret()?;
    let mut options = checked.derp.clone();
    if options.mesh_key.is_none() {
        options.mesh_key = database::mesh_key(&*store).await?;
    }
    let sight = store.cluster().map(|_| Arc::new(Sight::new()));
    let members = Arc::new(Members::new(hub.clone(), sight.clone()));
    let derp = DerpServer::with_options(secret, members, options);
    let info = RelayInfo {
        base_url: checked.base_url.clone(),
        stun_port: stun.map(|address| address.port()),
        ssh_port: ssh.map(|address| address.port()),
        derp_key: derp.public_key(),
    };
    Ok(Arc::new(App::new(app::Parts {
        cluster: sight.map(|sight| {
            let urls = [&checked.peer_url, &checked.base_url].map(|url| at(url, http.port()));
            Cluster::new((&urls[0], &urls[1]), derp.public_key(), sight)
        }),
        store,
        hub,
        derp,
        info,
        gate: Gate::new(&checked.mode, &checked.base_url, token.bytes())?,
        token,
        nonces: Nonces::open(&checked.data.path(""), unix_now())?,
        stop,
    })))
}

/// Where a relay is reached that listens on `port`: that is meant by a port of 0.
fn at(url: &str, port: u16) -> String {
    match url.strip_suffix(":0") {
        Some(host) => format!("{host}:{port}"),
        None => url.to_owned(),
    }
}
