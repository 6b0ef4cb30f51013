//! Who may do what on the relay: the one place that decides.
//!
//! A node proves itself by its key and needs no entry here. Users are judged
//! by their role in the network; the holder of the relay's own token may do
//! everything.

use super::store::{Role, Subject};

/// What a user may want to do in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// See who is in it.
    ListNodes,
    /// Take a node out.
    Revoke,
    /// Make, list and withdraw invites.
    Invite,
    /// Read and write the values that the network shares.
    Share,
}

/// Whether a live node of the network may do `action` there by itself. Sharing
/// is what values are shared for: every member's node may, a guest's too.
pub(crate) fn node_may(action: Action) -> bool {
    match action {
        Action::Share => true,
        Action::ListNodes | Action::Revoke | Action::Invite => false,
    }
}

/// Whether `subject`, who has `role` in the network, may do `action` there.
pub(crate) fn may(subject: &Subject, role: Option<Role>, action: Action) -> bool {
    if *subject == Subject::admin() {
        return true;
    }
    match (role, action) {
        (Some(Role::Owner), _) | (Some(Role::Member), Action::ListNodes | Action::Share) => true,
        (Some(Role::Member), Action::Revoke | Action::Invite) | (Some(Role::Guest) | None, _) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        use Action::{Invite, ListNodes, Revoke, Share};
        let user = Subject::guest("x");
        for (role, allowed) in [
            (None, &[][..]),
            (Some(Role::Guest), &[]),
            (Some(Role::Member), &[ListNodes, Share]),
            (Some(Role::Owner), &[ListNodes, Revoke, Invite, Share]),
        ] {
            for action in [ListNodes, Revoke, Invite, Share] {
                assert_eq!(node_may(action), action == Share);
                assert_eq!(
                    may(&user, role, action),
                    allowed.contains(&action),
                    "{role:?} {action:?}"
                );
                assert!(may(&Subject::admin(), role, action));
            }
        }
    }
}
