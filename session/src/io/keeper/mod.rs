//! The process that holds the terminals.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::Error;

/// Runs the keeper of a directory: takes its lock, starts the node
/// (`node_argv`, the program first) as a child and starts it again when it
/// dies. Blocks until the node has exited on purpose. Call it before any
/// thread is started.
///
/// # Errors
/// [`Error::Locked`] when another keeper or node works in this directory.
pub fn run(dir: &Path, node_argv: &[OsString]) -> Result<ExitCode, Error> {
    let _ = (dir, node_argv);
    Err(Error::Protocol("not built yet".into()))
}

/// Runs a keeper that a node has started because the former one died; its
/// standard input is the socket to that node. Otherwise as [`run`].
///
/// # Errors
/// As [`run`].
pub fn adopt(dir: &Path, node_argv: &[OsString]) -> Result<ExitCode, Error> {
    run(dir, node_argv)
}

/// The node's end of the connection to its keeper.
#[derive(Debug)]
pub struct Link {}

impl Link {
    /// The connection inherited from the keeper that started this process, as
    /// announced in the environment variable `CW_KEEPER_FD`. Call it once.
    ///
    /// # Errors
    /// [`Error::KeeperUnavailable`] when no keeper started this process.
    pub fn from_env() -> Result<Self, Error> {
        Err(Error::Protocol("not built yet".into()))
    }

    /// Starts a keeper for this process, which then is the node, by `keeper_argv`
    /// (see [`Options::keeper_argv`](super::Options)).
    ///
    /// # Errors
    /// [`Error::KeeperUnavailable`].
    pub fn start(keeper_argv: &[OsString]) -> Result<Self, Error> {
        let _ = keeper_argv;
        Err(Error::Protocol("not built yet".into()))
    }
}
