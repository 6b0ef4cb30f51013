//! The process that holds the terminals.
//!
//! The keeper opens terminals, is the parent of the programs in them, collects
//! their exit codes and starts the node again when it dies. It has one thread,
//! waits in one place, and knows nothing of logs, names or messages; so there
//! is little in it that can fail, and nothing that needs to be replaced often.
//!
//! Node and keeper hold the same descriptors and the same lock. When the node
//! dies, the keeper starts another and gives it all of them. When the keeper
//! dies, the node does the same. Programs notice neither. A keeper is replaced
//! by executing another program in its process, which stays their parent.

mod client;
pub(crate) mod fds;
mod hold;
mod lock;
mod node;
pub(crate) mod proto;
mod run;
mod upgrade;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

pub(crate) use client::{Client, FromKeeper, Holding};
use rustix::process::{Pid, getppid};

use crate::Error;

/// Tells a process that a keeper started it, and on which descriptor it finds
/// the socket: always standard input, which is inherited without a moment in
/// which other programs could get it too.
pub(crate) const NODE_ENV: &str = "CW_KEEPER_FD";

/// Tells a keeper which process has started it. That process is its parent as
/// long as it lives; a parent of another number is a stranger who takes orphans.
const STARTER_ENV: &str = "CW_KEEPER_STARTER";

/// Runs the keeper of a directory: takes its lock, starts the node
/// (`node_argv`, the program first) as a child and starts it again when it
/// dies. Blocks until the node has exited on purpose. Call it before any
/// thread is started.
///
/// A node that exits with an error before it ever connected is not started
/// again; its exit code is returned.
///
/// # Errors
/// [`Error::Locked`] when another keeper or node works in this directory.
pub fn run(dir: &Path, node_argv: &[OsString]) -> Result<ExitCode, Error> {
    run::run(dir, node_argv)
}

/// Runs a keeper that a node has started because the former one died; its
/// standard input is the socket to that node. Otherwise as [`run()`]; without a
/// `node_argv` it ends when that node does.
///
/// # Errors
/// [`Error::KeeperUnavailable`] when standard input is not such a socket.
pub fn adopt(dir: &Path, node_argv: &[OsString]) -> Result<ExitCode, Error> {
    run::adopt(dir, node_argv)
}

/// The node's end of the connection to its keeper.
#[derive(Debug)]
pub struct Link {
    socket: UnixStream,
    keeper: Keeper,
}

/// The process at the other end.
#[derive(Debug)]
enum Keeper {
    /// It started us.
    Parent(Option<Pid>),
    /// We started it.
    Child(Child),
}

impl Link {
    /// The connection inherited from the keeper that started this process, as
    /// announced in the environment variable `CW_KEEPER_FD`. Call it once,
    /// early: it puts `/dev/null` in the place of standard input.
    ///
    /// # Errors
    /// [`Error::KeeperUnavailable`] when no keeper started this process.
    pub fn from_env() -> Result<Self, Error> {
        if std::env::var_os(NODE_ENV).as_deref() != Some("0".as_ref()) {
            let reason = "this process was not started by a keeper";
            return Err(Error::KeeperUnavailable(reason.into()));
        }
        Ok(Self {
            socket: take_stdin()?,
            keeper: Keeper::Parent(getppid()),
        })
    }

    /// Starts a keeper for this process, which then is the node, by
    /// `keeper_argv` (see [`Options::keeper_argv`](super::Options)).
    ///
    /// # Errors
    /// [`Error::KeeperUnavailable`] when it cannot be started.
    pub fn start(keeper_argv: &[OsString]) -> Result<Self, Error> {
        let unavailable = |error: std::io::Error| Error::KeeperUnavailable(error.to_string());
        let Some((program, arguments)) = keeper_argv.split_first() else {
            return Err(Error::KeeperUnavailable("no command to start one".into()));
        };
        let (ours, theirs) = UnixStream::pair().map_err(unavailable)?;
        let child = Command::new(program)
            .args(arguments)
            .env_remove(NODE_ENV)
            .env_remove(upgrade::STATE_ENV)
            .env(STARTER_ENV, std::process::id().to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // Keys typed at a terminal are for the node alone.
            .process_group(0)
            .spawn()
            .map_err(unavailable)?;
        Ok(Self {
            socket: ours,
            keeper: Keeper::Child(child),
        })
    }
}

/// The socket on standard input, which is then `/dev/null`.
fn take_stdin() -> Result<UnixStream, Error> {
    let taken = (|| {
        let stdin = rustix::stdio::stdin();
        if rustix::net::getsockname(stdin)?.address_family() != rustix::net::AddressFamily::UNIX {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        Ok(UnixStream::from(socket))
    })();
    taken.map_err(|error: std::io::Error| {
        Error::KeeperUnavailable(format!("standard input is not its socket: {error}"))
    })
}
