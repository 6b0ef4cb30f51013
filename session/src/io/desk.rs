//! What the node keeps at hand for one session, beside the facts in the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::disk::Journal;
use super::log::OutputLog;
use super::screen::LiveScreen;
use super::terminal::Terminal;
use super::unix_ms_now;
use crate::seats::Seats;
use crate::session::Session;
use crate::{Ended, Error, Info, SessionId, Size, Status};

/// Typing is recorded at most this often, milliseconds: a record for every key
/// would outgrow the output.
const TALLY: u64 = 1000;

/// Files and terminal of one session.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) id: SessionId,
    pub(super) journal: Journal,
    pub(super) log: Arc<OutputLog>,
    pub(super) screen: LiveScreen,
    pub(super) attached: AtomicU32,
    /// There is a message to be typed.
    pub(super) to_type: Notify,
    slot: Mutex<Slot>,
    seats: Mutex<Seats>,
    size: Mutex<Size>,
    typed: Mutex<Tally>,
}

/// The place of the terminal.
#[derive(Debug)]
enum Slot {
    /// Not there yet; the program may even have ended already.
    Expected(Option<Ended>),
    Live(Arc<Terminal>),
    Over,
}

#[derive(Debug, Default)]
struct Tally {
    bytes: u64,
    recorded_ms: u64,
}

impl Desk {
    /// The desk of a session whose files are in `dir`.
    pub(super) fn new(
        id: SessionId,
        dir: &Path,
        log_cap: u64,
        journal_len: u64,
        ended: Option<(Status, u64)>,
    ) -> Result<Self, Error> {
        let log = Arc::new(OutputLog::open(id, dir, log_cap, ended)?);
        let journal = Journal::new(journal_path(dir), journal_len);
        let slot = if ended.is_some() {
            journal.rest();
            Slot::Over
        } else {
            Slot::Expected(None)
        };
        Ok(Self {
            id,
            journal,
            screen: LiveScreen::new(id, &log, dir),
            log,
            attached: AtomicU32::new(0),
            to_type: Notify::new(),
            slot: Mutex::new(slot),
            seats: Mutex::default(),
            size: Mutex::default(),
            typed: Mutex::default(),
        })
    }

    /// The terminal is there.
    pub(super) fn handle_terminal(&self, terminal: &Arc<Terminal>) {
        let mut slot = self.slot.lock();
        if let Slot::Expected(Some(ended)) = *slot {
            terminal.handle_exit(ended);
        }
        *slot = Slot::Live(Arc::clone(terminal));
    }

    /// The program has ended.
    pub(super) fn handle_exit(&self, ended: Ended) {
        match &mut *self.slot.lock() {
            Slot::Expected(early) => {
                early.get_or_insert(ended);
            }
            Slot::Live(terminal) => terminal.handle_exit(ended),
            Slot::Over => {}
        }
    }

    /// The end is recorded and all output is in the log: readers are told.
    pub(super) fn handle_over(&self, status: Status) {
        *self.slot.lock() = Slot::Over;
        self.journal.rest();
        self.screen.handle_over();
        self.log.update(|state| state.ended = Some(status));
    }

    /// The terminal, while the session runs.
    pub(super) fn terminal(&self) -> Option<Arc<Terminal>> {
        match &*self.slot.lock() {
            Slot::Live(terminal) => Some(Arc::clone(terminal)),
            Slot::Expected(_) | Slot::Over => None,
        }
    }

    /// The size that the terminal has been given.
    pub(super) fn set_size(&self, size: Size) {
        let size = size.at_least_one();
        *self.size.lock() = size;
        self.log.handle_size(unix_ms_now(), size);
        self.screen.handle_size(size);
    }

    /// Something happens among the clients; the terminal gets the size that
    /// follows from it, if one does.
    pub(super) fn seated(
        &self,
        happens: impl FnOnce(&mut Seats) -> Option<Size>,
    ) -> Result<(), Error> {
        let mut seats = self.seats.lock();
        match happens(&mut seats) {
            Some(size) if size.at_least_one() != *self.size.lock() => {
                let terminal = self.terminal().ok_or(Error::SessionNotRunning(self.id))?;
                terminal.resize(size)?;
                self.set_size(size);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The client whose size it is.
    pub(super) fn leader(&self) -> Option<u64> {
        self.seats.lock().leader()
    }

    /// Somebody typed. Returns what is to be recorded now, if anything.
    pub(super) fn tally(&self, bytes: u64, now_ms: u64) -> Option<u64> {
        let mut tally = self.typed.lock();
        tally.bytes += bytes;
        if now_ms < tally.recorded_ms.saturating_add(TALLY) {
            return None;
        }
        tally.recorded_ms = now_ms;
        Some(std::mem::take(&mut tally.bytes))
    }

    /// What was typed and is not recorded yet.
    pub(super) fn take_tally(&self) -> Option<u64> {
        let bytes = std::mem::take(&mut self.typed.lock().bytes);
        (bytes > 0).then_some(bytes)
    }

    /// All there is to say about the session.
    pub(super) fn info(&self, session: &Session) -> Info {
        let log = self.log.state();
        let terminal = self.terminal();
        Info {
            id: session.id,
            name: session.name.clone(),
            tags: session.tags().to_vec(),
            argv: session.created.command.clone(),
            cwd: PathBuf::from(&session.created.working_dir),
            size: *self.size.lock(),
            created_ms: session.created_ms,
            status: session.status(),
            attached: self.attached.load(Ordering::Relaxed),
            pid: terminal.map(|terminal| terminal.pid()),
            output_start: log.start,
            output_end: log.end,
            output_lines: log.lines,
            last_output_ms: log.last_output_ms,
            exited_ms: session.exited.map(|(_, at_ms)| at_ms),
            usage: session.exited.and_then(|(exited, _)| exited.usage),
            pending_requests: session.pending_requests,
            disk_full: log.disk_full,
        }
    }
}

/// The directory of a session.
pub(super) fn session_dir(dir: &Path, id: SessionId) -> PathBuf {
    dir.join("sessions").join(id.to_string())
}

/// The path of the events of a session below its directory.
pub(super) fn journal_path(dir: &Path) -> PathBuf {
    dir.join("events.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_is_recorded_about_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let desk = Desk::new(SessionId(1), dir.path(), u64::MAX, 0, None).unwrap();
        assert_eq!(desk.tally(3, 5000), Some(3));
        assert_eq!(desk.tally(1, 5400), None);
        assert_eq!(desk.tally(1, 5999), None);
        assert_eq!(desk.tally(1, 6000), Some(3));
        assert_eq!(desk.take_tally(), None);
        assert_eq!(desk.tally(7, 6001), None);
        assert_eq!(desk.take_tally(), Some(7));
    }
}
