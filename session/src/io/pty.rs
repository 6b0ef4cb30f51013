//! A program in a new terminal.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use portable_pty::{MasterPty, PtySize, native_pty_system};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::keeper::fds::Fds;
use super::keeper::proto::Spawn;
use super::platform;

/// Opens a terminal of the given size and starts the program in it, as leader
/// of a new session that has it as controlling terminal. The environment is
/// exactly the given one.
///
/// The terminal is portable-pty's; the program is started by the standard
/// library, which reports a program that cannot be executed (portable-pty
/// closes the descriptor on which that would be said) and adds no variables.
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
    let fds = share(&*pair.master).map_err(|error| error.to_string())?;
    let started = start(spawn, &fds, &*pair.master);
    let pid = started.map_err(|error| format!("{}: {error}", spawn.argv.join(" ")))?;
    // It is our child and not reaped yet: the number cannot be another's.
    let pidfd = platform::pid(pid).and_then(platform::open_process);
    let pidfd = pidfd.map(Arc::new);
    Ok((pid, Fds { pidfd, ..fds }))
}

fn share(master: &dyn MasterPty) -> io::Result<Fds> {
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

fn start(spawn: &Spawn, fds: &Fds, master: &dyn MasterPty) -> io::Result<u32> {
    let (program, arguments) = spawn
        .argv
        .split_first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let slave = platform::open_slave(&fds.master, || master.tty_name())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(spawn.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spawn.cwd)
        .stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave));
    platform::lead_session(&mut command);
    Ok(command.spawn()?.id())
}
