//! Groups and grants on the relay: what a change makes of them, and who is told.
//!
//! Pure. The store keeps each as one document and applies an [`Edit`] to it in one transaction;
//! the directory keeps them signed, in the order of their serials ([`Papers`]), so that a node is
//! told what it does not have yet. A group is everybody's; a grant concerns the node whose
//! session it is.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use mesh::{NetworkId, NodeKey};

use super::store::Refusal;
use crate::coord::{Revision, ToNode};
use crate::paper::{
    Debug, Grant, Group, GroupName, Joining, MAX_MEMBERS, Matter, Member, Messages, Paper,
    PaperName, SignedPaper,
};

/// Groups of one network, deleted ones too: a node that was away for long must hear of them.
pub(crate) const MAX_GROUPS: u64 = 1_000;

/// Grants of one network that are kept.
pub(crate) const MAX_GRANTS: u64 = 2_000;

/// How long a grant is kept after its end, seconds, so that who looks for it is told.
pub(crate) const GRANTS_KEPT: u64 = 7 * 24 * 3600;

/// Papers in one frame, bytes: a link of 20 KB/s passes them before it is taken for dead.
const FRAME: usize = 90 * 1024;

/// A change of one paper.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// A new group; it must not exist.
    CreateGroup { name: GroupName, by: String },
    /// The group is no more.
    DeleteGroup(GroupName),
    /// Other rules; none for what stays.
    SetPolicy {
        name: GroupName,
        messages: Option<Messages>,
        debug: Option<Debug>,
        joining: Option<Joining>,
    },
    /// A session comes in; one that is in gets its new label.
    Enter { name: GroupName, member: Member },
    /// A session leaves.
    Leave {
        name: GroupName,
        node: NodeKey,
        session: u32,
    },
    /// A new grant.
    Give(Box<Grant>),
    /// A grant holds no longer; again changes nothing.
    Revoke(String),
}

impl Edit {
    /// The paper it is about.
    pub(crate) fn about(&self) -> PaperName {
        match self {
            Self::CreateGroup { name, .. }
            | Self::DeleteGroup(name)
            | Self::SetPolicy { name, .. }
            | Self::Enter { name, .. }
            | Self::Leave { name, .. } => PaperName::Group(name.clone()),
            Self::Give(grant) => PaperName::Grant(grant.id.clone()),
            Self::Revoke(id) => PaperName::Grant(id.clone()),
        }
    }

    /// What it makes of the paper that there is; `None` when that stays as it is.
    pub(crate) fn apply(self, before: Option<Matter>, now: u64) -> Result<Option<Matter>, Refusal> {
        let group = match before {
            None => None,
            Some(Matter::Group(group)) => Some(group).filter(|group| !group.deleted),
            Some(Matter::Grant(grant)) => return self.apply_to_grant(grant, now),
        };
        match (self, group) {
            (Self::CreateGroup { name, by }, None) => Ok(Some(Matter::Group(Group {
                name,
                messages: Messages::default(),
                debug: Debug::default(),
                joining: Joining::default(),
                members: Vec::new(),
                created: now,
                created_by: by,
                deleted: false,
            }))),
            (Self::CreateGroup { .. }, Some(_)) => Err(Refusal::GroupTaken),
            (Self::Give(grant), _) => Ok(Some(Matter::Grant(*grant))),
            (Self::Revoke(_), _) => Err(Refusal::GrantUnknown),
            (_, None) => Err(Refusal::GroupUnknown),
            (change, Some(group)) => Ok(change.apply_to_group(group)?.map(Matter::Group)),
        }
    }

    fn apply_to_group(self, mut group: Group) -> Result<Option<Group>, Refusal> {
        let before = group.clone();
        match self {
            Self::DeleteGroup(_) => {
                group.deleted = true;
                group.members.clear();
            }
            Self::SetPolicy {
                messages,
                debug,
                joining,
                ..
            } => {
                group.messages = messages.unwrap_or(group.messages);
                group.debug = debug.unwrap_or(group.debug);
                group.joining = joining.unwrap_or(group.joining);
            }
            Self::Enter { member, .. } => {
                let is =
                    |one: &&mut Member| one.node == member.node && one.session == member.session;
                if let Some(known) = group.members.iter_mut().find(is) {
                    known.label = member.label;
                } else if group.members.len() >= MAX_MEMBERS {
                    return Err(Refusal::GroupFull);
                } else {
                    group.members.push(member);
                }
            }
            Self::Leave { node, session, .. } => {
                group
                    .members
                    .retain(|one| one.node != node || one.session != session);
                if group.members.len() == before.members.len() {
                    return Err(Refusal::NotInGroup);
                }
            }
            Self::CreateGroup { .. } | Self::Give(_) | Self::Revoke(_) => {}
        }
        Ok((group != before).then_some(group))
    }

    fn apply_to_grant(self, mut grant: Grant, now: u64) -> Result<Option<Matter>, Refusal> {
        match self {
            Self::Revoke(_) if grant.revoked.is_none() => {
                grant.revoked = Some(now);
                Ok(Some(Matter::Grant(grant)))
            }
            // Ids are random; one that comes twice is the same call again.
            _ => Ok(None),
        }
    }
}

/// The papers of a network.
#[derive(Default)]
pub(crate) struct Papers {
    serial: u64,
    filed: BTreeMap<PaperName, Filed>,
    order: BTreeMap<u64, PaperName>,
}

struct Filed {
    paper: Paper,
    signed: SignedPaper,
}

impl Papers {
    /// Files a paper in place of the one before.
    pub(crate) fn put(&mut self, paper: Paper, issuer: &SigningKey) {
        let signed = SignedPaper::sign(&paper, issuer);
        let name = paper.matter.name();
        self.serial = self.serial.max(paper.serial);
        self.order.insert(paper.serial, name.clone());
        if let Some(before) = self.filed.insert(name, Filed { paper, signed }) {
            self.order.remove(&before.paper.serial);
        }
    }

    /// Drops the grants that ended long ago.
    pub(crate) fn drop_old(&mut self, now: u64) {
        let old = |filed: &Filed| match &filed.paper.matter {
            Matter::Grant(grant) => grant.expires.saturating_add(GRANTS_KEPT) < now,
            Matter::Group(_) => false,
        };
        let order = &mut self.order;
        self.filed.retain(|_, filed| {
            let keep = !old(filed);
            if !keep {
                order.remove(&filed.paper.serial);
            }
            keep
        });
    }

    /// The last serial there was.
    pub(crate) const fn serial(&self) -> u64 {
        self.serial
    }

    /// What the node `key` does not have yet if it has everything up to `after`, in frames. With
    /// `whole` at least one frame, which says that this is all.
    pub(crate) fn since(&self, key: &NodeKey, after: u64, whole: bool) -> Vec<ToNode> {
        let concerns = |matter: &Matter| match matter {
            Matter::Group(_) => true,
            Matter::Grant(grant) => grant.node == *key,
        };
        let mut parts: Vec<Vec<SignedPaper>> = Vec::new();
        let mut room = 0;
        for name in self.order.range(after + 1..).map(|(_, name)| name) {
            let Some(filed) = self.filed.get(name) else {
                continue;
            };
            if !concerns(&filed.paper.matter) {
                continue;
            }
            let len = filed.signed.len();
            if len > room || parts.is_empty() {
                parts.push(Vec::new());
                room = FRAME;
            }
            room = room.saturating_sub(len);
            if let Some(part) = parts.last_mut() {
                part.push(filed.signed.clone());
            }
        }
        if parts.is_empty() && whole {
            parts.push(Vec::new());
        }
        let last = parts.len();
        let parts = parts.into_iter().enumerate();
        parts
            .map(|(at, papers)| ToNode::Papers {
                papers,
                serial: self.serial,
                more: at + 1 < last,
            })
            .collect()
    }

    /// The groups that there are, by name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.filed
            .values()
            .filter_map(|filed| match &filed.paper.matter {
                Matter::Group(group) if !group.deleted => Some(group),
                _ => None,
            })
    }

    /// A group.
    pub(crate) fn group(&self, name: &GroupName) -> Option<&Group> {
        self.groups().find(|group| group.name == *name)
    }

    /// The grants that are kept, with their serials.
    pub(crate) fn grants(&self) -> impl Iterator<Item = (u64, &Grant)> {
        self.filed
            .values()
            .filter_map(|filed| match &filed.paper.matter {
                Matter::Grant(grant) => Some((filed.paper.serial, grant)),
                Matter::Group(_) => None,
            })
    }
}

/// What a node that says hello has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Has {
    pub(crate) revision: Option<Revision>,
    /// The serial up to which it has the papers.
    pub(crate) papers: Option<u64>,
    /// How many hand-overs of the issuer it knows.
    pub(crate) handovers: u32,
}

/// A change of a network's papers, to be made.
pub(crate) struct PaperEdit {
    pub(crate) network: NetworkId,
    pub(crate) edit: Edit,
    /// Unix milliseconds.
    pub(crate) now_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn name() -> GroupName {
        "mesh".parse().unwrap()
    }

    fn member(session: u32) -> Member {
        Member {
            node: NodeKey::from_bytes([1; 32]),
            session,
            label: "coder".into(),
            added: NOW,
        }
    }

    fn created() -> Matter {
        let by = "admin".to_owned();
        let edit = Edit::CreateGroup { name: name(), by };
        edit.apply(None, NOW).unwrap().unwrap()
    }

    fn enter(matter: Matter, session: u32) -> Result<Option<Matter>, Refusal> {
        let (name, member) = (name(), member(session));
        Edit::Enter { name, member }.apply(Some(matter), NOW)
    }

    #[test]
    fn a_group_lives_and_leaves_a_paper_behind() {
        let created = created();
        let by = "bob".to_owned();
        let again = Edit::CreateGroup { name: name(), by };
        let taken = again.clone().apply(Some(created.clone()), NOW);
        assert_eq!(taken, Err(Refusal::GroupTaken));
        let one = enter(created, 1).unwrap().unwrap();
        // What is there already is no change.
        assert_eq!(enter(one.clone(), 1), Ok(None));
        let leave = |session| Edit::Leave {
            name: name(),
            node: member(1).node,
            session,
        };
        assert_eq!(
            leave(2).apply(Some(one.clone()), NOW),
            Err(Refusal::NotInGroup)
        );
        let Matter::Group(left) = leave(1).apply(Some(one.clone()), NOW).unwrap().unwrap() else {
            panic!("no group");
        };
        assert!(left.members.is_empty());
        let gone = Edit::DeleteGroup(name())
            .apply(Some(one), NOW)
            .unwrap()
            .unwrap();
        assert!(matches!(&gone, Matter::Group(group) if group.deleted));
        assert_eq!(enter(gone.clone(), 1), Err(Refusal::GroupUnknown));
        assert!(again.apply(Some(gone), NOW).unwrap().is_some());
        assert_eq!(
            Edit::DeleteGroup(name()).apply(None, NOW),
            Err(Refusal::GroupUnknown)
        );
    }

    #[test]
    fn a_group_has_a_limit() {
        let mut matter = created();
        for session in 0..MAX_MEMBERS as u32 {
            matter = enter(matter, session).unwrap().unwrap();
        }
        assert_eq!(enter(matter, 9_999), Err(Refusal::GroupFull));
    }

    #[test]
    fn a_node_is_told_what_it_does_not_have() {
        let issuer = SigningKey::from_bytes(&[3; 32]);
        let me = NodeKey::from_bytes([1; 32]);
        let mut papers = Papers::default();
        let empty = papers.since(&me, 0, true);
        assert!(
            matches!(&empty[..], [ToNode::Papers { papers, more: false, .. }] if papers.is_empty())
        );
        assert!(papers.since(&me, 0, false).is_empty());
        let mut matter = created();
        for serial in 5..8 {
            let network: NetworkId = "home".parse().unwrap();
            papers.put(
                Paper {
                    network,
                    serial,
                    matter: matter.clone(),
                },
                &issuer,
            );
            matter = enter(matter, serial as u32).unwrap().unwrap();
        }
        let count = |after| match &papers.since(&me, after, false)[..] {
            [
                ToNode::Papers {
                    papers,
                    serial: 7,
                    more: false,
                },
            ] => papers.len(),
            [] => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!((count(0), count(6), count(7)), (1, 1, 0));
        assert_eq!(papers.group(&name()).unwrap().members.len(), 2);
    }
}
