//! Whose process it is.
//!
//! A process belongs to a session when one of its ancestors, or itself, leads the session, or when
//! the system says that it is of that session. One that has left both, as daemons do, is a child of
//! the keeper then, which gets the orphans of its sessions: it belongs to the session that its
//! environment names.
//!
//! In doubt it is nobody's, and certainly not the owner's: a process that is gone before it was
//! looked at, one whose line cannot be read, and an orphan of a session that has ended are refused.
//! Where there is no `/proc` nothing is known, and every process is the owner's.

use std::fs::File;
use std::io;

use rustix::io::Errno;

use super::inner::Inner;
use super::proc::{self, Stat};
use crate::{Error, SessionId};

/// How far up the tree of processes to look: nobody nests this many shells.
const DEPTH: usize = 1024;

/// A process, and who leads the session that it is of in the sense of the system.
struct Link {
    pid: u32,
    leader: u32,
}

/// The live session that a process belongs to; `None` for those outside of all.
pub(super) fn of_pid(inner: &Inner, pid: u32) -> Result<Option<SessionId>, Error> {
    let line = match line(pid) {
        Err(error) if is_out_of_files(&error) => {
            // Others wait: what is let go of is not for them.
            let mut spare = inner.spare.lock();
            *spare = None;
            let line = line(pid);
            *spare = File::open("/dev/null").ok();
            line
        }
        line => line,
    };
    let line = match line {
        Ok(line) => line,
        Err(error) if !is_known()? => {
            tracing::debug!(%error, "there is no /proc");
            return Ok(None);
        }
        Err(error) => return Err(unknown(pid, &error)),
    };
    if let Some(id) = nearest(inner, &line) {
        return Ok(Some(id));
    }
    let Some(stray) = stray(inner, &line) else {
        return Ok(None);
    };
    let named = proc::environment(stray, "CW_SESSION_ID");
    let id: Option<SessionId> = named.and_then(|id| id.parse().ok());
    let runs = id.filter(|id| inner.terminal(*id).is_ok());
    runs.map(Some).ok_or_else(|| {
        Error::CallerUnknown(format!(
            "process {pid} was started in a session that is over"
        ))
    })
}

/// The process and its ancestors, as far as they can be seen.
fn line(pid: u32) -> io::Result<Vec<Link>> {
    let mut line = Vec::new();
    let mut next = pid;
    for _ in 0..DEPTH {
        match Stat::of(next) {
            Ok(stat) => {
                let leader = stat.leader;
                line.push(Link { pid: next, leader });
                next = stat.parent;
            }
            Err(error) => {
                let Some(child) = line.last() else {
                    return Err(error);
                };
                // An ancestor that is gone has left its child to another; one that is still there
                // and not to be seen is another user's, as is all that is above it.
                let parent = Stat::of(child.pid)?.parent;
                if parent == next {
                    return if is_gone(&error) {
                        Ok(line)
                    } else {
                        Err(error)
                    };
                }
                next = parent;
            }
        }
        if next <= 1 {
            return Ok(line);
        }
    }
    Err(io::Error::other("it has too many ancestors"))
}

/// The session that is nearest on the way up.
fn nearest(inner: &Inner, line: &[Link]) -> Option<SessionId> {
    let desks = inner.desks.read();
    let near = desks.values().filter_map(|desk| {
        let leader = desk.terminal()?.pid();
        let is_of = |link: &Link| link.pid == leader || link.leader == leader;
        Some((line.iter().position(is_of)?, desk.id))
    });
    near.min().map(|(_, id)| id)
}

/// The child of the keeper that the line leads to, unless that is this node, whose children are its
/// owner's.
fn stray(inner: &Inner, line: &[Link]) -> Option<u32> {
    let keeper = inner.keeper_pid()?;
    let mut pairs = line.windows(2);
    let pair = pairs.find(|pair| pair[1].pid == keeper)?;
    (pair[0].pid != std::process::id()).then_some(pair[0].pid)
}

/// Whether the system tells about processes at all.
fn is_known() -> Result<bool, Error> {
    match Stat::of(std::process::id()) {
        Ok(_) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(unknown(std::process::id(), &error)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    let srch = Errno::from_io_error(error) == Some(Errno::SRCH);
    srch || error.kind() == io::ErrorKind::NotFound
}

fn is_out_of_files(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

fn unknown(pid: u32, error: &io::Error) -> Error {
    match error {
        error if is_out_of_files(error) => Error::TooManyFiles,
        _ if is_gone(error) => Error::CallerUnknown(format!("process {pid} is gone")),
        _ => Error::CallerUnknown(format!("process {pid}: {error}")),
    }
}
