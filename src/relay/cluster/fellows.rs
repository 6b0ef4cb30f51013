//! Which relays run, as the database says, and where nodes reach them.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::{Cluster, Together};
use crate::coord::{MAX_RELAYS, RelayPlace};
use crate::relay::store::Error;
use crate::relay::store::cluster::{Fellow, RelayId};

/// How long a relay that is asked for something waits to hear who asks.
const BEAT_LIMIT: Duration = Duration::from_secs(2);

impl Cluster {
    /// The other relays that run.
    #[cfg(test)]
    pub(crate) fn fellows(&self) -> Vec<String> {
        let fellows = self.fellows.lock();
        let others = fellows.iter().filter(|fellow| fellow.id != self.me.id);
        others.map(|fellow| fellow.url.clone()).collect()
    }

    /// Where the others reach a relay that runs.
    pub(super) fn url_of(&self, relay: RelayId) -> Option<String> {
        let fellows = self.fellows.lock();
        let found = fellows.iter().find(|fellow| fellow.id == relay);
        found.map(|fellow| fellow.url.clone())
    }

    /// Where nodes reach the relays that run, and a wake-up when that changes.
    pub(in crate::relay) fn places(&self) -> watch::Receiver<Vec<RelayPlace>> {
        self.places.subscribe()
    }

    /// Says that this relay runs, and learns who else does; whether somebody is dead.
    pub(super) async fn beat(
        &self,
        together: &dyn Together,
        is_steady: bool,
    ) -> Result<bool, Error> {
        let beat = together.beat(self.me.clone()).await?;
        if !beat.was_known {
            self.seats.lock().handle_forgotten();
            self.write.notify_one();
        }
        self.set_fellows(beat.fellows, is_steady);
        self.beaten.notify_waiters();
        Ok(beat.somebody_is_dead)
    }

    /// Waits until it is known who else runs now.
    pub(super) async fn look_for_fellows(&self) {
        let mut beaten = std::pin::pin!(self.beaten.notified());
        beaten.as_mut().enable();
        self.beat_now.notify_one();
        // The database may be away.
        let _ = timeout(BEAT_LIMIT, beaten).await;
    }

    /// Nodes are told at once of who is new, and of who is gone if this relay sees well.
    fn set_fellows(&self, fellows: Vec<Fellow>, is_steady: bool) {
        let told = fellows.iter().filter_map(|fellow| {
            let (url, key) = (fellow.base_url.clone()?, fellow.key);
            Some(RelayPlace { url, key })
        });
        let mut told: BTreeSet<RelayPlace> = told.collect();
        if !is_steady {
            let before = self.places.borrow().clone();
            let is_known = |place: &RelayPlace| told.iter().any(|it| it.url == place.url);
            let missed: Vec<_> = before.into_iter().filter(|it| !is_known(it)).collect();
            told.extend(missed);
        }
        let told: Vec<RelayPlace> = told.into_iter().take(MAX_RELAYS).collect();
        self.places.send_if_modified(|known| {
            let is_news = *known != told;
            *known = told;
            is_news
        });
        *self.fellows.lock() = fellows;
    }
}
