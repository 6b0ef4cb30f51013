//! Values that the nodes of a network share, in a running relay: the clock by
//! which they expire, and the bells of those who follow.

use std::collections::HashMap;
use std::time::Duration;

use mesh::NetworkId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::app::App;
use super::clock::Steady;
use super::error::ApiError;
use super::store::shared::{Changes, Put, Query, Removal};

/// See the module.
pub(crate) struct Shared {
    clock: Steady,
    bells: Mutex<HashMap<NetworkId, watch::Sender<()>>>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            clock: Steady::start(),
            bells: Mutex::default(),
        }
    }

    /// Unix milliseconds, by the clock that nobody can set.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn bell(&self, network: &NetworkId) -> watch::Receiver<()> {
        let mut bells = self.bells.lock();
        bells.entry(network.clone()).or_default().subscribe()
    }

    pub(super) fn ring(&self, network: &NetworkId) {
        if let Some(bell) = self.bells.lock().get(network) {
            bell.send_replace(());
        }
    }
}

impl App {
    /// Stores a shared value; its revision.
    pub(crate) async fn put_shared(&self, put: Put) -> Result<u64, ApiError> {
        let network = put.place.network.clone();
        let revision = self.store.put_shared(put).await?;
        self.shared.ring(&network);
        Ok(revision)
    }

    /// Takes a shared value away; the revision of that.
    pub(crate) async fn remove_shared(&self, removal: Removal) -> Result<Option<u64>, ApiError> {
        let network = removal.place.network.clone();
        let revision = self.store.remove_shared(removal).await?;
        self.shared.ring(&network);
        Ok(revision)
    }

    /// What has changed since a revision; if that is nothing yet, waits for it
    /// for up to `wait`.
    pub(crate) async fn shared_changes(
        &self,
        query: Query,
        since: Option<u64>,
        wait: Duration,
    ) -> Result<Changes, ApiError> {
        let mut bell = self.shared.bell(&query.network);
        let mut stop = self.stop.clone();
        let found = async {
            loop {
                let changes = self.store.shared_changes(query.clone(), since).await?;
                if since.is_none() || changes.gap || !changes.entries.is_empty() {
                    return Ok::<_, ApiError>(changes);
                }
                tokio::select! {
                    // The sender lives as long as `self`.
                    _ = bell.changed() => {}
                    _ = stop.wait_for(|stop| *stop) => return Ok(changes),
                }
            }
        };
        match timeout(wait, found).await {
            Ok(changes) => changes,
            Err(_) => Ok(self.store.shared_changes(query.clone(), since).await?),
        }
    }

    /// Sweeps out what has expired.
    pub(crate) async fn expire_shared(&self) {
        match self.store.expire_shared(self.shared.now_ms()).await {
            Ok(networks) => networks
                .iter()
                .for_each(|network| self.shared.ring(network)),
            // That it is away is told elsewhere, and once.
            Err(error) if error.is_away() => {}
            Err(error) => tracing::warn!(%error, "could not sweep out what has expired"),
        }
    }
}
