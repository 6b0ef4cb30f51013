//! What lets people in over SSH: public keys and short-lived passwords.

use mesh::{NetworkId, NodeName};

use super::Subject;

/// Keys of one person.
pub(crate) const MAX_SSH_KEYS: u32 = 100;

/// Passwords that can still be used, of one person.
pub(crate) const MAX_SSH_PASSWORDS: u32 = 100;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshKey {
    /// `SHA256:…`, as OpenSSH shows it.
    pub(crate) fingerprint: String,
    /// Whose it is.
    pub(crate) subject: Subject,
    /// One line in OpenSSH's format, with its comment.
    pub(crate) key: String,
    /// Unix seconds.
    pub(crate) created: u64,
}

/// A password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshPassword {
    /// SHA-256 of the text.
    pub(crate) hash: [u8; 32],
    /// Who comes in with it.
    pub(crate) subject: Subject,
    /// And where.
    pub(crate) network: NetworkId,
    /// The node.
    pub(crate) node: NodeName,
    /// Unix seconds.
    pub(crate) expires: u64,
}
