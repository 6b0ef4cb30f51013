//! The `data` of each type of event, as it is in the file.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    Delivery, Exited, Message, MessageId, MessageKind, Name, Outcome, OutputSummary, Party,
    Receipt, SessionId, Size, Status, Step, Tag, Usage, time,
};

#[derive(Serialize, Deserialize)]
pub(super) struct CreatedData {
    pub(super) command: Vec<String>,
    pub(super) working_dir: String,
    #[serde(default)]
    pub(super) tags: Vec<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Name>,
    #[serde(default)]
    pub(super) size: Size,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StatusData {
    pub(super) from: String,
    pub(super) to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<i32>,
    #[serde(default)]
    pub(super) duration_ms: u64,
    #[serde(default)]
    pub(super) output_bytes: u64,
    #[serde(default)]
    pub(super) output_lines: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct InputData {
    pub(super) source: String,
    pub(super) bytes_count: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ClientData {
    pub(super) client_id: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RestoredData {
    pub(super) torn_bytes: u64,
    pub(super) damaged_lines: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RenamedData {
    pub(super) name: Option<Name>,
    pub(super) previous: Option<Name>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TaggedData {
    pub(super) tags: Vec<Tag>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SummaryData {
    pub(super) bytes_delta: u64,
    pub(super) lines_delta: u64,
    pub(super) total_bytes: u64,
    pub(super) total_lines: u64,
    #[serde(default)]
    pub(super) preview: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct NoData {}

/// `from` and `to` are session numbers; 0 is no session.
#[derive(Serialize, Deserialize)]
pub(super) struct MessageData<'a> {
    pub(super) message_id: MessageId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<MessageId>,
    pub(super) from: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from_node: Option<String>,
    pub(super) to: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to_node: Option<String>,
    pub(super) body: Cow<'a, str>,
    /// Left out for the inbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<Cow<'a, str>>,
    /// As the timestamp of an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReceiptData {
    pub(super) message_ids: Vec<MessageId>,
    pub(super) state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl From<&Receipt> for ReceiptData {
    fn from(receipt: &Receipt) -> Self {
        Self {
            message_ids: receipt.messages.clone(),
            state: receipt.step.as_str().to_owned(),
            reason: receipt.reason.clone(),
        }
    }
}

impl TryFrom<ReceiptData> for Receipt {
    type Error = String;

    fn try_from(data: ReceiptData) -> Result<Self, String> {
        let step = Step::parse(&data.state).ok_or_else(|| format!("state {:?}", data.state))?;
        Ok(Self {
            messages: data.message_ids,
            step,
            reason: data.reason,
        })
    }
}

impl From<&Exited> for StatusData {
    fn from(exited: &Exited) -> Self {
        let status = Status::Exited {
            outcome: exited.outcome,
            killed: exited.killed,
        };
        Self {
            from: Status::Running.word().into(),
            to: status.word().into(),
            exit_code: exited.outcome.code(),
            signal: exited.outcome.signal(),
            duration_ms: exited.duration_ms,
            output_bytes: exited.output_bytes,
            output_lines: exited.output_lines,
            usage: exited.usage,
        }
    }
}

impl From<StatusData> for Exited {
    fn from(data: StatusData) -> Self {
        let outcome = match (data.exit_code, data.signal) {
            (Some(code), _) => Outcome::Code(code),
            (None, Some(signal)) => Outcome::Signal(signal),
            (None, None) => Outcome::Unknown,
        };
        Self {
            outcome,
            killed: data.to == "killed",
            duration_ms: data.duration_ms,
            output_bytes: data.output_bytes,
            output_lines: data.output_lines,
            usage: data.usage,
        }
    }
}

impl From<&OutputSummary> for SummaryData {
    fn from(summary: &OutputSummary) -> Self {
        Self {
            bytes_delta: summary.bytes_delta,
            lines_delta: summary.lines_delta,
            total_bytes: summary.total_bytes,
            total_lines: summary.total_lines,
            preview: summary.preview.clone(),
        }
    }
}

impl From<SummaryData> for OutputSummary {
    fn from(data: SummaryData) -> Self {
        Self {
            bytes_delta: data.bytes_delta,
            lines_delta: data.lines_delta,
            total_bytes: data.total_bytes,
            total_lines: data.total_lines,
            preview: data.preview,
        }
    }
}

impl<'a> From<&'a Message> for MessageData<'a> {
    fn from(message: &'a Message) -> Self {
        let (from, from_name, from_node) = flatten(&message.from);
        let (to, to_name, to_node) = flatten(&message.to);
        Self {
            message_id: message.id,
            request_id: message.request_id,
            from,
            from_name,
            from_node,
            to,
            to_name,
            to_node,
            body: Cow::Borrowed(&message.body),
            delivery: (message.delivery != Delivery::Inbox)
                .then(|| Cow::Borrowed(message.delivery.as_str())),
            deadline: message
                .deadline_ms
                .map(|deadline| Cow::Owned(time::format(deadline))),
        }
    }
}

impl MessageData<'_> {
    pub(super) fn into_message(self, kind: MessageKind, at_ms: u64) -> Message {
        Message {
            id: self.message_id,
            at_ms,
            kind,
            from: unflatten(self.from, self.from_name, self.from_node),
            to: unflatten(self.to, self.to_name, self.to_node),
            body: self.body.into_owned(),
            request_id: self.request_id,
            delivery: self
                .delivery
                .and_then(|text| Delivery::parse(&text))
                .unwrap_or_default(),
            deadline_ms: self.deadline.and_then(|text| time::parse(&text)),
        }
    }
}

fn flatten(party: &Party) -> (u32, Option<Name>, Option<String>) {
    let node = party.node.clone();
    match &party.session {
        Some((id, name)) => (id.0, name.clone(), node),
        None => (0, None, node),
    }
}

fn unflatten(id: u32, name: Option<Name>, node: Option<String>) -> Party {
    let session = (id != 0).then_some((SessionId(id), name));
    Party { node, session }
}
