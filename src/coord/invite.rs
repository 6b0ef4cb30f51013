//! The password of a join.

use std::fmt;
use std::str::FromStr;

use mesh::SignKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Malformed;

/// The password of a join: `CW-INV-<24 letters or digits>-<issuer's key>`.
///
/// Whoever holds it may add a node to the network, within its uses and time.
/// The relay keeps only [`Invite::hash`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Invite {
    secret: String,
    issuer: SignKey,
}

impl Invite {
    /// Letters and digits of the secret: 142 bits.
    pub(crate) const SECRET_LEN: usize = 24;
    const PREFIX: &str = "CW-INV-";

    /// Makes an invite out of random bytes, or `None` when they do not yield
    /// enough letters (one in 10^30 for 64 bytes).
    pub(crate) fn generate(random: &[u8], issuer: SignKey) -> Option<Self> {
        const LETTERS: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        // 248 is the largest multiple of 62 in a byte: no letter is favoured.
        let letters = random.iter().filter(|byte| **byte < 248);
        let secret: String = letters
            .take(Self::SECRET_LEN)
            .filter_map(|byte| LETTERS.get(usize::from(byte % 62)))
            .map(|letter| char::from(*letter))
            .collect();
        (secret.len() == Self::SECRET_LEN).then_some(Self { secret, issuer })
    }

    /// The key that signs the records of the network.
    pub(crate) fn issuer(&self) -> &SignKey {
        &self.issuer
    }

    /// What the relay stores and looks up: of all of it, so that an invite whose key was exchanged
    /// on its way is none, and burns no use.
    pub(crate) fn hash(&self) -> InviteHash {
        let mut hash = Sha256::new();
        hash.update(b"codewire invite v2\0");
        hash.update(self.issuer.as_bytes());
        hash.update(self.secret.as_bytes());
        InviteHash(hash.finalize().into())
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}-{}", Self::PREFIX, self.secret, self.issuer)
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invite([redacted])")
    }
}

impl FromStr for Invite {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = Malformed("an invite has the form CW-INV-<24 letters or digits>-<key>");
        let Some((secret, issuer)) = text
            .strip_prefix(Self::PREFIX)
            .and_then(|rest| rest.split_at_checked(Self::SECRET_LEN))
        else {
            return Err(malformed);
        };
        let Some(Ok(issuer)) = issuer.strip_prefix('-').map(str::parse) else {
            return Err(malformed);
        };
        if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed);
        }
        let secret = secret.to_owned();
        Ok(Self { secret, issuer })
    }
}

impl Serialize for Invite {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Invite {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// SHA-256 of an invite, with a prefix of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InviteHash(pub(crate) [u8; 32]);
