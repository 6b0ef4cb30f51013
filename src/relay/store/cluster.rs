//! What several relays over one database have to agree on, beside what any store keeps: who of
//! them runs, at which of them a node is connected, which signed requests were made already, and
//! what they tell each other.
//!
//! Only a store that relays can share implements it, see [`super::Store::cluster`].

use std::time::Duration;

use derp::NodeKey;
use mesh::{NetworkId, SignKey};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Answer, NetworkState, NodeRow};
use crate::coord::handover::Issuers;
use crate::coord::{Nonce, Revision};
use crate::paper::Paper;
use crate::relay::visits::NoWay;
use crate::ssh::Door;

/// A relay that has said nothing for so long does not run.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) trait Cluster: Send + Sync {
    /// Says that a relay runs.
    fn beat(&self, relay: Fellow) -> Answer<'_, Beat>;

    /// Takes off the books who has said nothing for [`DEAD_AFTER`].
    fn bury(&self) -> Answer<'_, ()>;

    /// A relay stops.
    fn leave(&self, relay: RelayId) -> Answer<'_, ()>;

    /// Notes nodes that have come to a relay or left it; the place that all of them have then.
    /// `None` if the relay is not on the books.
    fn seat(&self, relay: RelayId, seatings: Vec<Seating>) -> Answer<'_, Option<u64>>;

    /// The seats behind a place, in their order.
    fn seats(&self, after: u64) -> Answer<'_, Vec<Seat>>;

    /// Tells all relays.
    fn tell(&self, note: Note) -> Answer<'_, ()>;

    /// Has another relay do something; false if it has too much to do.
    fn send(&self, to: RelayId, errand: Errand) -> Answer<'_, bool>;

    /// What others have sent to a relay; each once.
    fn take(&self, relay: RelayId) -> Answer<'_, Vec<Errand>>;

    /// Passes on what is told, until the connection breaks.
    fn hear(&self, to: mpsc::Sender<Heard>) -> Answer<'_, ()>;

    /// False if it was used before.
    fn take_nonce(&self, nonce: Nonce) -> Answer<'_, bool>;

    /// Forgets nonces that are older than `age`, seats of networks that are no more, and what
    /// nobody has taken.
    fn tidy(&self, age: Duration) -> Answer<'_, ()>;

    /// The value of this name, which is this one if there was none.
    fn keep(&self, name: &'static str, value: Vec<u8>) -> Answer<'_, Vec<u8>>;
}

/// One run of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RelayId(pub(crate) i64);

/// A relay that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fellow {
    pub(crate) id: RelayId,
    /// Where the others reach it.
    pub(crate) url: String,
    /// Where nodes reach it; an older program has not said it.
    pub(crate) base_url: Option<String>,
    /// Its key as a DERP server.
    pub(crate) key: NodeKey,
}

/// What a relay learns when it says that it runs.
pub(crate) struct Beat {
    /// It was on the books until now.
    pub(crate) was_known: bool,
    /// Somebody is silent for too long.
    pub(crate) somebody_is_dead: bool,
    /// Who runs, itself among them.
    pub(crate) fellows: Vec<Fellow>,
}

/// A node came to a relay or left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seating {
    pub(crate) network: NetworkId,
    pub(crate) key: NodeKey,
    pub(crate) is_here: bool,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) network: NetworkId,
    pub(crate) key: NodeKey,
    /// None if it is nowhere.
    pub(crate) relay: Option<RelayId>,
    pub(crate) place: u64,
}

/// What all relays are told: that there is something to look at. Who may connect to the database
/// can hear it, and can say it too, without a right to any table. So it holds no secret, and nothing
/// is believed that it says: it makes a relay look, and what to do is in the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    /// A network is new, or gone, or its members or papers have changed.
    Network(NetworkId),
    /// Its shared values have changed.
    Shared(NetworkId),
    /// Nodes have come or gone.
    Seats,
    /// There are errands for this relay.
    Errands(RelayId),
    /// Somebody is there: the connection over which this comes works.
    Here,
}

/// What one relay has another do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Errand {
    /// Somebody came to `from` for a node that is connected to the other.
    Visit {
        from: RelayId,
        network: NetworkId,
        key: NodeKey,
        ticket: String,
        door: Door,
        subject: String,
    },
    /// The visitor with this ticket cannot go on from there.
    NoVisit { ticket: String, why: NoWay },
}

/// What comes from the database by itself.
#[derive(Debug)]
pub(crate) enum Heard {
    /// From here on all that is told is heard.
    Listening,
    Note(Note),
}

/// Where a network is, in few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) network: NetworkId,
    pub(crate) revision: Revision,
    /// Of the newest paper.
    pub(crate) serial: u64,
    /// The revision of the shared values.
    pub(crate) shared: u64,
}

/// Up to where somebody knows a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Since {
    /// Which network of the name.
    pub(crate) root: SignKey,
    pub(crate) revision: Revision,
    pub(crate) serial: u64,
}

/// What somebody does not know yet.
pub(crate) enum Progress {
    /// It is another network than the one that was known, if any was.
    Other(NetworkState),
    /// What has changed.
    Part(Part),
}

/// See [`Progress`].
pub(crate) struct Part {
    pub(crate) issuer: ed25519_dalek::SigningKey,
    pub(crate) issuers: Issuers,
    pub(crate) revision: Revision,
    /// The revisions on the way there, oldest first.
    pub(crate) history: Vec<Revision>,
    /// Nodes that have changed.
    pub(crate) nodes: Vec<NodeRow>,
    /// Papers that have changed.
    pub(crate) papers: Vec<Paper>,
    /// What was known is not of this database, or too long ago: this is everything.
    pub(crate) is_all: bool,
}
