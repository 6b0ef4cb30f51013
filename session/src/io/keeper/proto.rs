//! What keeper and node say to each other.
//!
//! ```text
//! node → keeper                      keeper → node
//! Hello                              Welcome +lock, then Held +descriptors for each session
//! Spawn                              Spawned +descriptors | SpawnFailed
//!                                    Exited, kept and repeated in Held until Forget
//! Forget
//! Adopt +descriptors, … , Takeover +lock   Welcome +lock | Refused     (to a new keeper)
//! Upgrade                            Upgraded | UpgradeFailed
//! Stopping
//! ```
//!
//! Both ends skip what they do not know, so that a keeper and a node of
//! different age understand each other; meaning changes only with [`VERSION`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Size, Usage};

/// Of this protocol. A keeper lives through many nodes; it must stay understood.
pub(crate) const VERSION: u32 = 1;

/// What the node says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToKeeper {
    /// A node has started and wants to know what there is.
    Hello { version: u32 },
    /// Start a program in a new terminal.
    Spawn(Spawn),
    /// The outcome of this session is recorded; let go of it.
    Forget { id: u32 },
    /// Hold this session too; its process is somebody else's child.
    Adopt { id: u32, pid: u32 },
    /// All sessions have been handed over by the node of this process id.
    Takeover { version: u32, node_pid: u32 },
    /// Execute this program in your place.
    Upgrade { program: PathBuf },
    /// The node is about to exit on purpose.
    Stopping,
    /// From a newer node.
    #[serde(other)]
    Unknown,
}

/// What to start.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Spawn {
    pub(crate) id: u32,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) size: Size,
}

/// What the keeper says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToNode {
    /// Greeting; `held` sessions follow.
    Welcome { version: u32, held: usize },
    /// The keeper cannot work here.
    Refused {
        locked_by: Option<String>,
        message: String,
    },
    /// One session. `own`: its process is the keeper's child, so its exit will
    /// be told. `exited`: it was, with this status of `wait(2)`.
    Held {
        id: u32,
        pid: u32,
        own: bool,
        exited: Option<i32>,
        #[serde(default)]
        usage: Option<Usage>,
    },
    /// It runs.
    Spawned { id: u32, pid: u32 },
    /// It could not be started.
    SpawnFailed { id: u32, message: String },
    /// Another program is the keeper now.
    Upgraded { version: u32 },
    /// It could not be; all is as before.
    UpgradeFailed { message: String },
    /// It is over, with this status of `wait(2)`.
    Exited {
        id: u32,
        pid: u32,
        status: i32,
        #[serde(default)]
        usage: Option<Usage>,
    },
    /// From a newer keeper.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_future_are_skipped() {
        let future = r#"{"type":"sing","song":["la"]}"#;
        assert!(matches!(
            serde_json::from_str(future),
            Ok(ToKeeper::Unknown)
        ));
        assert!(matches!(serde_json::from_str(future), Ok(ToNode::Unknown)));
        let grown = r#"{"type":"forget","id":3,"why":"done"}"#;
        assert!(matches!(
            serde_json::from_str(grown),
            Ok(ToKeeper::Forget { id: 3 })
        ));
    }
}
