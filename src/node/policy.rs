//! Who may do what to the sessions of this node. The one place that decides it. Pure.
//!
//! | caller | may |
//! |---|---|
//! | the owner, here or on another node of the same owner | everything |
//! | a session of the owner, here or there | what its owner may, as itself: no other inbox, not change the node |
//! | a member's node in the same network | list, message and ask |
//! | whoever has a grant for a session | look at that session as the grant says |
//!
//! What a session may do to another is less where groups say so ([`Tie`]). They are meant for
//! sessions and for other people's nodes; the owner, in no session, is above them.
//!
//! A session may start and manage sessions, because agents that run other agents are what the
//! program is for; it is the same user to the system either way. Who it is when it speaks is not
//! its to choose: that is [`super::caller`]'s.

use std::collections::{BTreeMap, BTreeSet};

use mesh::NodeKey;
use session::Party;

use super::caller::Caller;
use crate::error::{Error, Result};
use crate::locator::Session;
use crate::paper::{Audience, Debug, Grant, GrantToken, Group, GroupName, Messages, Verb};
use crate::uplink::Rules;

/// A relay's clock may be this many seconds ahead of ours.
const CLOCK_SKEW: u64 = 300;

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
    /// Reads or writes the values that the network shares.
    Share,
    /// Looks at the network from here.
    Network,
    /// Changes the node itself, or speaks to the relay in its name.
    Administer,
}

/// How a caller stands to the session that a call is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tie {
    /// No group stands between them.
    #[default]
    Free,
    /// Both are in one group.
    Shared,
    /// The session is in groups, and the caller is in none of them. The strictest rules count.
    Outside(Messages, Debug),
}

/// What counts besides who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) tie: Tie,
    /// What a grant allows.
    pub(super) granted: BTreeSet<Verb>,
}

/// Decides.
///
/// # Errors
///
/// `denied` or `group_forbids`, with who and what.
pub(super) fn check(caller: &Caller, action: &Action, standing: &Standing) -> Result<()> {
    let by_grant = match action {
        Action::ReadInbox(_) => standing.granted.contains(&Verb::Read),
        Action::Listen(Some(_)) => standing.granted.contains(&Verb::Listen),
        Action::Watch => standing.granted.contains(&Verb::Watch),
        _ => false,
    };
    if by_grant {
        return Ok(());
    }
    if !is_usual(caller, action) {
        return Err(denied(caller, action));
    }
    let Tie::Outside(messages, debug) = standing.tie else {
        return Ok(());
    };
    let open = match action {
        Action::Message | Action::Reply => messages == Messages::Open,
        Action::Watch => debug >= Debug::ObserveOnly,
        Action::Manage => debug == Debug::Full,
        Action::Greet
        | Action::List
        | Action::ReadInbox(_)
        | Action::Listen(_)
        | Action::Share
        | Action::Network
        | Action::Administer => true,
    };
    if open {
        Ok(())
    } else {
        Err(Error::new(
            "group_forbids",
            format!(
                "{} may not {} of a group that it is not in",
                who(caller),
                match action {
                    Action::Message | Action::Reply => "write to a session",
                    Action::Watch => "look at a session",
                    _ => "touch a session",
                }
            ),
        ))
    }
}

/// Whether a caller of this kind may, if no group and no grant says otherwise.
fn is_usual(caller: &Caller, action: &Action) -> bool {
    match caller {
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
    }
}

/// Who speaks to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The owner of this node, in no session.
    Owner,
    /// A session, for which its node vouches.
    Session(NodeKey, u32),
    /// Somebody else's node.
    Stranger,
}

impl Speaker {
    /// Who it is that calls and speaks as `acting`; `me` is this node.
    pub(super) fn of(caller: &Caller, acting: &Party, me: &NodeKey) -> Self {
        // Whoever may speak as a session of this node and does is that session.
        if let (None, Some((id, _))) = (&acting.node, &acting.session) {
            return Self::Session(*me, id.0);
        }
        match caller {
            Caller::Owner => Self::Owner,
            Caller::Session(id, _) => Self::Session(*me, id.0),
            Caller::Peer {
                session: Some((id, _)),
                key,
                ..
            } => Self::Session(*key, id.0),
            Caller::Peer {
                same_owner: true, ..
            } => Self::Owner,
            Caller::Peer { .. } => Self::Stranger,
        }
    }
}

/// A session that a call is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) node: NodeKey,
    pub(super) session: u32,
    /// Groups that the session itself is marked with: it is closed by them even while nothing is
    /// known of them.
    pub(super) marks: Vec<GroupName>,
}

/// How the groups have it. `rules` is none where there is no network; `me` is this node.
pub(super) fn tie(rules: Option<&Rules>, me: &NodeKey, speaker: Speaker, target: &Target) -> Tie {
    let itself = Speaker::Session(target.node, target.session);
    if speaker == Speaker::Owner || speaker == itself {
        return Tie::Free;
    }
    let none = BTreeMap::new();
    let groups = rules.map_or(&none, |rules| &rules.groups);
    let is_in = |group: &&Group| group.has(&target.node, target.session);
    let mut around: BTreeSet<&GroupName> = target.marks.iter().collect();
    around.extend(groups.values().filter(is_in).map(|group| &group.name));
    let closed = Tie::Outside(Messages::InternalOnly, Debug::None);
    if let Speaker::Session(node, id) = speaker {
        let mut known = around.iter().filter_map(|name| groups.get(*name));
        if known.any(|group| group.has(&node, id)) {
            return Tie::Shared;
        }
    }
    let is_local = matches!(speaker, Speaker::Session(node, _) if node == *me);
    if rules.is_some_and(|rules| !rules.known) && !is_local {
        // What is not known may be closed.
        return closed;
    }
    let rules = around.iter().map(|name| match groups.get(*name) {
        Some(group) => (group.messages, group.debug),
        None => (Messages::InternalOnly, Debug::None),
    });
    rules
        .reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))
        .map_or(Tie::Free, |(messages, debug)| Tie::Outside(messages, debug))
}

/// Somebody who shows the token of a grant.
pub(super) struct Holder<'a> {
    pub(super) token: &'a GrantToken,
    pub(super) key: NodeKey,
    pub(super) owner: &'a str,
}

/// The grant that lets `holder` look at a session of the node `me`, which belongs to `owner`, at
/// `now` (unix seconds).
pub(super) fn grant<'a>(
    rules: &'a Rules,
    (me, owner): (&NodeKey, &str),
    holder: &Holder<'_>,
    session: u32,
    now: u64,
) -> Option<&'a Grant> {
    let grant = rules.grants.get(&holder.token.id)?;
    let holds = rules.known
        && grant.revoked.is_none()
        && grant.issued <= now.saturating_add(CLOCK_SKEW)
        && now < grant.expires;
    // Nobody gives away what is not theirs, whatever the relay has let them write down.
    let is_for = grant.node == *me && grant.session == session && grant.by == owner;
    let is_theirs = match &grant.audience {
        Audience::Node(key) => *key == holder.key,
        Audience::Owner(owner) => owner == holder.owner,
    };
    (holds && is_for && is_theirs && grant.hash.is(&holder.token.hash())).then_some(grant)
}

fn who(caller: &Caller) -> String {
    match caller {
        Caller::Owner => "the owner".to_owned(),
        Caller::Session(id, _) => format!("session {id}"),
        Caller::Peer {
            node,
            session: Some((id, _)),
            ..
        } => format!("session {node}:{id}"),
        Caller::Peer { node, .. } => format!("node {node}"),
    }
}

fn denied(caller: &Caller, action: &Action) -> Error {
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
    Error::new("denied", format!("{} may not {what} here", who(caller)))
}

#[cfg(test)]
mod tests;
