//! Who calls.
//!
//! On the Unix socket the kernel names the process; it belongs to a session of this node when it
//! is in that session's process tree. What a call claims about its sender only chooses among what
//! the caller may be: the owner may name any of its own sessions, a session only itself. From
//! another node the peer's key, which WireGuard and TLS have proven, gives the node's name and
//! owner; that node vouches for its own sessions.

use mesh::NodeKey;
use session::{Name, Party, SessionId};

use crate::error::{Error, Result};
use crate::locator::Locator;

/// The proven origin of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process of the owner outside every session.
    Owner,
    /// A process inside a session of this node.
    Session(SessionId, Option<Name>),
    /// Another node.
    Peer {
        /// Its name in the network, bound to its key.
        node: String,
        /// Its key.
        key: NodeKey,
        /// Whose it is.
        owner: String,
        /// Whether it belongs to the owner of this node.
        same_owner: bool,
        /// The session there on whose behalf it calls, as it says.
        session: Option<(SessionId, Option<Name>)>,
    },
}

impl Caller {
    /// As whom the caller speaks, given the sender that the call names. `find` looks a session of
    /// this node up, `me` is this node's name.
    ///
    /// # Errors
    ///
    /// `sender_forbidden` when it may not speak as that session, else what `find` says.
    pub fn acting(
        &self,
        claimed: Option<&Locator>,
        me: &str,
        find: impl Fn(&Locator) -> Result<Party>,
    ) -> Result<Party> {
        let claimed = claimed.map(|from| match &from.node {
            Some(node) if node != me => Err(Error::new(
                "sender_forbidden",
                format!("{from} is not a session of this node; only its own node speaks for it"),
            )),
            _ => find(from),
        });
        match (self, claimed.transpose()?) {
            (Self::Owner, claimed) => Ok(claimed.unwrap_or_else(Party::owner)),
            (Self::Session(id, name), None) => Ok(Party::local(*id, name.clone())),
            (Self::Session(id, _), Some(claimed)) if claimed.local_session() == Some(*id) => {
                Ok(claimed)
            }
            (Self::Session(id, _), Some(claimed)) => Err(Error::new(
                "sender_forbidden",
                format!("a process in session {id} cannot speak as {claimed}"),
            )),
            // The owner, at another of its nodes and in no session there, has this node's sessions.
            (
                Self::Peer {
                    same_owner: true,
                    session: None,
                    ..
                },
                Some(claimed),
            ) => Ok(claimed),
            (Self::Peer { node, .. }, Some(claimed)) => Err(Error::new(
                "sender_forbidden",
                format!("{node} cannot speak as {claimed}"),
            )),
            (Self::Peer { node, session, .. }, None) => Ok(Party {
                node: Some(node.clone()),
                session: session.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(from: &Locator) -> Result<Party> {
        match from.to_string().as_str() {
            "1" | "planner" | "dev-1:planner" => {
                Ok(Party::local(SessionId(1), "planner".parse().ok()))
            }
            "2" => Ok(Party::local(SessionId(2), None)),
            _ => Err(Error::new("session_not_found", "no such session")),
        }
    }

    fn acting(caller: &Caller, from: Option<&str>) -> Result<String, String> {
        let from = from.map(|text| text.parse().unwrap());
        caller
            .acting(from.as_ref(), "dev-1", find)
            .map(|party| party.to_string())
            .map_err(|error| error.code)
    }

    fn peer(same_owner: bool, session: Option<u32>) -> Caller {
        Caller::Peer {
            node: "dev-2".into(),
            key: NodeKey::from_bytes([2; 32]),
            owner: "bob".into(),
            same_owner,
            session: session.map(|id| (SessionId(id), None)),
        }
    }

    #[test]
    fn the_owner_may_be_any_of_its_sessions() {
        assert_eq!(acting(&Caller::Owner, None), Ok("owner".into()));
        assert_eq!(
            acting(&Caller::Owner, Some("planner")),
            Ok("planner".into())
        );
        assert_eq!(
            acting(&Caller::Owner, Some("dev-1:planner")),
            Ok("planner".into())
        );
        assert_eq!(
            acting(&Caller::Owner, Some("nobody")),
            Err("session_not_found".into())
        );
        assert_eq!(
            acting(&Caller::Owner, Some("dev-2:x")),
            Err("sender_forbidden".into())
        );
    }

    #[test]
    fn u02_a_session_is_itself_whatever_it_claims() {
        let caller = Caller::Session(SessionId(1), "planner".parse().ok());
        assert_eq!(acting(&caller, None), Ok("planner".into()));
        assert_eq!(acting(&caller, Some("1")), Ok("planner".into()));
        assert_eq!(acting(&caller, Some("2")), Err("sender_forbidden".into()));
    }

    #[test]
    fn b14_another_node_speaks_for_its_own_sessions() {
        assert_eq!(acting(&peer(true, Some(3)), None), Ok("dev-2:3".into()));
        assert_eq!(acting(&peer(false, None), None), Ok("dev-2".into()));
        // Its owner is ours and stands in no session: these are its sessions too.
        assert_eq!(
            acting(&peer(true, None), Some("planner")),
            Ok("planner".into())
        );
        assert_eq!(
            acting(&peer(true, Some(3)), Some("planner")),
            Err("sender_forbidden".into())
        );
        assert_eq!(
            acting(&peer(false, None), Some("planner")),
            Err("sender_forbidden".into())
        );
    }
}
