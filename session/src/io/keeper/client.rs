//! The node's side of the keeper: asks it to start programs, hears how they
//! ended, and replaces it when it dies.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use rustix::process::getppid;

use super::fds::{Fds, FrameReader, send_blocking};
use super::proto::{Spawn, ToKeeper, ToNode, VERSION};
use super::{Keeper, Link};
use crate::io::platform;
use crate::{Ended, Error, Outcome, SessionId, Usage};

/// How long a keeper may take to greet a node that has just started.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to start a program: it does nothing else that takes
/// long, and somebody waits for it.
const ANSWER: Duration = Duration::from_secs(10);

/// How long to wait for a new keeper before a launch fails.
const REPLACEMENT: Duration = Duration::from_secs(10);

/// How long a new keeper may take to say that it is there.
const UPGRADE: Duration = Duration::from_secs(10);

/// A session that the keeper held when we connected.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) id: SessionId,
    pub(crate) pid: u32,
    /// Whether the keeper will tell us how it ends.
    pub(crate) own: bool,
    /// It has ended.
    pub(crate) exited: Option<Ended>,
    pub(crate) fds: Fds,
}

/// What the keeper tells on its own.
#[derive(Debug)]
pub(crate) enum FromKeeper {
    /// A program ended.
    Exited { id: SessionId, ended: Ended },
    /// The keeper died; nobody will tell how these end.
    Orphaned(Vec<SessionId>),
}

/// A program that runs, or why it does not.
type Started = Result<(u32, Fds), Error>;

/// The connection to whichever keeper there is.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    argv: Vec<OsString>,
    events: mpsc::UnboundedSender<FromKeeper>,
    connected: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    socket: Option<UnixStream>,
    lock: Option<Arc<OwnedFd>>,
    held: BTreeMap<u32, (u32, Fds)>,
    spawning: HashMap<u32, oneshot::Sender<Started>>,
    upgrading: Option<oneshot::Sender<Result<(), Error>>>,
    stopping: bool,
}

impl Client {
    /// Greets the keeper and hears what it holds. Blocks for a moment.
    pub(crate) fn connect(
        link: Link,
        argv: Vec<OsString>,
        events: mpsc::UnboundedSender<FromKeeper>,
    ) -> Result<(Self, Vec<Holding>), Error> {
        let Link { socket, keeper } = link;
        let first = match keeper {
            Keeper::Parent(_) => ToKeeper::Hello { version: VERSION },
            Keeper::Child(_) => takeover(),
        };
        let mut frames = FrameReader::default();
        let (lock, holdings) = greet(&socket, &mut frames, &first, None)?;
        let held = holdings
            .iter()
            .map(|holding| (holding.id.0, (holding.pid, holding.fds.clone())))
            .collect();
        let copy = socket.try_clone().map_err(unavailable)?;
        let shared = Arc::new(Shared {
            argv,
            events,
            connected: watch::Sender::new(true),
            state: Mutex::new(State {
                socket: Some(copy),
                lock,
                held,
                ..State::default()
            }),
        });
        let listener = Listener {
            shared: Arc::clone(&shared),
            socket,
            frames,
            keeper,
        };
        std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || listener.run())
            .map_err(unavailable)?;
        Ok((Self { shared }, holdings))
    }

    /// Has a program started in a new terminal.
    pub(crate) async fn spawn(&self, spawn: Spawn) -> Result<(u32, Fds), Error> {
        let mut connected = self.shared.connected.subscribe();
        let there = connected.wait_for(|connected| *connected);
        match tokio::time::timeout(REPLACEMENT, there).await {
            Ok(Ok(_)) => {}
            _ => return Err(Error::KeeperUnavailable("there is none".into())),
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            state.spawning.insert(spawn.id, answer);
            let id = spawn.id;
            if let Err(error) = state.send(&ToKeeper::Spawn(spawn)) {
                state.spawning.remove(&id);
                return Err(unavailable(error));
            }
        }
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::KeeperUnavailable("it died".into())),
            Err(_) => {
                let seconds = ANSWER.as_secs();
                let silent = format!("it has not answered within {seconds} s");
                Err(Error::KeeperUnavailable(silent))
            }
        }
    }

    /// Has another program take the place of the keeper, in its process.
    pub(crate) async fn upgrade(&self, program: PathBuf) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if state
                .upgrading
                .as_ref()
                .is_some_and(|other| !other.is_closed())
            {
                return Err(Error::KeeperUnavailable("it is being replaced".into()));
            }
            state.upgrading = Some(answer);
            let upgrade = ToKeeper::Upgrade { program };
            state.send(&upgrade).map_err(unavailable)?;
        }
        match tokio::time::timeout(UPGRADE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::KeeperUnavailable("it died".into())),
            // One from before it could.
            Err(_) => Err(Error::KeeperUnavailable("it does not answer".into())),
        }
    }

    /// The outcome of a session is on disk, the keeper need not hold it longer.
    pub(crate) fn forget(&self, id: SessionId) {
        let mut state = self.shared.state.lock();
        state.held.remove(&id.0);
        // A keeper that cannot hear it is dead, and its successor will not
        // be told of this session.
        let _ = state.send(&ToKeeper::Forget { id: id.0 });
    }

    /// This process is about to exit on purpose.
    pub(crate) fn stopping(&self) {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        if let Err(error) = state.send(&ToKeeper::Stopping) {
            tracing::warn!(%error, "cannot tell the keeper to stop");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        if let Some(socket) = state.socket.take() {
            // Ends the listener, which holds the other copy.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn send(&self, message: &ToKeeper) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        send_blocking(socket, message, &[])
    }
}

/// The thread that hears the keeper.
struct Listener {
    shared: Arc<Shared>,
    socket: UnixStream,
    frames: FrameReader,
    keeper: Keeper,
}

impl Listener {
    fn run(mut self) {
        loop {
            match self.frames.read::<ToNode>(&self.socket) {
                Ok(Some((message, fds))) => self.handle(message, fds),
                Ok(None) => {}
                // The next frame may be better.
                Err(error) if error.kind() == io::ErrorKind::Other => {
                    tracing::error!(%error, "the keeper is not understood");
                }
                Err(error) => {
                    if !self.replace(&error) {
                        return;
                    }
                }
            }
        }
    }

    fn handle(&self, message: ToNode, fds: Vec<OwnedFd>) {
        match message {
            ToNode::Spawned { id, pid } => {
                // The system drops descriptors that find no place in this process.
                let answer = Fds::from_received(fds)
                    .map(|fds| (pid, fds))
                    .ok_or(Error::TooManyFiles);
                let lost = answer.is_err();
                let mut state = self.shared.state.lock();
                if let Ok((pid, fds)) = &answer {
                    state.held.insert(id, (*pid, fds.clone()));
                }
                let waiting = state.spawning.remove(&id);
                let unwanted = waiting.is_none_or(|waiting| waiting.send(answer).is_err());
                drop(state);
                if unwanted || lost {
                    self.discard(id, pid);
                }
            }
            ToNode::SpawnFailed { id, message } => {
                if let Some(waiting) = self.shared.state.lock().spawning.remove(&id) {
                    let _ = waiting.send(Err(Error::LaunchFailed(message)));
                }
            }
            ToNode::Exited {
                id, status, usage, ..
            } => {
                let id = SessionId(id);
                let ended = ended(status, usage);
                let _ = self.shared.events.send(FromKeeper::Exited { id, ended });
            }
            ToNode::Upgraded { version } => {
                tracing::info!(version, "the keeper is another program now");
                self.upgraded(Ok(()));
            }
            ToNode::UpgradeFailed { message } => {
                self.upgraded(Err(Error::LaunchFailed(message)));
            }
            ToNode::Welcome { .. } | ToNode::Refused { .. } | ToNode::Held { .. } => {
                tracing::warn!("the keeper greets twice");
            }
            ToNode::Unknown => tracing::warn!("the keeper says something unknown"),
        }
    }

    fn upgraded(&self, answer: Result<(), Error>) {
        if let Some(waiting) = self.shared.state.lock().upgrading.take() {
            let _ = waiting.send(answer);
        }
    }

    /// A program was started for a launch that has already failed.
    fn discard(&self, id: u32, pid: u32) {
        tracing::warn!(id, pid, "a program started that nobody has; ending it");
        if let Some(pid) = platform::pid(pid) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let mut state = self.shared.state.lock();
        state.held.remove(&id);
        let _ = state.send(&ToKeeper::Forget { id });
    }

    /// The keeper is gone. Starts another and hands everything over; false when
    /// this process is about to end itself.
    fn replace(&mut self, error: &io::Error) -> bool {
        self.shared.connected.send_replace(false);
        {
            let mut state = self.shared.state.lock();
            state.socket = None;
            state.spawning.clear();
            state.upgrading = None;
            if state.stopping {
                return false;
            }
        }
        tracing::warn!(%error, "the keeper died; starting another");
        let mut pause = Duration::from_millis(50);
        loop {
            self.bury();
            match self.hand_over() {
                Ok(()) => return true,
                Err(error) => tracing::error!(%error, "cannot replace the keeper"),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
            if self.shared.state.lock().stopping {
                return false;
            }
        }
    }

    /// Makes sure that the keeper is over: two of them would each start a node.
    fn bury(&mut self) {
        match &mut self.keeper {
            // Its children get another parent when it ends. If it has only
            // hung up, it is about to end us.
            Keeper::Parent(pid) => {
                while pid.is_some() && getppid() == *pid {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Keeper::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        let Link { socket, keeper } = Link::start(&self.shared.argv)?;
        self.keeper = keeper;
        let (lock, held) = {
            let state = self.shared.state.lock();
            (state.lock.clone(), state.held.clone())
        };
        for (&id, (pid, fds)) in &held {
            let adopt = ToKeeper::Adopt { id, pid: *pid };
            send_blocking(&socket, &adopt, &fds.shared()).map_err(unavailable)?;
        }
        let mut frames = FrameReader::default();
        let (lock, _) = greet(&socket, &mut frames, &takeover(), lock)?;
        let copy = socket.try_clone().map_err(unavailable)?;
        {
            let mut state = self.shared.state.lock();
            state.socket = Some(copy);
            state.lock = lock.or_else(|| state.lock.take());
            for &id in held.keys() {
                if !state.held.contains_key(&id) {
                    let _ = state.send(&ToKeeper::Forget { id });
                }
            }
        }
        self.socket = socket;
        self.frames = frames;
        let orphans = held.keys().copied().map(SessionId).collect();
        let _ = self.shared.events.send(FromKeeper::Orphaned(orphans));
        self.shared.connected.send_replace(true);
        Ok(())
    }
}

/// A status of `wait(2)` and what came with it.
const fn ended(status: i32, usage: Option<Usage>) -> Ended {
    Ended {
        outcome: Outcome::from_wait_status(status),
        usage,
    }
}

fn takeover() -> ToKeeper {
    ToKeeper::Takeover {
        version: VERSION,
        node_pid: std::process::id(),
    }
}

type Greeting = (Option<Arc<OwnedFd>>, Vec<Holding>);

/// Says the first word and hears the answer: the lock, and what is held.
fn greet(
    socket: &UnixStream,
    frames: &mut FrameReader,
    first: &ToKeeper,
    lock: Option<Arc<OwnedFd>>,
) -> Result<Greeting, Error> {
    socket
        .set_read_timeout(Some(PATIENCE))
        .map_err(unavailable)?;
    let lock: Vec<_> = lock.into_iter().collect();
    send_blocking(socket, first, &lock).map_err(unavailable)?;
    let mut next = || match frames.read::<ToNode>(socket) {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(Error::KeeperUnavailable("it does not answer".into())),
        Err(error) => Err(unavailable(error)),
    };
    let (lock, expected) = loop {
        match next()? {
            (ToNode::Welcome { held, .. }, fds) => break (fds.into_iter().next(), held),
            (ToNode::Refused { locked_by, message }, _) => {
                return Err(match locked_by {
                    Some(pid) => Error::Locked { pid },
                    None => Error::KeeperUnavailable(message),
                });
            }
            // Said to whoever was here before us; what is held repeats it.
            _ => {}
        }
    };
    let mut holdings = Vec::new();
    while holdings.len() < expected {
        let (message, fds) = next()?;
        let ToNode::Held {
            id,
            pid,
            own,
            exited,
            usage,
        } = message
        else {
            continue;
        };
        let fds = Fds::from_received(fds)
            .ok_or_else(|| Error::Protocol("a session without descriptors".into()))?;
        let id = SessionId(id);
        holdings.push(Holding {
            id,
            pid,
            own,
            exited: exited.map(|status| ended(status, usage)),
            fds,
        });
    }
    socket.set_read_timeout(None).map_err(unavailable)?;
    Ok((lock.map(Arc::new), holdings))
}

fn unavailable(error: io::Error) -> Error {
    Error::KeeperUnavailable(error.to_string())
}
