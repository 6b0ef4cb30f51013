//! What clients did and what was found in the end, one JSON object a line, and whether that is what
//! was promised ([`check()`]).
//!
//! | line | says |
//! |---|---|
//! | `invoke` | a client is about to ask for something |
//! | `ok`, `fail`, `info` | the answer: it counts; it does not; nobody knows |
//! | `inbox` | the messages of a session, when all is over |
//! | `outbox` | what a node says of its letters then |
//! | `heard` | what somebody who listened all the time was told |
//! | `resumed` | what somebody who waits for a reply gets in the end |
//! | `state` | a file of the node, and what is wrong with it |
//!
//! A call has a text of its own, by which it is found again: `sender#number`, counted in the order
//! in which that sender made them, one after the other. A sender, a recipient and who is asked are
//! written `node:session`, whatever the product says for short.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod check;

pub use check::{Broken, Kind, Tally, check};

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// A client is about to ask.
    Invoke {
        /// The number of the call in this history.
        op: u64,
        /// What it asks for.
        call: Call,
    },
    /// It was told that it is done.
    Ok {
        /// The call.
        op: u64,
        /// How far each recipient's copy had come: `queued`, `delivered`, `refused`.
        receipts: Vec<Receipt>,
    },
    /// It was told that it is not done.
    Fail {
        /// The call.
        op: u64,
        /// Why not.
        code: String,
    },
    /// It was not told.
    Info {
        /// The call.
        op: u64,
        /// What came instead.
        why: String,
    },
    /// What a session has received, oldest first.
    Inbox {
        /// The session as others name it.
        session: String,
        /// Its number; a later session of the same name has a higher one.
        id: u32,
        /// Received, not sent.
        messages: Vec<Seen>,
    },
    /// The letters of a node: id, state.
    Outbox {
        /// The node.
        node: String,
        /// By id: state, and a word for why.
        letters: BTreeMap<String, String>,
    },
    /// What a listener was told of a node's messages.
    Heard {
        /// The node.
        node: String,
        /// Where it began to listen.
        since: u64,
        /// What it was told, as it came.
        events: Vec<Heard>,
    },
    /// The reply that somebody gets who waits for it in the end.
    Resumed {
        /// The request.
        request: String,
        /// The reply's text; none when there is none yet.
        body: Option<String>,
    },
    /// A file of the node.
    State {
        /// Which.
        file: String,
        /// What is wrong with it.
        problem: Option<String>,
    },
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Call {
    /// A message to one or several sessions.
    Message {
        /// Who really sends it.
        from: String,
        /// To whom.
        to: Vec<String>,
        /// The text.
        body: String,
    },
    /// A request to one.
    Request {
        /// Its id.
        id: String,
        /// Who really asks.
        from: String,
        /// Who is asked.
        to: String,
        /// The text.
        body: String,
    },
    /// A reply.
    Reply {
        /// The request.
        request: String,
        /// Who replies.
        by: String,
        /// The text.
        body: String,
    },
}

/// What became of one copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// For whom.
    pub to: String,
    /// Its id.
    pub id: String,
    /// How far it had come.
    pub state: String,
}

/// A message as it is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// From whom, as the product says.
    pub from: String,
    /// The text.
    pub body: String,
    /// Of a reply, the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Its number on its node.
    pub cursor: u64,
}

/// An event as it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Heard {
    /// A message is in a session's file.
    Message {
        /// Its number on the node.
        cursor: u64,
        /// Whose file.
        session: u32,
        /// The message's id.
        id: String,
    },
    /// Something is not told, and that is said.
    Gap {
        /// After this.
        from: u64,
        /// Up to this.
        to: u64,
    },
}

impl Call {
    /// Its text.
    #[must_use]
    pub fn body(&self) -> &str {
        match self {
            Self::Message { body, .. } | Self::Request { body, .. } | Self::Reply { body, .. } => {
                body
            }
        }
    }

    /// Who really made it.
    #[must_use]
    pub fn from(&self) -> &str {
        match self {
            Self::Message { from, .. } | Self::Request { from, .. } => from,
            Self::Reply { by, .. } => by,
        }
    }
}

/// As text, one line each.
///
/// # Panics
///
/// Never: these structures have JSON.
#[must_use]
pub fn to_text(history: &[Line]) -> String {
    let line = |line| serde_json::to_string(line).expect("these structures have JSON") + "\n";
    history.iter().map(line).collect()
}

/// Reads it back.
///
/// # Errors
///
/// What is wrong, with the number of the line.
pub fn from_text(text: &str) -> Result<Vec<Line>, String> {
    let numbered = text.lines().zip(1..);
    numbered
        .map(|(line, number)| {
            serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))
        })
        .collect()
}

#[cfg(test)]
mod tests;
