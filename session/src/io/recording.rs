//! When output came: written beside the log, read to play a session again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::disk;
use super::log::OutputLog;
use crate::timing::{self, Clock, Header, Moment};
use crate::{Error, Size};

/// Records gather up to this many bytes, or [`GATHER_MS`]; a crash costs their
/// precision, not the output.
const GATHER: usize = 256;

/// See [`GATHER`].
const GATHER_MS: u64 = 1000;

/// Most bytes of output at once.
const PIECE: u64 = 64 * 1024;

/// The times of the output that is being written.
#[derive(Debug, Default)]
pub(crate) struct Times {
    open: Option<Open>,
    size: Size,
    /// Writing failed; the next file may do better.
    broken: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    clock: Clock,
    gathered: Vec<u8>,
    flushed_ms: u64,
}

impl Times {
    /// The size of the terminal, at its start or from now on.
    pub(crate) fn handle_size(&mut self, now_ms: u64, size: Size) {
        if size == self.size {
            return;
        }
        self.size = size;
        if let Some(open) = &mut self.open {
            open.clock.handle_size(now_ms, size, &mut open.gathered);
        }
    }

    /// So much output is there now, of a file that began at `base`.
    pub(crate) fn handle_output(&mut self, path: &Path, base: u64, now_ms: u64, end: u64) {
        if self.broken {
            return;
        }
        let size = self.size;
        let open = match &mut self.open {
            Some(open) => open,
            None => match Open::new(path, base, now_ms, size) {
                Ok(open) => self.open.insert(open),
                Err(error) => return self.give_up(&error),
            },
        };
        open.clock.handle_output(now_ms, end, &mut open.gathered);
        let due = open.gathered.len() >= GATHER || now_ms >= open.flushed_ms + GATHER_MS;
        if due && !open.gathered.is_empty() {
            open.flushed_ms = now_ms;
            if let Err(error) = open.flush() {
                self.give_up(&error);
            }
        }
    }

    /// Writes what is known for certain.
    pub(crate) fn flush(&mut self) {
        if let Some(Err(error)) = self.open.as_mut().map(Open::flush) {
            self.give_up(&error);
        }
    }

    /// This file is over.
    pub(crate) fn close(&mut self) {
        if let Some(open) = &mut self.open {
            open.clock.close(&mut open.gathered);
        }
        self.flush();
        self.open = None;
        self.broken = false;
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::debug!(%error, "times of output are not recorded");
        (self.open, self.broken) = (None, true);
    }
}

impl Open {
    fn new(path: &Path, base: u64, now_ms: u64, size: Size) -> io::Result<Self> {
        let file = disk::open_private(path)?;
        let before = std::fs::read(path)?;
        let before = timing::parse(&before).filter(|times| times.header.base == base);
        let mut gathered = Vec::new();
        let (clock, len) = match before {
            Some(times) => {
                file.set_len(times.intact as u64)?;
                let last = times.moments.last();
                let at_ms = last.map_or(times.header.at_ms, |last| last.at_ms);
                let mut clock = Clock::new(at_ms, last.map_or(base, |last| last.end));
                clock.handle_size(now_ms, size, &mut gathered);
                (clock, times.intact as u64)
            }
            None => {
                file.set_len(0)?;
                let at_ms = now_ms;
                gathered = Header { base, at_ms, size }.encode();
                (Clock::new(now_ms, base), 0)
            }
        };
        Ok(Self {
            file,
            len,
            clock,
            gathered,
            flushed_ms: 0,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.gathered, self.len)?;
        self.len += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }
}

/// What happened at a terminal.
#[derive(Clone, Debug, PartialEq)]
pub enum Played {
    /// The program wrote something.
    Output {
        /// When, unix milliseconds, to about 50.
        at_ms: u64,
        /// What, at most 64 KiB.
        bytes: Bytes,
    },
    /// The terminal got another size.
    Resize {
        /// When, unix milliseconds.
        at_ms: u64,
        /// The size.
        size: Size,
    },
}

/// What a session showed and when, from the oldest output that is kept to that
/// which was there when this was made. Times never go back. Where they were not
/// recorded, output comes at the time of what was before it.
#[derive(Debug)]
pub struct Recording {
    log: Arc<OutputLog>,
    files: VecDeque<u64>,
    moments: VecDeque<Moment>,
    /// Of the next byte.
    offset: u64,
    end: u64,
    /// Of the last output.
    last_ms: u64,
    at_ms: u64,
    size: Size,
    started_ms: u64,
}

impl Recording {
    pub(super) fn new(log: &Arc<OutputLog>, created_ms: u64, size: Size) -> Self {
        log.flush_times();
        let state = log.state();
        let mut recording = Self {
            files: log.segments().bases().into(),
            log: Arc::clone(log),
            moments: VecDeque::new(),
            offset: state.start,
            end: state.end,
            last_ms: state.last_output_ms.unwrap_or(0),
            at_ms: created_ms,
            size,
            started_ms: created_ms,
        };
        if let Some(first) = recording.files.front()
            && let Some(times) = log.times_of(*first)
        {
            recording.size = times.header.size;
            if state.start > 0 {
                recording.started_ms = times.header.at_ms;
                recording.at_ms = times.header.at_ms;
            }
        }
        recording
    }

    /// When it begins, unix milliseconds: the launch, or the first output that
    /// is kept.
    #[must_use]
    pub const fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// The size of the terminal at the beginning.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`] when the output cannot be read, for instance because it is
    /// no longer kept; [`Error::ShuttingDown`].
    pub async fn next(&mut self) -> Result<Option<Played>, Error> {
        loop {
            let Some(moment) = self.moments.front().copied() else {
                let Some(base) = self.files.pop_front() else {
                    // What came after the last record.
                    self.at_ms = self.at_ms.max(self.last_ms);
                    return self.output(self.end).await;
                };
                let log = Arc::clone(&self.log);
                let times = tokio::task::spawn_blocking(move || log.times_of(base));
                let times = times.await.map_err(|_| Error::ShuttingDown)?;
                self.moments = times.map(|times| times.moments).unwrap_or_default().into();
                continue;
            };
            let end = moment.end.min(self.end);
            if moment.size.is_none() && self.offset < end {
                self.at_ms = self.at_ms.max(moment.at_ms);
                return self.output(end).await;
            }
            self.moments.pop_front();
            if let Some(size) = moment.size {
                self.at_ms = self.at_ms.max(moment.at_ms);
                let at_ms = self.at_ms;
                return Ok(Some(Played::Resize { at_ms, size }));
            }
        }
    }

    async fn output(&mut self, end: u64) -> Result<Option<Played>, Error> {
        if self.offset >= end {
            return Ok(None);
        }
        let (log, from) = (Arc::clone(&self.log), self.offset);
        let to = end.min(from + PIECE);
        let read = tokio::task::spawn_blocking(move || log.segments().read(from, to));
        let read = read.await.map_err(|_| Error::ShuttingDown)?;
        let bytes = read.map_err(|error| Error::io("read the output", error))?;
        self.offset = to;
        Ok(Some(Played::Output {
            at_ms: self.at_ms,
            bytes: bytes.into(),
        }))
    }
}
