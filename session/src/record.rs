//! Events on disk: one JSON object a line, appended, never changed.
//!
//! ```text
//! {"seq":1,"timestamp":"2026-01-31T23:59:59.042Z","type":"session.created","data":{…}}
//! ```
//!
//! Types are those of [`EventType`], data as in the structures below; fields and
//! types that are not known are skipped. A write that was cut short leaves a
//! last line that is not whole: recovery cuts it off and keeps the rest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Created, Error, Event, EventKind, EventType, Exited, Message, MessageId, MessageKind, Name,
    Outcome, Party, SessionId, Size, Status, Tag, time,
};

/// Bytes in the longest line: a body of 1 MiB, each byte of which JSON writes
/// as six, and its envelope.
pub const MAX_LINE: usize = 6 * crate::MAX_BODY + 16 * 1024;

/// Where an event is in its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// First byte of the line.
    pub offset: u64,
    /// Bytes in the line, its end included.
    pub len: u32,
}

#[derive(Serialize)]
struct Out<'a, T> {
    seq: u64,
    timestamp: String,
    #[serde(rename = "type")]
    kind: &'a str,
    data: T,
}

#[derive(Deserialize)]
struct In {
    seq: u64,
    timestamp: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

#[derive(Serialize, Deserialize)]
struct CreatedData {
    command: Vec<String>,
    working_dir: String,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    #[serde(default)]
    size: Size,
}

#[derive(Serialize, Deserialize)]
struct StatusData {
    from: String,
    to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(default)]
    duration_ms: u64,
    #[serde(default)]
    output_bytes: u64,
    #[serde(default)]
    output_lines: u64,
}

#[derive(Serialize, Deserialize)]
struct InputData {
    source: String,
    bytes_count: u64,
}

#[derive(Serialize, Deserialize)]
struct ClientData {
    client_id: u64,
}

#[derive(Serialize, Deserialize)]
struct RestoredData {
    torn_bytes: u64,
    damaged_lines: u64,
}

#[derive(Serialize, Deserialize)]
struct NoData {}

/// `from` and `to` are session numbers; 0 is no session.
#[derive(Serialize, Deserialize)]
struct MessageData {
    message_id: MessageId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<MessageId>,
    from: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from_node: Option<String>,
    to: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_node: Option<String>,
    body: String,
}

/// The line of an event, its end included.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    match &event.kind {
        EventKind::Created(created) => line(
            event,
            CreatedData {
                command: created.command.clone(),
                working_dir: created.working_dir.clone(),
                tags: created.tags.clone(),
                name: created.name.clone(),
                size: created.size,
            },
        ),
        EventKind::Exited(exited) => {
            let status = Status::Exited {
                outcome: exited.outcome,
                killed: exited.killed,
            };
            let data = StatusData {
                from: Status::Running.word().into(),
                to: status.word().into(),
                exit_code: exited.outcome.code(),
                signal: exited.outcome.signal(),
                duration_ms: exited.duration_ms,
                output_bytes: exited.output_bytes,
                output_lines: exited.output_lines,
            };
            line(event, data)
        }
        EventKind::Input { source, bytes } => line(
            event,
            InputData {
                source: source.clone(),
                bytes_count: *bytes,
            },
        ),
        EventKind::Attached { client } | EventKind::Detached { client } => {
            let client_id = *client;
            line(event, ClientData { client_id })
        }
        EventKind::Killed => line(event, NoData {}),
        EventKind::Restored {
            torn_bytes,
            damaged_lines,
        } => line(
            event,
            RestoredData {
                torn_bytes: *torn_bytes,
                damaged_lines: *damaged_lines,
            },
        ),
        EventKind::Message(message) => line(event, MessageData::from(message)),
    }
}

fn line<T: Serialize>(event: &Event, data: T) -> Vec<u8> {
    let out = Out {
        seq: event.seq,
        timestamp: time::format(event.at_ms),
        kind: event.kind.event_type().as_str(),
        data,
    };
    let mut bytes = serde_json::to_vec(&out).expect("these structures have JSON");
    bytes.push(b'\n');
    bytes
}

/// Reads a line. `None` is an event of a type that is not known here.
///
/// # Errors
/// [`Error::Protocol`] when it is not an event.
pub fn decode(session: SessionId, line: &[u8]) -> Result<Option<Event>, Error> {
    let bad = |error: serde_json::Error| Error::Protocol(format!("event: {error}"));
    let record: In = serde_json::from_slice(line).map_err(bad)?;
    let at_ms = time::parse(&record.timestamp)
        .ok_or_else(|| Error::Protocol(format!("event: timestamp {:?}", record.timestamp)))?;
    let Some(kind) = EventType::parse(&record.kind) else {
        return Ok(None);
    };
    let kind = decode_kind(kind, record.data, at_ms).map_err(bad)?;
    Ok(Some(Event {
        seq: record.seq,
        at_ms,
        session,
        kind,
    }))
}

fn decode_kind(kind: EventType, data: Value, at_ms: u64) -> Result<EventKind, serde_json::Error> {
    use serde_json::from_value;
    Ok(match kind {
        EventType::Created => {
            let data: CreatedData = from_value(data)?;
            EventKind::Created(Created {
                command: data.command,
                working_dir: data.working_dir,
                tags: data.tags,
                name: data.name,
                size: data.size,
            })
        }
        EventType::Status => {
            let data: StatusData = from_value(data)?;
            let outcome = match (data.exit_code, data.signal) {
                (Some(code), _) => Outcome::Code(code),
                (None, Some(signal)) => Outcome::Signal(signal),
                (None, None) => Outcome::Unknown,
            };
            EventKind::Exited(Exited {
                outcome,
                killed: data.to == "killed",
                duration_ms: data.duration_ms,
                output_bytes: data.output_bytes,
                output_lines: data.output_lines,
            })
        }
        EventType::Input => {
            let data: InputData = from_value(data)?;
            EventKind::Input {
                source: data.source,
                bytes: data.bytes_count,
            }
        }
        EventType::Attached | EventType::Detached => {
            let ClientData { client_id: client } = from_value(data)?;
            if kind == EventType::Attached {
                EventKind::Attached { client }
            } else {
                EventKind::Detached { client }
            }
        }
        EventType::Killed => EventKind::Killed,
        EventType::Restored => {
            let data: RestoredData = from_value(data)?;
            EventKind::Restored {
                torn_bytes: data.torn_bytes,
                damaged_lines: data.damaged_lines,
            }
        }
        EventType::DirectMessage | EventType::MessageRequest | EventType::MessageReply => {
            let data: MessageData = from_value(data)?;
            let kind = match kind {
                EventType::MessageRequest => MessageKind::Request,
                EventType::MessageReply => MessageKind::Reply,
                _ => MessageKind::Direct,
            };
            EventKind::Message(data.into_message(kind, at_ms))
        }
    })
}

impl From<&Message> for MessageData {
    fn from(message: &Message) -> Self {
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
            body: message.body.clone(),
        }
    }
}

impl MessageData {
    fn into_message(self, kind: MessageKind, at_ms: u64) -> Message {
        Message {
            id: self.message_id,
            at_ms,
            kind,
            from: unflatten(self.from, self.from_name, self.from_node),
            to: unflatten(self.to, self.to_name, self.to_node),
            body: self.body,
            request_id: self.request_id,
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

/// What became of a file of events that was read back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Repair {
    /// Bytes of the file that are good; the rest is to be cut off.
    pub intact: u64,
    /// Bytes after them.
    pub torn_bytes: u64,
    /// Whether the last good line lacks its line feed.
    pub missing_end: bool,
    /// Lines before the end that are no events.
    pub damaged_lines: u64,
}

/// Reads a file of events back, piece by piece.
#[derive(Debug)]
pub struct Recovery {
    session: SessionId,
    pending: Vec<u8>,
    /// Of the first byte in `pending`.
    offset: u64,
    /// A line so long that it is skipped.
    skipping: bool,
    repair: Repair,
}

impl Recovery {
    /// For the file of this session.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            pending: Vec::new(),
            offset: 0,
            skipping: false,
            repair: Repair::default(),
        }
    }

    /// Takes the next bytes of the file and passes on the events that end in
    /// them.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], mut found: impl FnMut(Event, Place)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            self.pending.extend_from_slice(line);
            self.handle_line(&mut found);
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() > MAX_LINE {
            self.skipping = true;
            self.offset += self.pending.len() as u64;
            self.pending.clear();
        }
    }

    /// The file is over. A last line without an end counts if it is whole.
    pub fn finish(mut self, mut found: impl FnMut(Event, Place)) -> Repair {
        let torn = self.pending.len() as u64;
        if self.skipping {
            // What was skipped is not known to be a line; it is left in place
            // and ended.
            self.repair.damaged_lines += 1;
            self.repair.intact = self.offset + torn;
            self.repair.missing_end = true;
        } else if torn > 0 {
            if let Ok(event) = decode(self.session, &self.pending) {
                self.repair.missing_end = true;
                self.repair.intact += torn;
                if let Some(event) = event {
                    let place = self.place(self.pending.len() + 1);
                    found(event, place);
                }
            } else {
                self.repair.torn_bytes = torn;
            }
        }
        self.repair
    }

    fn handle_line(&mut self, found: &mut impl FnMut(Event, Place)) {
        let len = self.pending.len();
        let decoded = if self.skipping {
            Err(Error::Protocol("line too long".into()))
        } else {
            decode(self.session, &self.pending)
        };
        match decoded {
            Ok(Some(event)) => {
                let place = self.place(len);
                found(event, place);
            }
            Ok(None) => {}
            Err(_) => self.repair.damaged_lines += 1,
        }
        self.skipping = false;
        self.offset += len as u64;
        self.repair.intact = self.offset;
        self.pending.clear();
    }

    fn place(&self, len: usize) -> Place {
        Place {
            offset: self.offset,
            len: u32::try_from(len).expect("MAX_LINE fits in 32 bits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(seq: u64, kind: EventKind) -> Event {
        Event {
            seq,
            at_ms: 1_767_225_599_042,
            session: SessionId(7),
            kind,
        }
    }

    fn message(body: &str) -> Message {
        Message {
            id: MessageId::new(MessageKind::Reply, [7; 16]),
            at_ms: 1_767_225_599_042,
            kind: MessageKind::Reply,
            from: Party::local(SessionId(7), Some("coder".parse().unwrap())),
            to: Party {
                node: Some("dev-1".into()),
                session: Some((SessionId(3), None)),
            },
            body: body.into(),
            request_id: Some(MessageId::new(MessageKind::Request, [9; 16])),
        }
    }

    fn one_of_each() -> Vec<Event> {
        let ended = |outcome| {
            EventKind::Exited(Exited {
                outcome,
                killed: false,
                duration_ms: 5,
                output_bytes: 12,
                output_lines: 1,
            })
        };
        let kinds = vec![
            EventKind::Created(Created {
                command: vec!["sh".into(), "-c".into(), "echo 'a\nb'".into()],
                working_dir: "/tmp".into(),
                tags: vec!["worker".parse().unwrap()],
                name: Some("coder".parse().unwrap()),
                size: Size { cols: 80, rows: 24 },
            }),
            EventKind::Attached { client: 1 },
            EventKind::Input {
                source: "input".into(),
                bytes: 3,
            },
            EventKind::Detached { client: 1 },
            EventKind::Restored {
                torn_bytes: 9,
                damaged_lines: 2,
            },
            EventKind::Killed,
            ended(Outcome::Code(42)),
            ended(Outcome::Signal(9)),
            ended(Outcome::Unknown),
            EventKind::Message(message("hello \"you\"\n\u{1b}[0m ü")),
        ];
        kinds
            .into_iter()
            .zip(1..)
            .map(|(kind, seq)| event(seq, kind))
            .collect()
    }

    #[test]
    fn the_format_on_disk_stays() {
        let created = &one_of_each()[0];
        let line = String::from_utf8(encode(created)).unwrap();
        let expected = concat!(
            r#"{"seq":1,"timestamp":"2025-12-31T23:59:59.042Z","type":"session.created","data":"#,
            r#"{"command":["sh","-c","echo 'a\nb'"],"working_dir":"/tmp","tags":["worker"],"#,
            r#""name":"coder","size":{"cols":80,"rows":24}}}"#,
            "\n"
        );
        assert_eq!(line, expected);
        let reply = event(2, EventKind::Message(message("hi")));
        let line = String::from_utf8(encode(&reply)).unwrap();
        let expected = concat!(
            r#"{"seq":2,"timestamp":"2025-12-31T23:59:59.042Z","type":"message.reply","data":"#,
            r#"{"message_id":"rpl_BwcHBwcHBwcHBwcHBwcHBw","request_id":"req_CQkJCQkJCQkJCQkJCQkJCQ","#,
            r#""from":7,"from_name":"coder","to":3,"to_node":"dev-1","body":"hi"}}"#,
            "\n"
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn every_event_reads_back_as_it_was() {
        for event in one_of_each() {
            let line = encode(&event);
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(decode(SessionId(7), &line).unwrap(), Some(event));
        }
    }

    /// Recovers a file that comes in pieces of `piece` bytes.
    fn recover(file: &[u8], piece: usize) -> (Vec<(Event, Place)>, Repair) {
        let mut events = Vec::new();
        let mut recovery = Recovery::new(SessionId(7));
        for part in file.chunks(piece.max(1)) {
            recovery.handle_bytes(part, |event, place| events.push((event, place)));
        }
        let repair = recovery.finish(|event, place| events.push((event, place)));
        (events, repair)
    }

    #[test]
    fn a_last_line_torn_at_any_byte_costs_that_line_only() {
        let events = one_of_each();
        let lines: Vec<_> = events.iter().map(encode).collect();
        let file = lines.concat();
        for torn in 1..=lines.len() {
            let whole = lines[..torn - 1].concat().len();
            let last = lines[torn - 1].len();
            for kept in 0..=last {
                let (found, repair) = recover(&file[..whole + kept], 64);
                // Only the line feed is missing: the event is whole.
                let complete = kept >= last - 1;
                let expected = if complete { torn } else { torn - 1 };
                assert_eq!(found.len(), expected, "line {torn}, byte {kept}");
                for ((event, place), wanted) in found.iter().zip(&events) {
                    assert_eq!(event, wanted);
                    let start = place.offset as usize;
                    let end = start + place.len as usize;
                    assert_eq!(&file[start..end], encode(wanted));
                }
                assert_eq!(repair.missing_end, kept == last - 1);
                assert_eq!(repair.damaged_lines, 0);
                let intact = if complete { whole + kept } else { whole };
                assert_eq!(repair.intact as usize, intact);
                let rest = if complete { 0 } else { kept };
                assert_eq!(repair.torn_bytes as usize, rest);
            }
        }
    }

    #[test]
    fn damaged_and_unknown_lines_do_not_hide_the_others() {
        let events = one_of_each();
        let mut file = encode(&events[0]);
        file.extend_from_slice(b"\0\0\0\0\n");
        file.extend_from_slice(br#"{"seq":2,"timestamp":"2026-01-01T00:00:00Z","type":"new"}"#);
        file.push(b'\n');
        file.extend_from_slice(br#"{"seq":3,"timestamp":"yesterday","type":"session.killed"}"#);
        file.push(b'\n');
        let last = file.len() as u64;
        file.extend(encode(&events[5]));
        let (found, repair) = recover(&file, 7);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].1.offset, last);
        assert_eq!(repair.damaged_lines, 2);
        assert_eq!(repair.torn_bytes, 0);
        assert_eq!(repair.intact, file.len() as u64);
    }

    #[test]
    fn an_endless_line_is_skipped_without_being_kept() {
        let events = one_of_each();
        let mut file = encode(&events[0]);
        file.extend(std::iter::repeat_n(b'x', 2 * MAX_LINE + 10));
        file.push(b'\n');
        file.extend(encode(&events[5]));
        let (found, repair) = recover(&file, 1024 * 1024);
        assert_eq!(found.len(), 2);
        let place = found[1].1;
        assert_eq!(&file[place.offset as usize..], encode(&events[5]));
        assert_eq!(repair.damaged_lines, 1);
    }

    #[test]
    fn the_largest_body_fits_in_a_line() {
        let worst = "\u{1}".repeat(crate::MAX_BODY);
        let line = encode(&event(1, EventKind::Message(message(&worst))));
        assert!(line.len() <= MAX_LINE, "{}", line.len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(file in prop::collection::vec(any::<u8>(), 0..300), piece in 1..50_usize) {
            let (_, repair) = recover(&file, piece);
            prop_assert!(repair.intact + repair.torn_bytes <= file.len() as u64);
        }

        #[test]
        fn any_body_reads_back(body in ".{0,200}") {
            let event = event(1, EventKind::Message(message(&body)));
            prop_assert_eq!(decode(SessionId(7), &encode(&event)).unwrap(), Some(event));
        }
    }
}
