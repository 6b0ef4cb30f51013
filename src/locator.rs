//! How a session is named on the command line and on the wire.
//!
//! `coder`, `@coder` and `3` are a session here, `dev-2:coder` and `dev-1:3` one on another node.
//! A word of digits alone is a number. This module is the only parser of such words; on the wire
//! a locator is a few optional fields beside the others of a call (`id`, `name`, `node`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A session, here or on a node of the network.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, bincode::Encode, bincode::Decode,
)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Locator {
    /// The node, or none for the one that is asked.
    pub node: Option<String>,
    /// The session on that node.
    pub session: Session,
}

impl Default for Locator {
    /// The number 0 here, which no session has.
    fn default() -> Self {
        Self {
            node: None,
            session: Session::Id(0),
        }
    }
}

/// A session of one node.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, bincode::Encode, bincode::Decode,
)]
#[serde(try_from = "String", into = "String")]
pub enum Session {
    /// By its number.
    Id(u32),
    /// By its name.
    Name(String),
}

impl Session {
    /// The same in the session crate's words.
    ///
    /// # Errors
    ///
    /// `name_invalid` when no session can have such a name.
    pub fn to_ref(&self) -> Result<session::SessionRef> {
        Ok(match self {
            Self::Id(id) => session::SessionRef::Id(session::SessionId(*id)),
            Self::Name(name) => session::SessionRef::Name(name.parse()?),
        })
    }
}

impl From<Session> for String {
    fn from(session: Session) -> Self {
        session.to_string()
    }
}

impl TryFrom<String> for Session {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Session {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let word = text.strip_prefix('@').unwrap_or(text);
        if word.is_empty() {
            return Err(invalid("session locator is empty"));
        }
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            return word
                .parse()
                .map(Self::Id)
                .map_err(|_| invalid(format!("session number {word} is too large")));
        }
        word.parse::<session::Name>()?;
        Ok(Self::Name(word.to_owned()))
    }
}

impl FromStr for Locator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((node, session)) = text.split_once(':') else {
            return Ok(Self {
                node: None,
                session: text.parse()?,
            });
        };
        if session.contains(':') || session.trim().is_empty() {
            return Err(invalid(format!("invalid session locator {text:?}")));
        }
        Ok(Self {
            node: Some(node_name(node)?),
            session: session.parse()?,
        })
    }
}

/// Checks the name of a node.
///
/// # Errors
///
/// `locator_invalid` when no node can have such a name.
pub fn node_name(text: &str) -> Result<String> {
    let name = text.trim();
    name.parse::<mesh::NodeName>()
        .map_err(|error| invalid(error.to_string()))?;
    Ok(name.to_owned())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new("locator_invalid", message)
        .hint("write <session> or <node>:<session>, for example coder, 3 or dev-2:coder")
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            write!(f, "{node}:")?;
        }
        self.session.fmt(f)
    }
}

/// The fields of a locator in a call.
#[derive(Clone, Serialize, Deserialize)]
struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl From<Locator> for Wire {
    fn from(locator: Locator) -> Self {
        let (id, name) = halves(locator.session);
        Self {
            id,
            name,
            node: locator.node,
        }
    }
}

impl TryFrom<Wire> for Locator {
    type Error = String;

    fn try_from(wire: Wire) -> std::result::Result<Self, String> {
        let session = whole(wire.id, wire.name).ok_or("missing session id")?;
        Ok(Self {
            node: wire.node,
            session,
        })
    }
}

fn halves(session: Session) -> (Option<u32>, Option<String>) {
    match session {
        Session::Id(id) => (Some(id), None),
        Session::Name(name) => (None, Some(name)),
    }
}

fn whole(id: Option<u32>, name: Option<String>) -> Option<Session> {
    id.map(Session::Id).or_else(|| name.map(Session::Name))
}

/// A session that need not be named: `id` or `name`, both optional.
pub(crate) mod one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Session, halves, whole};

    #[derive(Serialize, Deserialize)]
    struct Wire {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    }

    pub(crate) fn serialize<S: Serializer>(
        session: &Option<Session>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let (id, name) = session.clone().map(halves).unwrap_or_default();
        Wire { id, name }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Session>, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Ok(whole(wire.id, wire.name))
    }
}

/// A recipient: `to_id` or `to_name`, and `node`.
pub(crate) mod to {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use super::{Locator, halves, whole};

    #[derive(Serialize, Deserialize)]
    struct Wire {
        #[serde(skip_serializing_if = "Option::is_none")]
        to_id: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to_name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<String>,
    }

    pub(crate) fn serialize<S: Serializer>(to: &Locator, serializer: S) -> Result<S::Ok, S::Error> {
        let (to_id, to_name) = halves(to.session.clone());
        Wire {
            to_id,
            to_name,
            node: to.node.clone(),
        }
        .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Locator, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let session = whole(wire.to_id, wire.to_name)
            .ok_or_else(|| D::Error::custom("either to_id or to_name required"))?;
        Ok(Locator {
            node: wire.node,
            session,
        })
    }
}

/// A claimed sender: `id` or `from_name`, both optional.
pub(crate) mod sender {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Locator, halves, whole};

    #[derive(Serialize, Deserialize)]
    struct Wire {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_node: Option<String>,
    }

    pub(crate) fn serialize<S: Serializer>(
        from: &Option<Locator>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let (id, from_name) = from
            .clone()
            .map(|from| halves(from.session))
            .unwrap_or_default();
        let from_node = from.as_ref().and_then(|from| from.node.clone());
        Wire {
            id,
            from_name,
            from_node,
        }
        .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Locator>, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        // The number 0 is what existing clients send for "nobody".
        Ok(
            whole(wire.id.filter(|id| *id != 0), wire.from_name).map(|session| Locator {
                node: wire.from_node,
                session,
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Locator> {
        text.parse()
    }

    #[test]
    fn s67_words_become_locators() {
        for (text, node, session) in [
            ("3", None, Session::Id(3)),
            ("coder", None, Session::Name("coder".into())),
            ("@coder", None, Session::Name("coder".into())),
            ("dev-1:3", Some("dev-1"), Session::Id(3)),
            (
                " dev-1 : @coder ",
                Some("dev-1"),
                Session::Name("coder".into()),
            ),
        ] {
            let locator = parse(text).unwrap();
            assert_eq!(locator.node.as_deref(), node, "{text}");
            assert_eq!(locator.session, session, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_code() {
        for text in [
            "",
            ":",
            "a:",
            ":3",
            "a:b:c",
            "@",
            "99999999999",
            "sp ace",
            "a/b:3",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                ["locator_invalid", "name_invalid"].contains(&error.code.as_str()),
                "{text}: {}",
                error.code
            );
        }
    }

    #[test]
    fn a_locator_is_fields_on_the_wire() {
        let json = serde_json::to_value(parse("dev-1:3").unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"id": 3, "node": "dev-1"}));
        let back: Locator = serde_json::from_value(serde_json::json!({"name": "coder"})).unwrap();
        assert_eq!(back, parse("coder").unwrap());
        assert!(serde_json::from_str::<Locator>("{}").is_err());
    }

    #[test]
    fn display_is_what_parse_reads() {
        for text in ["3", "coder", "dev-1:coder"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }
}
