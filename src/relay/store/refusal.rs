//! What a store does not do, by the rules.

/// The rules of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Never was, was withdrawn, or expired long ago.
    #[error("this invite is not valid")]
    InviteInvalid,
    /// All its uses were taken.
    #[error("this invite has been used up")]
    InviteUsedUp,
    /// Its time is over.
    #[error("this invite has expired")]
    InviteExpired,
    /// Another key has the name.
    #[error("another node of this network has this name")]
    NameTaken,
    /// The key has another name.
    #[error("this node is in the network already, under another name")]
    AlreadyJoined,
    /// The key was revoked.
    #[error("this node was revoked from the network")]
    Revoked,
    /// [`super::MAX_NODES`].
    #[error("this network has as many nodes as it may have")]
    NetworkFull,
    /// [`super::MAX_INVITES`].
    #[error("this network has as many open invites as it may have")]
    TooManyInvites,
    /// Somebody else's.
    #[error("this network exists and you are not a member")]
    NetworkTaken,
    /// [`super::shared::MAX_KEYS`], [`super::shared::MAX_BYTES`].
    #[error("this network shares as much as it may: 10000 keys and 64 MiB")]
    SharedFull,
    /// A condition was not met.
    #[error("somebody else has changed this key")]
    SharedChanged,
    /// The invite is for another name.
    #[error("this invite is for a node of another name")]
    NameBound,
    /// A network without an owner could not be ruled.
    #[error("this is the last owner of the network")]
    LastOwner,
    /// There is one of that name.
    #[error("this group exists already")]
    GroupTaken,
    /// There is none.
    #[error("there is no such group in this network")]
    GroupUnknown,
    /// `MAX_MEMBERS`.
    #[error("this group has as many sessions as it may have")]
    GroupFull,
    /// Nothing to take out.
    #[error("this session is not in the group")]
    NotInGroup,
    /// There is none.
    #[error("there is no such grant")]
    GrantUnknown,
    /// `MAX_HANDOVERS`.
    #[error("the issuer of this network has handed over as often as it may")]
    TooManyHandovers,
    /// Somebody else's.
    #[error("this key belongs to somebody else")]
    KeyTaken,
    /// [`super::doors::MAX_SSH_KEYS`], [`super::doors::MAX_SSH_PASSWORDS`].
    #[error("you have as many of these as you may have: 100")]
    TooManyKeys,
    /// [`super::logins::MAX_ATTEMPTS`].
    #[error("as many people log in at this moment as may; try again in some minutes")]
    TooManyAttempts,
    /// `MAX_GROUPS`, `MAX_GRANTS`.
    #[error("this network has as many of these as it may have")]
    TooManyPapers,
}
