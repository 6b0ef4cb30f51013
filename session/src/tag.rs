//! Labels on sessions, for acting on many at once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Bytes in the longest tag: longer ones are text, not labels.
pub const MAX_TAG: usize = 128;

/// Tags on one session. Each is kept in memory and listed with every session.
pub const MAX_TAGS: usize = 32;

/// A label: 1 to 128 bytes, without control characters and without white space
/// at either end. `group:<g>` has a meaning to whoever decides who may write to
/// whom; here it is a tag like any other.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let valid = !text.is_empty()
            && text.len() <= MAX_TAG
            && text.trim() == text
            && !text.chars().any(char::is_control);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::TagInvalid(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Tag {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_short_printable_labels() {
        for text in ["worker", "group:backend", "a b", "ü"] {
            assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
        }
        let too_long = "t".repeat(129);
        for text in ["", " a", "a ", "a\tb", "\u{1b}[m", too_long.as_str()] {
            assert_eq!(text.parse::<Tag>().unwrap_err().code(), "tag_invalid");
        }
    }
}
