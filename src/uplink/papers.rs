//! The groups of the network and the grants on this node's sessions, as far as this node knows.
//!
//! Pure. Only what the issuer signed gets in, and of two papers of one name the later counts: a
//! relay that plays an old one back changes nothing, and one that keeps a paper from us cannot
//! open what was closed.

use std::collections::BTreeMap;

use mesh::{NetworkId, SignKey};
use serde::{Deserialize, Serialize};

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
    issuer: SignKey,
    filed: BTreeMap<PaperName, (Paper, SignedPaper)>,
    /// Everything up to here was heard.
    serial: Option<u64>,
}

/// What is written to disk.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SavedPapers {
    serial: Option<u64>,
    papers: Vec<SignedPaper>,
}

impl Papers {
    pub(crate) const fn new(network: NetworkId, issuer: SignKey) -> Self {
        Self {
            network,
            issuer,
            filed: BTreeMap::new(),
            serial: None,
        }
    }

    /// Takes up where an earlier process was. If something cannot be believed, all is asked for
    /// again, and until then the rest holds but is not known to be all.
    pub(crate) fn restore(&mut self, saved: SavedPapers) {
        let mut whole = true;
        for paper in saved.papers {
            whole &= self.put(paper).is_ok();
        }
        self.serial = saved.serial.filter(|_| whole);
    }

    pub(crate) fn save(&self) -> SavedPapers {
        SavedPapers {
            serial: self.serial,
            papers: self
                .filed
                .values()
                .map(|(_, signed)| signed.clone())
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
    ) -> Vec<Unbelievable> {
        let bad: Vec<_> = papers
            .into_iter()
            .filter_map(|paper| self.put(paper).err())
            .collect();
        if !bad.is_empty() {
            // Perhaps they are there, and only broke on the way: ask for all next time.
            self.serial = self.serial.map(|_| 0);
        } else if !more {
            self.serial = Some(serial);
        }
        bad
    }

    fn put(&mut self, signed: SignedPaper) -> Result<(), Unbelievable> {
        let paper = signed.verify(&self.issuer, &self.network)?;
        let name = paper.matter.name();
        let known = self.filed.get(&name);
        if known.is_some_and(|(known, _)| known.serial >= paper.serial) {
            return Ok(());
        }
        if known.is_none() && self.filed.len() >= MAX_PAPERS {
            self.drop_oldest_grant();
        }
        self.filed.insert(name, (paper, signed));
        Ok(())
    }

    fn drop_oldest_grant(&mut self) {
        let grants = self
            .filed
            .iter()
            .filter(|(name, _)| matches!(name, PaperName::Grant(_)));
        let oldest = grants.min_by_key(|(_, (paper, _))| paper.serial);
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
        for (paper, _) in self.filed.values() {
            match &paper.matter {
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

    use super::*;
    use crate::paper::{Debug, Joining, Member, Messages};

    fn issuer(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn papers() -> Papers {
        let key = SignKey::from(&issuer(1).verifying_key());
        Papers::new("home".parse().unwrap(), key)
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
        papers.handle(vec![signed], paper.serial, false).len()
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
    fn b9_s27_an_old_or_forged_paper_opens_nothing() {
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
        papers.handle(Vec::new(), 99, false);
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
            fresh.restore(serde_json::from_str(text).unwrap());
            (members(&fresh), fresh.rules().known)
        };
        assert_eq!(restored(&text), (Some(2), true));
        let mut broken: serde_json::Value = serde_json::from_str(&text).unwrap();
        let paper = SignedPaper::sign(&group(6, 0, false), &issuer(2));
        broken["papers"][0] = serde_json::to_value(paper).unwrap();
        assert_eq!(restored(&broken.to_string()), (None, false));
    }
}
