//! Who a client of the relay is: an X25519 key pair.
//!
//! A [`NodeKey`] is the public half. It is the address of a client on the
//! relay and, for a node of the mesh, the same key that its WireGuard tunnels
//! use. In text it is 64 lower-case hex digits. A [`NodeSecret`] is the private
//! half; it never prints itself and leaves no copy in memory when dropped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Error;

/// Length in bytes of a public or private key.
pub const KEY_LEN: usize = 32;

/// An X25519 public key: the address of a client on the relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey([u8; KEY_LEN]);

impl NodeKey {
    /// Wraps the bytes of a public key. Any 32 bytes are accepted: whether
    /// somebody holds the private half is proven by a handshake, not here.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The key at the start of `bytes` and what follows it, if `bytes` is long
    /// enough to hold one.
    pub fn split_first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (key, rest) = bytes.split_first_chunk::<KEY_LEN>()?;
        Some((Self(*key), rest))
    }

    /// The bytes of the key, as they go on the wire.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Whether this is the all-zero key, with which anybody shares the same
    /// secret; it names nobody.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; KEY_LEN]
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeKey {
    /// Eight digits: enough to tell keys apart in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}..)", hex::encode(&self.0[..4]))
    }
}

impl FromStr for NodeKey {
    type Err = Error;

    /// Reads 64 hex digits, in either case.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = [0; KEY_LEN];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Error::BadKey)?;
        Ok(Self(bytes))
    }
}

impl Serialize for NodeKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// An X25519 private key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NodeSecret([u8; KEY_LEN]);

impl NodeSecret {
    /// Wraps 32 random (or derived) bytes. They are kept as given; clamping
    /// happens where the key is used, as X25519 says.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes given to [`NodeSecret::from_bytes`].
    pub const fn to_bytes(&self) -> [u8; KEY_LEN] {
        self.0
    }

    /// The public half.
    pub fn public(&self) -> NodeKey {
        NodeKey(self.for_box().public_key().to_bytes())
    }

    pub(crate) fn for_box(&self) -> crypto_box::SecretKey {
        crypto_box::SecretKey::from_bytes(self.0)
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_half_is_the_curve_point() {
        // From an independent implementation of RFC 7748.
        for (secret, public) in [
            (
                1,
                "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209",
            ),
            (
                2,
                "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59",
            ),
        ] {
            let key = NodeSecret::from_bytes([secret; 32]).public();
            assert_eq!(key.to_string(), public);
        }
    }

    #[test]
    fn text_is_64_hex_digits_and_nothing_else() {
        let key = NodeKey::from_bytes([0xab; 32]);
        let text = "ab".repeat(32);
        assert_eq!(key.to_string(), text);
        assert_eq!(text.parse::<NodeKey>().unwrap(), key);
        assert_eq!(text.to_uppercase().parse::<NodeKey>().unwrap(), key);
        for bad in ["", "ab", &"ab".repeat(33), &"zz".repeat(32), &text[1..]] {
            assert!(bad.parse::<NodeKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn serde_uses_the_text() {
        let key = NodeKey::from_bytes([7; 32]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{key}\""));
        assert_eq!(serde_json::from_str::<NodeKey>(&json).unwrap(), key);
        assert!(serde_json::from_str::<NodeKey>("\"00\"").is_err());
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = NodeSecret::from_bytes([9; 32]);
        assert_eq!(format!("{secret:?}"), "NodeSecret([redacted])");
        assert_eq!(secret.to_bytes(), [9; 32]);
    }

    #[test]
    fn split_first_needs_a_whole_key() {
        assert!(NodeKey::split_first(&[0; 31]).is_none());
        let bytes: Vec<u8> = (0..40).collect();
        let (key, rest) = NodeKey::split_first(&bytes).unwrap();
        assert_eq!(key.as_bytes()[..], bytes[..32]);
        assert_eq!(rest, &bytes[32..]);
    }
}
