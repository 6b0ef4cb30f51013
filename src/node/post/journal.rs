//! The outbox on disk: `outbox.jsonl`, one change a line, 0600.
//!
//! A line counts when the operating system has it, and is brought to the disk within 100 ms, or
//! before it counts when the node is told to (`[node] sync = "always"`). A last line that was cut
//! short is cut off; lines that cannot be read are left out and told of. Now and then the file is
//! replaced by one that says the same in fewer lines.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::outbox::{Change, Outbox};
use crate::error::{Error, Result};
use crate::home::write_private;

/// A file below this size is not worth replacing, bytes.
const SMALL: u64 = 4 * 1024 * 1024;

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Arc<File>,
    len: u64,
    /// Its length when it was last replaced.
    compact_len: u64,
}

impl Journal {
    /// Reads the file back.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Outbox)> {
        let mut file = open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        if whole < bytes.len() {
            tracing::warn!(
                bytes = bytes.len() - whole,
                "the last line of the outbox was torn"
            );
            file.set_len(whole as u64)?;
        }
        let (outbox, damaged) = read_back(&bytes[..whole]);
        if damaged > 0 {
            tracing::warn!(damaged, "lines of the outbox cannot be read");
            // What could not be read is kept for whoever can.
            std::fs::copy(&path, path.with_extension("jsonl.damaged"))?;
        }
        let mut journal = Self {
            path,
            file: Arc::new(file),
            len: whole as u64,
            compact_len: 0,
        };
        journal.compact(&outbox)?;
        Ok((journal, outbox))
    }

    /// Appends changes; all are there, or none. Returns the file, to be brought to the disk.
    pub(super) fn append(&mut self, changes: &[Change]) -> Result<Arc<File>> {
        use std::os::unix::fs::FileExt as _;
        let mut lines = Vec::new();
        for change in changes {
            serde_json::to_writer(&mut lines, change).map_err(Error::internal)?;
            lines.push(b'\n');
        }
        if let Err(error) = self.file.write_all_at(&lines, self.len) {
            // What was written of it must not be taken for a torn end later.
            let _ = self.file.set_len(self.len);
            return Err(error.into());
        }
        self.len += lines.len() as u64;
        Ok(Arc::clone(&self.file))
    }

    /// Replaces the file if that is worth it.
    pub(super) fn compact(&mut self, outbox: &Outbox) -> Result<()> {
        if self.len < SMALL || self.len < self.compact_len.saturating_mul(2) {
            return Ok(());
        }
        let mut lines = Vec::new();
        for record in outbox.iter() {
            let change = Change::Put(Box::new(record.clone()));
            serde_json::to_writer(&mut lines, &change).map_err(Error::internal)?;
            lines.push(b'\n');
        }
        write_private(&self.path, &lines)?;
        self.file = Arc::new(open(&self.path)?);
        self.len = lines.len() as u64;
        self.compact_len = self.len;
        Ok(())
    }
}

/// The outbox that these lines make, and how many of them cannot be read.
pub(crate) fn read_back(lines: &[u8]) -> (Outbox, usize) {
    let mut outbox = Outbox::default();
    let mut damaged = 0;
    for line in lines.split(|byte| *byte == b'\n') {
        match serde_json::from_slice::<Change>(line) {
            Ok(change) => outbox.apply(change),
            Err(_) if line.is_empty() => {}
            Err(_) => damaged += 1,
        }
    }
    (outbox, damaged)
}

fn open(path: &Path) -> Result<File> {
    Ok(std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use session::{MessageId, MessageKind};

    use super::super::outbox::{Letter, State};
    use super::*;

    fn letter(number: u8) -> Letter {
        Letter {
            id: MessageId::new(MessageKind::Direct, [number; 16]),
            node: "dev-2".into(),
            key: None,
            from: None,
            to: None,
            body: "x".repeat(100_000),
            delivery: "inbox".into(),
            auto: false,
            request_id: None,
            deadline_ms: None,
            at_ms: 1,
        }
    }

    #[test]
    fn it_is_read_back_from_every_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.jsonl");
        let (mut journal, mut outbox) = Journal::open(path.clone()).unwrap();
        for number in 0..3 {
            let change = outbox.handle_letter(letter(number)).unwrap().unwrap();
            let _ = journal.append(std::slice::from_ref(&change)).unwrap();
            outbox.apply(change);
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = std::fs::read(&path).unwrap();
        let line = bytes.len() / 3;
        for (kept, letters) in [
            (1, 0),
            (line - 1, 0),
            (line, 1),
            (2 * line + 7, 2),
            (3 * line, 3),
        ] {
            std::fs::write(&path, &bytes[..kept]).unwrap();
            let (_, outbox) = Journal::open(path.clone()).unwrap();
            assert_eq!(outbox.iter().count(), letters, "{kept}");
            let len = std::fs::metadata(&path).unwrap().len();
            assert_eq!(len as usize, letters * line, "{kept}");
        }
        let mut damaged = bytes.clone();
        damaged[line + 3] = b'}';
        std::fs::write(&path, &damaged).unwrap();
        let (_, outbox) = Journal::open(path.clone()).unwrap();
        assert_eq!(outbox.iter().count(), 2);
        let kept = std::fs::read(path.with_extension("jsonl.damaged")).unwrap();
        assert_eq!(kept, damaged);
    }

    #[test]
    fn a_long_file_becomes_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.jsonl");
        let (mut journal, mut outbox) = Journal::open(path.clone()).unwrap();
        for number in 0..100 {
            let change = outbox.handle_letter(letter(number)).unwrap().unwrap();
            let id = letter(number).id;
            let _ = journal.append(std::slice::from_ref(&change)).unwrap();
            outbox.apply(change);
            let done = outbox
                .handle_state(id, State::Delivered, None, None)
                .unwrap();
            let _ = journal.append(std::slice::from_ref(&done)).unwrap();
            outbox.apply(done);
        }
        journal.compact(&outbox).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 100_000);
        let (_, again) = Journal::open(path).unwrap();
        assert_eq!(again.iter().count(), 100);
        assert!(again.iter().all(|record| record.state == State::Delivered));
    }
}
