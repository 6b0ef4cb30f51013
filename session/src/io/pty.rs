//! A program in a new terminal.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::keeper::fds::Fds;
use super::keeper::proto::Spawn;
use super::platform;

/// Opens a terminal of the given size and starts the program in it, as leader
/// of a new session that has it as controlling terminal.
///
/// The environment is exactly the given one, except that a missing `SHELL` is
/// filled in from the user database by portable-pty.
pub(crate) fn spawn(spawn: &Spawn) -> Result<(u32, Fds), String> {
    let size = spawn.size.at_least_one();
    let pair = native_pty_system()
        .openpty(PtySize {
            rows: size.rows,
            cols: size.cols,
            pixel_width: 0,
            pixel_height: 0,
        })
        .map_err(|error| error.to_string())?;
    let shared = share(&*pair.master).map_err(|error| error.to_string())?;

    let argv = spawn.argv.iter().map(Into::into).collect();
    let mut command = CommandBuilder::from_argv(argv);
    command.env_clear();
    for (name, value) in &spawn.env {
        command.env(name, value);
    }
    command.cwd(&spawn.cwd);
    let child = pair
        .slave
        .spawn_command(command)
        .map_err(|error| error.to_string())?;
    let pid = child.process_id().ok_or("the program has no process id")?;
    // It is our child and not reaped yet: the number cannot be another's.
    let pidfd = platform::pid(pid).and_then(platform::open_process);
    let fds = Fds {
        pidfd: pidfd.map(Arc::new),
        ..shared
    };
    Ok((pid, fds))
}

fn share(master: &dyn portable_pty::MasterPty) -> io::Result<Fds> {
    let raw = master.as_raw_fd().ok_or(io::ErrorKind::Unsupported)?;
    let master = platform::duplicate(raw)?;
    fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
    let (pipe_r, pipe_w) = io::pipe()?;
    Ok(Fds {
        master: Arc::new(master),
        pipe_r: Arc::new(OwnedFd::from(pipe_r)),
        pipe_w: Arc::new(OwnedFd::from(pipe_w)),
        pidfd: None,
    })
}
