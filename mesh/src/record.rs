//! What a network says about a node, signed by the network's issuer.
//!
//! On the wire a record is `{"record": base64url(JSON), "signature": base64url}`.
//! The signature is Ed25519 over a domain prefix followed by exactly those JSON
//! bytes, so nobody has to agree on a canonical form and a record signed for
//! this purpose cannot be mistaken for anything else the issuer signs.
//! Unknown fields are kept out of the way, not refused: a later issuer may say
//! more than this version knows.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use derp::NodeKey;
use ed25519_dalek::{Signature, Signer as _, SigningKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, SignKey};

const DOMAIN: &[u8] = b"codewire node record v1\0";
/// A record with every field at its limit is below 6 KiB.
const MAX_RECORD_LEN: usize = 8 * 1024;
/// More groups than that on one node is a mistake of the issuer.
const MAX_GROUPS: usize = 64;
/// Longest owner or group name, in bytes.
const MAX_LABEL_LEN: usize = 64;
/// An issuer's clock may be this many seconds ahead of ours.
const MAX_CLOCK_SKEW: u64 = 300;

/// What a network says about one of its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The network in which the record holds.
    pub network: NetworkId,
    /// The node's name, unique in the network.
    pub name: NodeName,
    /// The node's WireGuard and relay key.
    pub key: NodeKey,
    /// The node's signing key, with which it also speaks TLS.
    pub sign_key: SignKey,
    /// The user whose node it is; at most 64 bytes.
    pub owner: String,
    /// The groups the node is in; at most 64 of at most 64 bytes.
    pub groups: Vec<String>,
    /// Not valid before this time, in seconds since 1970.
    pub issued: u64,
    /// Not valid from this time on, in seconds since 1970.
    pub expires: u64,
}

/// A [`NodeRecord`] as it travels: bytes and a signature over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    #[serde(with = "base64url")]
    record: Vec<u8>,
    #[serde(with = "base64url")]
    signature: Vec<u8>,
}

impl SignedRecord {
    /// Signs a record as the issuer of its network.
    pub fn sign(record: &NodeRecord, issuer: &SigningKey) -> Self {
        let bytes = serde_json::to_vec(record).expect("a record has only strings and numbers");
        let signature = issuer.sign(&signed_bytes(&bytes));
        Self {
            record: bytes,
            signature: signature.to_bytes().to_vec(),
        }
    }

    /// The record, if `issuer` signed it for `network` and it holds at
    /// `now_unix` (seconds since 1970).
    ///
    /// # Errors
    ///
    /// [`Error::RecordUnsigned`], [`Error::RecordInvalid`],
    /// [`Error::RecordForeign`] or [`Error::RecordExpired`]. Nothing of an
    /// unsigned record is looked at.
    pub fn verify(
        &self,
        issuer: &SignKey,
        network: &NetworkId,
        now_unix: u64,
    ) -> Result<NodeRecord, Error> {
        if self.record.len() > MAX_RECORD_LEN {
            return Err(Error::RecordInvalid("too long"));
        }
        let verifier = issuer.verifier().ok_or(Error::RecordUnsigned)?;
        let signature =
            Signature::from_slice(&self.signature).map_err(|_| Error::RecordUnsigned)?;
        verifier
            .verify_strict(&signed_bytes(&self.record), &signature)
            .map_err(|_| Error::RecordUnsigned)?;

        let record: NodeRecord = serde_json::from_slice(&self.record)
            .map_err(|_| Error::RecordInvalid("not the expected JSON"))?;
        record.check_limits()?;
        if &record.network != network {
            return Err(Error::RecordForeign);
        }
        if now_unix.saturating_add(MAX_CLOCK_SKEW) < record.issued || record.expires <= now_unix {
            return Err(Error::RecordExpired);
        }
        Ok(record)
    }
}

impl NodeRecord {
    fn check_limits(&self) -> Result<(), Error> {
        if self.key.is_zero() {
            return Err(Error::RecordInvalid("the key names nobody"));
        }
        if self.groups.len() > MAX_GROUPS {
            return Err(Error::RecordInvalid("too many groups"));
        }
        let mut labels = self.groups.iter().chain([&self.owner]);
        if labels.any(|label| label.len() > MAX_LABEL_LEN) {
            return Err(Error::RecordInvalid("an owner or group name is too long"));
        }
        Ok(())
    }
}

/// A node's name: 1 to 63 letters, digits, `-` or `_`, the first of them a
/// letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// A network's name, with the same letters as a [`NodeName`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(String);

macro_rules! label {
    ($type:ident) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                is_label(text)
                    .then(|| Self(text.to_owned()))
                    .ok_or(Error::NameInvalid)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

label!(NodeName);
label!(NetworkId);

fn is_label(text: &str) -> bool {
    let inner = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let bytes = text.as_bytes();
    let starts_well = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    starts_well && bytes.len() <= 63 && bytes.iter().all(inner)
}

fn signed_bytes(record: &[u8]) -> Vec<u8> {
    [DOMAIN, record].concat()
}

mod base64url {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        // Four characters hold three bytes; longer text is not even decoded.
        if text.len() > MAX_RECORD_LEN / 3 * 4 + 4 {
            return Err(de::Error::custom("too long"));
        }
        URL_SAFE_NO_PAD.decode(text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Seed};

    const NOW: u64 = 1_800_000_000;

    fn issuer(n: u8) -> Identity {
        Identity::from_seed(&Seed::from_bytes([n; 32]))
    }

    fn network() -> NetworkId {
        "home".parse().unwrap()
    }

    fn record() -> NodeRecord {
        let node = issuer(9);
        NodeRecord {
            network: network(),
            name: "dev-1".parse().unwrap(),
            key: node.key(),
            sign_key: node.verifying_key(),
            owner: "ann".to_owned(),
            groups: vec!["agents".to_owned()],
            issued: NOW,
            expires: NOW + 60,
        }
    }

    fn verify(record: &NodeRecord, now: u64) -> Result<NodeRecord, Error> {
        let issuer = issuer(1);
        let signed = SignedRecord::sign(record, issuer.signing_key());
        signed.verify(&issuer.verifying_key(), &network(), now)
    }

    #[test]
    fn a_record_survives_its_way_over_the_wire() {
        let issuer = issuer(1);
        let json =
            serde_json::to_string(&SignedRecord::sign(&record(), issuer.signing_key())).unwrap();
        let signed: SignedRecord = serde_json::from_str(&json).unwrap();
        let got = signed.verify(&issuer.verifying_key(), &network(), NOW);
        assert_eq!(got.unwrap(), record());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let issuer = issuer(1);
        let signed = SignedRecord::sign(&record(), issuer.signing_key());
        let key = issuer.verifying_key();
        for at in 0..signed.record.len() {
            let mut bad = signed.clone();
            bad.record[at] ^= 1;
            let error = bad.verify(&key, &network(), NOW).unwrap_err();
            assert_eq!(error.code(), "record_unsigned");
        }
        for at in 0..signed.signature.len() {
            let mut bad = signed.clone();
            bad.signature[at] ^= 1;
            let error = bad.verify(&key, &network(), NOW).unwrap_err();
            assert_eq!(error.code(), "record_unsigned");
        }
        let mut bad = signed.clone();
        bad.signature.pop();
        assert!(bad.verify(&key, &network(), NOW).is_err());
    }

    #[test]
    fn another_issuer_or_network_is_refused() {
        let signed = SignedRecord::sign(&record(), issuer(1).signing_key());
        let other = issuer(2).verifying_key();
        let error = signed.verify(&other, &network(), NOW).unwrap_err();
        assert_eq!(error.code(), "record_unsigned");
        let key = issuer(1).verifying_key();
        let away = "away".parse().unwrap();
        let error = signed.verify(&key, &away, NOW).unwrap_err();
        assert_eq!(error.code(), "record_foreign");
    }

    #[test]
    fn a_record_holds_only_in_its_time() {
        assert!(verify(&record(), NOW).is_ok());
        assert!(verify(&record(), NOW + 59).is_ok());
        assert_eq!(
            verify(&record(), NOW + 60).unwrap_err().code(),
            "record_expired"
        );
        assert!(verify(&record(), NOW - MAX_CLOCK_SKEW).is_ok());
        let early = verify(&record(), NOW - MAX_CLOCK_SKEW - 1);
        assert_eq!(early.unwrap_err().code(), "record_expired");
    }

    #[test]
    fn a_signed_record_still_has_limits() {
        let long = NodeRecord {
            owner: "x".repeat(MAX_LABEL_LEN + 1),
            ..record()
        };
        assert_eq!(verify(&long, NOW).unwrap_err().code(), "record_invalid");
        let many = NodeRecord {
            groups: vec!["g".to_owned(); MAX_GROUPS + 1],
            ..record()
        };
        assert_eq!(verify(&many, NOW).unwrap_err().code(), "record_invalid");
        let nobody = NodeRecord {
            key: NodeKey::from_bytes([0; 32]),
            ..record()
        };
        assert_eq!(verify(&nobody, NOW).unwrap_err().code(), "record_invalid");
    }

    #[test]
    fn signed_nonsense_is_refused() {
        let issuer = issuer(1);
        for bytes in [&b"{}"[..], b"", b"[1]", &[b'['; 4096]] {
            let signature = issuer.signing_key().sign(&signed_bytes(bytes));
            let signed = SignedRecord {
                record: bytes.to_vec(),
                signature: signature.to_bytes().to_vec(),
            };
            let error = signed.verify(&issuer.verifying_key(), &network(), NOW);
            assert_eq!(error.unwrap_err().code(), "record_invalid");
        }
    }

    #[test]
    fn b19_names_are_what_a_shell_can_hold() {
        for good in ["a", "dev-1", "A_b", "9", &"x".repeat(63)] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "_a", "a b", "a:b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
            assert!(bad.parse::<NetworkId>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<NodeName>("\"a b\"").is_err());
    }
}
