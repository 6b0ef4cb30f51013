//! What an event looks like on the wire and in JSON: `{timestamp, type, data}` as existing clients
//! know it, with the number in its session (`seq`) and on its node (`cursor`).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use session::{Event, EventKind, Outcome};

use super::inbox::MessageInfo;
use crate::rpc::codec::Json;
use crate::show;

/// Something that happened to a session.
#[derive(
    Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode, schemars::JsonSchema,
)]
pub struct Happened {
    /// The session.
    pub session_id: u32,
    /// What.
    pub event: EventBody,
}

/// An event.
#[derive(
    Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode, schemars::JsonSchema,
)]
pub struct EventBody {
    /// RFC 3339.
    pub timestamp: String,
    /// `direct.message` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Depends on the type.
    pub data: Json,
    /// Its number in the session's file.
    #[serde(default)]
    pub seq: u64,
    /// Its number on the node, for `cw subscribe --since`.
    #[serde(default)]
    pub cursor: u64,
}

impl From<&Event> for Happened {
    fn from(event: &Event) -> Self {
        Self {
            session_id: event.session.0,
            event: EventBody {
                seq: event.seq,
                cursor: event.cursor,
                timestamp: show::rfc3339(event.at_ms),
                kind: event.kind.event_type().as_str().to_owned(),
                data: Json(data(&event.kind)),
            },
        }
    }
}

fn data(kind: &EventKind) -> Value {
    match kind {
        EventKind::Created(created) => json!({
            "command": created.command,
            "working_dir": created.working_dir,
            "tags": created.tags,
            "name": created.name,
        }),
        EventKind::Exited(exited) => {
            let (code, signal) = match exited.outcome {
                Outcome::Code(code) => (Some(code), None),
                Outcome::Signal(signal) => (None, Some(signal)),
                Outcome::Unknown => (None, None),
            };
            json!({
                "from": "running",
                "to": if exited.killed { "killed" } else { "completed" },
                "exit_code": code,
                "signal": signal,
                "duration_ms": exited.duration_ms,
                "output_bytes": exited.output_bytes,
                "output_lines": exited.output_lines,
            })
        }
        EventKind::Input { source, bytes } => json!({"source": source, "bytes_count": bytes}),
        EventKind::Attached { client } | EventKind::Detached { client } => {
            json!({"client_id": client})
        }
        EventKind::Killed => json!({}),
        EventKind::Restored {
            torn_bytes,
            damaged_lines,
        } => json!({"torn_bytes": torn_bytes, "damaged_lines": damaged_lines}),
        EventKind::Renamed { name, previous } => json!({"name": name, "previous": previous}),
        EventKind::Tagged { tags } => json!({"tags": tags}),
        EventKind::OutputSummary(summary) => json!({
            "bytes_delta": summary.bytes_delta,
            "lines_delta": summary.lines_delta,
            "total_bytes": summary.total_bytes,
            "total_lines": summary.total_lines,
            "preview": summary.preview,
        }),
        EventKind::Receipt(receipt) => json!({
            "message_ids": receipt.messages.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "state": receipt.step.as_str(),
            "reason": receipt.reason,
        }),
        EventKind::Message(message) => {
            serde_json::to_value(MessageInfo::from(message)).unwrap_or_default()
        }
    }
}
