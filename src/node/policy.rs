//! Who may do what to the sessions of this node. The one place that decides it.
//!
//! | caller | may |
//! |---|---|
//! | the owner, here or on another node of the same owner | everything |
//! | a session of the owner, here or there | what its owner may, as itself: no other inbox, not change the node |
//! | a member's node in the same network | list, message and ask |
//!
//! A session may start and manage sessions, because agents that run other agents are what the
//! program is for; it is the same user to the system either way. Who it is when it speaks is not
//! its to choose: that is [`super::caller`]'s.

use super::caller::Caller;
use crate::error::{Error, Result};
use crate::locator::Session;

/// What a call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Says hello.
    Greet,
    /// Reads which sessions there are.
    List,
    /// Starts, ends, attaches to or types into a session.
    Manage,
    /// Reads a session's output or state.
    Watch,
    /// Leaves a message or asks.
    Message,
    /// Answers a request.
    Reply,
    /// Reads the messages of this session.
    ReadInbox(Session),
    /// Follows the messages of this session, or of all.
    Listen(Option<Session>),
    /// Reads and writes the values that the network shares, as this node.
    Share,
    /// Looks at the network from here.
    Network,
    /// Changes the node itself.
    Administer,
}

/// Decides.
///
/// # Errors
///
/// `denied`, with who and what.
pub(super) fn check(caller: &Caller, action: &Action) -> Result<()> {
    let allowed = match caller {
        Caller::Owner => true,
        Caller::Session(id, name) => match action {
            Action::ReadInbox(session) | Action::Listen(Some(session)) => match session {
                Session::Id(wanted) => *wanted == id.0,
                Session::Name(wanted) => name.as_ref().is_some_and(|name| name.as_str() == wanted),
            },
            Action::Listen(None) | Action::Administer => false,
            Action::Greet
            | Action::List
            | Action::Manage
            | Action::Watch
            | Action::Message
            | Action::Reply
            | Action::Share
            | Action::Network => true,
        },
        Caller::Peer {
            same_owner: true,
            session,
            ..
        } => match action {
            // Every node has its own way to the relay.
            Action::Share | Action::Network | Action::Administer => false,
            // A session has no inbox on another node than its own.
            Action::ReadInbox(_) | Action::Listen(_) => session.is_none(),
            Action::Greet
            | Action::List
            | Action::Manage
            | Action::Watch
            | Action::Message
            | Action::Reply => true,
        },
        Caller::Peer {
            same_owner: false, ..
        } => matches!(action, Action::Greet | Action::List | Action::Message),
    };
    if allowed {
        Ok(())
    } else {
        Err(denied(caller, action))
    }
}

fn denied(caller: &Caller, action: &Action) -> Error {
    let who = match caller {
        Caller::Owner => "the owner".to_owned(),
        Caller::Session(id, _) => format!("session {id}"),
        Caller::Peer { node, .. } => format!("node {node}"),
    };
    let what = match action {
        Action::Greet => "greet",
        Action::List => "list sessions",
        Action::Manage => "manage sessions",
        Action::Watch => "read a session",
        Action::Message => "send messages",
        Action::Reply => "reply",
        Action::ReadInbox(_) => "read that inbox",
        Action::Listen(_) => "follow those messages",
        Action::Share => "share values",
        Action::Network => "look at the network",
        Action::Administer => "change the node",
    };
    Error::new("denied", format!("{who} may not {what} here"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use session::SessionId;

    /// Every caller and every action: `.` is allowed, `x` is not.
    #[test]
    fn the_whole_table() {
        let actions = [
            Action::Greet,
            Action::List,
            Action::Manage,
            Action::Watch,
            Action::Message,
            Action::Reply,
            Action::ReadInbox(Session::Id(1)),
            Action::ReadInbox(Session::Name("planner".into())),
            Action::ReadInbox(Session::Id(2)),
            Action::Listen(Some(Session::Id(1))),
            Action::Listen(Some(Session::Id(2))),
            Action::Listen(None),
            Action::Share,
            Action::Network,
            Action::Administer,
        ];
        let peer = |same_owner, session| Caller::Peer {
            node: "dev-2".into(),
            same_owner,
            session,
        };
        for (caller, row) in [
            (Caller::Owner, "..............."),
            (
                Caller::Session(SessionId(1), "planner".parse().ok()),
                "........x.xx..x",
            ),
            (peer(true, None), "............xxx"),
            (peer(true, Some((SessionId(1), None))), "......xxxxxxxxx"),
            (peer(false, None), "..xx.xxxxxxxxxx"),
        ] {
            let got: String = actions
                .iter()
                .map(|action| {
                    if check(&caller, action).is_ok() {
                        '.'
                    } else {
                        'x'
                    }
                })
                .collect();
            assert_eq!(got, row, "{caller:?}");
        }
    }

    #[test]
    fn a_refusal_names_both_sides() {
        let error = check(&Caller::Session(SessionId(1), None), &Action::Administer).unwrap_err();
        assert_eq!(error.code, "denied");
        assert_eq!(error.message, "session 1 may not change the node here");
    }
}
