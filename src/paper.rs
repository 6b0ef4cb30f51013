//! What a network says about its groups and about grants, signed by its issuer.
//!
//! A *group* is a set of sessions that may write to each other; a *grant* lets somebody look at
//! one session for a while. Each is one paper, `{"paper": base64url(JSON), "signature":
//! base64url}`, and the whole of what holds: a change makes a new paper with a higher serial, a
//! group that is deleted leaves a paper that says so, a grant that is revoked too. So a reader
//! keeps for each name the paper of the highest serial, and nothing that is withheld or played
//! back gives anybody more than they had.
//!
//! Sessions are meant by the key of their node and their number, which is never used twice; names
//! are only shown.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use mesh::{NetworkId, NodeKey, SignKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::coord::{Malformed, Signature};

const DOMAIN: &[u8] = b"codewire paper v1\0";

/// Sessions in one group. Every node of the network hears of each.
pub(crate) const MAX_MEMBERS: usize = 256;

/// The longest paper, bytes: a group whose members all have the longest names is below 64 KiB.
const MAX_PAPER: usize = 96 * 1024;

/// The longest that a grant may hold, seconds: a day. Who looks on for longer asks again.
pub(crate) const MAX_GRANT: u64 = 24 * 3600;

/// A group's name: 1 to 57 letters, digits, `-` or `_`, the first of them a letter or digit; so
/// that `group:` and it are a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

impl GroupName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // The letters are those of a node's name.
        let is_name = text.len() <= 57 && text.parse::<mesh::NodeName>().is_ok();
        is_name.then(|| Self(text.to_owned())).ok_or(Malformed(
            "a group's name is 1 to 57 letters, digits, '-' or '_', starting with a letter or digit",
        ))
    }
}

impl TryFrom<String> for GroupName {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whose messages the sessions of a group get.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Messages {
    /// Those of the sessions of the group.
    #[default]
    InternalOnly,
    /// Anybody's.
    Open,
}

/// What sessions outside a group may do with those in it, as far as they may at all.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Debug {
    /// Not even look.
    None,
    /// Look on.
    #[default]
    ObserveOnly,
    /// Type, rename and end them too.
    Full,
}

/// Who may put sessions into a group.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Joining {
    /// The owners of the network.
    #[default]
    Owners,
    /// Its members too, each the sessions of their own nodes.
    Members,
}

/// What may be done by a grant.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    schemars::JsonSchema,
)]
pub enum Verb {
    /// Read the inbox.
    #[serde(rename = "msg.read", alias = "read")]
    Read,
    /// Follow messages.
    #[serde(rename = "msg.listen", alias = "listen")]
    Listen,
    /// See what it prints: watch, logs, screen, status, and attach without typing.
    #[serde(rename = "watch")]
    Watch,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Listen => "listen",
            Self::Watch => "watch",
        })
    }
}

/// A session of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its node.
    pub node: NodeKey,
    /// Its number there.
    pub session: u32,
    /// The name it had when this was written; only shown.
    pub label: String,
    /// Unix seconds.
    pub added: u64,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Unique in the network.
    pub name: GroupName,
    /// See [`Messages`].
    pub messages: Messages,
    /// See [`enum@Debug`].
    pub debug: Debug,
    /// See [`Joining`].
    pub joining: Joining,
    /// Its sessions, in the order in which they came.
    pub members: Vec<Member>,
    /// Unix seconds.
    pub created: u64,
    /// By whom; a subject.
    pub created_by: String,
    /// It is no more.
    #[serde(default)]
    pub deleted: bool,
}

impl Group {
    /// Whether a session is in it.
    #[must_use]
    pub fn has(&self, node: &NodeKey, session: u32) -> bool {
        let is = |member: &Member| member.node == *node && member.session == session;
        !self.deleted && self.members.iter().any(is)
    }
}

/// For whom a grant is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// One node.
    Node(NodeKey),
    /// All nodes of an owner.
    Owner(String),
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What to revoke it by; no secret.
    pub id: String,
    /// The node whose session it is.
    pub node: NodeKey,
    /// The session's number there.
    pub session: u32,
    /// The name it had; only shown.
    pub label: String,
    /// What may be done.
    pub verbs: BTreeSet<Verb>,
    /// Who may do it.
    pub audience: Audience,
    /// The audience as it was named.
    pub shown: String,
    /// Who gave it; a subject. It counts if the node is theirs.
    pub by: String,
    /// Of the secret.
    pub hash: SecretHash,
    /// Unix seconds.
    pub issued: u64,
    /// Unix seconds; not valid from then on.
    pub expires: u64,
    /// When it was revoked, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
}

/// What a paper is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Matter {
    Group(Group),
    Grant(Grant),
}

/// Names a paper; of two with one name the one with the higher serial counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PaperName {
    Group(GroupName),
    Grant(String),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paper {
    /// In which it holds.
    pub(crate) network: NetworkId,
    /// Grows with every change in the network, and from one relay database to the next, since it
    /// is at least the time in milliseconds.
    pub(crate) serial: u64,
    /// What it says.
    pub(crate) matter: Matter,
}

impl Matter {
    pub(crate) fn name(&self) -> PaperName {
        match self {
            Self::Group(group) => PaperName::Group(group.name.clone()),
            Self::Grant(grant) => PaperName::Grant(grant.id.clone()),
        }
    }
}

impl PaperName {
    /// `group:mesh`, `grant:gr_…`.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Group(name) => format!("group:{name}"),
            Self::Grant(id) => format!("grant:{id}"),
        }
    }
}

/// A [`Paper`] as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedPaper {
    paper: String,
    signature: Signature,
}

/// Why a paper is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbelievable {
    #[error("it is not signed by the issuer of the network")]
    Unsigned,
    #[error("it is of another network")]
    Foreign,
    #[error("it cannot be read")]
    Unreadable,
}

impl SignedPaper {
    pub(crate) fn sign(paper: &Paper, issuer: &SigningKey) -> Self {
        let bytes = serde_json::to_vec(paper).expect("papers are strings and numbers");
        let signature = Signature::sign(issuer, &[DOMAIN, &bytes].concat());
        let paper = URL_SAFE_NO_PAD.encode(bytes);
        Self { paper, signature }
    }

    /// What it says, if the issuer of this network says so.
    pub(crate) fn verify(
        &self,
        issuer: &SignKey,
        network: &NetworkId,
    ) -> Result<Paper, Unbelievable> {
        if self.paper.len() > MAX_PAPER / 3 * 4 {
            return Err(Unbelievable::Unreadable);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(&self.paper)
            .map_err(|_| Unbelievable::Unreadable)?;
        if !self.signature.verifies(issuer, &[DOMAIN, &bytes].concat()) {
            return Err(Unbelievable::Unsigned);
        }
        let paper: Paper = serde_json::from_slice(&bytes).map_err(|_| Unbelievable::Unreadable)?;
        if paper.network != *network {
            return Err(Unbelievable::Foreign);
        }
        Ok(paper)
    }

    /// How long it is, about, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.paper.len() + 128
    }
}

/// What the holder of a grant shows: `CW-GRANT-<id>-<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct GrantToken {
    /// The grant's id.
    pub(crate) id: String,
    secret: String,
}

impl GrantToken {
    const PREFIX: &str = "CW-GRANT-";

    /// Out of 8 and 24 random bytes.
    pub(crate) fn generate(id: [u8; 8], secret: [u8; 24]) -> Self {
        Self {
            id: format!("gr_{}", hex::encode(id)),
            secret: URL_SAFE_NO_PAD.encode(secret).replace(['-', '_'], "0"),
        }
    }

    pub(crate) fn hash(&self) -> SecretHash {
        let mut hash = Sha256::new();
        hash.update(b"codewire grant v1\0");
        hash.update(self.secret.as_bytes());
        SecretHash(hash.finalize().into())
    }
}

impl fmt::Display for GrantToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}-{}", Self::PREFIX, self.id, self.secret)
    }
}

impl fmt::Debug for GrantToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantToken({}, [redacted])", self.id)
    }
}

impl FromStr for GrantToken {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parts = text.trim().strip_prefix(Self::PREFIX);
        let (id, secret) = parts
            .and_then(|rest| rest.split_once('-'))
            .filter(|(id, secret)| {
                let fits = |text: &str, len| text.len() == len && text.is_ascii();
                let plain =
                    |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                fits(id, 19)
                    && id.starts_with("gr_")
                    && plain(id)
                    && fits(secret, 32)
                    && plain(secret)
            })
            .ok_or(Malformed(
                "the token of a grant has the form CW-GRANT-<id>-<32 letters or digits>",
            ))?;
        Ok(Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

/// SHA-256 of a grant's secret, with a prefix of its own.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash(pub(crate) [u8; 32]);

impl SecretHash {
    /// Whether they are the same, in a time that does not tell where they differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq as _;
        bool::from(self.0.ct_eq(&other.0))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl TryFrom<String> for SecretHash {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Malformed("a hash is 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        hex::encode(hash.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn key(n: u8) -> SignKey {
        SignKey::from(&issuer(n).verifying_key())
    }

    fn paper() -> Paper {
        Paper {
            network: "home".parse().unwrap(),
            serial: 7,
            matter: Matter::Group(Group {
                name: "mesh".parse().unwrap(),
                messages: Messages::InternalOnly,
                debug: Debug::ObserveOnly,
                joining: Joining::Owners,
                members: Vec::new(),
                created: 1,
                created_by: "admin".into(),
                deleted: false,
            }),
        }
    }

    #[test]
    fn a_paper_is_believed_by_its_signature_alone() {
        let (paper, home) = (paper(), "home".parse().unwrap());
        let signed = SignedPaper::sign(&paper, &issuer(1));
        let json = serde_json::to_string(&signed).unwrap();
        let back: SignedPaper = serde_json::from_str(&json).unwrap();
        assert_eq!(back.verify(&key(1), &home), Ok(paper));
        assert_eq!(back.verify(&key(2), &home), Err(Unbelievable::Unsigned));
        let away = "away".parse().unwrap();
        assert_eq!(back.verify(&key(1), &away), Err(Unbelievable::Foreign));
        let bytes = URL_SAFE_NO_PAD.decode(&signed.paper).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let bad = SignedPaper {
                paper: URL_SAFE_NO_PAD.encode(bad),
                signature: signed.signature,
            };
            assert_eq!(bad.verify(&key(1), &home), Err(Unbelievable::Unsigned));
        }
        for at in 0..64 {
            let mut bad = signed.clone();
            bad.signature.0[at] ^= 1;
            assert_eq!(bad.verify(&key(1), &home), Err(Unbelievable::Unsigned));
        }
    }

    #[test]
    fn the_token_of_a_grant_is_read_back_and_not_shown() {
        let token = GrantToken::generate([1; 8], [0xff; 24]);
        let back: GrantToken = token.to_string().parse().unwrap();
        assert_eq!(back, token);
        assert!(back.hash().is(&token.hash()));
        assert!(!format!("{token:?}").contains(&token.secret));
        let text = token.to_string();
        for bad in [
            "",
            "CW-GRANT-",
            &text[..40],
            &text[1..],
            &format!("{text}x"),
            "CW-GRANT-gr_ü",
        ] {
            assert!(bad.parse::<GrantToken>().is_err(), "{bad}");
        }
        let other = GrantToken::generate([1; 8], [0xfe; 24]);
        assert!(!other.hash().is(&token.hash()));
    }

    #[test]
    fn groups_have_names_that_are_tags() {
        assert!("mesh-1".parse::<GroupName>().is_ok());
        for bad in ["", "a b", "-a", "a:b", "ä", &"x".repeat(58)] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
    }
}
