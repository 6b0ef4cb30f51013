//! How a tool's arguments name a session: by number, by name, or as `node:session`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::locator::{Locator, Session};

/// A session: its number, its name, or `node:session` for one on another machine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Who {
    /// Its number on this node.
    Number(u32),
    /// Its name, or `node:session`.
    Text(String),
}

impl Who {
    pub(crate) fn locator(&self) -> Result<Locator> {
        match self {
            Self::Number(id) => Ok(Locator {
                node: None,
                session: Session::Id(*id),
            }),
            Self::Text(text) => text.parse(),
        }
    }
}

/// A locator from what may be left out.
pub(crate) fn optional(who: Option<&Who>) -> Result<Option<Locator>> {
    who.map(Who::locator).transpose()
}

/// The recipient, which may be given in two fields.
pub(crate) fn recipient(id: Option<&Who>, name: Option<&Who>) -> Result<Locator> {
    match (id, name) {
        (Some(who), None) | (None, Some(who)) => who.locator(),
        (Some(_), Some(_)) => Err(Error::bad_request(
            "give to_session_id or to_name, not both",
        )),
        (None, None) => Err(Error::bad_request("missing to_session_id or to_name")),
    }
}
