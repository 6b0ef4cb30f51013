//! The groups of the network and the grants on this node's sessions, as far as this node knows.
//!
//! Pure. Only what the issuer signed gets in, and of two papers of one name the later counts: a
//! relay that plays an old one back changes nothing, and one that keeps a paper from us cannot
//! open what was closed.

use std::collections::BTreeMap;

use mesh::NetworkId;
use serde::{Deserialize, Serialize};

use crate::coord::handover::Issuers;
use crate::paper::{Grant, Group, GroupName, Matter, Paper, PaperName, SignedPaper, Unbelievable};

/// Papers that are kept, at most; an issuer makes far fewer.
const MAX_PAPERS: usize = 4_000;

/// What holds in a network, for whoever has to decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// All of it was heard at least once. If not, nobody may be let in because of what is missing.
    pub known: bool,
    /// The groups that there are.
    pub groups: BTreeMap<GroupName, Group>,
    /// Grants on sessions of this node, ended ones too.
    pub grants: BTreeMap<String, Grant>,
}

/// See the module.
pub(crate) struct Papers {
    network: NetworkId,
    filed: BTreeMap<PaperName, Filed>,
    /// Everything up to here was heard.
    serial: Option<u64>,
}

struct Filed {
    paper: Paper,
    signed: SignedPaper,
    /// The number of the issuer's key that signed it.
    by: u32,
}

/// What is written to disk.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SavedPapers {
    serial: Option<u64>,
    papers: Vec<SignedPaper>,
}

impl Papers {
    pub(crate) const fn new(network: NetworkId) -> Self {
        Self {
            network,
            filed: BTreeMap::new(),
            serial: None,
        }
    }

    /// Takes up where an earlier process was. If something cannot be believed, all is asked for
    /// again, and until then the rest holds but is not known to be all.
    pub(crate) fn restore(&mut self, saved: SavedPapers, issuers: &Issuers, now: u64) {
        let mut whole = true;
        for paper in saved.papers {
            whole &= self.put(paper, issuers, now).is_ok();
        }
        self.serial = saved.serial.filter(|_| whole);
    }

    pub(crate) fn save(&self) -> SavedPapers {
        SavedPapers {
            serial: self.serial,
            papers: self
                .filed
                .values()
                .map(|filed| filed.signed.clone())
                .collect(),
        }
    }

    /// Up to which serial everything was heard.
    pub(crate) const fn serial(&self) -> Option<u64> {
        self.serial
    }

    /// What the relay sends; what was not believed comes back.
    pub(crate) fn handle(
        &mut self,
        papers: Vec<SignedPaper>,
        serial: u64,
        more: bool,
        (issuers, now): (&Issuers, u64),
    ) -> Vec<Unbelievable> {
        let bad: Vec<_> = papers
            .into_iter()
            .filter_map(|paper| self.put(paper, issuers, now).err())
            .collect();
        if !bad.is_empty() {
            // Perhaps they are there, and only broke on the way: ask for all next time.
            self.serial = self.serial.map(|_| 0);
        } else if !more {
            self.serial = Some(serial);
        }
        bad
    }

    fn put(
        &mut self,
        signed: SignedPaper,
        issuers: &Issuers,
        now: u64,
    ) -> Result<(), Unbelievable> {
        let mut verified = Err(Unbelievable::Unsigned);
        for (by, key) in issuers.believed(now) {
            verified = signed.verify(key, &self.network).map(|paper| (by, paper));
            if verified != Err(Unbelievable::Unsigned) {
                break;
            }
        }
        let (by, paper) = verified?;
        let name = paper.matter.name();
        let known = self.filed.get(&name);
        if known.is_some_and(|known| (known.by, known.paper.serial) >= (by, paper.serial)) {
            return Ok(());
        }
        if known.is_none() && self.filed.len() >= MAX_PAPERS {
            self.drop_oldest_grant();
        }
        self.filed.insert(name, Filed { paper, signed, by });
        Ok(())
    }

    fn drop_oldest_grant(&mut self) {
        let grants = self
            .filed
            .iter()
            .filter(|(name, _)| matches!(name, PaperName::Grant(_)));
        let oldest = grants.min_by_key(|(_, filed)| filed.paper.serial);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.filed.remove(&name);
        }
    }

    /// What follows from them.
    pub(crate) fn rules(&self) -> Rules {
        let mut rules = Rules {
            known: self.serial.is_some(),
            ..Rules::default()
        };
        for filed in self.filed.values() {
            match &filed.paper.matter {
                Matter::Group(group) if !group.deleted => {
                    rules.groups.insert(group.name.clone(), group.clone());
                }
                Matter::Group(_) => {}
                Matter::Grant(grant) => {
                    rules.grants.insert(grant.id.clone(), grant.clone());
                }
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use mesh::SignKey;

    use super::*;
    use crate::coord::handover::{Handover, SignedHandover};
    use crate::paper::{Debug, Joining, Member, Messages};

    fn issuer(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn issuers() -> Issuers {
        let key = SignKey::from(&issuer(1).verifying_key());
        Issuers::new("home".parse().unwrap(), key)
    }

    fn papers() -> Papers {
        Papers::new("home".parse().unwrap())
    }

    fn group(serial: u64, members: u32, deleted: bool) -> Paper {
        let member = |session| Member {
            node: mesh::NodeKey::from_bytes([9; 32]),
            session,
            label: String::new(),
            added: 0,
        };
        Paper {
            network: "home".parse().unwrap(),
            serial,
            matter: Matter::Group(Group {
                name: "mesh".parse().unwrap(),
                messages: Messages::InternalOnly,
                debug: Debug::None,
                joining: Joining::Owners,
                members: (0..members).map(member).collect(),
                created: 0,
                created_by: "admin".into(),
                deleted,
            }),
        }
    }

    fn hear(papers: &mut Papers, paper: &Paper, by: u8) -> usize {
        let signed = SignedPaper::sign(paper, &issuer(by));
        let by = (&issuers(), 0);
        papers.handle(vec![signed], paper.serial, false, by).len()
    }

    fn members(papers: &Papers) -> Option<usize> {
        let rules = papers.rules();
        rules
            .groups
            .values()
            .next()
            .map(|group| group.members.len())
    }

    #[test]
    fn b09_s27_an_old_or_forged_paper_opens_nothing() {
        let mut papers = papers();
        assert!(!papers.rules().known);
        assert_eq!(hear(&mut papers, &group(5, 2, false), 1), 0);
        assert!(papers.rules().known);
        // Played back, forged, of another network.
        assert_eq!(hear(&mut papers, &group(4, 9, false), 1), 0);
        assert_eq!(hear(&mut papers, &group(6, 9, false), 2), 1);
        let mut foreign = group(7, 9, false);
        foreign.network = "work".parse().unwrap();
        assert_eq!(hear(&mut papers, &foreign, 1), 1);
        // Left out: what was closed stays closed.
        papers.handle(Vec::new(), 99, false, (&issuers(), 0));
        assert_eq!(members(&papers), Some(2));
        assert_eq!(hear(&mut papers, &group(100, 0, true), 1), 0);
        assert_eq!(members(&papers), None);
        assert_eq!(hear(&mut papers, &group(50, 2, false), 1), 0);
        assert_eq!(members(&papers), None);
    }

    #[test]
    fn what_was_saved_is_believed_only_by_its_signature() {
        let mut papers_now = papers();
        hear(&mut papers_now, &group(5, 2, false), 1);
        let text = serde_json::to_string(&papers_now.save()).unwrap();
        let restored = |text: &str| {
            let mut fresh = papers();
            fresh.restore(serde_json::from_str(text).unwrap(), &issuers(), 0);
            (members(&fresh), fresh.rules().known)
        };
        assert_eq!(restored(&text), (Some(2), true));
        let mut broken: serde_json::Value = serde_json::from_str(&text).unwrap();
        let paper = SignedPaper::sign(&group(6, 0, false), &issuer(2));
        broken["papers"][0] = serde_json::to_value(paper).unwrap();
        assert_eq!(restored(&broken.to_string()), (None, false));
    }

    #[test]
    fn papers_of_the_old_issuer_hold_until_it_retires() {
        let public = |n| SignKey::from(&issuer(n).verifying_key());
        let handover = Handover {
            network: "home".parse().unwrap(),
            number: 1,
            old: public(1),
            new: public(2),
            issued: 0,
            retires: 100,
        };
        let mut rotated = issuers();
        let link = SignedHandover::sign(&handover, &issuer(1), &issuer(2));
        rotated.extend(&[link]).unwrap();
        let signed =
            |serial, members, by| SignedPaper::sign(&group(serial, members, false), &issuer(by));
        let mut papers = papers();
        let mut hear = |paper, serial, now| {
            papers
                .handle(vec![paper], serial, false, (&rotated, now))
                .len()
        };
        assert_eq!(hear(signed(5, 1, 1), 5, 0), 0);
        assert_eq!(hear(signed(6, 2, 2), 6, 0), 0);
        // Whatever the old key signs now, what the new one has signed stays.
        assert_eq!(hear(signed(99, 9, 1), 99, 99), 0);
        assert_eq!(hear(signed(100, 9, 1), 100, 100), 1);
        assert_eq!(members(&papers), Some(2));
    }
}
