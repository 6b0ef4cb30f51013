//! What only some systems have, with the others' equivalent or an honest "not
//! here", and the only unsafe code of the crate.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::unix::AsyncFd;

#[cfg(target_os = "linux")]
use super::proc::Stat;
use crate::Usage;

/// A second descriptor of an open file that is known by number only.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    #[expect(unsafe_code, reason = "portable-pty gives its descriptors as numbers")]
    // SAFETY: the number is not -1, and the caller keeps its owner alive during this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned()
}

/// The other side of a terminal, for a program.
#[cfg(target_os = "linux")]
pub(crate) fn open_slave(
    master: &OwnedFd,
    _: impl FnOnce() -> Option<std::path::PathBuf>,
) -> io::Result<OwnedFd> {
    use rustix::pty::OpenptFlags;
    // Needs no name, which may mean another terminal in another namespace.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(rustix::pty::ioctl_tiocgptpeer(master, flags)?)
}

/// The other side of a terminal, for a program: here it is found by its name.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open_slave(
    _: &OwnedFd,
    name: impl FnOnce() -> Option<std::path::PathBuf>,
) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let name = name().ok_or(io::ErrorKind::Unsupported)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(name, flags, Mode::empty())?)
}

/// A descriptor that a program before us in this process has left open.
pub(crate) fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Says whether it is open, and keeps it from programs that we start.
    inheritable(fd, false)?;
    #[expect(unsafe_code, reason = "a number is all that outlives an exec")]
    // SAFETY: it is open, and nobody else in this program knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a descriptor stays open in a program that is executed.
pub(crate) fn inheritable(fd: RawFd, inheritable: bool) -> io::Result<()> {
    use rustix::io::{FdFlags, fcntl_setfd};
    if fd < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    #[expect(unsafe_code, reason = "a number is all that outlives an exec")]
    // SAFETY: the number is not -1; one that is not open is an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = if inheritable {
        FdFlags::empty()
    } else {
        FdFlags::CLOEXEC
    };
    Ok(fcntl_setfd(borrowed, flags)?)
}

/// A file without a name.
#[cfg(target_os = "linux")]
pub(crate) fn memory_file() -> io::Result<std::fs::File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("keeper", MemfdFlags::CLOEXEC)?.into())
}

/// A file without a name, for want of better on the disk.
#[cfg(not(target_os = "linux"))]
pub(crate) fn memory_file() -> io::Result<std::fs::File> {
    let name = format!("cw-keeper-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Lets signals wait, also in a program that is executed now. Returns those
/// that waited before.
pub(crate) fn hold_signals() -> io::Result<libc::sigset_t> {
    #[expect(unsafe_code, reason = "rustix has no signal masks")]
    // SAFETY: both sets are initialised, the first by sigfillset.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) {
            0 => Ok(before),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Lets only these signals wait.
pub(crate) fn release_signals(waiting: &libc::sigset_t) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix has no signal masks")]
    // SAFETY: the set is initialised; nobody wants the former.
    let error = unsafe {
        libc::pthread_sigmask(
            libc::SIG_SETMASK,
            std::ptr::from_ref(waiting),
            std::ptr::null_mut(),
        )
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Lets no signal wait.
pub(crate) fn release_all_signals() -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix has no signal masks")]
    // SAFETY: numbers only, for which zero is a value; then made empty.
    let none = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        none
    };
    release_signals(&none)
}

/// Makes a program the leader of a new session whose controlling terminal is
/// its standard input.
pub(crate) fn lead_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    let lead = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    #[expect(unsafe_code, reason = "no other way to act in the child")]
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(lead);
    }
}

/// Allows as many open files as this user may have; a session needs about six.
/// Returns the former limit, which programs in sessions are given back.
pub(crate) fn raise_file_limit() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    before
}

/// Gives a program we have just started the limit we were started with; some
/// programs close every descriptor up to it, or break above 1024.
#[cfg(target_os = "linux")]
pub(crate) fn restore_file_limit(pid: Pid, limit: Rlimit) {
    // It may have exited already.
    let _ = rustix::process::prlimit(Some(pid), Resource::Nofile, limit);
}

/// Not here: the program keeps the raised limit.
#[cfg(not(target_os = "linux"))]
pub(crate) fn restore_file_limit(_: Pid, _: Rlimit) {}

/// Makes orphans below this process its children, so that they are reaped even
/// where the first process of the system does not do that (containers).
#[cfg(target_os = "linux")]
pub(crate) fn become_reaper() {
    // Any process id means yes.
    let _ = rustix::process::set_child_subreaper(Some(Pid::INIT));
}

/// Not here; orphans go to the first process of the system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn become_reaper() {}

/// A descriptor for a process: it stays that process's even when its number is
/// given to another.
#[cfg(target_os = "linux")]
pub(crate) fn open_process(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// Not here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open_process(_: Pid) -> Option<OwnedFd> {
    None
}

/// A process id as the system's functions want it.
pub(crate) fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

/// Makes a descriptor something to wait for, within a tokio runtime.
pub(crate) fn await_on(
    fd: &Arc<OwnedFd>,
    interest: tokio::io::Interest,
) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    #[expect(unsafe_code, reason = "for types that may change their descriptor")]
    // SAFETY: what is registered owns its descriptor, which it cannot change.
    let registered = unsafe { AsyncFd::register_with_interest(Arc::clone(fd), interest) };
    Ok(registered?)
}

/// Collects a child that has ended, if there is one: its process id, its status
/// as `wait(2)` has it, and what it used.
pub(crate) fn reap() -> Option<(Pid, i32, Usage)> {
    /// The system counts in these, bytes.
    const RSS_UNIT: u64 = if cfg!(target_vendor = "apple") {
        1
    } else {
        1024
    };
    let mut status = 0;
    #[expect(unsafe_code, reason = "rustix waits without asking for the usage")]
    // SAFETY: both are of the types that the system fills in, which hold numbers
    // only, for which zero is a value.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage);
        (pid, usage)
    };
    // Neither an error nor "none has ended".
    let pid = u32::try_from(pid).ok().and_then(self::pid)?;
    let ms = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1000 + u64::try_from(time.tv_usec).unwrap_or(0) / 1000
    };
    let usage = Usage {
        user_ms: ms(usage.ru_utime),
        system_ms: ms(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * RSS_UNIT,
    };
    Some((pid, status, usage))
}

/// Whether a descriptor has something to read; for a process, whether it is
/// over.
pub(crate) fn is_readable(fd: impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(ready) if ready > 0)
}

/// Reads what is in memory already; `None` when the disk would have to be
/// waited for.
#[cfg(target_os = "linux")]
pub(crate) fn read_cached(
    file: &std::fs::File,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<Option<usize>> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let mut slices = [io::IoSliceMut::new(buffer)];
    match preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(Some(read)),
        // The file system does not know the question; it is memory or will do.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => read_plain(file, buffer, offset),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Not here: reads at once, which is in memory nearly always.
#[cfg(not(target_os = "linux"))]
pub(crate) fn read_cached(
    file: &std::fs::File,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<Option<usize>> {
    read_plain(file, buffer, offset)
}

fn read_plain(file: &std::fs::File, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset).map(Some)
}

/// Moves bytes from a terminal into a pipe without taking them in hand: they
/// are in one or the other at any moment, whatever happens to this process.
#[cfg(target_os = "linux")]
pub(crate) fn splice_in(master: &OwnedFd, pipe: &OwnedFd) -> io::Result<usize> {
    use rustix::pipe::{SpliceFlags, splice};
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(master, None, pipe, None, SPLICE, flags)?)
}

/// Moves bytes from a pipe into a file at `offset`. The file grows by exactly
/// what leaves the pipe.
#[cfg(target_os = "linux")]
pub(crate) fn splice_out(
    pipe: &OwnedFd,
    file: &std::fs::File,
    mut offset: u64,
) -> io::Result<usize> {
    use rustix::pipe::{SpliceFlags, splice};
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(pipe, None, file, Some(&mut offset), SPLICE, flags)?)
}

/// Most bytes to move at once: what a pipe holds.
#[cfg(target_os = "linux")]
const SPLICE: usize = 64 * 1024;

/// Not here; the caller reads and writes instead.
#[cfg(not(target_os = "linux"))]
pub(crate) fn splice_in(_: &OwnedFd, _: &OwnedFd) -> io::Result<usize> {
    Err(rustix::io::Errno::INVAL.into())
}

/// Not here; the caller reads and writes instead.
#[cfg(not(target_os = "linux"))]
pub(crate) fn splice_out(_: &OwnedFd, _: &std::fs::File, _: u64) -> io::Result<usize> {
    Err(rustix::io::Errno::INVAL.into())
}

/// Waits for the end of a program whose parent is not the keeper, and learns
/// how it ended as far as the kernel tells:
///
/// 1. if it has become our child, from `waitid`;
/// 2. if it has been reaped by another, from the pidfd (Linux 6.15 and later);
/// 3. if nobody has reaped it, from `/proc/<pid>/stat`.
#[cfg(target_os = "linux")]
pub(crate) async fn exit_of_orphan(pid: u32, pidfd: Option<Arc<OwnedFd>>) -> crate::Outcome {
    let Some(pidfd) = pidfd else {
        return exit_unseen(pid).await;
    };
    match await_on(&pidfd, tokio::io::Interest::READABLE) {
        Ok(watched) => {
            // An error means that we cannot wait better than by asking.
            let _ = watched.readable().await;
        }
        Err(error) => tracing::warn!(%error, "cannot wait for a process"),
    }
    while !is_readable(&pidfd) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    // Whoever reaps it may be doing so at this moment.
    for _ in 0..20 {
        let status = reaped_child(&pidfd)
            .or_else(|| exit_info(&pidfd))
            .or_else(|| exit_of_zombie(pid));
        if let Some(status) = status {
            return crate::Outcome::from_wait_status(status);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    crate::Outcome::Unknown
}

/// Here nothing tells how somebody else's child ended.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn exit_of_orphan(pid: u32, _: Option<Arc<OwnedFd>>) -> crate::Outcome {
    exit_unseen(pid).await
}

/// Asks each second whether the process is there.
async fn exit_unseen(number: u32) -> crate::Outcome {
    while pid(number).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    crate::Outcome::Unknown
}

#[cfg(target_os = "linux")]
fn reaped_child(pidfd: &OwnedFd) -> Option<i32> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd as _;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options).ok()??;
    let code = status.exit_status().map(|code| code << 8);
    code.or_else(|| status.terminating_signal())
}

/// `struct pidfd_info` of `linux/pidfd.h`, its first version.
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    /// Real, effective, saved and file system ids of user and group.
    ids: [u32; 8],
    exit_code: i32,
}

#[cfg(target_os = "linux")]
fn exit_info(pidfd: &OwnedFd) -> Option<i32> {
    use rustix::ioctl::{Updater, ioctl, opcode};
    /// The mask bit of `exit_code`.
    const EXIT: u64 = 1 << 3;
    const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);
    let mut info = PidfdInfo {
        mask: EXIT,
        ..PidfdInfo::default()
    };
    #[expect(unsafe_code, reason = "rustix has no name for this request yet")]
    // SAFETY: the request is for a structure of this layout and length, which
    // the kernel fills in and which holds numbers only.
    let answered = unsafe { ioctl(pidfd, Updater::<GET_INFO, PidfdInfo>::new(&mut info)) };
    (answered.is_ok() && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// The status in `/proc/<pid>/stat`, of a zombie only, and only if we may see
/// it: where we may not, the kernel writes 0, which would be a guess.
#[cfg(target_os = "linux")]
fn exit_of_zombie(number: u32) -> Option<i32> {
    use std::os::unix::fs::MetadataExt as _;
    let stat = Stat::read(number)?;
    let ours = rustix::process::geteuid();
    let owner = std::fs::metadata(format!("/proc/{number}")).ok()?.uid();
    let visible = ours.is_root() || owner == ours.as_raw();
    (visible && stat.state == 'Z').then_some(stat.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_status_of_a_zombie_and_of_one_that_was_reaped() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 42"])
            .spawn()
            .unwrap();
        let number = child.id();
        let pidfd = open_process(pid(number).unwrap()).unwrap();
        let mut fds = [rustix::event::PollFd::new(
            &pidfd,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut fds, None).unwrap();
        assert_eq!(exit_of_zombie(number), Some(42 << 8));
        child.wait().unwrap();
        assert_eq!(exit_of_zombie(number), None);
        assert_eq!(reaped_child(&pidfd), None);
        // Before Linux 6.15 nothing is told, which is right too.
        assert!(matches!(exit_info(&pidfd), None | Some(0x2a00)));
    }
}
