//! The terminal of a user: a pseudo terminal of our own with a program on it.
//!
//! Every wait has an end, so that a peer that hangs is named and not waited for.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Rows and columns of every terminal here.
pub const SIZE: (u16, u16) = (40, 120);

/// How long anything may be silent that shall say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal and the program on it; both are gone when it is dropped.
pub struct Terminal {
    master: OwnedFd,
    child: Child,
    buffer: Vec<u8>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    /// Opens a terminal and starts the program.
    pub fn start(mut command: Command) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(path, flags, Mode::empty())?;
        let size = Winsize {
            ws_row: SIZE.0,
            ws_col: SIZE.1,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size)?;
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave));
        lead(&mut command);
        Ok(Self {
            child: command.spawn()?,
            master,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// The program on it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    pub fn write(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let written = rustix::io::write(&self.master, bytes)?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// What comes next.
    pub fn read(&mut self) -> Result<&[u8]> {
        if !self.ready(PATIENCE)? {
            bail!("nothing came for {} s", PATIENCE.as_secs());
        }
        let count = rustix::io::read(&self.master, &mut self.buffer[..])?;
        Ok(&self.buffer[..count])
    }

    /// Reads until `wanted` was there; returns how many bytes came.
    pub fn read_until(&mut self, wanted: &[u8]) -> Result<u64> {
        let mut seen = Vec::new();
        let mut total = 0;
        let start = Instant::now();
        while memchr::memmem::find(&seen, wanted).is_none() {
            if start.elapsed() > PATIENCE {
                bail!("{:?} did not come", String::from_utf8_lossy(wanted));
            }
            let keep = seen.len().saturating_sub(wanted.len());
            seen.drain(..keep);
            let bytes = self.read()?;
            total += bytes.len() as u64;
            seen.extend_from_slice(bytes);
        }
        Ok(total)
    }

    /// Reads until nothing has come for this long; returns how many bytes came.
    pub fn read_until_quiet(&mut self, quiet: Duration) -> Result<u64> {
        let mut total = 0;
        while self.ready(quiet)? {
            total += self.read()?.len() as u64;
        }
        Ok(total)
    }

    fn ready(&self, limit: Duration) -> Result<bool> {
        let limit = Timespec::try_from(limit)?;
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&limit))? > 0)
    }
}

/// Makes the program the leader of a session that its standard input controls.
fn lead(command: &mut Command) {
    let lead = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: only makes two system calls, which a forked process may.
    unsafe {
        command.pre_exec(lead);
    }
}
