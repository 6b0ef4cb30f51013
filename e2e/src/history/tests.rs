//! The judge is judged: histories in which one promise is broken, each of which must be caught as
//! that one.

use super::*;

const A: &str = "dev-1:a";
const B: &str = "dev-2:b";
const C: &str = "dev-2:c";
const REQUEST: &str = "req_1";

fn ok(op: u64, copies: &[(&str, &str)]) -> Line {
    let receipts = copies.iter().map(|(to, state)| Receipt {
        to: (*to).to_owned(),
        id: format!("id_{op}_{to}"),
        state: (*state).to_owned(),
    });
    Line::Ok {
        op,
        receipts: receipts.collect(),
    }
}

fn message(op: u64, from: &str, to: &[&str], body: &str) -> Line {
    Line::Invoke {
        op,
        call: Call::Message {
            from: from.into(),
            to: to.iter().map(ToString::to_string).collect(),
            body: body.into(),
        },
    }
}

fn seen(op: u64, to: &str, from: &str, body: &str, cursor: u64) -> Seen {
    Seen {
        id: format!("id_{op}_{to}"),
        from: from.into(),
        body: body.into(),
        reply_to: None,
        cursor,
    }
}

/// Three messages of `a`, one of them to two; a request that `b` has answered; one message that
/// was refused later, one of which nothing is known.
fn good() -> Vec<Line> {
    [said(), found()].concat()
}

fn said() -> Vec<Line> {
    let reply = |op, by: &str, body: &str| Line::Invoke {
        op,
        call: Call::Reply {
            request: REQUEST.into(),
            by: by.into(),
            body: body.into(),
        },
    };
    vec![
        message(1, A, &[B], "a#1"),
        ok(1, &[(B, "delivered")]),
        message(2, A, &[B, C], "a#2"),
        ok(2, &[(B, "delivered"), (C, "queued")]),
        message(3, A, &[B], "a#3"),
        ok(3, &[(B, "queued")]),
        Line::Invoke {
            op: 4,
            call: Call::Request {
                id: REQUEST.into(),
                from: A.into(),
                to: B.into(),
                body: "a#4".into(),
            },
        },
        ok(4, &[(B, "delivered")]),
        reply(5, B, "b/replies#1"),
        ok(5, &[(A, "delivered")]),
        reply(6, C, "c/replies#1"),
        Line::Fail {
            op: 6,
            code: "not_addressee".into(),
        },
        message(7, A, &[C], "a#5"),
        ok(7, &[(C, "queued")]),
        message(8, A, &[C], "a#6"),
        Line::Info {
            op: 8,
            why: "connection lost".into(),
        },
    ]
}

fn found() -> Vec<Line> {
    let heard = |cursor, session, id: &str| Heard::Message {
        cursor,
        session,
        id: id.into(),
    };
    let answer = Seen {
        reply_to: Some(REQUEST.into()),
        ..seen(5, A, B, "b/replies#1", 40)
    };
    vec![
        Line::Inbox {
            session: A.into(),
            id: 5,
            messages: vec![answer],
        },
        Line::Inbox {
            session: B.into(),
            id: 1,
            messages: vec![seen(1, B, A, "a#1", 11), seen(2, B, A, "a#2", 12)],
        },
        // It was started again after its machine had crashed.
        Line::Inbox {
            session: B.into(),
            id: 3,
            messages: vec![seen(3, B, A, "a#3", 13), seen(4, B, A, "a#4", 15)],
        },
        Line::Inbox {
            session: C.into(),
            id: 2,
            messages: vec![seen(2, C, A, "a#2", 14)],
        },
        Line::Outbox {
            node: "dev-1".into(),
            letters: BTreeMap::from([("id_7_dev-2:c".into(), "refused session_ended".into())]),
        },
        Line::Heard {
            node: "dev-2".into(),
            since: 11,
            events: vec![
                heard(12, 1, "id_2_dev-2:b"),
                heard(13, 3, "id_3_dev-2:b"),
                heard(14, 2, "id_2_dev-2:c"),
                Heard::Gap { from: 15, to: 15 },
            ],
        },
        Line::Resumed {
            request: REQUEST.into(),
            body: Some("b/replies#1".into()),
        },
        Line::State {
            file: "sessions.json".into(),
            problem: None,
        },
    ]
}

/// What is broken after the history was changed.
fn broken(change: impl FnOnce(&mut Vec<Line>)) -> Vec<Kind> {
    let mut history = good();
    change(&mut history);
    // As it comes back from a file.
    let history = from_text(&to_text(&history)).unwrap();
    let (broken, _) = check(&history);
    let mut kinds: Vec<_> = broken.iter().map(|one| one.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// The messages of the session with this number.
fn inbox(history: &mut [Line], wanted: u32) -> &mut Vec<Seen> {
    let found = history.iter_mut().find_map(|line| match line {
        Line::Inbox { id, messages, .. } if *id == wanted => Some(messages),
        _ => None,
    });
    found.unwrap()
}

fn events(history: &mut [Line]) -> &mut Vec<Heard> {
    let found = history.iter_mut().find_map(|line| match line {
        Line::Heard { events, .. } => Some(events),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn a_good_history_is_good() {
    let (broken, tally) = check(&good());
    assert_eq!(broken, []);
    let counts = [("copy", 7), ("message", 4), ("reply", 1), ("request", 1)];
    assert_eq!(tally.acknowledged, BTreeMap::from(counts));
    assert_eq!(tally.calls(), 6);
    let rest = (tally.failed, tally.unknown, tally.told, tally.heard);
    assert_eq!(rest, (1, 1, 1, 3));
    assert!(from_text("{}").unwrap_err().starts_with("line 1: "));
}

#[test]
fn what_may_be_is_not_broken() {
    // Nobody knows of it: it may be there, also late.
    let late = seen(8, C, A, "a#6", 15);
    assert_eq!(broken(|all| inbox(all, 2).push(late)), []);
    // It was asked for again after a crash, and is for whoever runs then.
    let mut again = seen(2, B, A, "a#2", 13);
    again.id = "id_9".into();
    assert_eq!(broken(|all| inbox(all, 3).insert(0, again)), []);
    let early = seen(8, C, A, "a#6", 13);
    assert_eq!(broken(|all| inbox(all, 2).insert(0, early)), []);
}

#[test]
fn a_lost_message_is_caught() {
    let lost = [Kind::Lost];
    assert_eq!(broken(|all| drop(inbox(all, 1).remove(1))), lost);
    assert_eq!(broken(|all| drop(inbox(all, 3).remove(0))), lost);
    // One copy of two.
    assert_eq!(broken(|all| inbox(all, 2).clear()), lost);
    // The reply, and the reply for who waits.
    assert_eq!(broken(|all| inbox(all, 5).clear()), lost);
    let nothing = |line: &mut Line| {
        if let Line::Resumed { body, .. } = line {
            *body = None;
        }
    };
    assert_eq!(broken(|all| all.iter_mut().for_each(nothing)), lost);
    // A refusal that is not told; one that is told of what was delivered.
    let silent = |all: &mut Vec<Line>| all.retain(|line| !matches!(line, Line::Outbox { .. }));
    assert_eq!(broken(silent), lost);
    let delivered = |line: &mut Line| {
        if matches!(line, Line::Ok { op: 7, .. }) {
            *line = ok(7, &[(C, "delivered")]);
        }
    };
    assert_eq!(broken(|all| all.iter_mut().for_each(delivered)), lost);
}

#[test]
fn a_doubled_message_is_caught() {
    let again = |cursor| seen(2, B, A, "a#2", cursor);
    let twice = [Kind::Doubled];
    assert_eq!(broken(|all| inbox(all, 1).push(again(12))), twice);
    // With a later session of the same name.
    assert_eq!(broken(|all| inbox(all, 3).insert(0, again(13))), twice);
    // One to a single session, under another id.
    let mut later = seen(1, B, A, "a#1", 13);
    later.id = "id_9".into();
    let later = broken(|all| inbox(all, 3).insert(0, later));
    assert_eq!(later, [Kind::Doubled, Kind::Disorder]);
    // The same text under another id.
    let mut other = again(12);
    other.id = "id_9".into();
    assert_eq!(broken(|all| inbox(all, 1).push(other)), twice);
}

#[test]
fn disorder_is_caught() {
    let disorder = [Kind::Disorder];
    assert_eq!(broken(|all| inbox(all, 3).swap(0, 1)), disorder);
    let moved = |all: &mut Vec<Line>| {
        let first = inbox(all, 1).remove(0);
        inbox(all, 3).push(first);
    };
    assert_eq!(broken(moved), disorder);
}

#[test]
fn a_ghost_is_caught() {
    let ghost = [Kind::Ghost];
    // Half of a text, and one that nobody sent.
    for body in ["a#", "x#1"] {
        let stranger = seen(9, B, A, body, 15);
        assert_eq!(broken(|all| inbox(all, 3).push(stranger)), ghost);
    }
    // One that was answered by an error.
    let refused = |line: &mut Line| {
        if matches!(line, Line::Ok { op: 3, .. }) {
            let code = "disk_full".into();
            *line = Line::Fail { op: 3, code };
        }
    };
    assert_eq!(broken(|all| all.iter_mut().for_each(refused)), ghost);
}

#[test]
fn a_forged_sender_is_caught() {
    let forged = [Kind::Forged];
    for from in [C, "dev-2:a", "owner"] {
        assert_eq!(broken(|all| inbox(all, 1)[1].from = from.into()), forged);
    }
    // One that came to somebody it was not for.
    let astray = seen(8, A, A, "a#6", 41);
    assert_eq!(broken(|all| inbox(all, 5).push(astray)), forged);
}

#[test]
fn a_wrong_reply_is_caught() {
    let wrong = [Kind::WrongReply];
    // Somebody else's is taken as well.
    let taken = |all: &mut Vec<Line>| {
        for line in all.iter_mut() {
            if matches!(line, Line::Fail { op: 6, .. }) {
                *line = ok(6, &[]);
            }
        }
    };
    assert_eq!(broken(taken), wrong);
    // It is found with another request than it was for.
    let moved = |all: &mut Vec<Line>| inbox(all, 5)[0].reply_to = Some("req_2".into());
    assert_eq!(broken(moved), wrong);
    // A second of the same session, of which it was not told that it was taken.
    let second = |all: &mut Vec<Line>| {
        let call = Call::Reply {
            request: REQUEST.into(),
            by: B.into(),
            body: "b/replies#2".into(),
        };
        all.insert(0, Line::Invoke { op: 9, call });
        let reply_to = Some(REQUEST.into());
        let found = seen(9, A, B, "b/replies#2", 42);
        inbox(all, 5).push(Seen { reply_to, ..found });
    };
    assert_eq!(broken(second), wrong);
}

#[test]
fn an_unreadable_file_is_caught() {
    let torn = Line::State {
        file: "events.jsonl".into(),
        problem: Some("line 3".into()),
    };
    assert_eq!(broken(|all| all.push(torn)), [Kind::Unreadable]);
}

#[test]
fn who_was_not_told_is_caught() {
    let unheard = [Kind::Unheard];
    assert_eq!(broken(|all| drop(events(all).remove(1))), unheard);
    assert_eq!(broken(|all| drop(events(all).pop())), unheard);
    assert_eq!(broken(|all| events(all).swap(0, 1)), unheard);
    let again = |all: &mut Vec<Line>| {
        let first = events(all)[0].clone();
        events(all).insert(1, first);
    };
    assert_eq!(broken(again), unheard);
}
