//! One node per directory.
//!
//! The lock is a `flock` on `<dir>/lock`. It belongs to the open file, not to a
//! process: keeper and node share that open file and pass it on, so the
//! directory is locked without a gap as long as either of them lives, and free
//! the moment neither does. The process id written in it is only for people.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, ftruncate};

use crate::Error;

/// Takes the lock of a directory, which is created (0700) if it is not there.
pub(crate) fn take(dir: &Path) -> Result<Arc<OwnedFd>, Error> {
    crate::io::disk::create_dir(dir)?;
    let path = dir.join("lock");
    let context = || format!("lock {}", path.display());
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let lock = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::io(context(), errno.into()))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Arc::new(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // The text is a courtesy; the lock is what counts.
            let _ = File::from(lock).take(20).read_to_string(&mut pid);
            let pid = pid.trim();
            let known = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
            let pid = if known { pid } else { "?" }.to_owned();
            Err(Error::Locked { pid })
        }
        Err(errno) => Err(Error::io(context(), errno.into())),
    }
}

/// Writes our process id into the lock.
pub(crate) fn sign(lock: &Arc<OwnedFd>) {
    let written = (|| {
        let copy = lock.try_clone()?;
        ftruncate(&copy, 0)?;
        rustix::fs::seek(&copy, rustix::fs::SeekFrom::Start(0))?;
        writeln!(File::from(copy), "{}", std::process::id())
    })();
    if let Err(error) = written {
        tracing::warn!(%error, "cannot write the process id into the lock");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let lock = take(&home).unwrap();
        sign(&lock);
        let copy = Arc::new(lock.try_clone().unwrap());
        drop(lock);
        let error = take(&home).unwrap_err();
        assert_eq!(error.code(), "locked");
        assert!(error.to_string().contains(&std::process::id().to_string()));
        drop(copy);
        take(&home).unwrap();
    }
}
