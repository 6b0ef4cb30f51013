//! Another program in the place of the keeper, in the same process.
//!
//! The keeper writes down what it holds, leaves its descriptors open and
//! executes the new program, which finds in `CW_KEEPER_STATE` the number of a
//! descriptor with the state, a JSON object. The process stays the parent of
//! the programs in sessions, so their exit codes still come; the node notices
//! no more than a pause. Signals wait meanwhile. When the new program cannot be
//! executed, the old one goes on.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fds::Fds;
use crate::io::platform;
use crate::{Error, Usage};

/// Tells a keeper on which descriptor its predecessor left the state.
pub(super) const STATE_ENV: &str = "CW_KEEPER_STATE";

/// All that a keeper has to know. What is added later has a default, so that
/// a newer keeper understands an older one; what is not known is skipped.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct State {
    pub(super) lock: Option<RawFd>,
    /// The limit of open files that programs in sessions get.
    pub(super) limit: (Option<u64>, Option<u64>),
    pub(super) sessions: Vec<Session>,
    pub(super) node: Option<NodeState>,
    /// The socket to the node.
    pub(super) link: Option<RawFd>,
}

/// A session, as [`Held`](super::hold::Held).
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Session {
    pub(super) id: u32,
    pub(super) pid: u32,
    pub(super) own: bool,
    pub(super) exited: Option<(i32, Usage)>,
    /// As they travel.
    pub(super) fds: Vec<RawFd>,
}

/// The process of the node.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NodeState {
    pub(super) pid: u32,
    pub(super) child: bool,
    pub(super) pidfd: Option<RawFd>,
}

impl State {
    fn numbers(&self) -> Vec<RawFd> {
        let node = self.node.as_ref().and_then(|node| node.pidfd);
        let sessions = self.sessions.iter().flat_map(|one| one.fds.iter().copied());
        sessions
            .chain(self.lock)
            .chain(self.link)
            .chain(node)
            .collect()
    }
}

/// Executes `program` with the arguments that we have got. Returns only when
/// that fails, and then everything is as it was.
pub(super) fn execute(program: &Path, state: &State) -> io::Error {
    let failed = (|| {
        let mut file = platform::memory_file()?;
        serde_json::to_writer(&mut file, state)?;
        file.flush()?;
        file.rewind()?;
        let mut numbers = state.numbers();
        numbers.push(file.as_raw_fd());
        let before = platform::hold_signals()?;
        let failed = match numbers
            .iter()
            .try_for_each(|fd| platform::inheritable(*fd, true))
        {
            Ok(()) => Command::new(program)
                .args(std::env::args_os().skip(1))
                .env(STATE_ENV, file.as_raw_fd().to_string())
                .exec(),
            Err(error) => error,
        };
        for fd in numbers {
            // It was there a moment ago.
            let _ = platform::inheritable(fd, false);
        }
        platform::release_signals(&before)?;
        Ok(failed)
    })();
    failed.unwrap_or_else(|error| error)
}

/// What the program before us has left, if there was one.
pub(super) fn inherited() -> Result<Option<State>, Error> {
    let Some(number) = std::env::var_os(STATE_ENV) else {
        return Ok(None);
    };
    let read = (|| {
        let number = number.to_str().and_then(|number| number.parse().ok());
        let file = platform::inherit(number.ok_or(io::ErrorKind::InvalidInput)?)?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text)?;
        Ok(Some(serde_json::from_str(&text)?))
    })();
    read.map_err(unavailable)
}

/// A descriptor that was left to us.
pub(super) fn take(number: RawFd) -> Result<OwnedFd, Error> {
    platform::inherit(number).map_err(unavailable)
}

/// Those of a session.
pub(super) fn take_all(numbers: &[RawFd]) -> Result<Fds, Error> {
    let fds = numbers.iter().map(|number| take(*number));
    let fds = fds.collect::<Result<Vec<_>, _>>()?;
    Fds::from_received(fds)
        .ok_or_else(|| Error::KeeperUnavailable("a session lacks descriptors".into()))
}

/// Their numbers.
pub(super) fn numbers(fds: &Fds) -> Vec<RawFd> {
    let fds = fds.shared();
    fds.iter().map(|fd: &Arc<OwnedFd>| fd.as_raw_fd()).collect()
}

fn unavailable(error: io::Error) -> Error {
    Error::KeeperUnavailable(format!("what its predecessor left: {error}"))
}
