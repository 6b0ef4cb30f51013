//! Who a node is: one seed, two keys, one address.
//!
//! The 32-byte [`Seed`] is the only secret on disk. HKDF-SHA256 with two labels
//! makes of it an X25519 key (WireGuard and relay) and an Ed25519 key
//! (signatures and TLS), so that neither key says anything about the other.
//! The overlay address is `fd7a:115c:a1e0::/48` followed by the first 80 bits
//! of a hash of the X25519 key: nobody can claim an address without the key.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use derp::{NodeKey, NodeSecret};
use ed25519_dalek::{SigningKey, VerifyingKey};
use hkdf::Hkdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Error;

const SALT: &[u8] = b"codewire mesh identity v1";
const LABEL_X25519: &[u8] = b"x25519";
const LABEL_ED25519: &[u8] = b"ed25519";
const ADDRESS_DOMAIN: &[u8] = b"codewire mesh address v1";
const ADDRESS_PREFIX: [u8; 6] = [0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0];

/// The one secret of a node, from which its keys follow.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Takes 32 bytes from a cryptographic source of randomness, or from disk.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be written to a file that only the owner can read.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed([redacted])")
    }
}

/// The keys of a node.
#[derive(Clone)]
pub struct Identity {
    secret: NodeSecret,
    key: NodeKey,
    signing: SigningKey,
}

impl Identity {
    /// Derives both keys. The same seed always gives the same identity.
    pub fn from_seed(seed: &Seed) -> Self {
        let secret = NodeSecret::from_bytes(*derive(seed, LABEL_X25519));
        let signing = SigningKey::from_bytes(&derive(seed, LABEL_ED25519));
        let key = secret.public();
        Self {
            secret,
            key,
            signing,
        }
    }

    /// The public X25519 key: the node's name on the relay and in WireGuard.
    pub const fn key(&self) -> NodeKey {
        self.key
    }

    /// The private X25519 key.
    pub const fn secret(&self) -> &NodeSecret {
        &self.secret
    }

    /// The private Ed25519 key.
    pub const fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// The public Ed25519 key.
    pub fn verifying_key(&self) -> SignKey {
        SignKey::from(&self.signing.verifying_key())
    }

    /// The node's address inside the overlay.
    pub fn address(&self) -> Ipv6Addr {
        address_of(&self.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A public Ed25519 key; in text 43 characters of base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignKey([u8; 32]);

impl SignKey {
    /// Wraps the bytes. Whether they are a point of the curve shows when a
    /// signature is checked against them.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The compressed point.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn verifier(&self) -> Option<VerifyingKey> {
        VerifyingKey::from_bytes(&self.0).ok()
    }
}

impl From<&VerifyingKey> for SignKey {
    fn from(key: &VerifyingKey) -> Self {
        Self(key.to_bytes())
    }
}

impl fmt::Display for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignKey({self})")
    }
}

impl FromStr for SignKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(Error::KeyInvalid)
    }
}

impl Serialize for SignKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SignKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The overlay address that belongs to a key.
pub fn address_of(key: &NodeKey) -> Ipv6Addr {
    let mut hash = Sha256::new();
    hash.update(ADDRESS_DOMAIN);
    hash.update(key.as_bytes());
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&ADDRESS_PREFIX);
    octets[6..].copy_from_slice(&hash.finalize()[..10]);
    octets.into()
}

fn derive(seed: &Seed, label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(SALT), &seed.0)
        .expand(label, out.as_mut())
        .expect("32 bytes is a length that HKDF-SHA256 can give");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_identity_and_another_seed_another() {
        let one = Identity::from_seed(&Seed::from_bytes([1; 32]));
        let again = Identity::from_seed(&Seed::from_bytes([1; 32]));
        let two = Identity::from_seed(&Seed::from_bytes([2; 32]));
        assert_eq!(one.key(), again.key());
        assert_eq!(one.verifying_key(), again.verifying_key());
        assert_ne!(one.key(), two.key());
        assert_ne!(one.verifying_key(), two.verifying_key());
        assert_ne!(one.address(), two.address());
        assert_ne!(one.secret().to_bytes(), one.signing_key().to_bytes());
    }

    #[test]
    fn identities_do_not_move_between_versions() {
        // Changing any label or the order of derivation would rename every node.
        let id = Identity::from_seed(&Seed::from_bytes([7; 32]));
        assert_eq!(id.key().to_string(), KEY_OF_SEVENS);
        assert_eq!(id.verifying_key().to_string(), SIGN_KEY_OF_SEVENS);
        assert_eq!(id.address().to_string(), ADDRESS_OF_SEVENS);
    }

    #[test]
    fn addresses_lie_in_the_overlay_prefix() {
        let address = address_of(&NodeKey::from_bytes([3; 32]));
        assert_eq!(address.octets()[..6], ADDRESS_PREFIX);
    }

    #[test]
    fn secrets_do_not_print_themselves() {
        let seed = Seed::from_bytes([0x41; 32]);
        assert_eq!(format!("{seed:?}"), "Seed([redacted])");
        let id = Identity::from_seed(&seed);
        assert!(!format!("{id:?}").contains(&hex::encode(id.secret().to_bytes())[..8]));
    }

    #[test]
    fn a_sign_key_survives_text_and_json() {
        let key = Identity::from_seed(&Seed::from_bytes([5; 32])).verifying_key();
        assert_eq!(key.to_string().parse::<SignKey>().unwrap(), key);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<SignKey>(&json).unwrap(), key);
        for bad in ["", "AAAA", "*", &format!("{key}A")] {
            assert_eq!(bad.parse::<SignKey>().unwrap_err().code(), "key_invalid");
        }
    }

    // Computed by an independent implementation.
    const KEY_OF_SEVENS: &str = "107e560048e3e85286397395f1dc85b0f7ef9871746b6df3bac0cdb29c8fc531";
    const SIGN_KEY_OF_SEVENS: &str = "j16Nx4HinlHoJ7wZTQeYqhMm-FKjxm5FF_okUHejeM8";
    const ADDRESS_OF_SEVENS: &str = "fd7a:115c:a1e0:c455:e8bc:7a37:9566:1a97";
}
