//! What can be told of the program in front of a terminal: which one it is, and
//! whether it has read what was typed.

use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use super::platform;

/// Bytes that were typed into a terminal and that nobody has read.
#[cfg(target_os = "linux")]
pub(super) fn unread(master: &OwnedFd) -> Option<u64> {
    let slave = platform::open_slave(master, || None).ok()?;
    rustix::io::ioctl_fionread(slave).ok()
}

/// Not here: the other side of a terminal cannot be asked.
#[cfg(not(target_os = "linux"))]
pub(super) fn unread(_: &OwnedFd) -> Option<u64> {
    None
}

/// The name of the program that leads the foreground of a terminal.
pub(super) fn front(master: &OwnedFd) -> Option<String> {
    let group = rustix::termios::tcgetpgrp(master).ok()?;
    // Where there is no such directory, nothing is known.
    let name = std::fs::read_to_string(format!("/proc/{}/comm", group.as_raw_nonzero())).ok()?;
    Some(name.trim_end().to_owned())
}
