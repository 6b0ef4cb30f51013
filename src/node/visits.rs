//! Visits over SSH: the relay says that somebody is there, the node connects back and serves them.

use std::sync::Weak;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Host;
use crate::error::Result;
use crate::ssh::{self, Node};
use crate::uplink::Visit;

/// Visits at a time.
const MAX_VISITS: usize = 64;

/// What the node serves SSH with.
pub(super) fn node(host: &Host) -> Result<Node> {
    Ok(Node {
        doors: host.config.ssh,
        forward: host.config.ssh_forward,
        files: host.config.ssh_sftp,
        authorized: host.home.authorized_keys(),
        host_key: ssh::host_key(&host.home.ssh_host_key())?,
        account: ssh::Account::of_this_process(host.home.dir().to_path_buf())?,
    })
}

/// Serves visits until the network is left; then the ones that go on end too.
pub(super) async fn serve(
    node: Node,
    tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    mut visits: mpsc::Receiver<Visit>,
    host: Weak<Host>,
) {
    let mut running = JoinSet::new();
    while let Some(visit) = visits.recv().await {
        while running.try_join_next().is_some() {}
        let Some(host) = host.upgrade() else {
            return;
        };
        // The relay relays; whose node this is it has to say rightly.
        let is_owner = host
            .network()
            .is_ok_and(|network| network.view().me.owner == visit.subject);
        if running.len() >= MAX_VISITS || !node.takes(visit.door) || !is_owner {
            tracing::warn!(
                subject = %crate::show::clean(&visit.subject),
                door = ?visit.door,
                "a visit over SSH is refused"
            );
            continue;
        }
        let (node, tls) = (node.clone(), tls.clone());
        running.spawn(async move {
            match crate::uplink::come(&visit.relay, tls.as_ref(), &visit.ticket).await {
                Ok((stream, gone)) => ssh::serve(node, visit.door, stream, gone).await,
                Err(error) => tracing::warn!(%error, "could not connect back for a visit"),
            }
        });
    }
}
