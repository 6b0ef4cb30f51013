//! Two relays over one database serve one network together.

mod database;
mod nodes;
mod packets;
mod requests;
mod ssh;

use mesh::NetworkId;

use super::rig::{Node, Rig, limited};
use crate::relay::store::Server;

/// Two relays; `None` where there is no PostgreSQL.
async fn pair() -> Option<(Rig, Rig)> {
    let database = Server::shared()?.database();
    let a = Rig::over(Some(database)).await;
    let b = a.beside().await;
    Some((a, b))
}

/// Runs a test with two relays, a network, and two nodes that have joined at the first.
async fn with_pair(test: impl AsyncFnOnce(Rig, Rig, NetworkId, [Node; 2])) {
    limited(async {
        let Some((a, b)) = pair().await else { return };
        let network = a.network("home").await;
        let invite = a.invite(&network, 2).await;
        let one = a.join(&invite, "dev-1").await.unwrap();
        let two = a.join(&invite, "dev-2").await.unwrap();
        test(a, b, network, [one, two]).await;
    })
    .await;
}
