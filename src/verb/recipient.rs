//! Who gets a message: a session, or every session that has a tag.
//!
//! `coder`, `3` and `dev-2:coder` are a session; `@tag:worker` are the sessions here that have the
//! tag `worker`, `dev-2:@tag:worker` those there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::error::{Error, Result};
use crate::locator::{Locator, Session, node_name};

/// Who gets a message.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Recipient {
    /// One session.
    One(Locator),
    /// All that have a tag.
    Tagged {
        /// On this node; none for the one that is asked.
        node: Option<String>,
        /// The tag.
        tag: String,
    },
}

impl Recipient {
    /// Where the node is named.
    pub fn node_mut(&mut self) -> &mut Option<String> {
        match self {
            Self::One(locator) => &mut locator.node,
            Self::Tagged { node, .. } => node,
        }
    }
}

impl FromStr for Recipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let at = text.find("@tag:").or_else(|| text.find("@group:"));
        let Some(at) = at else {
            return text.parse().map(Self::One);
        };
        let (node, rest) = text.split_at(at);
        let node = match node.strip_suffix(':') {
            Some(node) => Some(node_name(node)?),
            None if node.is_empty() => None,
            None => return text.parse().map(Self::One),
        };
        let Some(tag) = rest.strip_prefix("@tag:") else {
            return Err(Error::not_built("sending to a group").hint("send to a tag: @tag:worker"));
        };
        let tag = tag.parse::<session::Tag>()?.as_str().to_owned();
        Ok(Self::Tagged { node, tag })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(locator) => locator.fmt(f),
            Self::Tagged { node, tag } => {
                if let Some(node) = node {
                    write!(f, "{node}:")?;
                }
                write!(f, "@tag:{tag}")
            }
        }
    }
}

/// On the wire: `to_id`, `to_name` or `to_tag`, and `node`.
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_id: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Serialize for Recipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (session, to_tag, node) = match self.clone() {
            Self::One(locator) => (Some(locator.session), None, locator.node),
            Self::Tagged { node, tag } => (None, Some(tag), node),
        };
        let (to_id, to_name) = match session {
            Some(Session::Id(id)) => (Some(id), None),
            Some(Session::Name(name)) => (None, Some(name)),
            None => (None, None),
        };
        Wire {
            to_id,
            to_name,
            to_tag,
            node,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Recipient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let node = wire.node;
        let session = wire
            .to_id
            .map(Session::Id)
            .or_else(|| wire.to_name.map(Session::Name));
        match (session, wire.to_tag) {
            (Some(session), _) => Ok(Self::One(Locator { node, session })),
            (None, Some(tag)) => Ok(Self::Tagged { node, tag }),
            (None, None) => Err(D::Error::custom("either to_id or to_name required")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_recipients_and_back() {
        for text in ["coder", "3", "dev-2:coder", "@tag:worker", "dev-2:@tag:a b"] {
            let recipient: Recipient = text.parse().unwrap();
            assert_eq!(recipient.to_string(), text);
            let json = serde_json::to_string(&recipient).unwrap();
            assert_eq!(serde_json::from_str::<Recipient>(&json).unwrap(), recipient);
        }
        let code = |text: &str| text.parse::<Recipient>().unwrap_err().code;
        assert_eq!(code("@group:mesh"), "not_built");
        assert_eq!(code("@tag:"), "tag_invalid");
        assert_eq!(code("a/b:@tag:x"), "locator_invalid");
        assert!(serde_json::from_str::<Recipient>("{}").is_err());
    }
}
