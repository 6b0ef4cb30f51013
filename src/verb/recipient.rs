//! Who gets a message: a session, every session that has a tag, or every one of a group.
//!
//! `coder`, `3` and `dev-2:coder` are a session; `@tag:worker` are the sessions here that have the
//! tag `worker`, `dev-2:@tag:worker` those there; `@group:mesh` are the sessions of the group
//! `mesh` wherever they run, `dev-2:@group:mesh` those on that node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::error::{Error, Result};
use crate::locator::{Locator, Session, node_name};
use crate::paper::GroupName;

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
    /// All of a group.
    Group {
        /// On this node alone; none for all of them.
        node: Option<String>,
        /// The group.
        group: String,
    },
}

impl Recipient {
    /// Where the node is named.
    pub fn node_mut(&mut self) -> &mut Option<String> {
        match self {
            Self::One(locator) => &mut locator.node,
            Self::Tagged { node, .. } | Self::Group { node, .. } => node,
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
        if let Some(group) = rest.strip_prefix("@group:") {
            let group = group.parse::<GroupName>();
            let group = group.map_err(|error| Error::new("name_invalid", error.to_string()))?;
            let group = group.as_str().to_owned();
            return Ok(Self::Group { node, group });
        }
        let tag = rest.strip_prefix("@tag:").unwrap_or_default();
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
            Self::Group { node, group } => {
                if let Some(node) = node {
                    write!(f, "{node}:")?;
                }
                write!(f, "@group:{group}")
            }
        }
    }
}

/// On the wire: `to_id`, `to_name`, `to_tag` or `to_group`, and `node`.
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_id: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Serialize for Recipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (session, to_tag, to_group, node) = match self.clone() {
            Self::One(locator) => (Some(locator.session), None, None, locator.node),
            Self::Tagged { node, tag } => (None, Some(tag), None, node),
            Self::Group { node, group } => (None, None, Some(group), node),
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
            to_group,
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
        match (session, wire.to_tag, wire.to_group) {
            (Some(session), ..) => Ok(Self::One(Locator { node, session })),
            (None, Some(tag), _) => Ok(Self::Tagged { node, tag }),
            (None, None, Some(group)) => Ok(Self::Group { node, group }),
            (None, None, None) => Err(D::Error::custom("either to_id or to_name required")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_recipients_and_back() {
        for text in [
            "coder",
            "3",
            "dev-2:coder",
            "@tag:worker",
            "dev-2:@tag:a b",
            "@group:m",
            "d:@group:m",
        ] {
            let recipient: Recipient = text.parse().unwrap();
            assert_eq!(recipient.to_string(), text);
            let json = serde_json::to_string(&recipient).unwrap();
            assert_eq!(serde_json::from_str::<Recipient>(&json).unwrap(), recipient);
        }
        let code = |text: &str| text.parse::<Recipient>().unwrap_err().code;
        assert_eq!(code("@group:a b"), "name_invalid");
        assert_eq!(code("@tag:"), "tag_invalid");
        assert_eq!(code("a/b:@tag:x"), "locator_invalid");
        assert!(serde_json::from_str::<Recipient>("{}").is_err());
    }
}
