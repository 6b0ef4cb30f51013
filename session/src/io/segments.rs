//! The files of an output log.
//!
//! ```text
//! output.log                       what is being written
//! output.log.00000000000033554432  before it: its first byte has this offset
//! timing, timing.<offset>          when it came, see `timing`
//! ```
//!
//! A file that is long enough is renamed and another begun; when all of them
//! are too much, the oldest goes. So `cat output.log.* output.log` is all that
//! is kept, in order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::disk;
use crate::timing;

/// Parts in which a log comes and goes: this much of the limit is given up for
/// removing whole files.
const PARTS: u64 = 8;

/// One file, open.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<File>,
    /// The offset of its first byte.
    pub(crate) base: u64,
}

/// All files of a log.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    /// Most bytes to keep.
    cap: u64,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// First offset and length of each but the last, oldest first.
    old: Vec<(u64, u64)>,
    /// The offset at which the last begins.
    base: u64,
    /// The last, while somebody writes: also there when its name is not.
    active: Option<Arc<File>>,
}

impl Segments {
    /// Those in `dir`. Returns where the log begins and ends.
    pub(crate) fn open(dir: &Path, cap: u64) -> io::Result<(Self, u64, u64)> {
        let mut old = Vec::new();
        let mut len = 0;
        match std::fs::read_dir(dir) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    let name = entry.file_name();
                    let name = name.to_str().unwrap_or_default();
                    if name == "output.log" {
                        len = entry.metadata()?.len();
                    } else if let Some(base) = name.strip_prefix("output.log.")
                        && let Ok(base) = base.parse()
                    {
                        old.push((base, entry.metadata()?.len()));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        old.sort_unstable();
        let base = match old.last() {
            Some((base, len)) => base + len,
            None => timing_base(dir),
        };
        // Before a hole, nothing can be read in order.
        let whole = old
            .windows(2)
            .rposition(|pair| pair[0].0 + pair[0].1 != pair[1].0);
        old.drain(..whole.map_or(0, |hole| hole + 1));
        let start = old.first().map_or(base, |(base, _)| *base);
        let segments = Self {
            dir: dir.to_owned(),
            cap: cap.max(PARTS),
            state: RwLock::new(State {
                old,
                base,
                active: None,
            }),
        };
        Ok((segments, start, base + len))
    }

    /// The last file, for who fills it.
    pub(crate) fn writer(&self) -> io::Result<Segment> {
        let mut state = self.state.write();
        let file = match &state.active {
            Some(file) => Arc::clone(file),
            None => Arc::new(disk::open_private(&self.path())?),
        };
        state.active = Some(Arc::clone(&file));
        let base = state.base;
        Ok(Segment { file, base })
    }

    /// Nobody writes any more.
    pub(crate) fn rest(&self) {
        self.state.write().active = None;
    }

    /// The file with this byte, or the one in which it will be.
    pub(crate) fn find(&self, offset: u64) -> io::Result<Segment> {
        let state = self.state.read();
        let later = state.old.partition_point(|(base, _)| *base <= offset);
        if offset < state.base && later > 0 {
            let base = state.old[later - 1].0;
            let file = Arc::new(File::open(self.old_path(base))?);
            return Ok(Segment { file, base });
        }
        let file = match &state.active {
            Some(file) => Arc::clone(file),
            None => Arc::new(File::open(self.path())?),
        };
        let base = state.base;
        Ok(Segment { file, base })
    }

    /// Whether the last file is long enough, the log being this long.
    pub(crate) fn is_due(&self, base: u64, end: u64) -> bool {
        end - base >= self.cap / PARTS
    }

    /// Begins a new file at `end`. Returns it, and where the log begins now.
    /// When that fails, the old one goes on.
    pub(crate) fn rotate(&self, end: u64) -> io::Result<(Segment, u64)> {
        let mut state = self.state.write();
        let base = state.base;
        let old = self.old_path(base);
        std::fs::rename(self.path(), &old)?;
        let file = match disk::open_private(&self.path()) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                std::fs::rename(&old, self.path())?;
                return Err(error);
            }
        };
        state.old.push((base, end - base));
        state.base = end;
        state.active = Some(Arc::clone(&file));
        let kept = self.cap - self.cap / PARTS;
        while state
            .old
            .first()
            .is_some_and(|(first, _)| end - first > kept)
        {
            let (base, _) = state.old.remove(0);
            for path in [self.old_path(base), self.old_timing_path(base)] {
                if let Err(error) = std::fs::remove_file(&path)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(%error, path = %path.display(), "old output stays");
                }
            }
        }
        let start = state.old.first().map_or(end, |(base, _)| *base);
        Ok((Segment { file, base: end }, start))
    }

    /// Where each file begins, oldest first.
    pub(crate) fn bases(&self) -> Vec<u64> {
        let state = self.state.read();
        let old = state.old.iter().map(|(base, _)| *base);
        old.chain([state.base]).collect()
    }

    /// The last file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("output.log")
    }

    /// The times of the last file.
    pub(crate) fn timing_path(&self) -> PathBuf {
        self.dir.join("timing")
    }

    /// The times of a file before the last.
    pub(crate) fn old_timing_path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("timing.{base:020}"))
    }

    fn old_path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("output.log.{base:020}"))
    }

    /// Reads at one offset what is there in one file.
    pub(crate) fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let segment = self.find(offset)?;
        let mut bytes = vec![0; len];
        let read = segment.file.read_at(&mut bytes, offset - segment.base)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads a part, from as many files as it takes.
    pub(crate) fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let offset = from + bytes.len() as u64;
            if offset >= to {
                return Ok(bytes);
            }
            let len = usize::try_from(to - offset).unwrap_or(usize::MAX);
            let part = self.read_at(offset, len)?;
            if part.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend(part);
        }
    }
}

/// Where the last file begins, if those before it have been removed by hand.
fn timing_base(dir: &Path) -> u64 {
    let mut head = [0; timing::HEADER];
    let read = File::open(dir.join("timing")).and_then(|file| file.read_at(&mut head, 0));
    let header = read
        .ok()
        .and_then(|read| timing::Header::parse(&head[..read]));
    header.map_or(0, |header| header.base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(segments: &Segments, end: &mut u64, bytes: &[u8]) {
        let segment = segments.writer().unwrap();
        segment
            .file
            .write_all_at(bytes, *end - segment.base)
            .unwrap();
        *end += bytes.len() as u64;
    }

    #[test]
    fn old_files_go_and_offsets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (segments, start, mut end) = Segments::open(dir.path(), 80).unwrap();
        assert_eq!((start, end), (0, 0));
        let byte = |offset: u64| (offset % 251) as u8;
        let mut first = 0;
        for _ in 0..100 {
            let bytes: Vec<u8> = (end..end + 7).map(byte).collect();
            write(&segments, &mut end, &bytes);
            if segments.is_due(segments.writer().unwrap().base, end) {
                (_, first) = segments.rotate(end).unwrap();
            }
            assert!(end - first <= 80);
        }
        let expected: Vec<u8> = (first..end).map(byte).collect();
        assert_eq!(segments.read(first, end).unwrap(), expected);
        assert!(segments.read(first, end + 1).is_err());
        // As the next node finds it.
        let (again, start, found) = Segments::open(dir.path(), 80).unwrap();
        assert_eq!((start, found), (first, end));
        assert_eq!(again.read(first, end).unwrap(), expected);
        assert_eq!(again.bases(), segments.bases());
        // A hole: what is before it is not part of the log.
        let bases = again.bases();
        std::fs::remove_file(again.old_path(bases[1])).unwrap();
        let (_, start, found) = Segments::open(dir.path(), 80).unwrap();
        assert_eq!((start, found), (bases[2], end));
    }

    #[test]
    fn a_crash_between_the_two_steps_of_a_rotation_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (segments, _, mut end) = Segments::open(dir.path(), 80).unwrap();
        write(&segments, &mut end, b"0123456789");
        std::fs::rename(segments.path(), segments.old_path(0)).unwrap();
        let (segments, start, mut end) = Segments::open(dir.path(), 80).unwrap();
        assert_eq!((start, end), (0, 10));
        write(&segments, &mut end, b"abc");
        assert_eq!(segments.read(0, end).unwrap(), b"0123456789abc");
    }
}
