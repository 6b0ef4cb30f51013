//! An error, as a node answers it.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How an error looks on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Failure {
    /// What was wrong.
    pub message: String,
    /// Stable; empty from nodes that have none.
    #[serde(default)]
    pub code: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            message: error.message,
            code: error.code,
            hint: error.hint,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let code = if failure.code.is_empty() {
            "failed".to_owned()
        } else {
            failure.code
        };
        Self {
            code,
            message: failure.message,
            hint: failure.hint,
        }
    }
}
