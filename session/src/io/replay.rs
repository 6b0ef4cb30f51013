//! Events that have happened, from the files of all sessions in one order.
//!
//! Each file is in order by itself; they are merged by cursor. A file is opened
//! when its turn comes, found its place in by halving, and read in small
//! pieces, so that thousands of sessions with long histories cost a few bytes
//! each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::desk::Desk;
use super::inner::Inner;
use crate::record::{self, MAX_LINE, Place};
use crate::{Error, EventType, SessionId};

/// Bytes read of a file at a time, unless a line is longer.
const PIECE: usize = 8 * 1024;

/// A part of a file this short is read through instead of halved.
const SHORT: u64 = 64 * 1024;

/// The events after one cursor up to another.
#[derive(Debug)]
pub(super) struct Replay {
    after: u64,
    to: u64,
    /// The next event of each session: cursor, time, session.
    next: BinaryHeap<Reverse<(u64, u64, SessionId)>>,
    open: HashMap<SessionId, Stream>,
}

/// The events of one session that come next.
#[derive(Debug)]
struct Stream {
    /// Of the first byte not yet looked at.
    offset: u64,
    found: VecDeque<Entry>,
}

/// An event in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) cursor: u64,
    at_ms: u64,
    pub(super) kind: EventType,
    pub(super) place: Place,
}

/// What is found next.
#[derive(Debug)]
pub(super) enum Past {
    Event {
        session: SessionId,
        entry: Entry,
    },
    /// Events up to this cursor cannot be read.
    Lost {
        to: u64,
    },
}

impl Replay {
    /// Of all sessions, or of one. With `after` 0 also those without a cursor.
    pub(super) fn new(inner: &Inner, session: Option<SessionId>, after: u64, to: u64) -> Self {
        let engine = inner.engine.lock();
        let concerned = engine.iter().filter(|one| {
            session.is_none_or(|session| session == one.id)
                && (one.last_cursor > after || after == 0)
                && one.first_cursor <= to
        });
        // Those that began before are looked into at once, to know their next.
        let next = concerned
            .map(|one| match one.first_cursor {
                0 => Reverse((0, 0, one.id)),
                first if first > after => Reverse((first, one.created_ms, one.id)),
                _ => Reverse((after, 0, one.id)),
            })
            .collect();
        Self {
            after,
            to,
            next,
            open: HashMap::new(),
        }
    }

    /// The next event, as a place to read it. Blocks for a moment.
    pub(super) fn next(&mut self, inner: &Inner) -> Option<Past> {
        loop {
            let Reverse((_, _, session)) = self.next.pop()?;
            match inner.desk(session).and_then(|desk| self.advance(&desk)) {
                Ok(Some(entry)) => return Some(Past::Event { session, entry }),
                Ok(None) => {}
                Err(error) => {
                    // It may have been removed meanwhile.
                    tracing::debug!(%error, %session, "its events are not read");
                    self.open.remove(&session);
                    return Some(Past::Lost { to: self.to });
                }
            }
        }
    }

    /// The last cursor that it will come to.
    pub(super) const fn to(&self) -> u64 {
        self.to
    }

    /// The next event of the session whose turn it is; `None` when its turn is
    /// later, or it has no more.
    fn advance(&mut self, desk: &Desk) -> Result<Option<Entry>, Error> {
        let id = desk.id;
        let entry = match self.open.get_mut(&id) {
            Some(stream) => stream.found.pop_front(),
            None => {
                let mut stream = Stream {
                    offset: start(desk, self.after)?,
                    found: VecDeque::new(),
                };
                stream.fill(desk, self.after)?;
                self.open.insert(id, stream);
                None
            }
        };
        let Some(stream) = self.open.get_mut(&id) else {
            return Ok(None);
        };
        if stream.found.is_empty() {
            stream.fill(desk, self.after)?;
        }
        match stream.found.front() {
            Some(next) if next.cursor <= self.to => {
                self.next.push(Reverse((next.cursor, next.at_ms, id)));
            }
            _ => {
                self.open.remove(&id);
            }
        }
        Ok(entry)
    }
}

impl Stream {
    /// Looks on until there is something or nothing more.
    fn fill(&mut self, desk: &Desk, after: u64) -> Result<(), Error> {
        let mut piece = PIECE;
        while self.found.is_empty() {
            let bytes = desk.journal.read_some(self.offset, piece)?;
            let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
                if bytes.len() < piece || piece > MAX_LINE {
                    return Ok(());
                }
                piece *= 2;
                continue;
            };
            for line in bytes[..=end].split_inclusive(|byte| *byte == b'\n') {
                let len = u32::try_from(line.len()).unwrap_or(u32::MAX);
                let place = Place {
                    offset: self.offset,
                    len,
                };
                self.offset += u64::from(len);
                if let Some((cursor, at_ms, kind)) = record::order(line)
                    && (cursor > after || (cursor == 0 && after == 0))
                {
                    self.found.push_back(Entry {
                        cursor,
                        at_ms,
                        kind,
                        place,
                    });
                }
            }
        }
        Ok(())
    }
}

/// The start of a line before which no event is after the cursor, and not far
/// before the first that is.
fn start(desk: &Desk, after: u64) -> Result<u64, Error> {
    let (mut low, mut high) = (0, desk.journal.len());
    if after == 0 {
        return Ok(0);
    }
    while high - low > SHORT {
        let middle = low + (high - low) / 2;
        match line_after(desk, middle, high)? {
            Some((line, cursor)) if cursor <= after => low = line,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first event that begins after this byte: where, and its cursor.
fn line_after(desk: &Desk, from: u64, to: u64) -> Result<Option<(u64, u64)>, Error> {
    let mut offset = from;
    let mut begun = false;
    let mut piece = PIECE;
    while offset < to {
        let bytes = desk.journal.read_some(offset, piece)?;
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            if bytes.len() < piece {
                return Ok(None);
            }
            if begun {
                // The whole line is wanted.
                piece *= 2;
            } else {
                offset += bytes.len() as u64;
            }
            if piece > 2 * MAX_LINE {
                return Ok(None);
            }
            continue;
        };
        if begun && let Some((cursor, _, _)) = record::order(&bytes[..=end]) {
            return Ok(Some((offset, cursor)));
        }
        begun = true;
        piece = PIECE;
        offset += end as u64 + 1;
    }
    Ok(None)
}
