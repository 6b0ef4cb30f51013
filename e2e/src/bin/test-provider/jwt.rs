//! Id tokens, and what can be wrong with them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::{Value, json};

/// The key of this provider, which signs for nobody else.
const RSA: &[u8] = include_bytes!("rsa.pk8");

/// What to get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lie {
    /// Nothing, and signed with the other key.
    EdDsa,
    /// The nonce of another login.
    Nonce,
    /// No nonce.
    NoNonce,
    /// Another provider's.
    Issuer,
    /// For another client.
    Audience,
    /// For this client and another.
    TwoAudiences,
    /// For this client, used by another.
    Party,
    /// An hour over.
    Expired,
    /// An hour from now.
    Future,
    /// Without a signature.
    None,
    /// Signed with the public key, as if it were a secret.
    Hs256,
    /// Signed by somebody else, who says it is the known key.
    Foreign,
    /// Signed by somebody else, with a key nobody has heard of.
    UnknownKey,
    /// Changed after it was signed.
    Changed,
    /// Without who it is.
    NoSubject,
    /// No token at all.
    Garbage,
}

/// The provider's keys, and one that is not its own.
pub(crate) struct Keys {
    rsa: RsaKeyPair,
    ed: Ed25519KeyPair,
    foreign: Ed25519KeyPair,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let ed = || {
            let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
            Ed25519KeyPair::from_pkcs8(made.as_ref()).expect("a key")
        };
        Self {
            rsa: RsaKeyPair::from_pkcs8(RSA).expect("the key is one"),
            ed: ed(),
            foreign: ed(),
        }
    }

    /// As others may know them.
    pub(crate) fn public(&self) -> Value {
        let rsa = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        json!({ "keys": [
            {
                "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256",
                "n": encode(&rsa.n), "e": encode(&rsa.e),
            },
            {
                "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA",
                "x": encode(self.ed.public_key().as_ref()),
            },
        ]})
    }

    /// Signs `claims`, which [`Lie::distort`] has seen already.
    pub(crate) fn sign(&self, claims: &Value, lie: Option<Lie>) -> String {
        let (alg, kid) = match lie {
            Some(Lie::EdDsa | Lie::Foreign) => ("EdDSA", "ed"),
            Some(Lie::UnknownKey) => ("EdDSA", "nobody's"),
            Some(Lie::None) => ("none", "rsa"),
            Some(Lie::Hs256) => ("HS256", "rsa"),
            Some(Lie::Garbage) => return "not.a.token".to_owned(),
            _ => ("RS256", "rsa"),
        };
        let head = json!({ "alg": alg, "kid": kid, "typ": "JWT" });
        let text = format!(
            "{}.{}",
            encode(head.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = match lie {
            Some(Lie::EdDsa) => self.ed.sign(text.as_bytes()).as_ref().to_vec(),
            Some(Lie::Foreign | Lie::UnknownKey) => {
                self.foreign.sign(text.as_bytes()).as_ref().to_vec()
            }
            Some(Lie::None) => Vec::new(),
            Some(Lie::Hs256) => {
                let public = self.rsa.public();
                let key = hmac::Key::new(hmac::HMAC_SHA256, public.as_ref());
                hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
            }
            _ => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let random = SystemRandom::new();
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .expect("it signs");
                signature
            }
        };
        let text = if lie == Some(Lie::Changed) {
            let mut claims = claims.clone();
            claims["sub"] = json!("somebody-else");
            let head = text.split('.').next().unwrap_or_default();
            format!("{head}.{}", encode(claims.to_string().as_bytes()))
        } else {
            text
        };
        format!("{text}.{}", encode(&signature))
    }
}

impl Lie {
    /// What this makes of the claims.
    pub(crate) fn distort(self, claims: &mut Value, client: &str) {
        match self {
            Self::Nonce => claims["nonce"] = json!("of-another-login"),
            Self::NoNonce => drop(claims.as_object_mut().and_then(|it| it.remove("nonce"))),
            Self::Issuer => claims["iss"] = json!("http://127.0.0.1:1"),
            Self::Audience => claims["aud"] = json!("another-client"),
            Self::TwoAudiences => claims["aud"] = json!([client, "another-client"]),
            Self::Party => claims["azp"] = json!("another-client"),
            Self::Expired => {
                for key in ["iat", "exp"] {
                    let then = claims[key].as_u64().unwrap_or_default() - 3600;
                    claims[key] = json!(then);
                }
            }
            Self::Future => {
                for key in ["iat", "exp"] {
                    let then = claims[key].as_u64().unwrap_or_default() + 3600;
                    claims[key] = json!(then);
                }
            }
            Self::NoSubject => drop(claims.as_object_mut().and_then(|it| it.remove("sub"))),
            Self::EdDsa
            | Self::None
            | Self::Hs256
            | Self::Foreign
            | Self::UnknownKey
            | Self::Changed
            | Self::Garbage => {}
        }
    }
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
