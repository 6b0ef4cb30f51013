//! Several relays over one database serve the same networks together.
//!
//! Each has the directory in memory and follows the database: a change is taken in when the
//! database says that there was one (`NOTIFY`), and at the latest when the relay looks around by
//! itself every two seconds. What it is told so is never more than a reason to look. Its own
//! changes are taken in on the same way, so that all changes of a network come in their order. Who
//! asks one relay for what another has just done is answered rightly: what the directory does not
//! know is looked for in the database before it is denied.
//!
//! Nodes are connected to one relay each; at which is written down ([`seats`]). A relay says every
//! second that it runs; one that was silent for five has no nodes any more. Somebody who comes over
//! SSH to one relay for a node at another is told of there, see [`super::visits`]: by a row of a
//! table, since that holds what nobody else may know.
//!
//! Packets for nodes at another relay go over a link to it ([`links`]). Nodes are told where they
//! reach each relay that runs, so that they have another one when theirs is gone.
//!
//! While the database is away nodes stay connected and their packets are forwarded. Who comes anew
//! is let in by what is known for half a minute, and then no more ([`sight`]): that a node was
//! revoked at another relay would not be known here.

mod fellows;
mod follow;
mod links;
mod seats;
mod sight;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use derp::NodeKey;
use mesh::NetworkId;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub(super) use self::follow::follow;
use self::links::Trust;
use self::seats::{Effect, Seats};
pub(super) use self::sight::{Members, Sight};
use super::app::{App, random};
use super::clock::unix_now;
use super::directory::{ConnectionId, Standing};
use super::store::cluster::{Cluster as Together, Errand, Fellow, Head, Note, Progress, RelayId};
use super::store::{Error, NodeRow};
use super::visits::NoWay;
use crate::coord::RelayPlace;
use crate::ssh::Door;

/// How long several calls of the database together may take, and waiting for one's turn; each call
/// has a limit of its own.
const STEP: Duration = Duration::from_secs(12);

/// See the module.
pub(crate) struct Cluster {
    me: Fellow,
    seats: Mutex<Seats>,
    /// There is something to write.
    write: Notify,
    /// Somebody wants to know now who runs.
    beat_now: Notify,
    /// That is known.
    beaten: Notify,
    fellows: Mutex<Vec<Fellow>>,
    /// Where nodes reach the relays that run, this one among them; in order, each once.
    places: watch::Sender<Vec<RelayPlace>>,
    /// The last revisions of shared values.
    shared: Mutex<BTreeMap<NetworkId, u64>>,
    sight: Arc<Sight>,
    trust: Trust,
    /// Whether the last step with the database failed.
    is_away: Mutex<bool>,
}

impl Cluster {
    /// A relay that others reach at `url` and nodes at `base_url`, and whose DERP key is `key`.
    pub(crate) fn new((url, base_url): (&str, &str), key: NodeKey, sight: Arc<Sight>) -> Self {
        let me = Fellow {
            id: RelayId(i64::from_be_bytes(random())),
            url: url.to_owned(),
            base_url: Some(base_url.to_owned()),
            key,
        };
        Self {
            me,
            places: watch::Sender::default(),
            seats: Mutex::default(),
            write: Notify::new(),
            beat_now: Notify::new(),
            beaten: Notify::new(),
            fellows: Mutex::default(),
            shared: Mutex::default(),
            sight,
            trust: Trust::default(),
            is_away: Mutex::default(),
        }
    }

    /// See [`Seats::sit`].
    pub(crate) fn sit(&self, network: &NetworkId, key: &NodeKey, connection: ConnectionId) {
        self.seats.lock().sit(network, key, connection);
        self.write.notify_one();
    }

    /// See [`Seats::rise`].
    pub(crate) fn rise(&self, network: &NetworkId, key: &NodeKey, connection: ConnectionId) {
        self.seats.lock().rise(network, key, connection);
        self.write.notify_one();
    }

    /// See [`Sight::lose`].
    #[cfg(test)]
    pub(crate) fn lose_sight(&self) {
        self.sight.lose();
    }

    /// What is needed to get to another relay, at `url`.
    ///
    /// # Errors
    ///
    /// `tls` when nothing is trusted.
    pub(super) fn tls(&self, url: &str) -> Result<Option<Arc<ClientConfig>>, crate::error::Error> {
        self.trust.to(url)
    }

    /// Says once that the database is away, and once that it is back.
    fn note<T>(&self, result: Result<T, Error>) -> Option<T> {
        let mut is_away = self.is_away.lock();
        match result {
            Ok(done) => {
                if std::mem::take(&mut *is_away) {
                    tracing::info!("the database is back");
                }
                Some(done)
            }
            Err(error) => {
                if !std::mem::replace(&mut *is_away, true) {
                    tracing::warn!(%error, "the database cannot be used; nodes stay connected");
                }
                None
            }
        }
    }
}

/// Whether somebody knows as much of a network as the store. Papers that are too old are forgotten
/// here and there at different times.
fn is_known(known: Option<&Head>, head: Option<&Head>) -> bool {
    match (known, head) {
        (Some(known), Some(head)) => known.revision == head.revision && known.serial >= head.serial,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Several calls, with their limit.
async fn step<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let done = timeout(STEP, work).await;
    done.unwrap_or_else(|_| Err(away()))
}

fn away() -> Error {
    Error::Database(sqlx::Error::PoolTimedOut)
}

impl App {
    fn together(&self) -> Option<(&Cluster, &dyn Together)> {
        Some((self.cluster.as_ref()?, self.store.cluster()?))
    }

    /// Takes in what this relay has changed in a network: by `known` if it is the only one. It is
    /// done, whatever happens here: what fails now is taken in when the relay looks around next.
    ///
    /// Whoever calls it is in the line of those who change something.
    pub(super) async fn take_in(&self, network: &NetworkId, known: impl FnOnce(&super::hub::Hub)) {
        if self.cluster.is_none() {
            return known(&self.hub);
        }
        if let Err(error) = step(self.catch_up_in_line(network)).await {
            tracing::warn!(%network, %error, "a change is done, and not taken in yet");
        }
    }

    /// Takes in what other relays have changed in a network. Does nothing if there are none.
    pub(crate) async fn catch_up(&self, network: &NetworkId) -> Result<(), Error> {
        if self.cluster.is_none() {
            return Ok(());
        }
        step(async {
            let _line = self.commit.lock().await;
            self.catch_up_in_line(network).await
        })
        .await
    }

    pub(super) async fn catch_up_in_line(&self, network: &NetworkId) -> Result<(), Error> {
        let since = self.hub.since(network);
        let progress = self.store.progress(network.clone(), since.clone());
        let mut changed = Vec::new();
        let keys = |rows: &[NodeRow]| rows.iter().map(|row| row.record.key).collect();
        let gone = match progress.await? {
            Some(Progress::Part(part)) => {
                changed = keys(&part.nodes);
                self.hub.catch_up(network, part, unix_now())
            }
            other => {
                let mut gone = Vec::new();
                if let Some(since) = since {
                    let death = self.store.death(network.clone(), since.root).await?;
                    tracing::info!(%network, "deleted by another relay");
                    gone = self.hub.remove(network, death);
                }
                if let Some(Progress::Other(state)) = other {
                    changed = keys(&state.nodes);
                    self.hub.add(state);
                }
                gone
            }
        };
        for key in gone {
            self.cut_packets(&key);
        }
        self.recall_seats(network, &changed);
        Ok(())
    }

    /// Where nodes are may have been heard before the directory knew them.
    fn recall_seats(&self, network: &NetworkId, nodes: &[NodeKey]) {
        let Some(cluster) = &self.cluster else { return };
        for key in nodes {
            if cluster.seats.lock().elsewhere(network, key).is_some() {
                self.hub.is_elsewhere(network, key, true, unix_now());
            }
        }
    }

    /// Makes sure that what other relays have changed in a network until now is known here.
    pub(crate) async fn freshen(&self, network: &NetworkId) -> Result<(), Error> {
        if self.cluster.is_none() {
            return Ok(());
        }
        let heads = self.store.heads(Some(network.clone())).await?;
        let known = self.hub.head(network);
        if is_known(known.as_ref(), heads.first()) {
            return Ok(());
        }
        self.catch_up(network).await
    }

    /// What there is to know of a node that claims a key, also if another relay has let it in just
    /// now. Fails when the database was not seen for long: the node may have been revoked.
    pub(crate) async fn find_standing(
        &self,
        network: &NetworkId,
        key: &NodeKey,
    ) -> Result<Option<Standing>, Error> {
        if self
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.sight.is_lost())
        {
            return Err(away());
        }
        let standing = self.hub.standing(network, key);
        if standing.is_some() || self.cluster.is_none() {
            return Ok(standing);
        }
        // Anybody may claim to be anybody, so this stands in no line unless there is something new.
        self.freshen(network).await?;
        Ok(self.hub.standing(network, key))
    }

    /// Looks what has changed anywhere, and where all nodes are. Until now nothing was heard, and the
    /// database may have been away.
    async fn look_at_all(&self) -> Result<(), Error> {
        let Some((cluster, together)) = self.together() else {
            return Ok(());
        };
        let seats = together.seats(0).await?;
        let effects = cluster.seats.lock().handle_all(cluster.me.id, seats);
        cluster.write.notify_one();
        self.follow_seats(effects);
        self.look_around().await
    }

    /// Looks what has changed anywhere.
    async fn look_around(&self) -> Result<(), Error> {
        let Some((cluster, _)) = self.together() else {
            return Ok(());
        };
        let known: HashMap<_, _> = self
            .hub
            .heads()
            .into_iter()
            .map(|head| (head.network.clone(), head))
            .collect();
        let heads = self.store.heads(None).await?;
        let is_new = |head: &&Head| !is_known(known.get(&head.network), Some(*head));
        let new = heads.iter().filter(is_new).map(|head| head.network.clone());
        let shared: BTreeMap<_, _> = heads
            .iter()
            .map(|head| (head.network.clone(), head.shared))
            .collect();
        let gone = known.keys().filter(|id| !shared.contains_key(*id)).cloned();
        let behind: Vec<_> = new.chain(gone).collect();
        let mut done = Ok(());
        for network in &behind {
            match self.catch_up(network).await {
                Err(error) if error.is_away() => return Err(error),
                // One that is damaged must not keep the others from being followed.
                followed => done = done.and(followed),
            }
        }
        cluster.sight.renew();
        let before = std::mem::replace(&mut *cluster.shared.lock(), shared.clone());
        for (network, revision) in &shared {
            if before.get(network) != Some(revision) {
                self.shared.ring(network);
            }
        }
        self.look_at_seats().await?;
        self.run_errands().await?;
        done
    }

    async fn look_at_seats(&self) -> Result<(), Error> {
        let Some((cluster, together)) = self.together() else {
            return Ok(());
        };
        let place = cluster.seats.lock().place();
        let seats = together.seats(place).await?;
        let effects = cluster.seats.lock().handle(cluster.me.id, seats);
        cluster.write.notify_one();
        self.follow_seats(effects);
        Ok(())
    }

    fn follow_seats(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Elsewhere(network, key, is_there) => {
                    self.hub.is_elsewhere(&network, &key, is_there, unix_now());
                }
                Effect::Replaced(connection) => self.hub.replace(connection),
            }
        }
    }

    /// Asks the relay at which a node is to tell it of a visit.
    pub(super) async fn visit_elsewhere(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        ticket: &str,
        (door, subject): (Door, &str),
    ) -> Result<(), NoWay> {
        let (cluster, together) = self.together().ok_or(NoWay::Away)?;
        let to = cluster.seats.lock().elsewhere(network, key);
        let visit = Errand::Visit {
            from: cluster.me.id,
            network: network.clone(),
            key: *key,
            ticket: ticket.to_owned(),
            door,
            subject: subject.to_owned(),
        };
        match together.send(to.ok_or(NoWay::Away)?, visit).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(NoWay::Busy),
            Err(error) => {
                tracing::warn!(%error, "another relay could not be told of a visit");
                Err(NoWay::Away)
            }
        }
    }

    async fn handle(&self, note: Note) -> Result<(), Error> {
        let Some((cluster, _)) = self.together() else {
            return Ok(());
        };
        match note {
            Note::Network(network) => self.freshen(&network).await?,
            Note::Shared(network) => self.shared.ring(&network),
            Note::Seats => self.look_at_seats().await?,
            Note::Errands(to) if to == cluster.me.id => self.run_errands().await?,
            Note::Errands(_) | Note::Here => {}
        }
        Ok(())
    }

    /// Does what other relays have asked this one to do.
    async fn run_errands(&self) -> Result<(), Error> {
        let Some((cluster, together)) = self.together() else {
            return Ok(());
        };
        let visits = &self.visits;
        let mut done = Ok(());
        for errand in together.take(cluster.me.id).await? {
            let (from, network, key, ticket, door, subject) = match errand {
                Errand::NoVisit { ticket, why } => {
                    visits.give_up(&ticket, why);
                    continue;
                }
                Errand::Visit {
                    from,
                    network,
                    key,
                    ticket,
                    door,
                    subject,
                } => (from, network, key, ticket, door, subject),
            };
            if cluster.url_of(from).is_none() {
                // It may have started a moment ago.
                cluster.look_for_fellows().await;
            }
            // The node may come before it is noted that it was told.
            let told = cluster.url_of(from).ok_or(NoWay::Away).and_then(|url| {
                visits.pass_on(ticket.clone(), url)?;
                visits.tell(&network, &key, &ticket, door, &subject)
            });
            if let Err(why) = told {
                visits.take_passed_on(&ticket);
                let sent = together.send(from, Errand::NoVisit { ticket, why }).await;
                let sent = sent.map(drop);
                done = done.and(sent);
            }
        }
        done
    }

    /// This relay stops.
    pub(crate) async fn leave_cluster(&self) {
        if let Some((cluster, together)) = self.together() {
            cluster.note(together.leave(cluster.me.id).await);
        }
    }
}
