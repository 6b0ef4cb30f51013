//! The nonces of the requests that nodes have signed: each is taken once, also across a restart.
//!
//! Two generations, in memory and each in a file: when the younger is as old as a request may be,
//! the elder has nothing that could come again. A nonce is in the file before its request is
//! answered; the system writes it to the disk in its time, so that only a machine that lost its
//! power within the last seconds could take one twice.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::error::ApiError;
use crate::coord::Nonce;
use crate::coord::request::REQUEST_WINDOW;

/// Nonces remembered, for all networks together. Each is good for four minutes
/// at most, and each came with a right signature.
const MAX_NONCES: usize = 500_000;

/// A nonce in a file: when it was taken, unix seconds, and itself.
const ENTRY: usize = 8 + 32;

/// See the module.
#[derive(Default)]
pub(crate) struct Nonces {
    young: HashSet<Nonce>,
    old: HashSet<Nonce>,
    since: u64,
    files: Option<Files>,
}

struct Files {
    young: PathBuf,
    old: PathBuf,
    file: File,
}

impl Nonces {
    /// Goes on from the files in `dir`, which need not be there.
    pub(crate) fn open(dir: &Path, now: u64) -> io::Result<Self> {
        let (young, old) = (dir.join("nonces"), dir.join("nonces.old"));
        let mut known = HashSet::new();
        for path in [&old, &young] {
            known.extend(read(path, now)?);
        }
        // Written anew and put in place whole: behind a torn entry nothing could be read.
        let fresh = dir.join("nonces.new");
        let mut file = create(&fresh)?;
        let entries: Vec<u8> = known.iter().flat_map(|nonce| entry(nonce, now)).collect();
        file.write_all(&entries)?;
        std::fs::rename(fresh, &young)?;
        Ok(Self {
            // They may be as young as the restart was quick.
            young: known,
            old: HashSet::new(),
            since: now,
            files: Some(Files { young, old, file }),
        })
    }

    /// False if it was used before.
    pub(crate) fn take(&mut self, nonce: &Nonce, now: u64) -> Result<bool, ApiError> {
        // A request from the furthest future is good for twice the window. The
        // clock may also have been set back.
        if now.abs_diff(self.since) > 2 * REQUEST_WINDOW {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
            if let Some(files) = &mut self.files {
                files.turn().map_err(lost)?;
            }
        }
        if self.young.len() + self.old.len() >= MAX_NONCES {
            return Err(ApiError::rate_limited());
        }
        if self.old.contains(nonce) || self.young.contains(nonce) {
            return Ok(false);
        }
        if let Some(files) = &mut self.files {
            files.file.write_all(&entry(nonce, now)).map_err(lost)?;
        }
        Ok(self.young.insert(*nonce))
    }
}

impl Files {
    /// The younger file becomes the elder.
    fn turn(&mut self) -> io::Result<()> {
        std::fs::rename(&self.young, &self.old)?;
        self.file = create(&self.young)?;
        Ok(())
    }
}

/// A request that could be made again is not made at all.
fn lost(error: io::Error) -> ApiError {
    tracing::error!(%error, "the nonces of requests cannot be kept");
    ApiError::internal()
}

fn entry(nonce: &Nonce, now: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..8].copy_from_slice(&now.to_be_bytes());
    entry[8..].copy_from_slice(&nonce.0);
    entry
}

/// An empty file.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// What could come again. The rest of an entry that was torn is no nonce.
fn read(path: &Path, now: u64) -> io::Result<Vec<Nonce>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file
            .take((MAX_NONCES * ENTRY) as u64)
            .read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (entries, _) = bytes.as_chunks::<ENTRY>();
    let nonces = entries.iter().filter_map(|entry| {
        let (time, nonce) = entry.split_first_chunk::<8>()?;
        let taken = u64::from_be_bytes(*time);
        let may_come = now.abs_diff(taken) <= 2 * REQUEST_WINDOW;
        Some(Nonce(nonce.try_into().ok()?)).filter(|_| may_come)
    });
    Ok(nonces.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_nonce_is_good_once() {
        let mut nonces = Nonces::default();
        let mut now = NOW;
        assert!(nonces.take(&Nonce([1; 32]), now).unwrap());
        // As long as a request with it could be believed, and longer.
        for _ in 0..=2 * REQUEST_WINDOW {
            assert!(!nonces.take(&Nonce([1; 32]), now).unwrap());
            now += 1;
        }
        assert!(nonces.take(&Nonce([2; 32]), now).unwrap());
        // They do not stay for ever.
        now += 5 * REQUEST_WINDOW;
        assert!(nonces.take(&Nonce([3; 32]), now).unwrap());
        now += 5 * REQUEST_WINDOW;
        assert!(nonces.take(&Nonce([4; 32]), now).unwrap());
        assert_eq!(nonces.young.len() + nonces.old.len(), 2);
    }

    #[test]
    fn u11_a_restart_forgets_none_that_could_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = |now| Nonces::open(dir.path(), now).unwrap();
        let mut nonces = open(NOW);
        assert!(nonces.take(&Nonce([1; 32]), NOW).unwrap());
        // In the elder generation and in the younger.
        let later = NOW + 2 * REQUEST_WINDOW + 1;
        assert!(nonces.take(&Nonce([2; 32]), later).unwrap());
        drop(nonces);
        // A machine that went down in the midst of it.
        let file = dir.path().join("nonces");
        let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
        torn.write_all(&[7; ENTRY - 1]).unwrap();
        let mut nonces = open(later);
        assert!(!nonces.take(&Nonce([2; 32]), later).unwrap());
        assert!(nonces.take(&Nonce([3; 32]), later).unwrap());
        // What is too old to be believed is not kept.
        assert!(open(later + 5 * REQUEST_WINDOW).young.is_empty());
    }

    #[test]
    fn the_file_behind_a_torn_entry_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("nonces"), [7; ENTRY - 1]).unwrap();
        let mut nonces = Nonces::open(dir.path(), NOW).unwrap();
        assert!(nonces.take(&Nonce([2; 32]), NOW).unwrap());
        drop(nonces);
        let mut nonces = Nonces::open(dir.path(), NOW).unwrap();
        assert!(!nonces.take(&Nonce([2; 32]), NOW).unwrap());
    }
}
