//! The screen of each live session, a little behind its output.
//!
//! Nobody waits for it: output goes to the log and from there to the clients as
//! it is. A thread of low priority reads the log afterwards, when a session
//! has paused or when more than [`DEBT_MAX`] has gathered, and for a session
//! that writes without a pause but little now and then. Who attaches pays for
//! the rest of the debt.
//!
//! From time to time the state is kept beside the log, so that the next node
//! does not have to read all of it:
//!
//! ```text
//! sessions/<id>/screen   "cw-screen 1\n", offset u64, columns u16, rows u16,
//!                        length u64, all big-endian; then the restore
//! ```
//!
//! While no client is attached, the screen answers what the program asks its
//! terminal.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::desk::Desk;
use super::log::OutputLog;
use super::{Chunk, From, disk};
use crate::screen::Screen;
use crate::{Error, SessionId, Size};

/// Output that may wait to be read, bytes: an attach reads this in a fraction
/// of a second.
const DEBT_MAX: u64 = 32 * 1024 * 1024;

/// A session is looked at when it has been silent for this long.
const PAUSE: Duration = Duration::from_millis(20);

/// And when it is never silent, after this time if there is [`LITTLE`] to read.
const PATIENCE: Duration = Duration::from_millis(250);

/// Bytes that are read at a time: of a long text only the end has to be printed.
const PIECE: usize = 1024 * 1024;

/// Bytes that are read in passing.
const LITTLE: u64 = 1024 * 1024;

/// How long to wait before a log that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Output after which the state is kept again, bytes.
const KEEP_EVERY: u64 = 4 * 1024 * 1024;

/// How much is read of a log that nobody has kept a state of, bytes.
const UNKNOWN: u64 = 4 * 1024 * 1024;

/// Most lines above the screen for a client that comes.
const LINES: usize = 500;

/// Most bytes for a client that comes; a screen that alone is more is sent all
/// the same.
const REPAINT: usize = 64 * 1024;

/// Most changes of size that wait; of more than these the oldest are taken for
/// one.
const SIZES: usize = 256;

/// Most bytes of answers at a time, about; the rest is not said.
const ANSWERS: usize = 16 * 1024;

/// How much the thread gives way to others.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

const MAGIC: &[u8] = b"cw-screen 1\n";

/// The screen of one session.
#[derive(Debug)]
pub(super) struct LiveScreen {
    id: SessionId,
    log: Arc<OutputLog>,
    path: PathBuf,
    live: Arc<Mutex<Live>>,
    /// Bytes in the log at first, written under the eyes of another node.
    found: u64,
    /// Bytes of the log that it has seen.
    seen: AtomicU64,
}

#[derive(Debug, Default)]
struct Live {
    now: Option<Now>,
    /// Sizes, and the offset from which on they hold.
    sizes: VecDeque<(u64, Size)>,
    /// Questions before this offset were for somebody else.
    answered: u64,
    over: bool,
}

#[derive(Debug)]
struct Now {
    screen: Screen,
    /// Bytes of the log that it has seen.
    at: u64,
    /// As of here the state is kept.
    kept: u64,
    /// What was kept had another size.
    resized: bool,
}

impl LiveScreen {
    /// The screen of a session whose files are in `dir`.
    pub(super) fn new(id: SessionId, log: &Arc<OutputLog>, dir: &Path) -> Self {
        Self {
            id,
            log: Arc::clone(log),
            path: dir.join("screen"),
            live: Arc::new(Mutex::new(Live {
                answered: log.state().end,
                ..Live::default()
            })),
            found: log.state().end,
            seen: AtomicU64::new(0),
        }
    }

    /// The terminal has this size from now on.
    pub(super) fn handle_size(&self, size: Size) {
        let end = self.log.state().end;
        let sizes = &mut self.live.lock().sizes;
        if sizes.back().is_some_and(|(from, _)| *from == end) {
            sizes.pop_back();
        } else if sizes.len() == SIZES {
            sizes.pop_front();
        }
        sizes.push_back((end, size));
    }

    /// The last client has left: it has answered what was asked so far.
    pub(super) fn handle_alone(&self) {
        self.live.lock().answered = self.log.state().end;
    }

    /// The session has ended: nobody will attach.
    pub(super) fn handle_over(&self) {
        let (live, path) = (Arc::clone(&self.live), self.path.clone());
        // Who tells us has no time to wait.
        let _ = workshop().send(Box::new(move || {
            *live.lock() = Live {
                over: true,
                ..Live::default()
            };
            let _ = std::fs::remove_file(&path);
        }));
    }

    /// What brings a client's terminal to what the session shows, and the
    /// offset of the output that follows. And what is to be answered to the
    /// program if no other client is there.
    pub(super) fn attach(&self) -> Result<(Bytes, u64, Vec<u8>), Error> {
        let mut live = self.live.lock();
        let mut answers = Vec::new();
        // As far as there is output now: what comes meanwhile follows, and a
        // program that prints faster than it is read here is not chased.
        let end = self.log.state().end;
        loop {
            // Sizes that the terminal was given at the end count, too.
            let whole = live.now.as_ref().is_some_and(|now| now.at >= end);
            if !self.read(&mut live, &mut answers)? || whole {
                break;
            }
        }
        let now = live.now.as_ref().ok_or(Error::SessionEnded(self.id))?;
        let mut lines = LINES;
        let mut restore = now.screen.restore(lines);
        while restore.len() > REPAINT && lines > 0 {
            lines /= 2;
            restore = now.screen.restore(lines);
        }
        // What the user sees goes up where it can be found again.
        let mut repaint = b"\x1b[m\r".to_vec();
        repaint.extend(std::iter::repeat_n(b'\n', now.screen.size().rows.into()));
        repaint.extend_from_slice(b"\x1b[H\x1b[J");
        repaint.append(&mut restore);
        Ok((repaint.into(), now.at, answers))
    }

    /// Looks at what the session shows now. And what is to be answered to the
    /// program if no client is there.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Screen) -> T) -> Result<(T, Vec<u8>), Error> {
        let mut live = self.live.lock();
        let mut answers = Vec::new();
        while self.read(&mut live, &mut answers)? {}
        let now = live.now.as_ref().ok_or(Error::SessionEnded(self.id))?;
        Ok((look(&now.screen), answers))
    }

    /// Bytes of output that the screen has not seen.
    fn debt(&self) -> u64 {
        let seen = self.seen.load(Ordering::Relaxed);
        self.log.state().end.saturating_sub(seen)
    }

    /// Reads all there is, a piece at a time so that others get a turn, and
    /// keeps the state if it is time. Returns what is to be answered.
    fn catch_up(&self) -> Result<Vec<u8>, Error> {
        let mut answers = Vec::new();
        while self.read(&mut self.live.lock(), &mut answers)? {}
        let kept = to_keep(&mut self.live.lock());
        if let Some(kept) = kept
            && let Err(error) = disk::replace(&self.path, &kept)
        {
            tracing::warn!(%error, "the screen of a session is not kept");
        }
        Ok(answers)
    }

    /// Reads a piece. Returns whether there may be more.
    fn read(&self, live: &mut MutexGuard<'_, Live>, answers: &mut Vec<u8>) -> Result<bool, Error> {
        let Live {
            now,
            sizes,
            answered,
            over,
        } = &mut **live;
        if *over {
            return Ok(false);
        }
        let now = match now {
            Some(now) => now,
            None => now.insert(self.begin(sizes)?),
        };
        while let Some((_, size)) = sizes.front().filter(|(from, _)| *from <= now.at) {
            now.resized |= *size != now.screen.size();
            now.screen.resize(*size);
            sizes.pop_front();
        }
        let mut reader = self.log.reader(From::Offset(now.at))?.by(PIECE);
        let bytes = match reader.try_next()? {
            Some(Chunk::Bytes { bytes, .. }) => bytes,
            Some(Chunk::Gap { resume_at }) => {
                now.at = resume_at;
                self.seen.store(now.at, Ordering::Relaxed);
                return Ok(true);
            }
            Some(Chunk::End { .. }) | None => return Ok(false),
        };
        let mut until = sizes.front().map_or(u64::MAX, |(from, _)| *from);
        let mine = now.at >= *answered;
        if !mine {
            until = until.min(*answered);
        }
        let len = usize::try_from(until - now.at).unwrap_or(usize::MAX);
        let bytes = &bytes[..len.min(bytes.len())];
        now.screen.feed(bytes);
        now.at += bytes.len() as u64;
        self.seen.store(now.at, Ordering::Relaxed);
        let asked = now.screen.take_answers();
        if mine && answers.len() < ANSWERS {
            answers.extend(asked);
        }
        Ok(true)
    }

    /// From what was kept, or from some way before the end of the log as we
    /// found it.
    fn begin(&self, sizes: &VecDeque<(u64, Size)>) -> Result<Now, Error> {
        let state = self.log.state();
        if let Some(now) = std::fs::read(&self.path).ok().and_then(|file| parse(&file))
            && (state.start..=state.end).contains(&now.at)
        {
            return Ok(now);
        }
        let at = state.start.max(self.found.saturating_sub(UNKNOWN));
        let size = sizes.front().map(|(_, size)| *size).unwrap_or_default();
        Ok(Now {
            screen: Screen::new(size),
            at,
            kept: at,
            resized: false,
        })
    }
}

/// The state in a form for the disk, if it is time to keep it.
fn to_keep(live: &mut Live) -> Option<Vec<u8>> {
    let now = live.now.as_mut()?;
    if now.at < now.kept.saturating_add(KEEP_EVERY) && !now.resized {
        return None;
    }
    (now.kept, now.resized) = (now.at, false);
    let restore = now.screen.restore(usize::MAX);
    let size = now.screen.size();
    let mut file = MAGIC.to_vec();
    file.extend(now.at.to_be_bytes());
    file.extend(size.cols.to_be_bytes());
    file.extend(size.rows.to_be_bytes());
    file.extend((restore.len() as u64).to_be_bytes());
    file.extend(restore);
    Some(file)
}

/// Reads what [`to_keep`] has written; nothing if it is not whole.
fn parse(file: &[u8]) -> Option<Now> {
    let rest = file.strip_prefix(MAGIC)?;
    let (at, rest) = rest.split_first_chunk()?;
    let (cols, rest) = rest.split_first_chunk()?;
    let (rows, rest) = rest.split_first_chunk()?;
    let (len, restore) = rest.split_first_chunk()?;
    let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
    if restore.len() != len {
        return None;
    }
    let mut screen = Screen::new(Size {
        cols: u16::from_be_bytes(*cols),
        rows: u16::from_be_bytes(*rows),
    });
    screen.feed(restore);
    let at = u64::from_be_bytes(*at);
    Some(Now {
        screen,
        at,
        kept: at,
        resized: false,
    })
}

/// Keeps the screen of a session near its output until it has ended.
pub(super) async fn follow(desk: Weak<Desk>, log: Arc<OutputLog>) {
    let mut changes = log.subscribe();
    loop {
        if changes.borrow_and_update().ended.is_some() {
            return;
        }
        let Some(behind) = desk.upgrade().map(|desk| desk.screen.debt()) else {
            return;
        };
        if behind == 0 {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        pause(&log, log.state().end.saturating_sub(behind)).await;
        let (done, read) = oneshot::channel();
        let reading = Weak::clone(&desk);
        // The thread is there as long as the process.
        let _ = workshop().send(Box::new(move || {
            let read = reading.upgrade().map(|desk| desk.screen.catch_up());
            let _ = done.send(read);
        }));
        let answers = match read.await {
            Ok(Some(Ok(answers))) => answers,
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "the screen of a session is not read");
                sleep(RETRY).await;
                continue;
            }
            Ok(None) | Err(_) => return,
        };
        if let Some(desk) = desk.upgrade() {
            answer(&desk, answers).await;
        }
    }
}

/// Waits for a good moment to read what has come since `seen`.
async fn pause(log: &OutputLog, seen: u64) {
    let start = Instant::now();
    let mut end = log.state().end;
    loop {
        sleep(PAUSE).await;
        let before = std::mem::replace(&mut end, log.state().end);
        let debt = end.saturating_sub(seen);
        let patient = start.elapsed() < PATIENCE || debt > LITTLE;
        if end == before || debt > DEBT_MAX || !patient {
            return;
        }
    }
}

/// Types what the program has asked for, if no client is there to do so.
pub(super) async fn answer(desk: &Desk, answers: Vec<u8>) {
    if answers.is_empty() || desk.attached.load(Ordering::Relaxed) > 0 {
        return;
    }
    if let Some(terminal) = desk.terminal() {
        // A program that has ended needs no answer.
        let _ = terminal.input(answers.into()).await;
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that reads.
fn workshop() -> &'static Sender<Job> {
    static WORKSHOP: OnceLock<Sender<Job>> = OnceLock::new();
    WORKSHOP.get_or_init(|| {
        let (jobs, coming) = channel::<Job>();
        let started = std::thread::Builder::new()
            .name("screens".into())
            .spawn(move || {
                // Elsewhere this would slow down the whole process.
                #[cfg(target_os = "linux")]
                let _ = rustix::process::nice(NICE);
                coming.into_iter().for_each(|job| job());
            });
        if let Err(error) = started {
            tracing::warn!(%error, "screens are read when somebody attaches");
        }
        jobs
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const SIZE: Size = Size { cols: 30, rows: 8 };

    struct World {
        dir: tempfile::TempDir,
        log: Arc<OutputLog>,
        screen: LiveScreen,
    }

    impl World {
        fn new() -> Self {
            Self::at(tempfile::tempdir().unwrap())
        }

        fn at(dir: tempfile::TempDir) -> Self {
            let id = SessionId(1);
            let log = Arc::new(OutputLog::open(id, dir.path(), u64::MAX, None).unwrap());
            let screen = LiveScreen::new(id, &log, dir.path());
            screen.handle_size(SIZE);
            Self { dir, log, screen }
        }

        /// As the next node finds it.
        fn again(self) -> Self {
            Self::at(self.dir)
        }

        fn write(&self, bytes: &[u8]) {
            let file = self.log.writer().unwrap().file;
            file.write_all_at(bytes, self.log.state().end).unwrap();
            self.log.update(|state| state.end += bytes.len() as u64);
        }

        fn shown(&self) -> (Screen, u64, Vec<u8>) {
            let (repaint, offset, answers) = self.screen.attach().unwrap();
            let mut screen = Screen::new(SIZE);
            screen.feed(&repaint);
            (screen, offset, answers)
        }
    }

    #[test]
    fn a_client_sees_the_screen_and_goes_on_after_it() {
        let world = World::new();
        world.write(b"\x1b]2;title\x07one\r\n\x1b[31mtwo");
        let (screen, offset, _) = world.shown();
        assert_eq!(screen.text(0)[..2], ["one", "two"]);
        assert_eq!((screen.title(), screen.cursor()), (Some("title"), (1, 3)));
        assert_eq!(offset, world.log.state().end);
        world.write(b"\r\n\x1b[?1049hfull");
        assert!(world.screen.debt() > 0);
        assert!(world.screen.catch_up().unwrap().is_empty());
        assert_eq!(world.screen.debt(), 0);
        let (screen, ..) = world.shown();
        assert!(screen.is_alternate());
        assert_eq!(screen.text(0)[2], "full");
    }

    #[test]
    fn sizes_hold_from_where_they_were_set() {
        let world = World::new();
        world.write(b"0123456789012345678901234567890123456789\r\n");
        world.screen.handle_size(Size { cols: 50, rows: 8 });
        world.write(b"0123456789012345678901234567890123456789\r\n");
        world.screen.handle_size(SIZE);
        let (screen, ..) = world.shown();
        let half = "012345678901234567890123456789";
        assert_eq!(
            screen.text(0)[..4],
            [half, "0123456789", half, "0123456789"]
        );
    }

    #[test]
    fn the_next_node_goes_on_from_what_was_kept() {
        let world = World::new();
        world.write(b"\x1b]2;title\x07\x1b[?2004h");
        let line = b"a line of text that is longer than the screen is wide\r\n";
        world.write(&line.repeat(KEEP_EVERY as usize / line.len() + 10));
        world.screen.catch_up().unwrap();
        world.write(&line.repeat(1000));
        world.write(b"end");
        let (before, ..) = world.shown();
        // Without what was kept, the title would be too far back.
        let world = world.again();
        let (after, offset, _) = world.shown();
        assert_eq!(after.describe(), before.describe());
        assert_eq!(after.title(), Some("title"));
        assert_eq!(offset, world.log.state().end);
        std::fs::write(world.dir.path().join("screen"), b"cw-screen 1\nxyz").unwrap();
        let (screen, ..) = world.again().shown();
        assert_eq!((screen.title(), &*screen.text(0)[7]), (None, "end"));
    }

    #[test]
    fn questions_are_answered_once_and_only_when_nobody_else_did() {
        let world = World::new();
        world.write(b"\x1b[6n");
        assert_eq!(world.screen.catch_up().unwrap(), b"\x1b[1;1R");
        world.write(b"x\x1b[6n");
        let (_, _, answers) = world.shown();
        assert_eq!(answers, b"\x1b[1;2R");
        world.write(b"y\x1b[6n");
        world.screen.handle_alone();
        world.write(b"z\x1b[6n");
        assert_eq!(world.screen.catch_up().unwrap(), b"\x1b[1;4R");
        world.write(b"\x1b[6n");
        let world = world.again();
        assert!(world.screen.catch_up().unwrap().is_empty());
    }

    #[test]
    fn a_repaint_is_small() {
        let world = World::new();
        for number in 0..3000 {
            world
                .write(format!("\x1b[38;5;{}mword \x1b[1mword\x1b[m\r\n", number % 256).as_bytes());
            world.write("\x1b[4mx\x1b[my".repeat(14).as_bytes());
        }
        let (repaint, ..) = world.screen.attach().unwrap();
        assert!(
            (10_000..REPAINT + 200).contains(&repaint.len()),
            "{}",
            repaint.len()
        );
    }
}
