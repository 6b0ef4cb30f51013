//! The output log and its readers.
//!
//! `sessions/<id>/output.log` and the files before it hold what the program
//! wrote, byte for byte. The offset in it is the only position there is: a reader is a cursor, and all
//! readers share the file and one notice of where it ends. Nothing is queued
//! for anybody, so nobody can lag behind so far that something is dropped.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::recording::Times;
use super::segments::{Segment, Segments};
use super::{disk, platform};
use crate::{Error, SessionId, Size, Status, timing};

/// Most bytes in one chunk: large enough to be cheap, small enough for a frame.
const CHUNK: usize = 64 * 1024;

/// Most bytes searched backwards for the start of the last lines. Who wants
/// more lines than fit here gets those that do.
const TAIL_SEARCH: u64 = 64 * 1024 * 1024;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum From {
    /// At the first byte still kept.
    Start,
    /// At this byte; before the first one kept there is a gap, after the last
    /// one it waits.
    Offset(u64),
    /// At the beginning of the last lines, at most this many.
    TailLines(usize),
    /// At most this many bytes before the end.
    TailBytes(u64),
    /// At the end: only what comes from now on.
    End,
}

/// What a reader finds next.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// Output, at most 64 KiB.
    Bytes {
        /// The position of the first byte in the log.
        offset: u64,
        /// The output as the program wrote it.
        bytes: Bytes,
    },
    /// What was to be read next is no longer kept.
    Gap {
        /// Where reading goes on.
        resume_at: u64,
    },
    /// There is no more and never will be.
    End {
        /// Bytes in the whole log.
        offset: u64,
        /// How the session ended.
        status: Status,
    },
}

/// What is known about a log at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogState {
    /// First byte still kept.
    pub(crate) start: u64,
    /// Bytes in the log.
    pub(crate) end: u64,
    /// Line feeds in it, counted a little later, up to `counted`.
    pub(crate) lines: u64,
    /// Bytes whose line feeds are counted.
    pub(crate) counted: u64,
    /// Bytes of which a summary was in the events when the log was opened.
    pub(crate) summarised: u64,
    /// When something was last added, unix milliseconds.
    pub(crate) last_output_ms: Option<u64>,
    /// How the session ended, once all it wrote is here.
    pub(crate) ended: Option<Status>,
    /// The disk takes no more at present.
    pub(crate) disk_full: bool,
}

/// The output of one session.
#[derive(Debug)]
pub(crate) struct OutputLog {
    session: SessionId,
    segments: Segments,
    times: Mutex<Times>,
    state: watch::Sender<LogState>,
}

impl OutputLog {
    /// The log in `dir`, which need not exist yet, of which at most `cap`
    /// bytes are kept. `ended` for a session that is over, with the lines it
    /// wrote.
    pub(crate) fn open(
        session: SessionId,
        dir: &Path,
        cap: u64,
        ended: Option<(Status, u64)>,
    ) -> Result<Self, Error> {
        let (segments, start, end) =
            Segments::open(dir, cap).map_err(|error| disk::failed("read", dir, error))?;
        let metadata = std::fs::metadata(segments.path()).ok();
        let modified = metadata.and_then(|metadata| metadata.modified().ok());
        let last_output_ms = modified.filter(|_| end > 0).map(super::unix_ms);
        let state = LogState {
            start,
            end,
            lines: ended.map_or(0, |(_, lines)| lines),
            counted: if ended.is_some() { end } else { start },
            summarised: 0,
            last_output_ms,
            ended: ended.map(|(status, _)| status),
            disk_full: false,
        };
        Ok(Self {
            session,
            segments,
            times: Mutex::default(),
            state: watch::Sender::new(state),
        })
    }

    /// What is known about it now.
    pub(crate) fn state(&self) -> LogState {
        *self.state.borrow()
    }

    /// Hears of changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<LogState> {
        self.state.subscribe()
    }

    /// Changes what is known and tells all readers.
    pub(crate) fn update(&self, change: impl FnOnce(&mut LogState)) {
        self.state.send_modify(change);
    }

    /// So many bytes have so many lines and are summed up.
    pub(crate) fn handle_summarised(&self, (bytes, lines): (u64, u64)) {
        self.update(|state| {
            if bytes <= state.end && bytes >= state.counted {
                (state.counted, state.lines) = (bytes, lines);
            }
            state.summarised = bytes;
        });
    }

    /// The last bytes, or none when they cannot be read.
    pub(crate) fn tail(self: &Arc<Self>, len: usize) -> Bytes {
        let tail = self
            .reader(From::TailBytes(len as u64))
            .and_then(|mut reader| reader.try_next());
        match tail {
            Ok(Some(Chunk::Bytes { bytes, .. })) => bytes,
            _ => Bytes::new(),
        }
    }

    /// The last file, for who fills it.
    pub(crate) fn writer(&self) -> Result<Segment, Error> {
        let opened = self.segments.writer();
        opened.map_err(|error| disk::failed("open", &self.segments.path(), error))
    }

    /// Begins a new file if this one, of which `end` is the end, is long
    /// enough. The oldest may go for it.
    pub(crate) fn rotate(&self, base: u64, end: u64) -> io::Result<Option<Segment>> {
        if !self.segments.is_due(base, end) {
            return Ok(None);
        }
        let mut times = self.times.lock();
        times.close();
        let (segment, start) = self.segments.rotate(end)?;
        let old = self.segments.old_timing_path(base);
        // Where there are no times there is nothing to rename.
        let _ = std::fs::rename(self.segments.timing_path(), old);
        self.update(|state| {
            state.end = end;
            state.start = start;
        });
        Ok(Some(segment))
    }

    /// Output of the file that begins at `base` has come.
    pub(crate) fn handle_output(&self, base: u64, now_ms: u64, end: u64) {
        let mut times = self.times.lock();
        times.handle_output(&self.segments.timing_path(), base, now_ms, end);
    }

    /// The terminal has this size.
    pub(crate) fn handle_size(&self, now_ms: u64, size: Size) {
        self.times.lock().handle_size(now_ms, size);
    }

    /// Nothing will be written any more.
    pub(crate) fn rest(&self) {
        self.times.lock().close();
        self.segments.rest();
    }

    /// The session is no more, nor is its output.
    pub(crate) fn handle_removed(&self) {
        self.update(|state| state.start = state.end);
    }

    pub(crate) fn flush_times(&self) {
        self.times.lock().flush();
    }

    /// When the output of the file that begins at `base` came.
    pub(crate) fn times_of(&self, base: u64) -> Option<timing::Times> {
        let old = self.segments.old_timing_path(base);
        let file = std::fs::read(old).or_else(|_| std::fs::read(self.segments.timing_path()));
        timing::parse(&file.ok()?).filter(|times| times.header.base == base)
    }

    pub(crate) const fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Counts line feeds in a part of it.
    pub(crate) fn count_lines(&self, from: u64, to: u64) -> io::Result<u64> {
        let mut lines = 0;
        let mut offset = from;
        while offset < to {
            let len = usize::try_from(to - offset).unwrap_or(CHUNK).min(CHUNK);
            let part = self.segments.read_at(offset, len)?;
            if part.is_empty() {
                break;
            }
            offset += part.len() as u64;
            lines += part.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        Ok(lines)
    }

    /// A new cursor.
    pub(crate) fn reader(self: &Arc<Self>, from: From) -> Result<Reader, Error> {
        let changes = self.subscribe();
        let state = *changes.borrow();
        let offset = match from {
            From::Start => state.start,
            From::Offset(offset) => offset,
            From::End => state.end,
            From::TailBytes(bytes) => state.end.saturating_sub(bytes).max(state.start),
            From::TailLines(lines) => start_of_tail(&self.segments, state, lines)
                .map_err(|error| disk::failed("read", &self.segments.path(), error))?,
        };
        Ok(Reader {
            log: Arc::clone(self),
            // Now, that it can be read even if its name goes away.
            piece: CHUNK,
            segment: self.segments.find(offset).ok(),
            offset,
            changes,
            over: false,
        })
    }
}

/// A cursor into the output of one session. However slow it is, it misses
/// nothing that is still kept, and it costs nobody anything while it waits.
#[derive(Debug)]
pub struct Reader {
    log: Arc<OutputLog>,
    /// The file in which it is, or was.
    segment: Option<Segment>,
    /// Most bytes of a piece.
    piece: usize,
    offset: u64,
    changes: watch::Receiver<LogState>,
    over: bool,
}

/// What there is to do at the present position.
enum Step {
    Read(usize),
    Gap(u64),
    End(u64, Status),
    Wait,
}

impl Reader {
    /// The same with pieces of up to `piece` bytes.
    pub(crate) const fn by(mut self, piece: usize) -> Self {
        self.piece = piece;
        self
    }

    /// The next piece of output; waits for it. After the last byte comes
    /// [`Chunk::End`], once. May be cancelled and called again.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] when called after the end was delivered;
    /// [`Error::ShuttingDown`]; [`Error::Io`] when the log cannot be read.
    pub async fn next(&mut self) -> Result<Chunk, Error> {
        loop {
            match self.step()? {
                Step::Read(len) => return self.read(len).await,
                Step::Wait => {
                    let changed = self.changes.changed().await;
                    changed.map_err(|_| Error::ShuttingDown)?;
                }
                step => return Ok(self.turn(&step)),
            }
        }
    }

    /// What is there now; `None` when that would mean waiting for output. May
    /// wait for the disk.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn try_next(&mut self) -> Result<Option<Chunk>, Error> {
        match self.step()? {
            Step::Read(len) => {
                let segment = self.segment()?;
                let mut read = read_now(&segment, self.offset, len);
                if matches!(&read, Ok(bytes) if bytes.is_empty()) {
                    // It has been rotated meanwhile.
                    self.segment = None;
                    read = read_now(&self.segment()?, self.offset, len);
                }
                self.chunk(read).map(Some)
            }
            Step::Wait => Ok(None),
            step => Ok(Some(self.turn(&step))),
        }
    }

    /// The position of the next byte this reader will return.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    fn step(&mut self) -> Result<Step, Error> {
        if self.over {
            return Err(Error::SessionEnded(self.log.session));
        }
        let state = *self.changes.borrow_and_update();
        Ok(if self.offset < state.start {
            Step::Gap(state.start)
        } else if self.offset < state.end {
            let len = usize::try_from(state.end - self.offset).unwrap_or(CHUNK);
            Step::Read(len.min(self.piece))
        } else if let Some(status) = state.ended {
            Step::End(state.end, status)
        } else {
            Step::Wait
        })
    }

    fn turn(&mut self, step: &Step) -> Chunk {
        match *step {
            Step::End(offset, status) => {
                self.over = true;
                Chunk::End { offset, status }
            }
            Step::Gap(resume_at) => {
                self.offset = resume_at;
                Chunk::Gap { resume_at }
            }
            Step::Read(_) | Step::Wait => Chunk::Gap {
                resume_at: self.offset,
            },
        }
    }

    /// Recent output is in memory and is read at once; what must come from the
    /// disk is read where waiting hinders nobody.
    async fn read(&mut self, len: usize) -> Result<Chunk, Error> {
        let mut buffer = vec![0; len];
        let segment = self.segment()?;
        let at = self.offset - segment.base;
        let read = match platform::read_cached(&segment.file, &mut buffer, at) {
            Ok(Some(0)) => {
                // It has been rotated meanwhile.
                self.segment = None;
                read_now(&self.segment()?, self.offset, len)
            }
            Ok(Some(read)) => {
                buffer.truncate(read);
                Ok(buffer)
            }
            Ok(None) => {
                let offset = self.offset;
                let reading = tokio::task::spawn_blocking(move || read_now(&segment, offset, len));
                reading.await.map_err(|_| Error::ShuttingDown)?
            }
            Err(error) => Err(error),
        };
        self.chunk(read)
    }

    /// The file with the next byte.
    fn segment(&mut self) -> Result<Segment, Error> {
        if let Some(segment) = self.segment.as_ref().filter(|one| one.base <= self.offset) {
            return Ok(segment.clone());
        }
        let found = self.log.segments.find(self.offset);
        let found = found.map_err(|error| self.failed(error))?;
        Ok(self.segment.insert(found).clone())
    }

    fn failed(&self, error: io::Error) -> Error {
        disk::failed("read", &self.log.segments.path(), error)
    }

    fn chunk(&mut self, read: io::Result<Vec<u8>>) -> Result<Chunk, Error> {
        let bytes = read.map_err(|error| self.failed(error))?;
        if bytes.is_empty() {
            // Somebody has shortened the file.
            return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        let bytes = Bytes::from(bytes);
        Ok(Chunk::Bytes { offset, bytes })
    }
}

fn read_now(segment: &Segment, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    let read = segment.file.read_at(&mut buffer, offset - segment.base)?;
    buffer.truncate(read);
    Ok(buffer)
}

/// Where the last `lines` lines begin. A line feed at the very end ends the
/// last line; it does not begin another.
fn start_of_tail(segments: &Segments, state: LogState, lines: usize) -> io::Result<u64> {
    let LogState { start, end, .. } = state;
    if lines == 0 {
        return Ok(end);
    }
    let floor = start.max(end.saturating_sub(TAIL_SEARCH));
    let mut missing = lines;
    let mut upper = end;
    while upper > floor {
        let lower = floor.max(upper.saturating_sub(CHUNK as u64));
        let part = segments.read(lower, upper)?;
        for (at, byte) in part.iter().enumerate().rev() {
            let after = lower + at as u64 + 1;
            if *byte == b'\n' && after < end {
                missing -= 1;
                if missing == 0 {
                    return Ok(after);
                }
            }
        }
        upper = lower;
    }
    Ok(floor)
}
