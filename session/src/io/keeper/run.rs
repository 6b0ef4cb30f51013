//! The keeper's loop: one thread that waits for children, for the node, and
//! for signals, and does nothing else.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Rlimit, Signal};
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
};

use super::fds::{Fds, FrameReader, Outbox};
use super::hold::Sessions;
use super::lock;
use super::node::Node;
use super::proto::{ToKeeper, ToNode, VERSION};
use super::upgrade;
use crate::io::{give_back_text, platform};
use crate::{Error, Outcome};

/// After so much time in which nothing has happened, memory is given back.
const REST: Duration = Duration::from_secs(5);

/// A keeper of a directory that nobody works in yet.
pub(super) fn run(dir: &Path, node_argv: &[OsString]) -> Result<ExitCode, Error> {
    if let Some(left) = upgrade::inherited()? {
        return Keeper::resume(dir, node_argv, left)?.run();
    }
    let lock = lock::take(dir)?;
    lock::sign(&lock);
    let node = Node::due(node_argv, Instant::now());
    Keeper::new(dir, Some(lock), node)?.run()
}

/// A keeper for the node at the other end of standard input.
pub(super) fn adopt(dir: &Path, node_argv: &[OsString]) -> Result<ExitCode, Error> {
    if let Some(left) = upgrade::inherited()? {
        return Keeper::resume(dir, node_argv, left)?.run();
    }
    let socket = super::take_stdin()?;
    let node = Node::running(node_argv, starter()?, Instant::now());
    // Whoever was our parent while it was looked up is the process meant.
    starter()?;
    let mut keeper = Keeper::new(dir, None, node)?;
    keeper.connect(socket)?;
    keeper.run()
}

/// The node that has started us, if it lives.
fn starter() -> Result<Pid, Error> {
    let told = std::env::var(super::STARTER_ENV).unwrap_or_default();
    let told = told.parse().ok().and_then(platform::pid);
    let parent = rustix::process::getppid();
    told.filter(|told| parent == Some(*told))
        .ok_or_else(|| Error::KeeperUnavailable("the node that started it is gone".into()))
}

struct Keeper {
    dir: PathBuf,
    /// Missing until a node that started us says whether it has it.
    lock: Option<Arc<OwnedFd>>,
    signals: Signals,
    limit: Rlimit,
    sessions: Sessions,
    node: Node,
    link: Option<Connection>,
    /// Whether any node ever spoke to us.
    greeted: bool,
    /// The node said it would exit on purpose, or we were told to stop.
    stopping: bool,
    /// The program that is to be the keeper.
    upgrade: Option<PathBuf>,
    /// When memory is to be given back; not again until something happens.
    rest_at: Option<Instant>,
}

struct Connection {
    socket: UnixStream,
    frames: FrameReader,
    outbox: Outbox,
}

struct Signals {
    wake: UnixStream,
    terminate: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
}

impl Keeper {
    fn new(dir: &Path, lock: Option<Arc<OwnedFd>>, node: Node) -> Result<Self, Error> {
        let signals = Signals::listen().map_err(|error| Error::io("signals", error))?;
        platform::become_reaper();
        Ok(Self {
            dir: dir.to_owned(),
            lock,
            signals,
            limit: platform::raise_file_limit(),
            sessions: Sessions::default(),
            node,
            link: None,
            greeted: false,
            stopping: false,
            upgrade: None,
            rest_at: Some(Instant::now() + REST),
        })
    }

    /// In the place of a keeper that was another program.
    fn resume(dir: &Path, node_argv: &[OsString], left: upgrade::State) -> Result<Self, Error> {
        let node = Node::resume(node_argv, left.node, Instant::now())?;
        let lock = left.lock.map(upgrade::take).transpose()?.map(Arc::new);
        let mut keeper = Self::new(dir, lock, node)?;
        platform::release_all_signals().map_err(|error| Error::io("signals", error))?;
        let (current, maximum) = left.limit;
        keeper.limit = Rlimit { current, maximum };
        for session in left.sessions {
            keeper.sessions.resume(session)?;
        }
        if let Some(link) = left.link {
            keeper.connect(UnixStream::from(upgrade::take(link)?))?;
        }
        keeper.greeted = true;
        keeper.send(&ToNode::Upgraded { version: VERSION }, None);
        tracing::info!("another program is the keeper now");
        Ok(keeper)
    }

    /// Gives this process to another program, when all that was to be said to
    /// the node is said. Returns when that fails.
    fn upgrade_if_due(&mut self) {
        let said = self.link.as_ref().is_none_or(|link| link.outbox.is_empty());
        if !said || self.stopping {
            return;
        }
        let Some(program) = self.upgrade.take() else {
            return;
        };
        let state = upgrade::State {
            lock: self.lock.as_ref().map(|lock| lock.as_raw_fd()),
            limit: (self.limit.current, self.limit.maximum),
            sessions: self.sessions.leave(),
            node: self.node.leave(),
            link: self.link.as_ref().map(|link| link.socket.as_raw_fd()),
        };
        let error = upgrade::execute(&program, &state);
        tracing::error!(%error, program = %program.display(), "the keeper stays as it is");
        let message = format!("{}: {error}", program.display());
        self.send(&ToNode::UpgradeFailed { message }, None);
    }

    fn connect(&mut self, socket: UnixStream) -> Result<(), Error> {
        socket
            .set_nonblocking(true)
            .map_err(|error| Error::io("socket to the node", error))?;
        self.link = Some(Connection {
            socket,
            frames: FrameReader::default(),
            outbox: Outbox::default(),
        });
        Ok(())
    }

    fn run(mut self) -> Result<ExitCode, Error> {
        loop {
            if let Some(socket) = self.node.start_if_due(Instant::now()) {
                self.connect(socket)?;
            }
            self.wait()?;
            self.signals.drain();
            let node = &mut self.node;
            let ended = self
                .sessions
                .reap(|pid, status| node.handle_exit(pid, status));
            for exited in &ended {
                self.send(exited, None);
            }
            self.serve();
            if self.pass_signals() {
                return Ok(ExitCode::SUCCESS);
            }
            self.upgrade_if_due();
            if let Some(code) = self.look_after_node() {
                return Ok(code);
            }
        }
    }

    /// Sleeps until something happens.
    fn wait(&mut self) -> Result<(), Error> {
        let mut fds = vec![PollFd::new(&self.signals.wake, PollFlags::IN)];
        if let Some(link) = &self.link {
            let mut interest = PollFlags::IN;
            if !link.outbox.is_empty() {
                interest |= PollFlags::OUT;
            }
            fds.push(PollFd::new(&link.socket, interest));
        }
        if let Some(pidfd) = self.node.pidfd() {
            fds.push(PollFd::new(pidfd, PollFlags::IN));
        }
        let now = Instant::now();
        let rest = self.rest_at.map(|at| at.saturating_duration_since(now));
        let due = [self.node.poll_timeout(now), rest];
        let timeout = due.into_iter().flatten().min().map(to_timespec);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => {
                let now = Instant::now();
                if self.rest_at.take_if(|at| *at <= now).is_some() {
                    give_back_text();
                }
                Ok(())
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {
                self.rest_at = Some(Instant::now() + REST);
                Ok(())
            }
            Err(errno) => Err(Error::io("poll", errno.into())),
        }
    }

    /// Hears the node out.
    fn serve(&mut self) {
        while let Some(link) = &mut self.link {
            match link.frames.read::<ToKeeper>(&link.socket) {
                Ok(Some((message, fds))) => self.handle(message, fds),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::Other => {
                    tracing::error!(%error, "the node is not understood");
                }
                Err(error) => {
                    self.hang_up(&error);
                    return;
                }
            }
        }
        self.flush();
    }

    fn handle(&mut self, message: ToKeeper, fds: Vec<OwnedFd>) {
        match message {
            ToKeeper::Hello { version } => {
                tracing::debug!(version, "node connected");
                self.greeted = true;
                self.welcome(self.sessions.len());
                let held: Vec<_> = self
                    .sessions
                    .describe()
                    .map(|(held, fds)| (held, fds.clone()))
                    .collect();
                for (held, fds) in &held {
                    self.send(held, Some(fds));
                }
            }
            ToKeeper::Spawn(spawn) => {
                let (answer, fds) = self.sessions.spawn(&spawn, self.limit);
                self.send(&answer, fds.as_ref());
            }
            ToKeeper::Forget { id } => self.sessions.forget(id),
            ToKeeper::Adopt { id, pid } => match Fds::from_received(fds) {
                Some(fds) => self.sessions.adopt(id, pid, fds),
                None => tracing::error!(id, "a session was handed over without descriptors"),
            },
            ToKeeper::Takeover { version, node_pid } => {
                tracing::info!(version, node_pid, "taking over");
                self.greeted = true;
                self.take_over(fds.into_iter().next().map(Arc::new));
            }
            ToKeeper::Upgrade { program } => self.upgrade = Some(program),
            ToKeeper::Stopping => self.stopping = true,
            ToKeeper::Unknown => tracing::warn!("the node says something unknown"),
        }
    }

    fn take_over(&mut self, lock: Option<Arc<OwnedFd>>) {
        let lock = lock.map_or_else(|| lock::take(&self.dir), Ok);
        match lock {
            Ok(lock) => {
                lock::sign(&lock);
                self.lock = Some(lock);
                self.welcome(0);
            }
            Err(error) => {
                let locked_by = match &error {
                    Error::Locked { pid } => Some(pid.clone()),
                    _ => None,
                };
                let message = error.to_string();
                self.send(&ToNode::Refused { locked_by, message }, None);
                self.stopping = true;
            }
        }
    }

    fn welcome(&mut self, held: usize) {
        let lock = self.lock.iter().cloned().collect();
        let version = VERSION;
        self.send_with(&ToNode::Welcome { version, held }, lock);
    }

    fn send(&mut self, message: &ToNode, fds: Option<&Fds>) {
        self.send_with(message, fds.map(Fds::shared).unwrap_or_default());
    }

    fn send_with(&mut self, message: &ToNode, fds: Vec<Arc<OwnedFd>>) {
        let Some(link) = &mut self.link else {
            return;
        };
        match link.outbox.push(message, fds) {
            Ok(()) => self.flush(),
            Err(error) => tracing::error!(%error, "cannot say something to the node"),
        }
    }

    fn flush(&mut self) {
        if let Some(link) = &mut self.link
            && let Err(error) = link.outbox.flush(&link.socket)
        {
            self.hang_up(&error);
        }
    }

    /// The socket is over. The node must be gone before there is another: two
    /// of them would tear the logs.
    fn hang_up(&mut self, error: &io::Error) {
        tracing::debug!(%error, "connection to the node ended");
        self.link = None;
        if !self.stopping && self.node.can_restart() {
            self.node.signal(Signal::KILL);
        }
    }

    /// Passes signals on to the node. True when there is no node to stop.
    fn pass_signals(&mut self) -> bool {
        let terminate = self.signals.terminate.swap(false, Ordering::SeqCst);
        let interrupt = self.signals.interrupt.swap(false, Ordering::SeqCst);
        if !terminate && !interrupt {
            return false;
        }
        self.stopping = true;
        let signal = if terminate { Signal::TERM } else { Signal::INT };
        self.node.signal(signal);
        !self.node.is_there()
    }

    /// When the node is gone: decides whether it is time to go too.
    fn look_after_node(&mut self) -> Option<ExitCode> {
        // Nothing is left to do for a node that started us and has hung up.
        let dismissed = self.stopping && self.node.is_parent();
        let orphaned = self.link.is_none() && (dismissed || !self.node.can_restart());
        let Some(status) = self.node.poll_gone(Instant::now()) else {
            return orphaned.then_some(ExitCode::SUCCESS);
        };
        // Its last words may be to stop.
        self.serve();
        self.link = None;
        let outcome = status.map_or(Outcome::Unknown, Outcome::from_wait_status);
        if self.stopping || !self.node.can_restart() {
            return Some(exit_code(outcome.code().unwrap_or(0)));
        }
        let refused = outcome.code().filter(|code| *code != 0);
        if let Some(code) = refused
            && !self.greeted
            && self.sessions.len() == 0
        {
            tracing::error!(code, "the node could not start");
            return Some(exit_code(code));
        }
        tracing::warn!(?outcome, "the node died; starting it again");
        None
    }
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let terminate = Arc::new(AtomicBool::new(false));
        let interrupt = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, Arc::clone(&terminate))?;
        signal_hook::flag::register(SIGINT, Arc::clone(&interrupt))?;
        // A terminal that closes is not a reason to end: other signals only wake
        // us. A signal that has a handler is not ignored by programs that we
        // start, even if it was by us (`nohup`).
        let others = [
            SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU,
        ];
        for signal in [SIGTERM, SIGINT, SIGCHLD].into_iter().chain(others) {
            signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Self {
            wake,
            terminate,
            interrupt,
        })
    }

    fn drain(&self) {
        let mut heap = [0; 64];
        while matches!((&self.wake).read(&mut heap), Ok(read) if read > 0) {}
    }
}

fn to_timespec(duration: Duration) -> Timespec {
    // Rounded up, so that what was waited for is due.
    let duration = duration + Duration::from_millis(1);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
