//! The relay behind its routes: what they all share, and the operations that
//! change who is a member.
//!
//! The store is changed first and the directory follows. Both happen in one
//! task of its own, in line behind one lock: a client that hangs up half-way
//! cannot leave the directory behind the store, and the directory sees the
//! changes in the order of their revisions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use derp::NodeKey;
use derp::io::server::Server as DerpServer;
use ed25519_dalek::SigningKey;
use mesh::{NetworkId, SignKey};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::{MutexGuard, watch};
use tokio::time::timeout;

use super::clock::unix_now;
use super::cluster::Cluster;
use super::coordinate::Pace;
use super::error::ApiError;
use super::guards::Guards;
use super::hub::Hub;
use super::login::Gate;
use super::nonces::Nonces;
use super::page::Seats;
use super::papers::{Edit, PaperEdit};
use super::reports::Reports;
use super::shared::Shared;
use super::store::{
    Creation, Join, Joined, NewNetwork, Renewal, Revocation, Rotation, Sighting, Store,
};
use super::visits::Visits;
use crate::coord::{Mark, Nonce, RelayInfo};

/// How long a record is good for, seconds. In its second half the relay makes
/// a new one; so a node that has not heard of the relay believes in its peers
/// for between half of this and all of it.
pub(crate) const RECORD_VALIDITY: u64 = 90 * 24 * 3600;

/// How long a change may wait for those before it, where the database is elsewhere.
const LINE_LIMIT: Duration = Duration::from_secs(9);

/// See the module.
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) derp: DerpServer,
    pub(crate) info: RelayInfo,
    pub(crate) guards: Guards,
    pub(crate) gate: Gate,
    pub(crate) shared: Shared,
    /// The other relays over the same database, if there can be any.
    pub(crate) cluster: Option<Cluster>,
    nonces: Mutex<Nonces>,
    pub(crate) visits: Visits,
    pub(crate) reports: Reports,
    /// Places for those who look on.
    pub(crate) viewers: Arc<Seats>,
    pub(crate) pace: Pace,
    /// Becomes true when the relay stops.
    pub(crate) stop: watch::Receiver<bool>,
    token: TokenHash,
    pub(super) commit: tokio::sync::Mutex<()>,
    /// When nodes were last seen, as far as the store does not know yet.
    seen: Mutex<HashMap<(NetworkId, NodeKey), u64>>,
}

/// What an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) derp: DerpServer,
    pub(crate) info: RelayInfo,
    pub(crate) token: TokenHash,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) gate: Gate,
    pub(crate) nonces: Nonces,
    pub(crate) stop: watch::Receiver<bool>,
}

/// A hand-over that was made.
pub(crate) struct Handed {
    /// Which one.
    pub(crate) number: u32,
    /// Who signs now.
    pub(crate) issuer: SignKey,
    /// Until when who signed before is believed.
    pub(crate) retires: u64,
    /// Whose records were signed anew.
    pub(crate) nodes: usize,
}

/// The SHA-256 of a bearer token. Comparing hashes takes the same time
/// whatever was sent.
#[derive(Clone)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token in plain text.
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The hash.
    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The other way, if it is one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Whether `token` is the one.
    fn is(&self, token: &str) -> bool {
        bool::from(self.0.ct_eq(&Self::of(token).0))
    }
}

impl App {
    /// Puts the relay together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            store: parts.store,
            hub: parts.hub,
            derp: parts.derp,
            info: parts.info,
            guards: Guards::new(),
            gate: parts.gate,
            shared: Shared::new(),
            cluster: parts.cluster,
            nonces: Mutex::new(parts.nonces),
            visits: Visits::default(),
            reports: Reports::default(),
            viewers: Arc::default(),
            pace: Pace::start(),
            stop: parts.stop,
            token: parts.token,
            commit: tokio::sync::Mutex::new(()),
            seen: Mutex::default(),
        }
    }

    /// Whether this is the relay's own token.
    pub(crate) fn is_admin(&self, token: &str) -> bool {
        self.token.is(token)
    }

    /// False if a request with this nonce was made before, to whichever relay.
    pub(crate) async fn take_nonce(&self, nonce: &Nonce) -> Result<bool, ApiError> {
        let is_new = self.nonces.lock().take(nonce, unix_now())?;
        match self.store.cluster() {
            Some(cluster) if is_new => Ok(cluster.take_nonce(*nonce).await?),
            _ => Ok(is_new),
        }
    }

    /// Creates a network; whether it is new.
    pub(crate) async fn create_network(
        self: &Arc<Self>,
        new: NewNetwork,
    ) -> Result<bool, ApiError> {
        let app = Arc::clone(self);
        in_task(async move {
            let _line = app.line().await?;
            match app.store.create_network(new).await? {
                Creation::Existed => Ok(false),
                Creation::Created(state) => {
                    let id = state.id.clone();
                    app.take_in(&id, |hub| hub.add(state)).await;
                    Ok(true)
                }
            }
        })
        .await
    }

    /// Redeems an invite; the network and key of the node that is in now.
    pub(crate) async fn join(
        self: &Arc<Self>,
        join: Join,
    ) -> Result<(NetworkId, NodeKey), ApiError> {
        let app = Arc::clone(self);
        in_task(async move {
            let _line = app.line().await?;
            let record = match app.store.join(join).await? {
                Joined::Was(row) => {
                    // Perhaps at another relay, a moment ago.
                    app.take_in(&row.record.network, |_| ()).await;
                    row.record
                }
                Joined::Added(change) => {
                    let record = change.node.record.clone();
                    tracing::info!(network = %record.network, node = %record.name, "joined");
                    app.take_in(&record.network, |hub| hub.apply(change)).await;
                    record
                }
            };
            Ok((record.network, record.key))
        })
        .await
    }

    /// Gives a node's record a new period if less than half of it is left.
    pub(crate) async fn renew_if_due(
        self: &Arc<Self>,
        network: &NetworkId,
        key: &NodeKey,
    ) -> Result<(), ApiError> {
        let now = unix_now();
        let standing = self.hub.standing(network, key);
        if standing.is_none_or(|standing| standing.record.expires > now + RECORD_VALIDITY / 2) {
            return Ok(());
        }
        let renewal = Renewal {
            network: network.clone(),
            key: *key,
            expires: now + RECORD_VALIDITY,
            mark: Mark(random()),
            now,
        };
        let app = Arc::clone(self);
        in_task(async move {
            let _line = app.line().await?;
            let network = renewal.network.clone();
            if let Some(change) = app.store.renew(renewal).await? {
                app.take_in(&network, |hub| hub.apply(change)).await;
            }
            Ok(())
        })
        .await
    }

    /// Revokes a node and cuts its connections; false if there is none.
    pub(crate) async fn revoke(self: &Arc<Self>, revocation: Revocation) -> Result<bool, ApiError> {
        let app = Arc::clone(self);
        in_task(async move {
            let _line = app.line().await?;
            let Some(change) = app.store.revoke(revocation).await? else {
                return Ok(false);
            };
            let record = change.node.record.clone();
            tracing::info!(network = %record.network, node = %record.name, "revoked");
            app.take_in(&record.network, |hub| hub.apply(change)).await;
            app.cut_packets(&record.key);
            Ok(true)
        })
        .await
    }

    /// Changes a group or a grant and tells the nodes; whether it was changed.
    pub(crate) async fn edit(
        self: &Arc<Self>,
        network: &NetworkId,
        edit: Edit,
    ) -> Result<bool, ApiError> {
        let (app, network) = (Arc::clone(self), network.clone());
        in_task(async move {
            let _line = app.line().await?;
            let edit = PaperEdit {
                network,
                edit,
                now_ms: app.shared.now_ms(),
            };
            let Some(paper) = app.store.edit_paper(edit).await? else {
                return Ok(false);
            };
            let (network, name) = (paper.network.clone(), paper.matter.name().text());
            tracing::info!(%network, %name, serial = paper.serial, "changed");
            app.take_in(&network, |hub| hub.file(paper)).await;
            Ok(true)
        })
        .await
    }

    /// Hands over to a new issuer, and tells everybody; `None` if there is no such network.
    pub(crate) async fn rotate(
        self: &Arc<Self>,
        network: &NetworkId,
        overlap: u64,
    ) -> Result<Option<Handed>, ApiError> {
        let (app, network) = (Arc::clone(self), network.clone());
        in_task(async move {
            let _line = app.line().await?;
            let now_ms = app.shared.now_ms();
            let now = now_ms / 1000;
            let rotation = Rotation {
                network: network.clone(),
                issuer: SigningKey::from_bytes(&random()),
                retires: now.saturating_add(overlap),
                expires: now + RECORD_VALIDITY,
                mark: Mark(random()),
                now_ms,
            };
            let retires = rotation.retires;
            let Some(rotated) = app.store.rotate(rotation).await? else {
                return Ok(None);
            };
            let handed = Handed {
                number: rotated.issuers.count(),
                issuer: *rotated.issuers.current(),
                retires,
                nodes: rotated.nodes.len(),
            };
            tracing::info!(%network, issuer = %handed.issuer, number = handed.number, "handed over");
            app.take_in(&network, |hub| hub.rotate(&network, rotated)).await;
            Ok(Some(handed))
        })
        .await
    }

    /// Forgets a network and cuts everybody in it; false if there is none.
    pub(crate) async fn delete_network(
        self: &Arc<Self>,
        network: &NetworkId,
    ) -> Result<bool, ApiError> {
        let (app, network) = (Arc::clone(self), network.clone());
        in_task(async move {
            let _line = app.line().await?;
            let now = unix_now();
            let Some(death) = app.store.delete_network(network.clone(), now).await? else {
                return Ok(false);
            };
            tracing::info!(%network, "deleted");
            for key in app.hub.remove(&network, Some(death)) {
                app.cut_packets(&key);
            }
            Ok(true)
        })
        .await
    }

    /// Ends the DERP connections of a key that no network knows any more.
    pub(super) fn cut_packets(&self, key: &NodeKey) {
        use derp::io::server::Admission as _;
        if !self.hub.admits(key) {
            self.derp.disconnect(key);
        }
    }

    /// Notes that a node is, or was until now, connected. The store hears of
    /// it with the next [`App::flush_seen`]: when all nodes come back at once,
    /// none waits for the disk because of it.
    pub(crate) fn note_seen(&self, network: &NetworkId, key: &NodeKey) {
        let now = unix_now();
        self.hub.seen(network, key, now);
        self.seen.lock().insert((network.clone(), *key), now);
    }

    /// Writes down what was noted.
    pub(crate) async fn flush_seen(&self) {
        let seen = std::mem::take(&mut *self.seen.lock());
        if seen.is_empty() {
            return;
        }
        let sightings = seen.iter().map(|((network, key), at)| Sighting {
            network: network.clone(),
            key: *key,
            at: *at,
        });
        match self.store.seen(sightings.collect()).await {
            Ok(()) => {}
            // That it is away is told elsewhere, and once.
            Err(error) if error.is_away() => {
                let mut newer = self.seen.lock();
                for (node, at) in seen {
                    newer.entry(node).or_insert(at);
                }
            }
            Err(error) => tracing::warn!(%error, "could not note who was seen"),
        }
    }

    /// Renews the records that are due and drops what is old.
    pub(crate) async fn keep_house(self: &Arc<Self>) {
        let now = unix_now();
        for (network, key) in self.hub.ending_before(now + RECORD_VALIDITY / 2) {
            if let Err(error) = self.renew_if_due(&network, &key).await {
                tracing::warn!(code = error.code(), %network, "could not renew a record");
            }
        }
        self.hub.drop_old(now);
        if let Err(error) = self.store.purge(now).await {
            tracing::warn!(%error, "could not tidy the store");
        }
        if let Err(error) = self.store.forget_shared(self.shared.now_ms()).await {
            tracing::warn!(%error, "could not forget deletions");
        }
    }

    /// The line of those who change something. A database elsewhere that says nothing must not make
    /// it long; who does not get to its head has changed nothing.
    async fn line(&self) -> Result<MutexGuard<'_, ()>, ApiError> {
        if self.cluster.is_none() {
            return Ok(self.commit.lock().await);
        }
        let line = timeout(LINE_LIMIT, self.commit.lock()).await;
        line.map_err(|_| ApiError::store_unavailable())
    }
}

/// Runs `work` to its end even if whoever waits for it goes away.
async fn in_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

pub(crate) use crate::random;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b18_a_token_is_right_as_a_whole_or_wrong() {
        let token = TokenHash::of("a token");
        assert!(token.is("a token"));
        for wrong in [
            "", "a", "a toke", "a token ", "A token", "a tokens", "b token",
        ] {
            assert!(!token.is(wrong), "{wrong:?}");
        }
    }
}
