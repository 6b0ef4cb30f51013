//! Files: the journal of events of each session, the thread that brings them to
//! the disk, and files that are replaced as a whole.
//!
//! An event counts when the operating system has it: it then survives the death
//! of any process. The flusher brings it to the disk soon after, many at once.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::Error;
use crate::record::Place;

/// How long events gather before the disk is asked to keep them. With the time
/// the disk takes this stays below the promised 100 ms.
const GATHER: Duration = Duration::from_millis(50);

/// Files that are synced at one time. More do not make a disk faster.
const SYNCS: usize = 8;

/// Creates a directory and those above it, for this user alone.
pub(crate) fn create_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| failed("create", dir, error))
}

/// Opens a file of ours to read and write, creating it for this user alone.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Puts a file in the place of another in one step, so that there is always a
/// whole one.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let written = (|| {
        let mut file = open_private(&temporary)?;
        file.set_len(0)?;
        file.write_all(contents)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    })();
    written.map_err(|error| failed("write", path, error))
}

/// An error of the system with the file it was about. A full disk is told apart,
/// and so is a limit of open files.
pub(crate) fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    if is_full(&error) {
        return Error::DiskFull;
    }
    let errno = rustix::io::Errno::from_io_error(&error);
    if matches!(
        errno,
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
    ) {
        return Error::TooManyFiles;
    }
    Error::io(format!("{verb} {}", path.display()), error)
}

/// Whether there is no room: on the disk, in the quota, or below a limit.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The events of one session on disk.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    state: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: Option<Arc<File>>,
    len: u64,
    resting: bool,
}

impl Journal {
    /// The journal at `path`, which has `len` good bytes.
    pub(crate) fn new(path: PathBuf, len: u64) -> Self {
        Self {
            path,
            state: Mutex::new(Open {
                file: None,
                len,
                resting: false,
            }),
        }
    }

    /// Appends a line. It either is there as a whole, or not at all.
    pub(crate) fn append(&self, line: &[u8]) -> Result<(Place, Arc<File>), Error> {
        let mut state = self.state.lock();
        let len = u32::try_from(line.len()).map_err(|_| Error::BodyTooLarge { len: line.len() })?;
        let file = self.file(&mut state)?;
        let offset = state.len;
        if let Err(error) = file.write_all_at(line, offset) {
            // What was written of it must not be taken for a torn end later.
            let _ = file.set_len(offset);
            return Err(failed("write", &self.path, error));
        }
        state.len += u64::from(len);
        Ok((Place { offset, len }, file))
    }

    /// Reads a line back.
    pub(crate) fn read(&self, place: Place) -> Result<Vec<u8>, Error> {
        let file = self.file(&mut self.state.lock())?;
        let mut line = vec![0; place.len as usize];
        file.read_exact_at(&mut line, place.offset)
            .map_err(|error| failed("read", &self.path, error))?;
        Ok(line)
    }

    /// Reads what there is from `offset` on, at most `len` bytes.
    pub(crate) fn read_some(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let (file, end) = {
            let mut state = self.state.lock();
            (self.file(&mut state)?, state.len)
        };
        let there = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(there)];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|error| failed("read", &self.path, error))?;
        Ok(bytes)
    }

    /// Bytes in it.
    pub(crate) fn len(&self) -> u64 {
        self.state.lock().len
    }

    /// Nothing much will happen here any more: from now on the file is open
    /// only while it is used.
    pub(crate) fn rest(&self) {
        let mut state = self.state.lock();
        state.resting = true;
        state.file = None;
    }

    fn file(&self, state: &mut Open) -> Result<Arc<File>, Error> {
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let file = open_private(&self.path).map_err(|error| failed("open", &self.path, error))?;
        let file = Arc::new(file);
        if !state.resting {
            state.file = Some(Arc::clone(&file));
        }
        Ok(file)
    }
}

/// Brings written files to the disk in the background.
#[derive(Debug)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    done: watch::Receiver<u64>,
    always: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Dirty>,
    wake: Condvar,
    done: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Dirty {
    files: HashMap<usize, Arc<File>>,
    /// Flushes that have begun.
    begun: u64,
    stop: bool,
}

impl Flusher {
    /// Starts the thread. With `always`, acknowledgements wait for it and it
    /// does not wait for more.
    pub(crate) fn start(always: bool) -> Result<Self, Error> {
        let (done, finished) = watch::channel(0);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            done,
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("flusher".into())
            .spawn(move || thread.run(if always { Duration::ZERO } else { GATHER }))
            .map_err(|error| Error::io("start the flusher", error))?;
        Ok(Self {
            shared,
            done: finished,
            always,
        })
    }

    /// This file has something new. Returns the number of the flush that takes
    /// it to the disk.
    pub(crate) fn mark(&self, file: &Arc<File>) -> u64 {
        let mut state = self.shared.state.lock();
        let key = Arc::as_ptr(file).addr();
        // While it gathers, or is at the disk, the thread need not hear of each.
        if state.files.is_empty() {
            self.shared.wake.notify_one();
        }
        state.files.entry(key).or_insert_with(|| Arc::clone(file));
        state.begun + 1
    }

    /// Waits for a flush if acknowledgements do.
    pub(crate) async fn acknowledge(&self, flush: u64) {
        if self.always {
            self.wait(flush).await;
        }
    }

    /// Waits until all that has been marked is on the disk.
    pub(crate) async fn settle(&self) {
        let last = {
            let state = self.shared.state.lock();
            state.begun + u64::from(!state.files.is_empty())
        };
        self.wait(last).await;
    }

    async fn wait(&self, flush: u64) {
        // The sender lives as long as we do.
        let _ = self.done.clone().wait_for(|done| *done >= flush).await;
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn run(&self, gather: Duration) {
        loop {
            let mut state = self.state.lock();
            while state.files.is_empty() && !state.stop {
                self.wake.wait(&mut state);
            }
            if !state.stop && !gather.is_zero() {
                // Marks that come meanwhile do not end the wait; a stop may.
                let until = std::time::Instant::now() + gather;
                while !state.stop && !self.wake.wait_until(&mut state, until).timed_out() {}
            }
            let files = std::mem::take(&mut state.files);
            state.begun += 1;
            let (flush, stop) = (state.begun, state.stop);
            drop(state);
            let files: Vec<_> = files.into_values().collect();
            // What costs is waiting for the disk, and the file system takes
            // along who waits at the same time.
            to_each(&files, SYNCS, |file| {
                if let Err(error) = file.sync_data() {
                    tracing::error!(%error, "the disk may have lost what was written");
                }
            });
            drop(files);
            self.done.send_replace(flush);
            if stop {
                return;
            }
        }
    }
}

/// Does something to each of `all`, to several at once.
fn to_each<T: Sync>(all: &[T], at_once: usize, work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(one);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..all.len().min(at_once) {
            // Where no more threads may be started, one does it all.
            let builder = std::thread::Builder::new().name("flusher".into());
            if builder.spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_journal_reads_back_what_was_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let journal = Journal::new(path.clone(), 0);
        let (one, _) = journal.append(b"one\n").unwrap();
        journal.rest();
        let (two, _) = journal.append(b"and two\n").unwrap();
        assert_eq!(journal.read(one).unwrap(), b"one\n");
        assert_eq!(journal.read(two).unwrap(), b"and two\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\nand two\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn u06_u17_replaced_files_are_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        create_dir(&home).unwrap();
        let path = home.join("sessions.json");
        replace(&path, b"a long first version").unwrap();
        replace(&path, b"[]").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"[]");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = std::fs::metadata(&home).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn settling_waits_for_all_marks() {
        let dir = tempfile::tempdir().unwrap();
        for always in [true, false] {
            let flusher = Flusher::start(always).unwrap();
            let file = Arc::new(open_private(&dir.path().join("file")).unwrap());
            for _ in 0..3 {
                let flush = flusher.mark(&file);
                flusher.acknowledge(flush).await;
                flusher.settle().await;
                assert!(flusher.shared.state.lock().files.is_empty());
            }
        }
    }

    #[test]
    fn each_is_worked_at_once_and_several_at_one_time() {
        let together = std::sync::Barrier::new(4);
        let worked: Vec<_> = (0..40).map(AtomicUsize::new).collect();
        to_each(&worked, 4, |one| {
            // Comes to its end only if four are here.
            together.wait();
            one.fetch_add(100, Ordering::Relaxed);
        });
        let worked = worked.iter().map(|one| one.load(Ordering::Relaxed));
        assert!(worked.eq(100..140));
        to_each(&[0; 0], 4, |_| panic!("there is nothing to be done"));
    }
}
