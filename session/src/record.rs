//! Events on disk: one JSON object a line, appended, never changed.
//!
//! ```text
//! {"seq":1,"cursor":1,"timestamp":"2026-01-31T23:59:59.042Z","type":"session.created","data":{…}}
//! ```
//!
//! Types are those of [`EventType`], data as in the structures below; fields and
//! types that are not known are skipped. A write that was cut short leaves a
//! last line that is not whole: recovery cuts it off and keeps the rest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Created, Error, Event, EventKind, EventType, MessageKind, SessionId, time};

mod data;
mod recovery;

use data::{
    ClientData, CreatedData, InputData, MessageData, NoData, ReceiptData, RenamedData,
    RestoredData, StatusData, SummaryData, TaggedData,
};
pub use recovery::{Recovery, Repair};

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
    cursor: u64,
    timestamp: String,
    #[serde(rename = "type")]
    kind: &'a str,
    data: T,
}

#[derive(Deserialize)]
struct In {
    seq: u64,
    #[serde(default)]
    cursor: u64,
    timestamp: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
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
        EventKind::Exited(exited) => line(event, StatusData::from(exited)),
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
        EventKind::Renamed { name, previous } => line(
            event,
            RenamedData {
                name: name.clone(),
                previous: previous.clone(),
            },
        ),
        EventKind::Tagged { tags } => line(event, TaggedData { tags: tags.clone() }),
        EventKind::OutputSummary(summary) => line(event, SummaryData::from(summary)),
        EventKind::Message(message) => line(event, MessageData::from(message)),
        EventKind::Receipt(receipt) => line(event, ReceiptData::from(receipt)),
    }
}

fn line<T: Serialize>(event: &Event, data: T) -> Vec<u8> {
    let out = Out {
        seq: event.seq,
        cursor: event.cursor,
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
        cursor: record.cursor,
        at_ms,
        session,
        kind,
    }))
}

/// What orders events over all sessions: cursor, and for those from before
/// there were cursors the time, unix milliseconds. `None` for what is no event
/// of a type known here.
#[must_use]
pub fn order(line: &[u8]) -> Option<(u64, u64, EventType)> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        cursor: u64,
        timestamp: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let head: Head = serde_json::from_slice(line).ok()?;
    let kind = EventType::parse(&head.kind)?;
    Some((head.cursor, time::parse(&head.timestamp)?, kind))
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
            EventKind::Exited(data.into())
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
        EventType::Renamed => {
            let RenamedData { name, previous } = from_value(data)?;
            EventKind::Renamed { name, previous }
        }
        EventType::Tagged => {
            let TaggedData { tags } = from_value(data)?;
            EventKind::Tagged { tags }
        }
        EventType::OutputSummary => {
            let data: SummaryData = from_value(data)?;
            EventKind::OutputSummary(data.into())
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
        EventType::MessageReceipt => {
            let data: ReceiptData = from_value(data)?;
            EventKind::Receipt(data.try_into().map_err(serde::de::Error::custom)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Exited, Message, MessageId, Outcome, OutputSummary, Party, Size};

    fn event(seq: u64, kind: EventKind) -> Event {
        Event {
            seq,
            cursor: 100 + seq,
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
            delivery: crate::Delivery::Inbox,
            deadline_ms: None,
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
                usage: Some(crate::Usage {
                    user_ms: 7,
                    system_ms: 8,
                    max_rss_bytes: 4096,
                }),
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
            EventKind::Renamed {
                name: None,
                previous: Some("coder".parse().unwrap()),
            },
            EventKind::Tagged {
                tags: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            },
            EventKind::OutputSummary(OutputSummary {
                bytes_delta: 3,
                lines_delta: 1,
                total_bytes: 12,
                total_lines: 2,
                preview: "$ ü".into(),
            }),
            ended(Outcome::Code(42)),
            ended(Outcome::Signal(9)),
            ended(Outcome::Unknown),
            EventKind::Message(message("hello \"you\"\n\u{1b}[0m ü")),
            EventKind::Receipt(crate::Receipt {
                messages: vec![MessageId::new(MessageKind::Direct, [8; 16])],
                step: crate::Step::Refused,
                reason: Some("a dialog".into()),
            }),
        ];
        kinds
            .into_iter()
            .zip(1..)
            .map(|(kind, seq)| event(seq, kind))
            .collect()
    }

    #[test]
    fn a_deadline_is_read_back_and_may_be_missing() {
        let asked = Message {
            kind: MessageKind::Request,
            deadline_ms: Some(1_767_225_659_042),
            ..message("ready?")
        };
        for message in [asked, message("yes")] {
            let event = event(2, EventKind::Message(message));
            let line = encode(&event);
            let text = String::from_utf8_lossy(&line);
            let is_said = text.contains(r#""deadline":"2026-01-01T00:00:59.042Z""#);
            assert_eq!(is_said, text.contains("message.request"), "{text}");
            assert_eq!(decode(SessionId(7), &line).unwrap(), Some(event));
        }
    }

    #[test]
    fn the_format_on_disk_stays() {
        let created = &one_of_each()[0];
        let line = String::from_utf8(encode(created)).unwrap();
        let expected = concat!(
            r#"{"seq":1,"cursor":101,"timestamp":"2025-12-31T23:59:59.042Z","type":"session.created","data":"#,
            r#"{"command":["sh","-c","echo 'a\nb'"],"working_dir":"/tmp","tags":["worker"],"#,
            r#""name":"coder","size":{"cols":80,"rows":24}}}"#,
            "\n"
        );
        assert_eq!(line, expected);
        let reply = event(2, EventKind::Message(message("hi")));
        let line = String::from_utf8(encode(&reply)).unwrap();
        let expected = concat!(
            r#"{"seq":2,"cursor":102,"timestamp":"2025-12-31T23:59:59.042Z","type":"message.reply","data":"#,
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
    fn u04_a_last_line_torn_at_any_byte_costs_that_line_only() {
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
    fn lines_that_lost_their_line_feed_are_read() {
        let events = one_of_each();
        let lines: Vec<_> = events.iter().map(encode).collect();
        let file = lines.concat();
        let mut end = 0;
        for line in &lines[..lines.len() - 1] {
            end += line.len();
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[end - 1] ^= 1 << bit;
                let (found, repair) = recover(&damaged, 64);
                assert_eq!(found.len(), events.len(), "byte {end}, bit {bit}");
                for (event, place) in &found {
                    let start = place.offset as usize;
                    let line = &damaged[start..start + place.len as usize];
                    assert_eq!(decode(SessionId(7), line).unwrap().as_ref(), Some(event));
                }
                assert_eq!(repair.damaged_lines, 1);
            }
        }
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
    fn u05_the_largest_body_fits_in_a_line() {
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
