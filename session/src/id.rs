//! Numbers that name a session or a message.
//!
//! A session id counts up from 1 and is never used twice in one data
//! directory. A message id carries its kind in a prefix and 128 random bits in
//! 22 characters of base64url, e.g. `msg_Zm9vYmFyYmF6cXV4MTIzNA`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The number of a session on its node. Starts at 1; never reused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct SessionId(pub u32);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // `u32::from_str` takes a leading `+`, which no session prints.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::SessionNotFound(text.to_owned()));
        }
        match text.parse() {
            Ok(number) => Ok(Self(number)),
            Err(_) => Err(Error::SessionNotFound(text.to_owned())),
        }
    }
}

/// What a message id names; the prefix in its text.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum MessageKind {
    /// A message that expects no answer: `msg_`.
    Direct,
    /// A question that waits for one reply: `req_`.
    Request,
    /// The answer to a request: `rpl_`.
    Reply,
}

impl MessageKind {
    /// The text before the random part.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Direct => "msg_",
            Self::Request => "req_",
            Self::Reply => "rpl_",
        }
    }
}

/// The name of one message in the whole network: kind and 128 random bits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId {
    kind: MessageKind,
    bits: u128,
}

impl MessageId {
    /// An id from 16 random bytes.
    #[must_use]
    pub const fn new(kind: MessageKind, random: [u8; 16]) -> Self {
        Self {
            kind,
            bits: u128::from_be_bytes(random),
        }
    }

    /// What the id names.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        self.kind
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let random = URL_SAFE_NO_PAD.encode(self.bits.to_be_bytes());
        write!(f, "{}{random}", self.kind.prefix())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = Error;

    /// Any malformed text is [`Error::RequestNotFound`]: an id that cannot be
    /// written cannot have been given out.
    fn from_str(text: &str) -> Result<Self, Error> {
        let kinds = [
            MessageKind::Direct,
            MessageKind::Request,
            MessageKind::Reply,
        ];
        for kind in kinds {
            let Some(random) = text.strip_prefix(kind.prefix()) else {
                continue;
            };
            let mut bytes = [0; 16];
            if URL_SAFE_NO_PAD.decode_slice(random, &mut bytes) == Ok(bytes.len()) {
                return Ok(Self::new(kind, bytes));
            }
        }
        Err(Error::RequestNotFound(text.to_owned()))
    }
}

impl Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_its_prefix_and_22_characters() {
        let id = MessageId::new(MessageKind::Request, *b"foobarbazqux1234");
        assert_eq!(id.to_string(), "req_Zm9vYmFyYmF6cXV4MTIzNA");
        assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        assert_eq!(id.kind(), MessageKind::Request);
    }

    #[test]
    fn what_was_never_given_out_does_not_parse() {
        for text in [
            "",
            "req_",
            "req_short",
            "Zm9vYmFyYmF6cXV4MTIzNA",
            "xyz_Zm9vYmFyYmF6cXV4MTIzNA",
            "req_Zm9vYmFyYmF6cXV4MTIzNAA",
            "req_Zm9vYmFyYmF6cXV4MTIzNB",
        ] {
            let error = text.parse::<MessageId>().unwrap_err();
            assert_eq!(error.code(), "request_not_found", "{text}");
        }
    }

    #[test]
    fn a_session_id_is_digits_only() {
        assert_eq!("7".parse::<SessionId>().unwrap(), SessionId(7));
        for text in ["", "+1", "-1", "1x", "4294967296"] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}
