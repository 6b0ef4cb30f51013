//! Who may do what on the relay: the one place that decides. Pure.
//!
//! | who | may |
//! |---|---|
//! | the holder of the relay's own token | everything, but not give others a look into sessions of nodes that are not theirs |
//! | a user who owns the network | the same in that network |
//! | a user who is a member | see who and what there is; put sessions of own nodes into groups that let members; give grants for them |
//! | a node | as a member for its own sessions; for its owner also what the owner may do about groups |
//! | anybody else | nothing |
//!
//! A node proves itself by its key and speaks for its owner, but a machine is more easily lost
//! than a person's token: it never takes nodes out, invites, or changes who is a member.

use super::store::{Role, Subject};
use crate::paper::Joining;

/// What somebody may want to do in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// See which nodes are in it.
    ListNodes,
    /// See who belongs to it.
    ListMembers,
    /// Read and write the values that the network shares.
    Share,
    /// Take a node out.
    Revoke,
    /// Make, list and withdraw invites.
    Invite,
    /// Change roles, take members out, delete the network.
    Rule,
    /// See the groups.
    ListGroups,
    /// Create, change and delete groups.
    MakeGroups,
    /// Put a session into a group with this rule; whether it is of a node of theirs.
    Enter(Joining, Own),
    /// Take a session out of a group.
    Leave(Own),
    /// Let somebody look at a session.
    Grant(Own),
    /// See a grant, or hear that it was revoked.
    SeeGrant(Own),
    /// Revoke a grant.
    RevokeGrant(Own),
}

/// Whether what it is about belongs to whoever asks: is on a node of the same owner, or for a
/// grant that is looked at, was given by or to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    Yes,
    No,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// A person with a token.
    User,
    /// A node with its key.
    Node,
}

/// Whether `subject`, who has `role` in the network and asks as a user or by a node, may do
/// `action` there.
pub(crate) fn may(subject: &Subject, by: As, role: Option<Role>, action: Action) -> bool {
    // Sharing is what values are shared for: every member's node may, a guest's too.
    if (by, action) == (As::Node, Action::Share) {
        return true;
    }
    let role = match (by, role) {
        (As::User, _) if *subject == Subject::admin() => Role::Owner,
        (_, Some(role)) => role,
        // Not even what is there is told.
        (_, None) => return false,
    };
    let is_owner = role == Role::Owner;
    // Guests have no token: what they do, their nodes do.
    let belongs = is_owner || role == Role::Member || by == As::Node;
    match action {
        Action::ListNodes | Action::ListGroups => belongs,
        Action::Share => is_owner || role == Role::Member,
        Action::ListMembers => is_owner || role == Role::Member,
        Action::Revoke | Action::Invite | Action::Rule => is_owner && by == As::User,
        Action::MakeGroups => is_owner,
        Action::Enter(_, Own::No) | Action::Leave(Own::No) => is_owner,
        Action::Enter(Joining::Owners, Own::Yes) => is_owner,
        Action::Enter(Joining::Members, Own::Yes) => is_owner || role == Role::Member,
        Action::Leave(Own::Yes) => belongs,
        Action::Grant(own) => own == Own::Yes && belongs,
        // Whoever owns the network may end what goes on in it, also what is not theirs.
        Action::SeeGrant(own) | Action::RevokeGrant(own) => {
            is_owner || (own == Own::Yes && belongs)
        }
    }
}

/// Whether `subject` may see and end the logins of `whose`: their own, and the administrator those
/// of everybody.
pub(crate) fn may_end_logins(subject: &Subject, whose: Option<&Subject>) -> bool {
    *subject == Subject::admin() || whose == Some(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every action; one that is added has to be added here, or this does not compile.
    fn actions() -> Vec<Action> {
        use Action::{
            Enter, Grant, Invite, Leave, ListGroups, ListMembers, ListNodes, MakeGroups, Revoke,
            RevokeGrant, Rule, SeeGrant, Share,
        };
        let after = |action| {
            Some(match action {
                ListNodes => ListMembers,
                ListMembers => Share,
                Share => Revoke,
                Revoke => Invite,
                Invite => Rule,
                Rule => ListGroups,
                ListGroups => MakeGroups,
                MakeGroups => Enter(Joining::Owners, Own::Yes),
                Enter(Joining::Owners, Own::Yes) => Enter(Joining::Owners, Own::No),
                Enter(Joining::Owners, Own::No) => Enter(Joining::Members, Own::Yes),
                Enter(Joining::Members, Own::Yes) => Enter(Joining::Members, Own::No),
                Enter(Joining::Members, Own::No) => Leave(Own::Yes),
                Leave(Own::Yes) => Leave(Own::No),
                Leave(Own::No) => Grant(Own::Yes),
                Grant(Own::Yes) => Grant(Own::No),
                Grant(Own::No) => SeeGrant(Own::Yes),
                SeeGrant(Own::Yes) => SeeGrant(Own::No),
                SeeGrant(Own::No) => RevokeGrant(Own::Yes),
                RevokeGrant(Own::Yes) => RevokeGrant(Own::No),
                RevokeGrant(Own::No) => return None,
            })
        };
        std::iter::successors(Some(ListNodes), |action| after(*action)).collect()
    }

    #[test]
    fn logins_are_their_owners_and_the_administrators() {
        let (admin, ann, bob) = (
            Subject::admin(),
            Subject::named("oidc:x:ann"),
            Subject::named("oidc:x:bob"),
        );
        for (who, whose, may) in [
            (&ann, Some(&ann), true),
            (&ann, Some(&bob), false),
            (&ann, Some(&admin), false),
            (&ann, None, false),
            (&admin, Some(&ann), true),
            (&admin, None, true),
        ] {
            assert_eq!(may_end_logins(who, whose), may, "{who:?} {whose:?}");
        }
    }

    /// `.` may, `x` may not; the columns are those of `actions`.
    #[test]
    fn the_whole_table() {
        let (owner, member, guest) = (Some(Role::Owner), Some(Role::Member), Some(Role::Guest));
        let (admin, user) = (Subject::admin(), Subject::guest("x"));
        for (subject, by, role, row) in [
            (&admin, As::User, None, "...............x...."),
            (&admin, As::User, owner, "...............x...."),
            (&admin, As::Node, owner, "...xxx.........x...."),
            (&admin, As::Node, None, "xx.xxxxxxxxxxxxxxxxx"),
            (&user, As::User, owner, "...............x...."),
            (&user, As::Node, owner, "...xxx.........x...."),
            (&user, As::User, member, "...xxx.xxx.x.x.x.x.x"),
            (&user, As::Node, member, "...xxx.xxx.x.x.x.x.x"),
            (&user, As::Node, guest, ".x.xxx.xxxxx.x.x.x.x"),
            (&user, As::User, guest, "xxxxxxxxxxxxxxxxxxxx"),
            (&user, As::User, None, "xxxxxxxxxxxxxxxxxxxx"),
            (&user, As::Node, None, "xx.xxxxxxxxxxxxxxxxx"),
        ] {
            let may = |action: &Action| may(subject, by, role, *action);
            let cell = |action| if may(&action) { '.' } else { 'x' };
            let got: String = actions().into_iter().map(cell).collect();
            assert_eq!(got, row, "{subject:?} {by:?} {role:?}");
        }
    }
}
