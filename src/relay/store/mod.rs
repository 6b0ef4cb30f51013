//! What the relay remembers: networks, members, nodes, invites, issuer keys
//! and the revision of each network.
//!
//! [`Store`] is the whole of it, small on purpose: [`sqlite`] and [`postgres`]
//! implement it, with the same SQL, and `suite` tests any implementation.
//! Every method is one transaction.
//! Whatever two relays over one database would have to agree on is here and
//! not in memory.

pub(crate) mod cluster;
pub(crate) mod doors;
mod error;
pub(crate) mod logins;
mod postgres;
mod refusal;
pub(crate) mod shared;
mod sqlite;
#[cfg(test)]
mod suite;

use derp::NodeKey;
use ed25519_dalek::SigningKey;
use futures_util::future::BoxFuture;
use mesh::{NetworkId, NodeName, NodeRecord, SignKey};
use serde::{Deserialize, Serialize};

use super::papers::PaperEdit;
use crate::coord::handover::{Issuers, SignedHandover, SignedObituary};
use crate::coord::{InviteHash, Mark, Revision};
use crate::paper::Paper;

pub(crate) use error::Error;
#[cfg(test)]
pub(crate) use postgres::server::Server;
pub(crate) use postgres::{Address, Postgres, look};
pub(crate) use refusal::Refusal;
pub(crate) use sqlite::{Contents, Sqlite, check, copy, end_logins, settle};

use cluster::{Cluster, Head, Progress, Since};
use doors::{SshKey, SshPassword};
use error::not_newer;
use logins::Logins;
use shared::{Changes, Entry, Place, Put, Query, Removal};

/// Live nodes of one network. Each is in the memory of the relay and in the
/// snapshot every other one gets.
pub(crate) const MAX_NODES: u32 = 10_000;

/// Invites of one network that can still be redeemed.
pub(crate) const MAX_INVITES: u32 = 1_000;

/// Changes whose marks are kept per network. A node that was away for more
/// gets a snapshot.
pub(crate) const MAX_CHANGES: u64 = 10_000;

/// How long an expired invite is kept, seconds, so that its holder is told
/// that it expired and not that it never was.
pub(crate) const EXPIRED_INVITES_KEPT: u64 = 7 * 24 * 3600;

/// How long obituaries are kept, seconds: a year. A node that was away for longer than its
/// record holds believes in nobody anyway.
pub(crate) const OBITUARIES_KEPT: u64 = 365 * 24 * 3600;

/// What a store answers.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// See the module.
pub(crate) trait Store: Logins + Send + Sync {
    /// Fails when the store cannot serve.
    fn ready(&self) -> Answer<'_, ()>;

    /// Everything the directory needs, at start.
    fn load(&self) -> Answer<'_, Vec<NetworkState>>;

    /// The networks that `subject` is a member of, or all, ordered by id.
    fn networks(&self, subject: Option<Subject>, now: u64) -> Answer<'_, Vec<NetworkInfo>>;

    /// Creates a network whose owner is `new.owner`. Asked again by a member
    /// it changes nothing; by anybody else it is [`Refusal::NetworkTaken`].
    fn create_network(&self, new: NewNetwork) -> Answer<'_, Creation>;

    /// The role of `subject`, `None` for strangers and unknown networks.
    fn role(&self, network: NetworkId, subject: Subject) -> Answer<'_, Option<Role>>;

    /// Adds an invite.
    fn create_invite(&self, invite: NewInvite) -> Answer<'_, ()>;

    /// The invites of a network that are not expired, newest first.
    fn invites(&self, network: NetworkId, now: u64) -> Answer<'_, Vec<InviteInfo>>;

    /// Withdraws an invite; whether there was one.
    fn delete_invite(&self, network: NetworkId, id: String) -> Answer<'_, bool>;

    /// Redeems an invite: takes one use and adds the node, or does neither.
    /// The same node with the same name and keys again takes no use, also
    /// when the invite that brought it has none left.
    fn join(&self, join: Join) -> Answer<'_, Joined>;

    /// Gives a live node's record a new period; `None` if there is no such
    /// node.
    fn renew(&self, renewal: Renewal) -> Answer<'_, Option<Change>>;

    /// Revokes the live node of that name; `None` if there is none.
    fn revoke(&self, revocation: Revocation) -> Answer<'_, Option<Change>>;

    /// Changes a group or a grant; `None` when it is so already.
    fn edit_paper(&self, edit: PaperEdit) -> Answer<'_, Option<Paper>>;

    /// Who belongs to a network, owners first.
    fn members(&self, network: NetworkId) -> Answer<'_, Vec<MemberInfo>>;

    /// Lets a person in with a key; whether that is new. A key that is somebody else's is
    /// [`Refusal::KeyTaken`].
    fn add_ssh_key(&self, key: SshKey) -> Answer<'_, bool>;

    /// The keys of a person, oldest first.
    fn ssh_keys(&self, subject: Subject) -> Answer<'_, Vec<SshKey>>;

    /// Takes a key of a person away; whether there was one.
    fn remove_ssh_key(&self, subject: Subject, fingerprint: String) -> Answer<'_, bool>;

    /// Whose a key is.
    fn ssh_key(&self, fingerprint: String) -> Answer<'_, Option<SshKey>>;

    /// Adds a password. This and below: `now` is unix seconds.
    fn add_ssh_password(&self, password: SshPassword, now: u64) -> Answer<'_, ()>;

    /// Uses a password up; `None` if there is none, or its time is over.
    fn take_ssh_password(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<SshPassword>>;

    /// Forgets a network with everything in it, and keeps its obituary for the nodes that were in
    /// it; `None` if there was none.
    fn delete_network(&self, network: NetworkId, now: u64) -> Answer<'_, Option<Death>>;

    /// The networks of that name which had a node of that key when they were deleted.
    fn deaths(&self, network: NetworkId, key: NodeKey) -> Answer<'_, Vec<Mourner>>;

    /// How a network ended whose first issuer was `root`, if somebody was in it then.
    fn death(&self, network: NetworkId, root: SignKey) -> Answer<'_, Option<Death>>;

    /// Where a network is, or all of them, ordered by id.
    fn heads(&self, only: Option<NetworkId>) -> Answer<'_, Vec<Head>>;

    /// What somebody does not know of a network who knows it up to `since`, or not at all; `None`
    /// if there is no such network.
    fn progress(&self, network: NetworkId, since: Option<Since>) -> Answer<'_, Option<Progress>>;

    /// What other relays over the same database have to do with; `None` if there cannot be any.
    fn cluster(&self) -> Option<&dyn Cluster>;

    /// Hands over to another issuer: keeps the statement, forgets the old key, and gives every
    /// live node's record and every paper a new place in the order of changes, so that everybody
    /// is told of them again; `None` if there is no such network.
    fn rotate(&self, rotation: Rotation) -> Answer<'_, Option<Rotated>>;

    /// Notes when nodes were last connected.
    fn seen(&self, sightings: Vec<Sighting>) -> Answer<'_, ()>;

    /// Drops invites long expired and marks nobody will ask for.
    fn purge(&self, now: u64) -> Answer<'_, ()>;

    /// Stores a shared value; the revision that this made.
    fn put_shared(&self, put: Put) -> Answer<'_, u64>;

    /// Takes a shared value away; the revision that this made, `None` if there
    /// was none.
    fn remove_shared(&self, removal: Removal) -> Answer<'_, Option<u64>>;

    /// A shared value. This and below: `now` is unix milliseconds.
    fn get_shared(&self, place: Place, now: u64) -> Answer<'_, Option<Entry>>;

    /// Shared values by key, those behind `after`, each cut to
    /// [`shared::PREVIEW`].
    fn list_shared(&self, query: Query, after: Option<String>) -> Answer<'_, Vec<Entry>>;

    /// What has changed since a revision, cut alike; without one, where to go on
    /// from.
    fn shared_changes(&self, query: Query, since: Option<u64>) -> Answer<'_, Changes>;

    /// Makes deletions of what has expired; the networks in which something
    /// has.
    fn expire_shared(&self, now: u64) -> Answer<'_, Vec<NetworkId>>;

    /// Forgets deletions older than [`shared::DELETIONS_KEPT`].
    fn forget_shared(&self, now: u64) -> Answer<'_, ()>;

    /// Gives a member another role, or none at all; whether there was such a
    /// member. The last owner stays: [`Refusal::LastOwner`].
    fn set_role(
        &self,
        network: NetworkId,
        subject: Subject,
        role: Option<Role>,
    ) -> Answer<'_, bool>;
}

/// Who acts or owns: `admin`, `guest:<invite>`, `oidc:<provider>:<who>`, `github:<number>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject(String);

impl Subject {
    /// The holder of the relay's own token.
    pub(crate) fn admin() -> Self {
        Self("admin".to_owned())
    }

    /// Whoever redeems the invite `id`.
    pub(crate) fn guest(invite: &str) -> Self {
        Self(format!("guest:{invite}"))
    }

    /// As the store or a client has written it.
    pub(crate) fn named(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text form.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a subject is in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Made it, or was made owner.
    Owner,
    /// A user who belongs to it.
    Member,
    /// Brought a node by a bare invite.
    Guest,
}

impl Role {
    /// `owner`, `member`, `guest`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
            Self::Guest => "guest",
        }
    }

    /// The other way.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Owner, Self::Member, Self::Guest]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

/// A network as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkInfo {
    pub(crate) id: NetworkId,
    pub(crate) created: u64,
    /// Live ones.
    pub(crate) nodes: u64,
    /// That can be redeemed.
    pub(crate) invites: u64,
}

/// A network to be created.
pub(crate) struct NewNetwork {
    pub(crate) id: NetworkId,
    pub(crate) owner: Subject,
    /// Used only if the network is new.
    pub(crate) issuer: SigningKey,
    pub(crate) mark: Mark,
    pub(crate) now: u64,
}

/// What `create_network` did.
#[expect(clippy::large_enum_variant, reason = "one at a time, never stored")]
pub(crate) enum Creation {
    /// It is new.
    Created(NetworkState),
    /// It existed and the caller is a member.
    Existed,
}

/// A network as the directory holds it.
pub(crate) struct NetworkState {
    pub(crate) id: NetworkId,
    pub(crate) issuer: SigningKey,
    /// Up to `issuer`.
    pub(crate) issuers: Issuers,
    pub(crate) revision: Revision,
    /// Marks of the states before, oldest first.
    pub(crate) history: Vec<Revision>,
    /// Revoked ones too.
    pub(crate) nodes: Vec<NodeRow>,
    /// Groups and grants.
    pub(crate) papers: Vec<Paper>,
}

/// Somebody who belongs to a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberInfo {
    pub(crate) subject: Subject,
    pub(crate) role: Role,
    pub(crate) since: u64,
    /// Live nodes of theirs.
    pub(crate) nodes: u64,
}

/// An invite to be added.
pub(crate) struct NewInvite {
    pub(crate) id: String,
    pub(crate) hash: InviteHash,
    pub(crate) network: NetworkId,
    pub(crate) created_by: Subject,
    /// The joining nodes belong to `created_by`.
    pub(crate) mine: bool,
    /// Only a node of this name may redeem it.
    pub(crate) node_name: Option<NodeName>,
    pub(crate) uses: u32,
    pub(crate) now: u64,
    pub(crate) expires: u64,
}

/// An invite without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InviteInfo {
    pub(crate) id: String,
    pub(crate) created_by: Subject,
    pub(crate) mine: bool,
    pub(crate) node_name: Option<NodeName>,
    pub(crate) uses_remaining: u32,
    pub(crate) created: u64,
    pub(crate) expires: u64,
}

/// A node that wants in. Its proof was checked.
#[derive(Clone)]
pub(crate) struct Join {
    pub(crate) invite: InviteHash,
    pub(crate) name: NodeName,
    pub(crate) key: NodeKey,
    pub(crate) sign_key: SignKey,
    /// Of the record.
    pub(crate) expires: u64,
    pub(crate) mark: Mark,
    pub(crate) now: u64,
}

/// A node that is in.
pub(crate) enum Joined {
    /// It is new.
    Added(Change),
    /// It was in already, with the same keys and name.
    Was(NodeRow),
}

/// See [`Store::renew`].
pub(crate) struct Renewal {
    pub(crate) network: NetworkId,
    pub(crate) key: NodeKey,
    pub(crate) expires: u64,
    pub(crate) mark: Mark,
    pub(crate) now: u64,
}

/// See [`Store::revoke`].
pub(crate) struct Revocation {
    pub(crate) network: NetworkId,
    pub(crate) name: NodeName,
    pub(crate) mark: Mark,
    pub(crate) now: u64,
}

/// See [`Store::rotate`].
pub(crate) struct Rotation {
    pub(crate) network: NetworkId,
    /// The issuer that comes.
    pub(crate) issuer: SigningKey,
    /// Until when the one that goes is believed.
    pub(crate) retires: u64,
    /// Of the records.
    pub(crate) expires: u64,
    pub(crate) mark: Mark,
    /// Unix milliseconds.
    pub(crate) now_ms: u64,
}

/// What a hand-over has made of a network.
pub(crate) struct Rotated {
    pub(crate) issuer: SigningKey,
    /// The new one among them.
    pub(crate) issuers: Issuers,
    pub(crate) revision: Revision,
    /// The live ones.
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) papers: Vec<Paper>,
}

/// The end of a network, for those who were in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Death {
    pub(crate) handovers: Vec<SignedHandover>,
    pub(crate) obituary: SignedObituary,
}

/// A node that was in a network when it was deleted.
pub(crate) struct Mourner {
    pub(crate) root: SignKey,
    pub(crate) sign_key: SignKey,
    pub(crate) death: Death,
}

/// A node was connected.
pub(crate) struct Sighting {
    pub(crate) network: NetworkId,
    pub(crate) key: NodeKey,
    pub(crate) at: u64,
}

/// A change of a network's membership: the node as it is now, and the
/// revision this made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) node: NodeRow,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// What its record says.
    pub(crate) record: NodeRecord,
    /// The number of the revision that changed it last.
    pub(crate) changed: u64,
    /// When it was last connected.
    pub(crate) seen: Option<u64>,
    /// When it was revoked.
    pub(crate) revoked: Option<u64>,
}
