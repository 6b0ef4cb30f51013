//! Names of sessions, and references to a session by number or name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, SessionId};

/// Bytes in the longest name. Fits a table column, a file name and a DNS label.
pub const MAX_NAME: usize = 32;

/// What a session is called: `^[a-zA-Z0-9][a-zA-Z0-9-]{0,31}$`, and not only
/// digits, because digits alone always mean a [`SessionId`].
///
/// A name belongs to at most one live session; it is free again when that
/// session ends.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let valid = !bytes.is_empty()
            && bytes.len() <= MAX_NAME
            && bytes[0] != b'-'
            && bytes.iter().all(legal)
            && !bytes.iter().all(u8::is_ascii_digit);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::NameInvalid(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How somebody points at a session: `3`, `coder` or `@coder`.
///
/// A name means the live session of that name; when there is none, the newest
/// that had it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SessionRef {
    /// By number; numbers always win over names.
    Id(SessionId),
    /// By name.
    Name(Name),
}

impl FromStr for SessionRef {
    type Err = Error;

    /// Text that is neither a number nor a legal name is
    /// [`Error::SessionNotFound`]: no session can be meant by it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bare = text.strip_prefix('@').unwrap_or(text);
        if let Ok(id) = bare.parse() {
            return Ok(Self::Id(id));
        }
        match bare.parse() {
            Ok(name) => Ok(Self::Name(name)),
            Err(_) => Err(Error::SessionNotFound(text.to_owned())),
        }
    }
}

impl From<SessionId> for SessionRef {
    fn from(id: SessionId) -> Self {
        Self::Id(id)
    }
}

impl From<Name> for SessionRef {
    fn from(name: Name) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let longest = "a".repeat(32);
        for text in ["a", "9lives", "code-review", "X-", "1-2", longest.as_str()] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        let too_long = "a".repeat(33);
        for text in [
            "",
            "-a",
            "a b",
            "a_b",
            "a:b",
            "a.b",
            "über",
            "a\n",
            "123",
            "@a",
            too_long.as_str(),
        ] {
            let error = text.parse::<Name>().unwrap_err();
            assert_eq!(error.code(), "name_invalid", "{text:?}");
        }
    }

    #[test]
    fn a_reference_is_a_number_first() {
        let id = SessionRef::Id(SessionId(3));
        assert_eq!("3".parse::<SessionRef>().unwrap(), id);
        assert_eq!("@3".parse::<SessionRef>().unwrap(), id);
        let name = SessionRef::Name("coder".parse().unwrap());
        assert_eq!("coder".parse::<SessionRef>().unwrap(), name);
        assert_eq!("@coder".parse::<SessionRef>().unwrap(), name);
        for text in ["", "@", "@@coder", "no such", "99999999999"] {
            let error = text.parse::<SessionRef>().unwrap_err();
            assert_eq!(error.code(), "session_not_found", "{text:?}");
        }
    }
}
