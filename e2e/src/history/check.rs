//! Judges a history, without a clock, a file or a network.
//!
//! | promise | broken when |
//! |---|---|
//! | acknowledged is readable (I1) | a copy that was acknowledged is in no inbox of its recipient, and its sender's node does not say that it was refused or is too old |
//! | once, in order (I2) | a text is found twice, or two acknowledged ones of one sender are found the wrong way round |
//! | all or nothing (I3) | something is found that nobody sent, or that was answered by an error |
//! | files can be read (I4) | one cannot |
//! | the sender is the real one (I5) | it is found under another name, or with somebody it was not for |
//! | a reply by who was asked, once (I8) | another's was taken, or a second, or a request has another reply than the one that was acknowledged |
//! | who listens misses nothing | what is in an inbox was never told and is in no gap, or was told twice |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Call, Heard, Line, Receipt, Seen};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub kind: Kind,
    /// How it shows.
    pub how: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// I1.
    Lost,
    /// I2.
    Doubled,
    /// I2.
    Disorder,
    /// I3.
    Ghost,
    /// I4.
    Unreadable,
    /// I5.
    Forged,
    /// I8.
    WrongReply,
    /// Somebody who listened all the time was not told, or twice.
    Unheard,
}

/// How much was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged, by kind: `message`, `request`, `reply`, and `copy` for each recipient of those.
    pub acknowledged: BTreeMap<&'static str, u64>,
    /// Answered by an error.
    pub failed: u64,
    /// Never answered.
    pub unknown: u64,
    /// Acknowledged as queued, and refused later by the recipient's node, which is told.
    pub told: u64,
    /// Events that listeners were told.
    pub heard: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.how)
    }
}

impl Tally {
    /// Acknowledged calls of every kind.
    #[must_use]
    pub fn calls(&self) -> u64 {
        let calls = self
            .acknowledged
            .iter()
            .filter(|(kind, _)| **kind != "copy");
        calls.map(|(_, count)| count).sum()
    }

    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.acknowledged {
            *self.acknowledged.entry(kind).or_default() += count;
        }
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.told += other.told;
        self.heard += other.heard;
    }
}

/// How a call ended.
#[derive(Clone, Debug)]
enum End<'a> {
    Ok(&'a [Receipt]),
    Fail(&'a str),
    Unknown,
}

/// Everything, by what it is looked up by.
struct Case<'a> {
    calls: BTreeMap<u64, (&'a Call, End<'a>)>,
    /// By text.
    by_body: BTreeMap<&'a str, u64>,
    /// Requests by id: who asked, who was asked.
    requests: BTreeMap<&'a str, (&'a str, &'a str)>,
    /// By the recipient's name: its sessions' messages, the oldest session first.
    inboxes: BTreeMap<&'a str, BTreeMap<u32, &'a [Seen]>>,
    /// What the outboxes say, by id.
    letters: BTreeMap<&'a str, &'a str>,
    broken: Vec<Broken>,
    tally: Tally,
}

/// What of it is broken, and how much it was.
#[must_use]
pub fn check(history: &[Line]) -> (Vec<Broken>, Tally) {
    let mut case = Case::new(history);
    case.acknowledged();
    case.found();
    case.order();
    case.replies(history);
    case.heard(history);
    (case.broken, case.tally)
}

impl<'a> Case<'a> {
    fn new(history: &'a [Line]) -> Self {
        let mut case = Self {
            calls: BTreeMap::new(),
            by_body: BTreeMap::new(),
            requests: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            letters: BTreeMap::new(),
            broken: Vec::new(),
            tally: Tally::default(),
        };
        for line in history {
            case.read(line);
        }
        case
    }

    fn read(&mut self, line: &'a Line) {
        match line {
            Line::Invoke { op, call } => {
                self.calls.insert(*op, (call, End::Unknown));
                self.by_body.insert(call.body(), *op);
                if let Call::Request { id, from, to, .. } = call {
                    self.requests.insert(id, (from, to));
                }
            }
            Line::Ok { op, receipts } => self.end(*op, End::Ok(receipts)),
            Line::Fail { op, code } => self.end(*op, End::Fail(code)),
            Line::Info { op, .. } => self.end(*op, End::Unknown),
            Line::Inbox {
                session,
                id,
                messages,
            } => {
                let sessions = self.inboxes.entry(session).or_default();
                sessions.insert(*id, messages);
            }
            Line::Outbox { letters, .. } => {
                let letters = letters.iter();
                self.letters
                    .extend(letters.map(|(id, state)| (id.as_str(), state.as_str())));
            }
            Line::State {
                file,
                problem: Some(problem),
            } => self.breaks(Kind::Unreadable, format!("{file}: {problem}")),
            Line::Heard { .. } | Line::Resumed { .. } | Line::State { problem: None, .. } => {}
        }
    }

    fn end(&mut self, op: u64, end: End<'a>) {
        if let Some(call) = self.calls.get_mut(&op) {
            call.1 = end;
        }
    }

    fn breaks(&mut self, kind: Kind, how: String) {
        self.broken.push(Broken { kind, how });
    }

    /// Who gets the copies of a call.
    fn recipients(&self, call: &'a Call) -> Vec<&'a str> {
        match call {
            Call::Message { to, .. } => to.iter().map(String::as_str).collect(),
            Call::Request { to, .. } => vec![to],
            Call::Reply { request, .. } => {
                let request = self.requests.get(request.as_str());
                request.map(|(from, _)| *from).into_iter().collect()
            }
        }
    }

    fn is_in(&self, recipient: &str, body: &str) -> bool {
        let sessions = self.inboxes.get(recipient);
        let mut messages = sessions.iter().flat_map(|all| all.values()).copied();
        messages.any(|messages| messages.iter().any(|seen| seen.body == body))
    }

    /// I1.
    fn acknowledged(&mut self) {
        let calls: Vec<_> = self.calls.values().cloned().collect();
        for (call, end) in calls {
            let receipts = match end {
                End::Fail(_) => {
                    self.tally.failed += 1;
                    continue;
                }
                End::Unknown => {
                    self.tally.unknown += 1;
                    continue;
                }
                End::Ok(receipts) => receipts,
            };
            let kind = match call {
                Call::Message { .. } => "message",
                Call::Request { .. } => "request",
                Call::Reply { .. } => "reply",
            };
            *self.tally.acknowledged.entry(kind).or_default() += 1;
            for receipt in receipts {
                if receipt.state == "refused" {
                    continue;
                }
                *self.tally.acknowledged.entry("copy").or_default() += 1;
                if self.is_in(&receipt.to, call.body()) {
                    continue;
                }
                let now = self.letters.get(receipt.id.as_str()).copied();
                let state = receipt.state.as_str();
                let now_word = now.and_then(|now| now.split(' ').next());
                let told = matches!(now_word, Some("refused" | "expired"));
                if matches!(state, "queued" | "expired") && told {
                    self.tally.told += 1;
                    continue;
                }
                let how = format!(
                    "{:?} was {state} for {} and is not there; its letter is {now:?}",
                    call.body(),
                    receipt.to
                );
                self.breaks(Kind::Lost, how);
            }
        }
    }

    /// I2, I3, I5: everything that is found.
    fn found(&mut self) {
        let inboxes = self.inboxes.clone();
        let mut ids = BTreeSet::new();
        for (recipient, sessions) in &inboxes {
            let mut bodies = BTreeSet::new();
            for (session, seen) in sessions.iter().flat_map(|(id, all)| {
                let id = *id;
                all.iter().map(move |seen| (id, seen))
            }) {
                let place = format!("{:?} in session {session} ({recipient})", seen.body);
                let op = self.by_body.get(seen.body.as_str());
                let call = op.and_then(|op| self.calls.get(op)).cloned();
                // A message to several goes to those that run then: one that is asked for again
                // after a crash goes to who was started since, too.
                let several = matches!(&call, Some((Call::Message { to, .. }, _)) if to.len() > 1);
                let once = bodies.insert((several.then_some(session), &seen.body));
                if !ids.insert(&seen.id) || !once {
                    self.breaks(Kind::Doubled, format!("{place} is there twice"));
                }
                let Some((call, end)) = call else {
                    self.breaks(Kind::Ghost, format!("{place} was never sent"));
                    continue;
                };
                if let End::Fail(code) = end {
                    self.breaks(Kind::Ghost, format!("{place} was answered by {code}"));
                }
                if call.from() != seen.from {
                    let how = format!("{place} is from {}, not {}", call.from(), seen.from);
                    self.breaks(Kind::Forged, how);
                }
                if !self.recipients(call).contains(recipient) {
                    self.breaks(Kind::Forged, format!("{place} was not for it"));
                }
            }
        }
    }

    /// I2: the acknowledged ones of each sender, in each inbox.
    fn order(&mut self) {
        let inboxes = self.inboxes.clone();
        for (recipient, sessions) in &inboxes {
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            for seen in sessions.values().flat_map(|all| all.iter()) {
                let op = self.by_body.get(seen.body.as_str());
                let acknowledged = op
                    .and_then(|op| self.calls.get(op))
                    .is_some_and(|(_, end)| matches!(end, End::Ok(_)));
                let Some((sender, number)) = numbered(&seen.body).filter(|_| acknowledged) else {
                    continue;
                };
                let before = last.insert(sender, number);
                if let Some(before) = before.filter(|before| *before > number) {
                    let how = format!("{recipient}: {sender}#{number} comes after #{before}");
                    self.breaks(Kind::Disorder, how);
                }
            }
        }
    }

    /// I8.
    fn replies(&mut self, history: &'a [Line]) {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        let calls: Vec<_> = self.calls.values().cloned().collect();
        let mut told = BTreeSet::new();
        for (call, end) in calls {
            let (Call::Reply { request, by, body }, End::Ok(receipts)) = (call, end) else {
                continue;
            };
            let states = receipts
                .iter()
                .filter_map(|one| self.letters.get(one.id.as_str()));
            if states
                .into_iter()
                .any(|now| now.starts_with("refused") || now.starts_with("expired"))
            {
                told.insert(request.as_str());
            }
            let asked = self.requests.get(request.as_str()).map(|(_, to)| *to);
            if asked != Some(by) {
                let how = format!("{by} replied {body:?} to {request}, which asked {asked:?}");
                self.breaks(Kind::WrongReply, how);
            }
            let first = *taken.entry(request).or_insert(body);
            if first != body {
                let how = format!("{body:?} and {first:?} were both taken for {request}");
                self.breaks(Kind::WrongReply, how);
            }
        }
        let mut found: BTreeMap<&str, &str> = BTreeMap::new();
        let inboxes = self.inboxes.clone();
        let all = inboxes.values().flat_map(BTreeMap::values);
        for seen in all.flat_map(|messages| messages.iter()) {
            let op = self.by_body.get(seen.body.as_str());
            let call = op.and_then(|op| self.calls.get(op)).map(|(call, _)| *call);
            let wanted = match call {
                Some(Call::Reply { request, .. }) => Some(request.as_str()),
                _ => None,
            };
            if call.is_some() && wanted != seen.reply_to.as_deref() {
                let how = format!("{:?} is a reply to {:?}", seen.body, seen.reply_to);
                self.breaks(Kind::WrongReply, how);
            }
            let Some(request) = wanted else { continue };
            if let Some(other) = found.insert(request, &seen.body) {
                let how = format!("{:?} and {other:?} both reply to {request}", seen.body);
                self.breaks(Kind::WrongReply, how);
            }
        }
        for line in history {
            let Line::Resumed { request, body } = line else {
                continue;
            };
            let Some(wanted) = taken.get(request.as_str()) else {
                continue;
            };
            if body.as_deref() != Some(*wanted) && !told.contains(request.as_str()) {
                let how = format!("{wanted:?} replies to {request}; who waits gets {body:?}");
                self.breaks(Kind::Lost, how);
            }
        }
    }

    /// Nothing is missed, nothing told twice.
    fn heard(&mut self, history: &'a [Line]) {
        for line in history {
            let Line::Heard {
                node,
                since,
                events,
            } = line
            else {
                continue;
            };
            let mut last = *since;
            let mut told = BTreeSet::new();
            let mut gaps = Vec::new();
            for event in events {
                let cursor = match event {
                    Heard::Message { cursor, .. } => {
                        told.insert(*cursor);
                        *cursor
                    }
                    Heard::Gap { from, to } => {
                        gaps.push(*from..=*to);
                        *to
                    }
                };
                if cursor <= last {
                    let how = format!("{node}: {cursor} was told after {last}");
                    self.breaks(Kind::Unheard, how);
                }
                last = cursor;
            }
            self.tally.heard += told.len() as u64;
            let prefix = format!("{node}:");
            let inboxes = self.inboxes.clone();
            let here = inboxes.iter().filter(|(name, _)| name.starts_with(&prefix));
            let seen = here.flat_map(|(_, sessions)| sessions.values().flat_map(|all| all.iter()));
            for seen in seen.filter(|seen| seen.cursor > *since) {
                let known = told.contains(&seen.cursor);
                if !known && !gaps.iter().any(|gap| gap.contains(&seen.cursor)) {
                    let how = format!("{node}: {:?} ({}) was never told", seen.body, seen.cursor);
                    self.breaks(Kind::Unheard, how);
                }
            }
        }
    }
}

/// A sender's name and the number of its call.
fn numbered(body: &str) -> Option<(&str, u64)> {
    let (sender, number) = body.rsplit_once('#')?;
    Some((sender, number.parse().ok()?))
}
