//! What a session looks like on the wire and on the screen: `SessionInfo` and `Exited`.
//!
//! The session crate's own types are not wire types: they may change, these fields may not.

use serde::{Deserialize, Serialize};
use session::{Info, Outcome, Status};

use crate::show;

/// A session, as `list --json` and `status --json` print it.
#[derive(
    Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode, schemars::JsonSchema,
)]
pub struct SessionInfo {
    /// The number, never used twice in one directory.
    pub id: u32,
    /// The name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The command, its words joined by spaces.
    pub prompt: String,
    /// Where it was started.
    pub working_dir: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// `running`, `completed (N)`, `killed`, `signal N` or `exited, status unknown`.
    pub status: String,
    /// Whether a client is attached.
    pub attached: bool,
    /// The number of attached clients.
    #[serde(default)]
    pub attached_count: u32,
    /// The process number while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What it returned, when it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// How long it ran, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Bytes printed so far.
    pub output_bytes: u64,
    /// Bytes of output on the disk.
    pub output_size_bytes: u64,
    /// Lines printed so far.
    pub output_lines: u64,
    /// When it last printed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_output_at: Option<String>,
    /// The end of its output as text, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_output_snippet: Option<String>,
    /// Seconds since it last printed, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// Whether its output waits for room on the disk, and the program for its output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disk_full: bool,
}

impl From<&Info> for SessionInfo {
    fn from(info: &Info) -> Self {
        let (exit_code, signal) = match &info.status {
            Status::Exited {
                outcome: Outcome::Code(code),
                ..
            } => (Some(*code), None),
            Status::Exited {
                outcome: Outcome::Signal(signal),
                ..
            } => (None, Some(*signal)),
            Status::Exited {
                outcome: Outcome::Unknown,
                ..
            }
            | Status::Running => (None, None),
        };
        Self {
            id: info.id.0,
            name: info.name.as_ref().map(ToString::to_string),
            prompt: info.argv.join(" "),
            working_dir: info.cwd.display().to_string(),
            created_at: show::rfc3339(info.created_ms),
            status: status_text(&info.status),
            attached: info.attached > 0,
            attached_count: info.attached,
            pid: info.pid,
            tags: info.tags.iter().map(ToString::to_string).collect(),
            exit_code,
            signal,
            completed_at: info.exited_ms.map(show::rfc3339),
            duration_ms: info
                .exited_ms
                .map(|end| end.saturating_sub(info.created_ms)),
            output_bytes: info.output_end,
            output_size_bytes: info.output_end - info.output_start,
            output_lines: info.output_lines,
            last_output_at: info.last_output_ms.map(show::rfc3339),
            last_output_snippet: None,
            idle_seconds: (info.status == Status::Running).then(|| {
                let since = info.last_output_ms.unwrap_or(info.created_ms);
                show::now_ms().saturating_sub(since) / 1000
            }),
            disk_full: info.disk_full,
        }
    }
}

/// The words for a status.
#[must_use]
pub fn status_text(status: &Status) -> String {
    match status {
        Status::Running => "running".to_owned(),
        Status::Exited { killed: true, .. } => "killed".to_owned(),
        Status::Exited {
            outcome: Outcome::Code(code),
            ..
        } => format!("completed ({code})"),
        Status::Exited {
            outcome: Outcome::Signal(signal),
            ..
        } => format!("signal {signal}"),
        Status::Exited {
            outcome: Outcome::Unknown,
            ..
        } => "exited, status unknown".to_owned(),
    }
}

/// The end of a session.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Exited {
    /// The session.
    pub id: u32,
    /// As in [`SessionInfo::status`].
    pub status: String,
    /// What it returned, when it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The end of its output, in bytes since its start.
    pub offset: u64,
}

impl Exited {
    pub(crate) fn new(info: &Info) -> Self {
        let wire = SessionInfo::from(info);
        Self {
            id: wire.id,
            status: wire.status,
            exit_code: wire.exit_code,
            signal: wire.signal,
            offset: info.output_end,
        }
    }
}
