//! What a node and the relay say to each other about membership.
//!
//! Two exchanges use these types, the server in `relay`, the node's side in
//! `uplink`.
//!
//! **Join** (`POST /api/v1/join`, once per node): the node presents an invite
//! and its two public keys, and proves with its signing key that it means
//! them. The relay answers with the node's record, signed by the issuer of
//! the network. The issuer's public key is part of the invite, so the node
//! needs no faith in whoever answered.
//!
//! **Coordination** (`GET /api/v1/coordinate`, a WebSocket kept open, one JSON
//! object per text message):
//!
//! ```text
//! relay → node  challenge { nonce }
//! node → relay  hello     { network, key, version, revision?, papers?, handovers?, ssh?, signature }
//! relay → node  welcome   { record, stun_port?, keepalive_ms, dead_after_ms, handovers?, issuer? }
//! relay → node  papers    { papers, serial, more } …
//! relay → node  snapshot  { revision, peers, more } …  or  delta { resumed: true, … }
//! relay → node  delta     { revision, upsert, removed, online, offline } …
//! relay → node  handovers { handovers } before what a new issuer has signed
//! relay → node  visit     { ticket, door, subject }
//! node → relay  report    { paths, sessions? }, again when it has changed
//! relay → node  error     { code, message }, then the relay closes
//! relay → node  deleted   { handovers, obituary }, then the relay closes
//! ```
//!
//! A [`Revision`] names one state of the membership of a network. A node
//! that comes back says which one it has and gets what changed since, or a
//! snapshot when the relay cannot tell. Presence is not part of a revision:
//! it holds as long as the connection, and the first frame of a connection
//! states it in full.
//!
//! The issuer of a network may hand over to another key; [`handover`] has the
//! chain by which that is believed. What a node signs names the *first* issuer
//! of the network, which stays the same.
//!
//! Both ends send WebSocket pings; silence means the other is gone.

pub(crate) mod handover;
mod invite;
pub(crate) mod report;
pub(crate) mod request;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use derp::NodeKey;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use mesh::{NetworkId, NodeName, SignKey, SignedRecord};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::paper::SignedPaper;
use crate::ssh::Door;
use handover::{SignedHandover, SignedObituary};
pub(crate) use invite::{Invite, InviteHash};

/// The version of the coordination protocol; the relay refuses others.
pub(crate) const VERSION: u32 = 1;

/// Relays that a node is told of, at most: there are no more links among them either.
pub(crate) const MAX_RELAYS: usize = 64;

/// How often either end of a coordination connection sends a ping.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(3);

/// Silence after which either end gives the other up: two pings and the
/// slack of a bad radio link, and still within the ten seconds in which a
/// vanished host has to be known.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(8);

/// Peers in one `snapshot` frame. About 90 KB: a link of 20 KB/s passes one
/// within [`DEAD_AFTER`].
pub(crate) const SNAPSHOT_PEERS: usize = 128;

/// How far the clock of a joining node may be off, seconds either way. Less
/// than a record may be ahead of the reader's clock: who could join must be
/// able to believe the answer.
pub(crate) const JOIN_WINDOW: u64 = 240;

/// The body of `POST /api/v1/join`.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct JoinRequest {
    /// The invite as it was handed out; text, so that a malformed one gets an
    /// answer of its own.
    pub(crate) invite_token: String,
    /// The name the node wants; checked by the relay.
    pub(crate) node_name: String,
    /// The node's WireGuard and DERP key.
    #[schemars(with = "String")]
    pub(crate) key: NodeKey,
    /// The node's signing key, which made `proof`.
    #[schemars(with = "String")]
    pub(crate) sign_key: SignKey,
    /// When the proof was made, unix seconds.
    pub(crate) timestamp: u64,
    /// Over [`JoinProof::message`].
    #[schemars(with = "String")]
    pub(crate) proof: Signature,
}

/// The answer to a join.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct JoinResponse {
    /// The network the invite was for.
    #[schemars(with = "String")]
    pub(crate) network_id: NetworkId,
    /// The name the node now has.
    #[schemars(with = "String")]
    pub(crate) node_name: NodeName,
    /// The node's record, signed by `issuer_key`.
    #[schemars(with = "Value")]
    pub(crate) record: SignedRecord,
    /// The first issuer of the network. The key in the invite is this one or
    /// one that came after it.
    #[schemars(with = "String")]
    pub(crate) issuer_key: SignKey,
    /// From the first issuer to the present one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Value>")]
    pub(crate) handovers: Vec<SignedHandover>,
    /// How to use the relay.
    pub(crate) relay: RelayInfo,
}

/// What a node may want to know about its relay.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RelayInfo {
    /// The URL the relay believes to have.
    pub(crate) base_url: String,
    /// The UDP port that answers STUN, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stun_port: Option<u16>,
    /// The TCP port of the SSH front door, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ssh_port: Option<u16>,
    /// The relay's DERP key.
    #[schemars(with = "String")]
    pub(crate) derp_key: NodeKey,
}

/// What the signature of a join covers.
pub(crate) struct JoinProof<'a> {
    /// The invite that is redeemed.
    pub(crate) invite: &'a Invite,
    /// The name asked for.
    pub(crate) name: &'a str,
    /// The node's key.
    pub(crate) key: &'a NodeKey,
    /// The key that signs.
    pub(crate) sign_key: &'a SignKey,
    /// Unix seconds.
    pub(crate) timestamp: u64,
}

impl JoinProof<'_> {
    /// The bytes under the signature: every field of fixed length or behind
    /// its length, so that no two joins share them.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut message = b"codewire join v1\0".to_vec();
        message.extend_from_slice(&self.invite.hash().0);
        push_sized(&mut message, self.name.as_bytes());
        message.extend_from_slice(self.key.as_bytes());
        message.extend_from_slice(self.sign_key.as_bytes());
        message.extend_from_slice(&self.timestamp.to_be_bytes());
        message
    }
}

/// What the signature of a `hello` covers.
///
/// It is bound to the first issuer of the network, not to a host name: a relay is reached under several names (inside a cluster, by a
/// forwarded port), while another relay cannot pass this hello on as its own
/// visitor's, because the network it claims has another issuer there.
pub(crate) struct HelloProof<'a> {
    /// The first issuer of the network.
    pub(crate) issuer: &'a SignKey,
    /// From the challenge of this very connection.
    pub(crate) nonce: &'a Nonce,
    /// The network.
    pub(crate) network: &'a NetworkId,
    /// The node's key.
    pub(crate) key: &'a NodeKey,
}

impl HelloProof<'_> {
    /// The bytes under the signature.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut message = b"codewire hello v1\0".to_vec();
        message.extend_from_slice(self.issuer.as_bytes());
        message.extend_from_slice(&self.nonce.0);
        push_sized(&mut message, self.network.as_str().as_bytes());
        message.extend_from_slice(self.key.as_bytes());
        message
    }
}

/// What the relay sends on a coordination connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToNode {
    /// The first frame.
    Challenge {
        /// Fresh for this connection.
        nonce: Nonce,
    },
    /// The hello was right.
    Welcome {
        /// The node's own record, renewed if it was past half its life.
        record: SignedRecord,
        /// The UDP port that answers STUN, at the address of this connection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stun_port: Option<u16>,
        /// How often the relay pings, milliseconds.
        keepalive_ms: u64,
        /// After how much silence the relay gives the node up, milliseconds.
        dead_after_ms: u64,
        /// The hand-overs that the node does not know; the record may be
        /// signed by the last of these.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        handovers: Vec<SignedHandover>,
        /// How many there were in all.
        #[serde(default)]
        issuer: u32,
    },
    /// Everything there is. Replaces what the node had once the part without
    /// `more` is there.
    Snapshot {
        /// The state this is.
        revision: Revision,
        /// All members, the node itself among them.
        peers: Vec<Peer>,
        /// Another part follows.
        #[serde(default, skip_serializing_if = "is_false")]
        more: bool,
    },
    /// What changed.
    Delta(Delta),
    /// Groups and grants that this node does not have yet, see
    /// [`crate::paper`].
    Papers {
        /// In the order of their serials.
        papers: Vec<SignedPaper>,
        /// Up to which serial this is all there is.
        serial: u64,
        /// Another part follows.
        #[serde(default, skip_serializing_if = "is_false")]
        more: bool,
    },
    /// The issuer has handed over: what follows may be signed by another key.
    Handovers {
        /// Those that this connection has not been told of.
        handovers: Vec<SignedHandover>,
    },
    /// The network is no more; the relay closes the connection after this.
    Deleted {
        /// Those that the node may not know, for the obituary.
        #[serde(default)]
        handovers: Vec<SignedHandover>,
        /// By the last issuer.
        obituary: SignedObituary,
    },
    /// Somebody is there for this node, over SSH: it comes to `GET /api/v1/back/{ticket}`. Only
    /// nodes that have said what they take hear this.
    Visit {
        /// Good once, for ten seconds.
        ticket: String,
        /// How they come.
        door: Door,
        /// Who it is, as far as the relay knows.
        subject: String,
    },
    /// Where nodes reach the relays of this database that run, this one among them; at first and
    /// whenever it changes. Only nodes that asked for it hear this.
    Relays {
        /// At most [`MAX_RELAYS`]; none if there can be no other.
        relays: Vec<RelayPlace>,
    },
    /// The relay will not go on; it closes the connection after this.
    Error {
        /// `unauthorized`, `revoked`, `version_unsupported`, `replaced`, …
        code: String,
        /// For people.
        message: String,
    },
}

/// Where nodes reach a relay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RelayPlace {
    /// `http(s)://host[:port]`.
    pub url: String,
    /// Its key as a DERP server.
    pub key: NodeKey,
}

/// What changed in a network since the frame before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    /// The state after this change.
    pub(crate) revision: Revision,
    /// New and changed members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) upsert: Vec<Peer>,
    /// Members that left or were revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) removed: Vec<NodeKey>,
    /// Known members that connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) online: Vec<NodeKey>,
    /// Known members that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) offline: Vec<NodeKey>,
    /// The first frame of a connection that goes on from the node's own
    /// revision: who is not in `online` is offline.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) resumed: bool,
}

/// A member as its peers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Signed by the issuer; the reader verifies it.
    pub(crate) record: SignedRecord,
    /// It has a coordination connection to the relay now.
    pub(crate) online: bool,
}

/// What a node sends on a coordination connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToRelay {
    /// How the node is; a relay that knows no reports passes over them.
    Report(report::Report),
    /// The answer to the challenge.
    Hello {
        /// The network this connection is about.
        network: NetworkId,
        /// Who speaks.
        key: NodeKey,
        /// [`VERSION`].
        version: u32,
        /// The state the node has, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<Revision>,
        /// Up to which serial it has the papers, if it has any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        papers: Option<u64>,
        /// How many hand-overs of the issuer it knows.
        #[serde(default, skip_serializing_if = "is_zero")]
        handovers: u32,
        /// What it takes over SSH.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ssh: Vec<Door>,
        /// It wants to hear of other relays.
        #[serde(default, skip_serializing_if = "is_false")]
        relays: bool,
        /// Over [`HelloProof::message`].
        signature: Signature,
    },
}

/// One state of the membership of a network.
///
/// The number counts changes. The mark is random and belongs to that one
/// change, so that a number from another database, or from before a database
/// was put back from a copy, is recognised and answered with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Grows by one with every change.
    pub number: u64,
    /// Of the change that made this state.
    pub mark: Mark,
}

/// Text that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

/// Fixed-size bytes that travel as unpadded base64url.
macro_rules! text_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok();
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or(Malformed($what))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_bytes!(
    /// A challenge.
    Nonce,
    32,
    "a nonce is 32 bytes in base64url"
);

text_bytes!(
    /// SHA-256 of the body of a request.
    BodyHash,
    32,
    "a hash is 32 bytes in base64url"
);

text_bytes!(
    /// See [`Revision`].
    Mark,
    8,
    "a mark is 8 bytes in base64url"
);

text_bytes!(
    /// An Ed25519 signature.
    Signature,
    64,
    "a signature is 64 bytes in base64url"
);

impl Signature {
    /// Signs `message`, which starts with a domain of its own.
    pub(crate) fn sign(key: &SigningKey, message: &[u8]) -> Self {
        Self(key.sign(message).to_bytes())
    }

    /// Whether `key` made this signature over `message`. Weak keys, under
    /// which one signature fits many messages, are refused.
    pub(crate) fn verifies(&self, key: &SignKey, message: &[u8]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(key.as_bytes()) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&self.0);
        key.verify_strict(message, &signature).is_ok()
    }
}

/// `bytes` behind their length; the callers' fields are limited to 64 bytes,
/// and whatever is longer is told apart by its full length.
fn push_sized(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    message.extend_from_slice(bytes);
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}
