//! How a node proves itself in a single HTTP request.
//!
//! The coordination connection proves a node once; a request beside it has a
//! header of its own:
//!
//! ```text
//! Authorization: CW-Node <network>.<key>.<time>.<nonce>.<body>.<signature>
//! ```
//!
//! `key` is the node's WireGuard key in hexadecimal, `time` unix seconds,
//! `nonce` random, `body` the SHA-256 of the body (both base64url), and the
//! signature covers these, the method, the path with its query, and the issuer
//! that the node pinned, so that it is of use for this one request to this one
//! network alone. The relay takes a nonce once within [`REQUEST_WINDOW`].

use std::fmt;
use std::str::FromStr;

use derp::NodeKey;
use ed25519_dalek::SigningKey;
use mesh::{NetworkId, SignKey};
use sha2::{Digest as _, Sha256};

use super::{BodyHash, Malformed, Nonce, Signature, push_sized};

/// The scheme of the header.
pub(crate) const SCHEME: &str = "CW-Node";

/// How far the clocks of a node and its relay may be apart, seconds either way.
pub(crate) const REQUEST_WINDOW: u64 = 120;

/// A request, as its signature covers it.
pub(crate) struct Request<'a> {
    /// Of the network, as the signer knows it.
    pub(crate) issuer: &'a SignKey,
    /// In capitals.
    pub(crate) method: &'a str,
    /// With the query.
    pub(crate) path: &'a str,
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// In which network.
    pub(crate) network: NetworkId,
    /// Which node.
    pub(crate) key: NodeKey,
    /// Unix seconds.
    pub(crate) time: u64,
    /// Never used before.
    pub(crate) nonce: Nonce,
    /// Of the body.
    pub(crate) body: BodyHash,
    /// Over all of it and the request.
    pub(crate) signature: Signature,
}

/// Who signs.
pub(crate) struct Signer<'a> {
    /// In which network.
    pub(crate) network: &'a NetworkId,
    /// The node's WireGuard key.
    pub(crate) key: NodeKey,
    /// The node's signing key.
    pub(crate) signing: &'a SigningKey,
}

impl Credential {
    /// Signs `request` with its `body`.
    pub(crate) fn sign(
        signer: &Signer<'_>,
        request: &Request<'_>,
        body: &[u8],
        time: u64,
        nonce: Nonce,
    ) -> Self {
        let mut credential = Self {
            network: signer.network.clone(),
            key: signer.key,
            time,
            nonce,
            body: BodyHash::of(body),
            signature: Signature([0; 64]),
        };
        credential.signature = Signature::sign(signer.signing, &credential.message(request));
        credential
    }

    /// Whether the holder of `key` signed it for `request`.
    pub(crate) fn is_by(&self, key: &SignKey, request: &Request<'_>) -> bool {
        self.signature.verifies(key, &self.message(request))
    }

    /// The bytes under the signature: every field of fixed length or behind its
    /// length.
    fn message(&self, request: &Request<'_>) -> Vec<u8> {
        let mut message = b"codewire request v1\0".to_vec();
        message.extend_from_slice(request.issuer.as_bytes());
        push_sized(&mut message, request.method.as_bytes());
        push_sized(&mut message, request.path.as_bytes());
        push_sized(&mut message, self.network.as_str().as_bytes());
        message.extend_from_slice(self.key.as_bytes());
        message.extend_from_slice(&self.time.to_be_bytes());
        message.extend_from_slice(&self.nonce.0);
        message.extend_from_slice(&self.body.0);
        message
    }
}

impl BodyHash {
    /// Of a whole body.
    pub(crate) fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            key,
            time,
            nonce,
            body,
            signature,
        } = self;
        write!(f, "{network}.{key}.{time}.{nonce}.{body}.{signature}")
    }
}

impl FromStr for Credential {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = Malformed("not the credential of a node");
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(malformed);
        let credential = Self {
            network: next()?.parse().map_err(|_| malformed)?,
            key: next()?.parse().map_err(|_| malformed)?,
            time: next()?.parse().map_err(|_| malformed)?,
            nonce: next()?.parse()?,
            body: next()?.parse()?,
            signature: next()?.parse()?,
        };
        match parts.next() {
            None => Ok(credential),
            Some(_) => Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::{Identity, Seed};

    use super::*;

    fn signed() -> (Credential, Identity) {
        let me = Identity::from_seed(&Seed::from_bytes([7; 32]));
        let network = "home".parse().unwrap();
        let signer = Signer {
            network: &network,
            key: me.key(),
            signing: me.signing_key(),
        };
        let nonce = Nonce([3; 32]);
        let credential = Credential::sign(&signer, &request(), b"body", 1_000, nonce);
        (credential, me)
    }

    fn request() -> Request<'static> {
        const ISSUER: SignKey = SignKey::from_bytes([9; 32]);
        Request {
            issuer: &ISSUER,
            method: "PUT",
            path: "/api/v1/kv/a/b?x=1",
        }
    }

    #[test]
    fn it_travels_as_text() {
        let (credential, me) = signed();
        let read: Credential = credential.to_string().parse().unwrap();
        assert_eq!(read, credential);
        assert!(read.is_by(&me.verifying_key(), &request()));
    }

    #[test]
    fn b04_s25_it_is_good_for_one_request_alone() {
        let (credential, me) = signed();
        let key = me.verifying_key();
        let other_issuer = SignKey::from_bytes([8; 32]);
        for other in [
            Request {
                method: "GET",
                ..request()
            },
            Request {
                path: "/api/v1/kv/a/c?x=1",
                ..request()
            },
            Request {
                issuer: &other_issuer,
                ..request()
            },
        ] {
            assert!(!credential.is_by(&key, &other));
        }
        let stranger = Identity::from_seed(&Seed::from_bytes([8; 32]));
        assert!(!credential.is_by(&stranger.verifying_key(), &request()));
        let changes: [fn(&mut Credential); 5] = [
            |credential| credential.network = "other".parse().unwrap(),
            |credential| credential.key = NodeKey::from_bytes([1; 32]),
            |credential| credential.time += 1,
            |credential| credential.nonce = Nonce([4; 32]),
            |credential| credential.body = BodyHash::of(b"other"),
        ];
        for change in changes {
            let mut changed = credential.clone();
            change(&mut changed);
            assert!(!changed.is_by(&key, &request()), "{changed}");
        }
    }

    #[test]
    fn other_text_is_none() {
        let (credential, _) = signed();
        let text = credential.to_string();
        for bad in [
            "",
            ".....",
            // Less of the network's name is another name, which is for the signature to tell.
            &text[..text.len() - 1],
            &format!("{text}.x"),
            &text.replacen("1000", "-1", 1),
        ] {
            assert!(bad.parse::<Credential>().is_err(), "{bad}");
        }
    }
}
