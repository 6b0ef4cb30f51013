//! Ending a session and everything it has started.
//!
//! SIGTERM goes to every process of the session, each of them found in `/proc`
//! by its session id or its parents and held by a descriptor, so that no signal
//! can hit a stranger who got a number that became free. One that has left both
//! is the keeper's child then, and known by the number of its session in its
//! environment. Those that ignore it,
//! as interactive shells do, get SIGHUP instead; those that handle it have the
//! whole grace to do so. Who is left after that is stopped and then gets
//! SIGKILL, also those that were started meanwhile. Where there is no `/proc`, signals go to the process
//! group of the program.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::sync::watch::{self, error::RecvError};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::inner::Inner;
use super::log::LogState;
use super::platform;
use super::proc::{self, Stat};
use super::terminal::Terminal;
use super::unix_ms_now;
use crate::{Error, Info, SessionId, SessionRef};

/// How soon to look whether all are gone, and how long to wait at most before
/// looking again: many sessions may be ended at once.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_millis(500);

/// How long after SIGKILL to wait for processes to go; those that hang in the
/// kernel cannot be waited for.
const LAST: Duration = Duration::from_secs(5);

/// How long to wait for room on a full disk, which is asked every second.
const FULL_DISK: Duration = Duration::from_secs(3);

impl Inner {
    /// Ends a session; see [`Sessions::kill`](super::Sessions::kill).
    pub(super) async fn kill(
        self: Arc<Self>,
        id: SessionId,
        grace: Duration,
    ) -> Result<Info, Error> {
        let (desk, terminal) = {
            let mut engine = self.engine.lock();
            engine.resolve(&SessionRef::Id(id))?;
            let event = engine.handle_kill(id, unix_ms_now())?;
            let found = self.terminal(id)?;
            match event.map(|event| self.write(&mut engine, event)) {
                // It is what may make room, so it is done all the same; the session is then told
                // to have ended by a signal.
                Some(Err(error @ Error::DiskFull)) => {
                    tracing::warn!(%error, session = %id, "that it is to end is not recorded");
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(_)) | None => {}
            }
            found
        };
        // Goes on when the caller leaves.
        let killing = self.runtime.spawn(kill_tree(terminal, grace));
        let state = desk.log.subscribe();
        killing.await.map_err(|_| Error::ShuttingDown)?;
        if !is_over(state).await.map_err(|_| Error::ShuttingDown)? {
            return Err(Error::OutputWaits(id));
        }
        self.info(id)
    }
}

/// Waits until a session whose processes are gone has ended: all that they wrote is in its log. Not
/// if the disk takes nothing for a while, which may go on for ever; whether it has.
async fn is_over(mut state: watch::Receiver<LogState>) -> Result<bool, RecvError> {
    loop {
        let waits = |state: &LogState| state.disk_full && state.ended.is_none();
        let heard = state.wait_for(|state| waits(state) || state.ended.is_some());
        if heard.await?.ended.is_some() {
            return Ok(true);
        }
        match timeout(FULL_DISK, state.wait_for(|state| !waits(state))).await {
            Ok(heard) => drop(heard?),
            Err(_) => return Ok(false),
        }
    }
}

/// Ends a program and its descendants.
async fn kill_tree(terminal: Arc<Terminal>, grace: Duration) {
    let mut exit = terminal.exit();
    let mut tree = look(Tree::new(&terminal)).await;
    tree.ask_to_end();
    // A stopped process hears SIGTERM only when it goes on.
    tree.signal(Signal::CONT);
    let deadline = Instant::now() + grace;
    let mut pause = FIRST_LOOK;
    while tree.is_alive() && Instant::now() < deadline {
        let until = deadline.min(Instant::now() + pause);
        let leader_lives = exit.borrow_and_update().is_none();
        tokio::select! {
            () = sleep_until(until) => {}
            _ = exit.changed(), if leader_lives => {}
        }
        pause = (pause * 2).min(LAST_LOOK);
        tree = look(tree).await;
    }
    let deadline = Instant::now() + LAST;
    while tree.is_alive() && Instant::now() < deadline {
        // Whoever multiplies has to hold still to be counted: the children of one that is killed
        // first have no parent any more by which they could be found.
        loop {
            tree.signal(Signal::STOP);
            tree = look(tree).await;
            if !tree.grown || Instant::now() >= deadline {
                break;
            }
        }
        tree.signal(Signal::KILL);
        sleep(FIRST_LOOK).await;
        tree = look(tree).await;
    }
}

/// Reading `/proc` takes a while on a busy machine; logs go on meanwhile.
async fn look(mut tree: Tree) -> Tree {
    let looking = tokio::task::spawn_blocking(move || {
        tree.look();
        tree
    });
    match looking.await {
        Ok(tree) => tree,
        // Only a panic or the end of the runtime, which ends us too.
        Err(_) => std::future::pending().await,
    }
}

/// The processes of a session.
struct Tree {
    leader: u32,
    /// The parent of the leader, which gets its orphans: the keeper. Not known of
    /// a leader that was over before.
    keeper: Option<u32>,
    terminal: Arc<Terminal>,
    members: BTreeMap<u32, Option<OwnedFd>>,
    /// Whether the last look found more.
    grown: bool,
}

impl Tree {
    fn new(terminal: &Arc<Terminal>) -> Self {
        let parent = Stat::read(terminal.pid()).map(|stat| stat.parent);
        Self {
            leader: terminal.pid(),
            // The first process of the system has orphans of everybody's.
            keeper: parent.filter(|pid| *pid > 1),
            terminal: Arc::clone(terminal),
            members: BTreeMap::new(),
            grown: false,
        }
    }

    /// Finds those that belong to it: the leader, all with its session id, and
    /// children of any of these.
    fn look(&mut self) {
        self.members.retain(|pid, fd| is_there(*pid, fd.as_ref()));
        let all = proc::processes();
        self.grown = false;
        loop {
            let before = self.members.len();
            for (pid, stat) in &all {
                if self.members.contains_key(pid) || !self.is_member(*pid, stat) {
                    continue;
                }
                let fd = platform::pid(*pid).and_then(platform::open_process);
                // Between the list and the descriptor the number may have
                // become a stranger's.
                let same = Stat::read(*pid).is_some_and(|now| self.is_member(*pid, &now));
                if same && is_there(*pid, fd.as_ref()) {
                    self.members.insert(*pid, fd);
                    self.grown = true;
                }
            }
            if self.members.len() == before {
                return;
            }
        }
    }

    fn is_member(&self, pid: u32, stat: &Stat) -> bool {
        let dead = matches!(stat.state, 'Z' | 'X') || pid == std::process::id();
        if dead {
            return false;
        }
        let led = stat.leader == self.leader || pid == self.leader;
        led && self.leads() || self.members.contains_key(&stat.parent) || self.is_orphan(pid, stat)
    }

    /// Whether it was started in the session, left it, and lost its parent. Leaders
    /// of other sessions have terminals and are not looked at.
    fn is_orphan(&self, pid: u32, stat: &Stat) -> bool {
        Some(stat.parent) == self.keeper
            && !stat.has_terminal
            && proc::environment(pid, "CW_SESSION_ID") == Some(self.terminal.id().to_string())
    }

    /// Whether the number of the leader still means this session: it is not
    /// given to another while anybody is left in the session.
    fn leads(&self) -> bool {
        self.terminal.exit().borrow().is_none() || !self.members.is_empty()
    }

    fn is_alive(&self) -> bool {
        !self.members.is_empty() || self.terminal.exit().borrow().is_none()
    }

    /// SIGTERM, or to those that ignore it SIGHUP. Both at once would not do:
    /// SIGHUP is heard first, and ends programs that would have used the grace.
    fn ask_to_end(&self) {
        if self.members.is_empty() {
            self.signal(Signal::TERM);
        }
        for (pid, fd) in &self.members {
            let deaf = proc::ignores(*pid, Signal::TERM);
            let signal = if deaf { Signal::HUP } else { Signal::TERM };
            send(*pid, fd.as_ref(), signal);
        }
    }

    fn signal(&self, signal: Signal) {
        for (pid, fd) in &self.members {
            send(*pid, fd.as_ref(), signal);
        }
        // Without /proc: the group of the program, while it is there.
        if self.members.is_empty()
            && self.terminal.exit().borrow().is_none()
            && let Some(leader) = platform::pid(self.leader)
        {
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }
}

fn is_there(pid: u32, fd: Option<&OwnedFd>) -> bool {
    match fd {
        Some(fd) => !platform::is_readable(fd),
        None => {
            platform::pid(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
        }
    }
}

#[cfg(target_os = "linux")]
fn send(pid: u32, fd: Option<&OwnedFd>, signal: Signal) {
    let sent = match (fd, platform::pid(pid)) {
        (Some(fd), _) => rustix::process::pidfd_send_signal(fd, signal),
        (None, Some(pid)) => send_by_number(pid, signal),
        (None, None) => Ok(()),
    };
    if let Err(errno) = sent
        && errno != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid, %errno, ?signal, "cannot signal a process");
    }
}

#[cfg(not(target_os = "linux"))]
fn send(pid: u32, _: Option<&OwnedFd>, signal: Signal) {
    if let Some(pid) = platform::pid(pid) {
        let _ = send_by_number(pid, signal);
    }
}

fn send_by_number(pid: Pid, signal: Signal) -> rustix::io::Result<()> {
    rustix::process::kill_process(pid, signal)
}
