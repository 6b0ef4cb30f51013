//! Moves what a program writes from its terminal into its log.
//!
//! ```text
//! terminal ──splice──▶ pipe ──splice──▶ output.log
//! ```
//!
//! The bytes stay in the kernel, and keeper and node both hold the pipe: when
//! the node is killed between the two steps, the next one finds in the pipe
//! what is missing from the file. No byte is lost or doubled.
//!
//! Where `splice` is not available (other systems, odd file systems) bytes are
//! read and written; what is between the two when the node is killed, at most
//! 64 KiB, is then lost.
//!
//! When the disk is full, nothing more is taken from the terminal, the program
//! waits in its next write, and we try again each second.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::log::OutputLog;
use super::segments::Segment;
use super::terminal::Terminal;
use super::{disk, platform, unix_ms_now};
use crate::{Ended, Error};

/// After the program has ended: how long to wait for more when another process
/// still has the terminal open.
const QUIET: Duration = Duration::from_millis(200);

/// After the program has ended: when to stop listening to other processes that
/// go on writing. What the program itself wrote is out long before.
const LINGER: Duration = Duration::from_secs(2);

/// How long to wait before asking a full disk again.
const FULL: Duration = Duration::from_secs(1);

/// How long to wait before looking again whether somebody has reopened a
/// terminal that everybody had closed.
const REOPENED: Duration = Duration::from_millis(500);

/// Pages taken before they are moved on. A terminal gives about one at a time,
/// and writing a file and telling its readers costs as much for one as for many.
const PAGES: usize = 8;

/// What a pipe counts in, bytes.
const PAGE: usize = 4096;

/// Moves after which lines are counted, though there is more to move.
const TURN: u32 = 4;

/// Bytes whose lines are counted in a row before others get a turn.
const COUNT: u64 = 1024 * 1024;

/// Moves everything until the program has ended and its terminal is empty.
/// Returns how it ended; the log then has its last byte.
pub(super) async fn run(
    terminal: Arc<Terminal>,
    log: Arc<OutputLog>,
    segment: Segment,
) -> Result<Ended, Error> {
    let mut pump = Pump::new(terminal, log, segment);
    let outcome = pump.run().await;
    // The very last word: also syncs what readers were shown.
    if let Err(error) = pump.segment.file.sync_data() {
        tracing::error!(%error, "the disk may have lost output");
    }
    pump.log.rest();
    outcome
}

struct Pump {
    terminal: Arc<Terminal>,
    log: Arc<OutputLog>,
    segment: Segment,
    /// A new file could not be begun; said once.
    stuck: bool,
    /// Bytes in the log.
    end: u64,
    /// Bytes whose lines are counted.
    counted: u64,
    lines: u64,
    /// Bytes in the pipe, once that is known.
    in_pipe: Option<usize>,
    /// The terminal had nothing, or the pipe no room: the kernel does not say.
    in_doubt: bool,
    /// Bytes on their way, when they are copied.
    held: Vec<u8>,
    copying: bool,
}

/// What the terminal said.
enum Taken {
    Some,
    /// Nothing now.
    Nothing,
    /// Nobody has it open.
    Closed,
}

impl Pump {
    fn new(terminal: Arc<Terminal>, log: Arc<OutputLog>, segment: Segment) -> Self {
        let state = log.state();
        Self {
            end: state.end,
            counted: state.counted,
            lines: state.lines,
            // A node before us may have left something there.
            in_pipe: None,
            in_doubt: false,
            held: Vec::new(),
            copying: false,
            segment,
            stuck: false,
            terminal,
            log,
        }
    }

    async fn run(&mut self) -> Result<Ended, Error> {
        let mut exit = self.terminal.exit();
        let mut linger: Option<Instant> = None;
        let mut moved = 0;
        self.terminal.set_moving(true);
        loop {
            let was_full = self.store().await;
            let ended = *exit.borrow_and_update();
            if ended.is_some() && (linger.is_none() || was_full) {
                linger = Some(Instant::now() + LINGER);
            }
            let taken = self.take_some(ended.is_some())?;
            if let Some(how) = ended {
                let enough = match taken {
                    Taken::Some => linger.is_some_and(|until| Instant::now() >= until),
                    Taken::Nothing => !self.more_within(QUIET).await?,
                    Taken::Closed => true,
                };
                if enough {
                    self.store().await;
                    self.count().await;
                    return Ok(how);
                }
                continue;
            }
            match taken {
                Taken::Some => {
                    // Before the terminal is asked for more: who waits for this
                    // shows it within the same turn. A terminal takes at most
                    // 64 KiB at a time: were more moved in a turn, it would
                    // fall behind however fast it is.
                    self.store().await;
                    moved += 1;
                    if moved % TURN == 0 {
                        self.count().await;
                    }
                    tokio::task::yield_now().await;
                }
                Taken::Nothing => {
                    self.count().await;
                    self.terminal.set_moving(false);
                    tokio::select! {
                        ready = self.terminal.readable() => ready?,
                        _ = exit.changed() => {}
                    }
                    self.terminal.set_moving(true);
                }
                Taken::Closed => {
                    self.count().await;
                    self.terminal.set_moving(false);
                    // Readiness says nothing any more: a terminal that hung up
                    // is ready for ever.
                    let _ = timeout(REOPENED, exit.changed()).await;
                    self.terminal.set_moving(true);
                }
            }
        }
    }

    async fn more_within(&self, limit: Duration) -> Result<bool, Error> {
        match timeout(limit, self.terminal.readable()).await {
            Ok(ready) => ready.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Takes what the terminal has, up to [`PAGES`].
    fn take_some(&mut self, at_once: bool) -> Result<Taken, Error> {
        let first = self.take(at_once || self.in_doubt)?;
        let mut pages = 0;
        let mut before = 0;
        while matches!(first, Taken::Some) && !self.copying {
            let in_pipe = self.in_pipe.unwrap_or_default();
            pages += in_pipe.saturating_sub(before).div_ceil(PAGE);
            before = in_pipe;
            if pages >= PAGES || !matches!(self.take(at_once)?, Taken::Some) {
                break;
            }
        }
        Ok(first)
    }

    /// Takes something from the terminal into the pipe. With `at_once`, the
    /// kernel is asked without waiting to be told: when the program has ended,
    /// its answer is final, for all that the program has written is there, and
    /// if nobody else has the terminal open it says so.
    fn take(&mut self, at_once: bool) -> Result<Taken, Error> {
        let fds = self.terminal.fds();
        let taken = if self.copying {
            let mut buffer = vec![0; 64 * 1024];
            let read = self
                .terminal
                .try_read(at_once, || Ok(rustix::io::read(&fds.master, &mut buffer)?));
            if let Ok(len) = read {
                buffer.truncate(len);
                self.held = buffer;
            }
            read
        } else {
            self.terminal
                .try_read(at_once, || platform::splice_in(&fds.master, &fds.pipe_w))
        };
        match taken {
            Ok(0) => Ok(Taken::Closed),
            Ok(len) => {
                if !self.copying {
                    self.in_pipe = self.in_pipe.map(|before| before + len);
                }
                Ok(Taken::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Not for want of room if the pipe is empty.
                self.in_doubt = !self.copying && self.in_pipe != Some(0);
                Ok(Taken::Nothing)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Taken::Some),
            Err(error) if is_unsupported(&error) && !self.copying => {
                self.copying = true;
                Ok(Taken::Some)
            }
            // EIO: every descriptor of the other side is closed.
            Err(error) if error.raw_os_error() == Some(EIO) => Ok(Taken::Closed),
            Err(error) => Err(Error::io("read from the terminal", error)),
        }
    }

    /// Empties the pipe into the file, however long the disk takes. Returns
    /// whether it was full.
    async fn store(&mut self) -> bool {
        let mut was_full = false;
        let before = self.end;
        while self.in_pipe != Some(0) || !self.held.is_empty() {
            self.rotate_if_due().await;
            match self.store_some() {
                Ok(0) => self.in_pipe = Some(0),
                Ok(stored) => self.end += stored as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.in_pipe = Some(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !was_full {
                        let full = disk::is_full(&error);
                        tracing::error!(%error, full, "output waits for the disk");
                        let end = self.end;
                        self.log.update(|state| {
                            state.end = end;
                            state.disk_full = true;
                        });
                    }
                    was_full = true;
                    sleep(FULL).await;
                }
            }
        }
        if self.end > before || was_full {
            let (end, now) = (self.end, unix_ms_now());
            self.log.update(|state| {
                state.end = end;
                state.last_output_ms = Some(now);
                state.disk_full = false;
            });
            self.log.handle_output(self.segment.base, now, end);
        }
        was_full
    }

    /// Goes on in a new file when this one is long enough.
    async fn rotate_if_due(&mut self) {
        if !self.log.segments().is_due(self.segment.base, self.end) {
            return;
        }
        // While it is there.
        self.count().await;
        match self.log.rotate(self.segment.base, self.end) {
            Ok(Some(next)) => {
                let old = std::mem::replace(&mut self.segment, next);
                self.stuck = false;
                // The disk takes its time; nobody waits for it.
                tokio::task::spawn_blocking(move || old.file.sync_data());
            }
            Ok(None) => {}
            Err(error) if !self.stuck => {
                tracing::warn!(%error, "output goes on in a file that is long enough");
                self.stuck = true;
            }
            Err(_) => {}
        }
    }

    /// Moves a part of what is on its way into the file; 0 when there is none.
    fn store_some(&mut self) -> io::Result<usize> {
        if self.held.is_empty() {
            let pipe = &self.terminal.fds().pipe_r;
            match platform::splice_out(pipe, &self.segment.file, self.end - self.segment.base) {
                Err(error) if is_unsupported(&error) => self.hold_from_pipe()?,
                Err(error) => return Err(error),
                Ok(stored) => {
                    self.in_pipe = self.in_pipe.map(|before| before.saturating_sub(stored));
                    return Ok(stored);
                }
            }
        }
        let at = self.end - self.segment.base;
        let stored = self.segment.file.write_at(&self.held, at)?;
        self.held.drain(..stored);
        Ok(stored)
    }

    /// Takes a part of the pipe in hand, where the file cannot be spliced to.
    fn hold_from_pipe(&mut self) -> io::Result<()> {
        let pipe = &self.terminal.fds().pipe_r;
        // It blocks; ask first whether it has something.
        if !platform::is_readable(pipe) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut buffer = vec![0; 64 * 1024];
        let read = rustix::io::read(pipe, &mut buffer)?;
        buffer.truncate(read);
        self.held = buffer;
        self.in_pipe = self.in_pipe.map(|before| before.saturating_sub(read));
        Ok(())
    }

    /// Counts the lines that have come since the last time.
    async fn count(&mut self) {
        if self.counted == self.end {
            return;
        }
        while self.counted < self.end {
            let to = self.end.min(self.counted + COUNT);
            match self.log.count_lines(self.counted, to) {
                Ok(lines) => self.lines += lines,
                Err(error) => tracing::warn!(%error, "cannot count lines"),
            }
            self.counted = to;
            if to < self.end {
                tokio::task::yield_now().await;
            }
        }
        let (lines, counted) = (self.lines, self.counted);
        self.log.update(|state| {
            state.lines = lines;
            state.counted = counted;
        });
    }
}

/// The number is the same on every Unix.
const EIO: i32 = 5;

fn is_unsupported(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(
        errno,
        Some(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::keeper::proto::Spawn;
    use crate::io::{platform, pty};
    use crate::{Outcome, SessionId, Size};

    /// Runs a program and pumps its output into a file that has some already.
    async fn pumped(copying: bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        std::fs::write(&path, "in the file\r\n").unwrap();
        let spawn = Spawn {
            id: 1,
            argv: ["sh", "-c", "seq 1 20000; exit 3"].map(Into::into).into(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/".into(),
            size: Size::default(),
        };
        let (pid, fds) = pty::spawn(&spawn).unwrap();
        // A node was killed between the two steps.
        rustix::io::write(&fds.pipe_w, b"in the pipe\r\n").unwrap();

        let id = SessionId(1);
        let log = Arc::new(OutputLog::open(id, dir.path(), u64::MAX, None).unwrap());
        let (terminal, _typed) = Terminal::new(id, pid, fds).unwrap();
        let reaper = Arc::clone(&terminal);
        let reaping = tokio::task::spawn_blocking(move || {
            let options = rustix::process::WaitOptions::empty();
            let ended = rustix::process::waitpid(platform::pid(pid), options);
            let (_, status) = ended.unwrap().unwrap();
            reaper.handle_exit(Outcome::from_wait_status(status.as_raw()).into());
        });
        let file = log.writer().unwrap();
        let mut pump = Pump::new(terminal, Arc::clone(&log), file);
        pump.copying = copying;
        assert_eq!(pump.run().await.unwrap().outcome, Outcome::Code(3));
        reaping.await.unwrap();

        let numbers: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
        let expected = format!("in the file\r\nin the pipe\r\n{numbers}");
        assert!(std::fs::read_to_string(path).unwrap() == expected);
        let state = log.state();
        assert_eq!((state.end, state.lines), (expected.len() as u64, 20_002));
    }

    #[tokio::test]
    async fn what_is_in_the_pipe_comes_first_and_nothing_is_lost() {
        pumped(false).await;
    }

    #[tokio::test]
    async fn copying_does_the_same() {
        pumped(true).await;
    }
}
