//! Who sends and who receives.

use std::fmt;

use crate::{Name, SessionId};

/// One end of a message: a session, here or on another node; a node; or the
/// owner of this one.
///
/// `node` is `None` for this node. Whoever fills it in has proof of it: from
/// the process that calls, or from the peer's key.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Party {
    /// The other node's name; `None` here.
    pub node: Option<String>,
    /// The session there, with the name it had at that moment.
    pub session: Option<(SessionId, Option<Name>)>,
}

impl Party {
    /// A person at this node, outside every session.
    #[must_use]
    pub const fn owner() -> Self {
        Self {
            node: None,
            session: None,
        }
    }

    /// A session of this node.
    #[must_use]
    pub const fn local(id: SessionId, name: Option<Name>) -> Self {
        Self {
            node: None,
            session: Some((id, name)),
        }
    }

    /// Whether both are the same, whatever names they had; the owner of this
    /// node is each of its sessions.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let id = |party: &Self| party.session.as_ref().map(|(id, _)| *id);
        let owner = *other == Self::owner();
        self.node == other.node && (id(self) == id(other) || owner)
    }

    /// The session, if it is one of this node.
    #[must_use]
    pub fn local_session(&self) -> Option<SessionId> {
        match (&self.node, &self.session) {
            (None, Some((id, _))) => Some(*id),
            _ => None,
        }
    }
}

impl fmt::Display for Party {
    /// `dev-1:planner`, `planner`, `3`, `dev-1`; nobody in particular: `owner`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            f.write_str(node)?;
            if self.session.is_some() {
                f.write_str(":")?;
            }
        }
        match &self.session {
            Some((_, Some(name))) => name.fmt(f),
            Some((id, None)) => id.fmt(f),
            None if self.node.is_none() => f.write_str("owner"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_print_as_they_are_addressed() {
        let name: Name = "planner".parse().unwrap();
        let id = SessionId(3);
        let dev = Some("dev-1".to_owned());
        let far = |session| Party {
            node: dev.clone(),
            session,
        };
        assert_eq!(
            far(Some((id, Some(name.clone())))).to_string(),
            "dev-1:planner"
        );
        assert_eq!(far(Some((id, None))).to_string(), "dev-1:3");
        assert_eq!(far(None).to_string(), "dev-1");
        assert_eq!(Party::local(id, Some(name)).to_string(), "planner");
        assert_eq!(Party::local(id, None).to_string(), "3");
        assert_eq!(Party::owner().to_string(), "owner");
        assert_eq!(far(Some((id, None))).local_session(), None);
        assert_eq!(Party::local(id, None).local_session(), Some(id));
    }
}
