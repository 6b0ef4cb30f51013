//! How the key of a network's issuer is followed by another.
//!
//! A *hand-over* is a statement, signed by the key that goes and by the one
//! that comes, that from its number on the second speaks for the network. The
//! hand-overs of a network form a chain from its first issuer to the present
//! one. A node takes a link only behind those it has: it believes the next key
//! because the one it believed before says so, whoever brings it the message.
//! Two links of one number are a fork; whichever came first stays, the other
//! is refused. So neither a relay whose database was put back nor the holder
//! of a key that was retired can lead a node elsewhere. That a link is signed
//! by its new key too lets a node that joined late, with the present key in
//! its invite, believe what came before.
//!
//! What the old key has signed is believed until the hand-over's `retires`;
//! meanwhile everything is signed again and told to everybody. The relay
//! forgets the old key's secret in the transaction that hands over.
//!
//! An *obituary* is the last that an issuer signs: the network is no more.
//!
//! Both travel as `{"…": base64url(JSON), …signatures}`, each signature over a
//! prefix of its own and exactly these bytes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use mesh::{NetworkId, NodeRecord, SignKey, SignedRecord};
use serde::{Deserialize, Serialize};

use super::Signature;

const HANDOVER: &[u8] = b"codewire handover v1\0";
const OBITUARY: &[u8] = b"codewire obituary v1\0";

/// Hand-overs of one network: with one a month, the better part of a century.
pub(crate) const MAX_HANDOVERS: usize = 1_000;

/// The longest that a retired key is believed, seconds: 30 days.
pub(crate) const MAX_OVERLAP: u64 = 30 * 24 * 3600;

/// The longest statement, bytes of base64url; one is about 400.
const MAX_STATEMENT: usize = 2_048;

/// Keys that are tried on one signature: who hands over five times within the
/// overlap lets the first key go early.
const MAX_BELIEVED: usize = 4;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// In which it holds.
    pub(crate) network: NetworkId,
    /// 1 for the first.
    pub(crate) number: u32,
    /// The key that goes.
    pub(crate) old: SignKey,
    /// The key that comes.
    pub(crate) new: SignKey,
    /// Unix seconds.
    pub(crate) issued: u64,
    /// Until when what `old` has signed is believed; unix seconds.
    pub(crate) retires: u64,
}

/// A [`Handover`] as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHandover {
    handover: String,
    by_old: Signature,
    by_new: Signature,
}

/// The end of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Obituary {
    pub(crate) network: NetworkId,
    /// Its first issuer, which tells it from others of its name.
    pub(crate) root: SignKey,
    /// Unix seconds.
    pub(crate) deleted: u64,
}

/// An [`Obituary`] as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedObituary {
    obituary: String,
    signature: Signature,
}

/// Why a hand-over or an obituary is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("it cannot be read")]
    Unreadable,
    #[error("it is not signed by the keys that it needs")]
    Unsigned,
    #[error("it is of another network")]
    Foreign,
    #[error("another key was handed over to in its place")]
    Forked,
    #[error("it does not follow the last one known")]
    Gap,
    #[error("there are too many")]
    TooMany,
}

impl SignedHandover {
    /// Signs by both keys, which are those that the hand-over names.
    pub(crate) fn sign(handover: &Handover, old: &SigningKey, new: &SigningKey) -> Self {
        let bytes = serde_json::to_vec(handover).expect("a hand-over is strings and numbers");
        let message = [HANDOVER, &bytes].concat();
        Self {
            handover: URL_SAFE_NO_PAD.encode(&bytes),
            by_old: Signature::sign(old, &message),
            by_new: Signature::sign(new, &message),
        }
    }

    /// What it says, if both keys say so.
    pub(crate) fn verify(&self, network: &NetworkId) -> Result<Handover, Broken> {
        let bytes = decode(&self.handover)?;
        let handover: Handover = serde_json::from_slice(&bytes).map_err(|_| Broken::Unreadable)?;
        let message = [HANDOVER, &bytes].concat();
        let signed = handover.old != handover.new
            && self.by_old.verifies(&handover.old, &message)
            && self.by_new.verifies(&handover.new, &message);
        if !signed {
            return Err(Broken::Unsigned);
        }
        if handover.network != *network {
            return Err(Broken::Foreign);
        }
        Ok(handover)
    }
}

impl SignedObituary {
    /// Signs as the last issuer.
    pub(crate) fn sign(obituary: &Obituary, issuer: &SigningKey) -> Self {
        let bytes = serde_json::to_vec(obituary).expect("an obituary is strings and numbers");
        Self {
            signature: Signature::sign(issuer, &[OBITUARY, &bytes].concat()),
            obituary: URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    /// When the network of `issuers` ended, if its issuer says so.
    pub(crate) fn verify(&self, issuers: &Issuers) -> Result<u64, Broken> {
        let bytes = decode(&self.obituary)?;
        let message = [OBITUARY, &bytes].concat();
        if !self.signature.verifies(issuers.current(), &message) {
            return Err(Broken::Unsigned);
        }
        let obituary: Obituary = serde_json::from_slice(&bytes).map_err(|_| Broken::Unreadable)?;
        if obituary.network != issuers.network || obituary.root != issuers.root {
            return Err(Broken::Foreign);
        }
        Ok(obituary.deleted)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Broken> {
    if text.len() > MAX_STATEMENT {
        return Err(Broken::Unreadable);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Broken::Unreadable)
}

/// The keys that have spoken for a network, by their chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuers {
    network: NetworkId,
    root: SignKey,
    links: Vec<(Handover, SignedHandover)>,
}

impl Issuers {
    /// The first issuer alone.
    pub(crate) const fn new(network: NetworkId, root: SignKey) -> Self {
        Self {
            network,
            root,
            links: Vec::new(),
        }
    }

    /// The first issuer, and those that followed.
    pub(crate) fn restore(
        network: NetworkId,
        root: SignKey,
        handovers: &[SignedHandover],
    ) -> Result<Self, Broken> {
        let mut issuers = Self::new(network, root);
        issuers.extend(handovers)?;
        Ok(issuers)
    }

    /// The first issuer, whose key never changes.
    pub(crate) const fn root(&self) -> &SignKey {
        &self.root
    }

    /// How often was handed over.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.links.len()).unwrap_or(u32::MAX)
    }

    /// Who signs now.
    pub(crate) fn current(&self) -> &SignKey {
        self.links.last().map_or(&self.root, |(link, _)| &link.new)
    }

    /// Whether a key is or was the issuer's.
    pub(crate) fn includes(&self, key: &SignKey) -> bool {
        self.root == *key || self.links.iter().any(|(link, _)| link.new == *key)
    }

    /// The links behind the first `known`.
    pub(crate) fn after(&self, known: u32) -> Vec<SignedHandover> {
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let links = self.links.iter().skip(known);
        links.map(|(_, signed)| signed.clone()).collect()
    }

    /// Takes links that follow the last one known, or are known; whether there
    /// was a new one. Those before one that is broken are taken.
    pub(crate) fn extend(&mut self, handovers: &[SignedHandover]) -> Result<bool, Broken> {
        let before = self.links.len();
        for signed in handovers {
            let link = signed.verify(&self.network)?;
            let number = usize::try_from(link.number).unwrap_or(usize::MAX);
            let known = number.checked_sub(1).and_then(|at| self.links.get(at));
            match known {
                Some((known, _)) if *known == link => {}
                Some(_) => return Err(Broken::Forked),
                None if self.links.len() >= MAX_HANDOVERS => return Err(Broken::TooMany),
                None if number == self.links.len() + 1 => {
                    if link.old != *self.current() {
                        return Err(Broken::Forked);
                    }
                    // One that was the issuer before may be known to others by now.
                    if self.includes(&link.new) {
                        return Err(Broken::Forked);
                    }
                    self.links.push((link, signed.clone()));
                }
                None => return Err(Broken::Gap),
            }
        }
        Ok(self.links.len() > before)
    }

    /// Whether what the key of this number has signed is still believed.
    pub(crate) fn believes(&self, number: u32, now: u64) -> bool {
        let Some(behind) = self.count().checked_sub(number) else {
            return false;
        };
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        match self.links.get(at) {
            Some((next, _)) => {
                let close = usize::try_from(behind).is_ok_and(|behind| behind < MAX_BELIEVED);
                close && now < next.retires.min(next.issued.saturating_add(MAX_OVERLAP))
            }
            None => true,
        }
    }

    /// The keys whose signatures are believed now, with their numbers, the newest first.
    pub(crate) fn believed(&self, now: u64) -> impl Iterator<Item = (u32, &SignKey)> {
        let keys = std::iter::once(&self.root).chain(self.links.iter().map(|(link, _)| &link.new));
        let keys: Vec<_> = (0..).zip(keys).collect();
        let newest = keys.into_iter().rev().take(MAX_BELIEVED);
        newest.filter(move |(number, _)| self.believes(*number, now))
    }

    /// A record and the number of the key that signed it.
    ///
    /// # Errors
    ///
    /// Those of [`SignedRecord::verify`].
    pub(crate) fn verify(
        &self,
        record: &SignedRecord,
        now: u64,
    ) -> Result<(NodeRecord, u32), mesh::Error> {
        for (number, key) in self.believed(now) {
            match record.verify(key, &self.network, now) {
                Err(mesh::Error::RecordUnsigned) => {}
                verified => return verified.map(|record| (record, number)),
            }
        }
        Err(mesh::Error::RecordUnsigned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn public(n: u8) -> SignKey {
        SignKey::from(&key(n).verifying_key())
    }

    fn home() -> NetworkId {
        "home".parse().unwrap()
    }

    fn link(number: u32, old: u8, new: u8) -> SignedHandover {
        let handover = Handover {
            network: home(),
            number,
            old: public(old),
            new: public(new),
            issued: NOW,
            retires: NOW + 100,
        };
        SignedHandover::sign(&handover, &key(old), &key(new))
    }

    fn after(links: &[SignedHandover]) -> Issuers {
        Issuers::restore(home(), public(1), links).unwrap()
    }

    #[test]
    fn a_chain_leads_from_the_first_key_to_the_present_one() {
        let mut issuers = after(&[]);
        assert_eq!(issuers.current(), &public(1));
        assert_eq!(issuers.extend(&[link(1, 1, 2), link(2, 2, 3)]), Ok(true));
        assert_eq!((issuers.current(), issuers.count()), (&public(3), 2));
        assert!(issuers.includes(&public(1)) && issuers.includes(&public(2)));
        assert!(!issuers.includes(&public(4)));
        // Told again it changes nothing.
        assert_eq!(issuers.extend(&issuers.clone().after(0)), Ok(false));
        assert_eq!(issuers.after(1), [link(2, 2, 3)]);
        assert!(issuers.after(2).is_empty() && issuers.after(9).is_empty());
        let json = serde_json::to_string(&issuers.after(0)).unwrap();
        let links: Vec<SignedHandover> = serde_json::from_str(&json).unwrap();
        assert_eq!(after(&links), issuers);
    }

    #[test]
    fn only_the_key_that_was_believed_names_the_next() {
        // By nobody's key, by one retired, in place of one known, out of order, back again.
        for (known, next, why) in [
            (vec![], link(1, 9, 2), Broken::Forked),
            (vec![link(1, 1, 2)], link(2, 1, 3), Broken::Forked),
            (vec![link(1, 1, 2)], link(1, 1, 3), Broken::Forked),
            (vec![link(1, 1, 2)], link(3, 2, 3), Broken::Gap),
            (vec![link(1, 1, 2)], link(0, 2, 3), Broken::Gap),
            (vec![link(1, 1, 2)], link(u32::MAX, 2, 3), Broken::Gap),
            (vec![link(1, 1, 2)], link(2, 2, 1), Broken::Forked),
        ] {
            let mut issuers = after(&known);
            let before = issuers.clone();
            assert_eq!(issuers.extend(&[next]), Err(why));
            assert_eq!(issuers, before);
        }
        let mut elsewhere = Issuers::new("work".parse().unwrap(), public(1));
        assert_eq!(elsewhere.extend(&[link(1, 1, 2)]), Err(Broken::Foreign));
    }

    #[test]
    fn every_flipped_bit_of_a_hand_over_is_noticed() {
        let good = link(1, 1, 2);
        let bytes = URL_SAFE_NO_PAD.decode(&good.handover).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let bad = SignedHandover {
                handover: URL_SAFE_NO_PAD.encode(bad),
                ..good.clone()
            };
            assert!(after(&[]).extend(&[bad]).is_err(), "byte {at}");
        }
        for at in 0..64 {
            let (mut one, mut two) = (good.clone(), good.clone());
            one.by_old.0[at] ^= 1;
            two.by_new.0[at] ^= 1;
            assert_eq!(after(&[]).extend(&[one]), Err(Broken::Unsigned));
            assert_eq!(after(&[]).extend(&[two]), Err(Broken::Unsigned));
        }
        let long = SignedHandover {
            handover: "A".repeat(MAX_STATEMENT + 1),
            ..good
        };
        assert_eq!(after(&[]).extend(&[long]), Err(Broken::Unreadable));
    }

    #[test]
    fn a_retired_key_is_believed_for_its_overlap_and_no_longer() {
        let issuers = after(&[link(1, 1, 2)]);
        let believed = |now| {
            issuers
                .believed(now)
                .map(|(_, key)| *key)
                .collect::<Vec<_>>()
        };
        assert_eq!(believed(NOW + 99), [public(2), public(1)]);
        assert_eq!(believed(NOW + 100), [public(2)]);
        assert!(!issuers.believes(2, NOW), "there is no such key");

        // An overlap beyond the limit is cut to it, and one through many hand-overs too.
        let mut forever = Handover {
            network: home(),
            number: 1,
            old: public(1),
            new: public(2),
            issued: NOW,
            retires: u64::MAX,
        };
        let long = after(&[SignedHandover::sign(&forever, &key(1), &key(2))]);
        assert!(long.believes(0, NOW + MAX_OVERLAP - 1));
        assert!(!long.believes(0, NOW + MAX_OVERLAP));
        let mut many = after(&[]);
        for n in 1..=5 {
            forever.number = u32::from(n);
            (forever.old, forever.new) = (public(n), public(n + 1));
            let link = SignedHandover::sign(&forever, &key(n), &key(n + 1));
            many.extend(&[link]).unwrap();
        }
        assert_eq!(many.believed(NOW).count(), MAX_BELIEVED);
        assert!(!many.believes(1, NOW) && many.believes(2, NOW));
    }

    #[test]
    fn an_obituary_is_believed_from_the_last_issuer_alone() {
        let obituary = Obituary {
            network: home(),
            root: public(1),
            deleted: NOW,
        };
        let issuers = after(&[link(1, 1, 2)]);
        let by = |n| SignedObituary::sign(&obituary, &key(n)).verify(&issuers);
        assert_eq!(by(2), Ok(NOW));
        assert_eq!(by(1), Err(Broken::Unsigned));
        // Another network of that name, in its time.
        let other = Obituary {
            root: public(7),
            ..obituary
        };
        let other = SignedObituary::sign(&other, &key(2));
        assert_eq!(other.verify(&issuers), Err(Broken::Foreign));
        let unread = SignedObituary {
            obituary: "!".into(),
            ..other
        };
        assert_eq!(unread.verify(&issuers), Err(Broken::Unreadable));
    }
}
