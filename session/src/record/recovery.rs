//! Reading a file of events back after whatever has happened to it.

use super::{MAX_LINE, Place, decode};
use crate::{Error, Event, SessionId};

/// How each line begins; within a line it stands nowhere, since quotes in texts are escaped.
const START: &[u8] = b"{\"seq\":";

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
            Err(_) => {
                self.repair.damaged_lines += 1;
                self.handle_glued(&mut *found);
            }
        }
        self.skipping = false;
        self.offset += len as u64;
        self.repair.intact = self.offset;
        self.pending.clear();
    }

    /// A line that is none may be several whose line feeds are damaged.
    fn handle_glued(&mut self, found: &mut impl FnMut(Event, Place)) {
        let starts = self.pending.windows(START.len()).enumerate();
        let mut starts: Vec<_> = starts
            .filter(|(_, bytes)| *bytes == START)
            .map(|(at, _)| at)
            .collect();
        if starts.len() < 2 {
            return;
        }
        starts.push(self.pending.len());
        for pair in starts.windows(2) {
            // Without what stands in the place of the line feed.
            let line = &self.pending[pair[0]..pair[1] - 1];
            if let Ok(Some(event)) = decode(self.session, line) {
                let mut place = self.place(line.len());
                place.offset += pair[0] as u64;
                found(event, place);
            }
        }
    }

    fn place(&self, len: usize) -> Place {
        Place {
            offset: self.offset,
            len: u32::try_from(len).expect("MAX_LINE fits in 32 bits"),
        }
    }
}
