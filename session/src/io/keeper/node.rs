//! The node as its keeper sees it: a process that is started, may die, and is
//! started again.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::upgrade::{self, NodeState};
use super::{NODE_ENV, STARTER_ENV};
use crate::Error;
use crate::io::platform;

/// First pause before a restart: a crash costs its users no more than this.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause: a node that cannot start does not burn the machine.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A node that lived this long had started well; the next pause is short.
const LIVED_WELL: Duration = Duration::from_secs(10);

/// The node process, present or due.
#[derive(Debug)]
pub(super) struct Node {
    argv: Vec<OsString>,
    process: Option<Process>,
    due: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    /// Whether it is our child. The node that started us is our parent.
    child: bool,
    since: Instant,
    status: Option<i32>,
}

impl Node {
    /// A node that is to be started at once by `argv`.
    pub(super) fn due(argv: &[OsString], now: Instant) -> Self {
        Self {
            argv: argv.to_vec(),
            process: None,
            due: now,
            pause: FIRST_PAUSE,
        }
    }

    /// The node that started us, and already runs.
    pub(super) fn running(argv: &[OsString], pid: Pid, now: Instant) -> Self {
        let mut node = Self::due(argv, now);
        node.process = Some(Process {
            pid,
            pidfd: platform::open_process(pid),
            child: false,
            since: now,
            status: None,
        });
        node
    }

    /// As it is left to a successor.
    pub(super) fn leave(&self) -> Option<NodeState> {
        let process = self.process.as_ref()?;
        Some(NodeState {
            pid: u32::try_from(process.pid.as_raw_nonzero().get()).ok()?,
            child: process.child,
            pidfd: process.pidfd.as_ref().map(AsRawFd::as_raw_fd),
        })
    }

    /// As a predecessor has left it; the next one is started by `argv`.
    pub(super) fn resume(
        argv: &[OsString],
        left: Option<NodeState>,
        now: Instant,
    ) -> Result<Self, Error> {
        let mut node = Self::due(argv, now);
        if let Some(left) = left {
            let unknown = || Error::KeeperUnavailable("which process is the node".into());
            node.process = Some(Process {
                pid: platform::pid(left.pid).ok_or_else(unknown)?,
                pidfd: left.pidfd.map(upgrade::take).transpose()?,
                child: left.child,
                since: now,
                status: None,
            });
        }
        Ok(node)
    }

    /// Whether there is a way to start another.
    pub(super) fn can_restart(&self) -> bool {
        !self.argv.is_empty()
    }

    /// Starts the node if it is due; returns our end of the socket to it.
    pub(super) fn start_if_due(&mut self, now: Instant) -> Option<UnixStream> {
        if self.process.is_some() || now < self.due {
            return None;
        }
        match self.start(now) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::error!(%error, "cannot start the node");
                self.schedule(now, Duration::ZERO);
                None
            }
        }
    }

    fn start(&mut self, now: Instant) -> io::Result<UnixStream> {
        let (program, arguments) = self.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (ours, theirs) = UnixStream::pair()?;
        // As standard input the socket is inherited without a moment in which
        // it is open to any other program.
        let child = Command::new(program)
            .args(arguments)
            .env_remove(STARTER_ENV)
            .env_remove(upgrade::STATE_ENV)
            .env(NODE_ENV, "0")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        let pid = platform::pid(child.id()).ok_or(io::ErrorKind::InvalidData)?;
        self.process = Some(Process {
            pid,
            pidfd: None,
            child: true,
            since: now,
            status: None,
        });
        Ok(ours)
    }

    fn schedule(&mut self, now: Instant, lived: Duration) {
        if lived >= LIVED_WELL {
            self.pause = FIRST_PAUSE;
        }
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Whether it is the one that started us.
    pub(super) fn is_parent(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.child)
    }

    /// Whether there is a process at all.
    pub(super) fn is_there(&self) -> bool {
        self.process.is_some()
    }

    /// A child of ours has ended; perhaps this one.
    pub(super) fn handle_exit(&mut self, pid: Pid, status: i32) {
        if let Some(process) = &mut self.process
            && process.child
            && process.pid == pid
        {
            process.status = Some(status);
        }
    }

    /// When it is gone: how it ended, as far as we know (`Some(None)` when we
    /// do not), and when the next one is due.
    pub(super) fn poll_gone(&mut self, now: Instant) -> Option<Option<i32>> {
        let process = self.process.as_ref()?;
        let gone = match (process.child, &process.pidfd) {
            (true, _) => process.status.is_some(),
            (false, Some(pidfd)) => platform::is_readable(pidfd),
            (false, None) => test_kill_process(process.pid).is_err(),
        };
        if !gone {
            return None;
        }
        let status = process.status;
        let lived = now.duration_since(process.since);
        self.process = None;
        self.schedule(now, lived);
        Some(status)
    }

    /// What to wait on, besides children, to learn that it is gone.
    pub(super) fn pidfd(&self) -> Option<&OwnedFd> {
        self.process.as_ref()?.pidfd.as_ref()
    }

    /// How long to wait at most before looking at the node again.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Duration> {
        match &self.process {
            None => Some(self.due.saturating_duration_since(now)),
            // Without a descriptor there is nothing to wake us.
            Some(process) if !process.child && process.pidfd.is_none() => {
                Some(Duration::from_millis(200))
            }
            Some(_) => None,
        }
    }

    /// Passes a signal on.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process
            && process.status.is_none()
            && !process.pidfd.as_ref().is_some_and(platform::is_readable)
            && let Err(error) = kill_process(process.pid, signal)
        {
            tracing::warn!(%error, "cannot signal the node");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_two_seconds_and_recover() {
        let start = Instant::now();
        let mut node = Node::due(&[], start);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            node.schedule(start, Duration::ZERO);
            pauses.push((node.due - start).as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        node.schedule(start, LIVED_WELL);
        assert_eq!((node.due - start).as_millis(), 50);
    }
}
