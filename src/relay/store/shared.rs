//! Values that the nodes of a network share, as the store keeps them.
//!
//! A value is under a key in a namespace of a network. Every change, a deletion
//! and an expiry too, has the next revision of its network, so that somebody who
//! follows can say up to where it knows; deletions are remembered for
//! [`DELETIONS_KEPT`]. A value whose time is over is gone for every reader from
//! that moment on, whether or not it was swept out yet: times are compared, no
//! timer decides.

use mesh::NetworkId;

/// The longest value, bytes.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;

/// Keys of one network.
pub(crate) const MAX_KEYS: u64 = 10_000;

/// Keys and values of one network together, bytes.
pub(crate) const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How long it is remembered that a key was deleted, milliseconds. Who follows
/// and was away for longer is told of a gap.
pub(crate) const DELETIONS_KEPT: u64 = 24 * 3600 * 1000;

/// What a list shows of a value, bytes.
pub(crate) const PREVIEW: usize = 1024;

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) network: NetworkId,
    pub(crate) space: Space,
    pub(crate) key: Key,
}

/// A namespace: 1 to 64 letters, digits, `-`, `_` and `.`, the first of them
/// a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space(String);

/// Why a namespace cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSpace {
    /// It breaks the rule.
    Malformed,
    /// It is the relay's own.
    Reserved,
}

impl Space {
    /// Namespaces of the relay itself: what it may want to keep beside the
    /// users' values must not be reachable as one of them.
    const RESERVED: [&str; 2] = ["relay", "codewire"];

    /// Checks the rule.
    pub(crate) fn new(text: &str) -> Result<Self, NoSpace> {
        let first = text.bytes().next().ok_or(NoSpace::Malformed)?;
        let is_right = text.len() <= 64
            && first.is_ascii_alphanumeric()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_right {
            return Err(NoSpace::Malformed);
        }
        let head = text.split('.').next().unwrap_or_default();
        if Self::RESERVED
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(head))
        {
            return Err(NoSpace::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key: 1 to 256 bytes of text without control characters. It may look like a
/// path, but no segment is `.` or `..`: on the way here it would be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// Checks the rule.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let is_right = (1..=256).contains(&text.len())
            && !text.chars().any(char::is_control)
            && !text.split('/').any(|part| part == "." || part == "..");
        is_right.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What must be true of a key for a change to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing.
    Always,
    /// There is no value.
    Absent,
    /// The value is the one of this revision.
    Is(u64),
}

/// A value to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) place: Place,
    pub(crate) value: Vec<u8>,
    pub(crate) expires: Option<u64>,
    pub(crate) condition: Condition,
    pub(crate) by: String,
    pub(crate) now: u64,
}

/// A value to be taken away.
#[derive(Debug, Clone)]
pub(crate) struct Removal {
    pub(crate) place: Place,
    pub(crate) condition: Condition,
    pub(crate) by: String,
    pub(crate) now: u64,
}

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// The value, or its first bytes in a list; `None` if it was deleted.
    pub(crate) value: Option<Vec<u8>>,
    /// Of the whole value, bytes.
    pub(crate) size: u64,
    pub(crate) revision: u64,
    pub(crate) expires: Option<u64>,
    pub(crate) changed: u64,
    pub(crate) by: String,
}

/// Which keys, and how many.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) network: NetworkId,
    pub(crate) space: Space,
    /// Taken literally.
    pub(crate) prefix: String,
    pub(crate) limit: u32,
    pub(crate) now: u64,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In the order of their revisions; a key that changed twice is there once.
    pub(crate) entries: Vec<Entry>,
    /// All up to this revision are in `entries`.
    pub(crate) upto: u64,
    /// Deletions may be missing: too long ago.
    pub(crate) gap: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        for good in ["default", "a", "Team-1_x.y", &"a".repeat(64)] {
            assert!(Space::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a b", "ä", "a/b", "a\0", &"a".repeat(65)] {
            assert_eq!(Space::new(bad), Err(NoSpace::Malformed), "{bad}");
        }
        for own in [
            "relay",
            "relay.networkauth",
            "RELAY.x",
            "codewire",
            "codewire.a",
        ] {
            assert_eq!(Space::new(own), Err(NoSpace::Reserved), "{own}");
        }
        assert!(Space::new("relays").is_ok());
    }

    #[test]
    fn keys() {
        for good in [
            "a",
            "tasks/1",
            "ü",
            "%_*",
            "a//b",
            " ",
            "...",
            &"k".repeat(256),
        ] {
            assert!(Key::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "a\nb",
            "\u{1b}[2J",
            "..",
            "a/../b",
            "a/.",
            &"k".repeat(257),
        ] {
            assert!(Key::new(bad).is_none(), "{bad}");
        }
    }
}
