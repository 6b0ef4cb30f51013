//! A terminal that is lent: the client of an attachment gives its keyboard and screen to the node
//! on the same machine, which then reads keys and shows output itself. That saves two processes
//! that would have to be woken for each key, and two for each answer.
//!
//! The client stays what it was for everything else: it sets the terminal's mode, tells its size,
//! hears the end, and puts everything back. With the terminal it gives a file in memory in which
//! the node writes down how much of the output the terminal has. When the node is killed, the
//! client knows from there where to go on, and no byte is shown twice. While a piece is being
//! written nobody can say how much of it the terminal has, so that then nothing is written down
//! and the terminal will be painted anew.
//!
//! The descriptors themselves are shared with the client and the shell that started it, so they
//! stay as they are, blocking. The node opens the terminal again for itself, not blocking: a
//! terminal that takes nothing holds up nobody. That needs `/proc`; where there is none, and where
//! it cannot be opened, the client goes on reading and showing itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{isatty, tcgetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is written down for a terminal whose screen is not what the output made of it.
const NOTHING: u64 = u64::MAX;

/// What the client keeps of a terminal that it lends.
pub struct Loan {
    progress: File,
}

impl Loan {
    /// To lend standard input and output; none if they are no terminal, or the system has no way.
    #[must_use]
    pub fn offer() -> Option<Self> {
        if !isatty(io::stdin()) || !isatty(io::stdout()) {
            return None;
        }
        let progress = Progress(memory_file()?);
        progress.set(None);
        Some(Self {
            progress: progress.0,
        })
    }

    /// What goes to the node, in this order: keyboard, screen, progress.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            self.progress.as_fd(),
        ]
    }

    /// How many bytes of output the terminal has shown; none if it must be painted anew.
    #[must_use]
    pub fn shown(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.progress.read_exact_at(&mut bytes, 0).ok()?;
        Some(u64::from_be_bytes(bytes)).filter(|shown| *shown != NOTHING)
    }

    /// Whether keys were typed that nobody has read.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        rustix::io::ioctl_fionread(rustix::stdio::stdin()).is_ok_and(|waiting| waiting > 0)
    }
}

#[cfg(target_os = "linux")]
fn memory_file() -> Option<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let file = memfd_create("cw-progress", MemfdFlags::CLOEXEC).ok()?;
    Some(file.into())
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> Option<File> {
    None
}

/// A file elsewhere may take any time to be written to; one in memory has seals.
#[cfg(target_os = "linux")]
fn check_memory(file: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_get_seals(file).map(|_| ())?)
}

#[cfg(not(target_os = "linux"))]
fn check_memory(_: &OwnedFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A terminal that was lent to this process.
#[derive(Debug)]
pub struct Lent {
    keys: OwnedFd,
    screen: OwnedFd,
    progress: File,
}

/// It in use.
pub struct InUse {
    /// What is typed.
    pub keys: Keys,
    /// What is shown.
    pub screen: Display,
}

/// The keyboard.
pub struct Keys(AsyncFd<OwnedFd>);

/// The screen, and how far it has got.
pub struct Display {
    screen: AsyncFd<OwnedFd>,
    progress: Progress,
}

struct Progress(File);

impl Lent {
    /// Opens what was given. A client gets no more than it had: what it could not read or write
    /// itself is not opened for that.
    ///
    /// # Errors
    ///
    /// What the system says; `InvalidInput` for what is no terminal, or too few descriptors.
    pub fn open(given: Vec<OwnedFd>) -> io::Result<Self> {
        let Ok([keys, screen, progress]) = <[OwnedFd; 3]>::try_from(given) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        check_memory(&progress)?;
        Ok(Self {
            keys: again(&keys, OFlags::RDONLY)?,
            screen: again(&screen, OFlags::WRONLY)?,
            progress: progress.into(),
        })
    }

    /// Within the runtime that shall read and show.
    ///
    /// # Errors
    ///
    /// The system's, when it cannot be waited for.
    pub fn watch(self) -> io::Result<InUse> {
        Ok(InUse {
            keys: Keys(watch(self.keys, Interest::READABLE)?),
            screen: Display {
                screen: watch(self.screen, Interest::WRITABLE)?,
                progress: Progress(self.progress),
            },
        })
    }
}

#[expect(
    unsafe_code,
    reason = "the descriptor must stay open while it is watched"
)]
fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it is owned by what watches it, and never replaced.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Opens a terminal again, in this direction.
fn again(given: &OwnedFd, direction: OFlags) -> io::Result<OwnedFd> {
    let may = rustix::fs::fcntl_getfl(given)? & OFlags::RWMODE;
    if may != OFlags::RDWR && may != direction {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    tcgetattr(given)?;
    let path = format!("/proc/self/fd/{}", given.as_raw_fd());
    let flags = direction | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

impl Keys {
    /// What has been typed; nothing when the terminal is gone. May be cancelled.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut *buffer) {
                Ok(count) => {
                    if count < buffer.len() {
                        // That was all: the system tells of what comes next.
                        ready.clear_ready();
                    }
                    return Ok(count);
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Display {
    /// Shows the output that begins at `offset`, all of it when this returns.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn show(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let shown = self.write(bytes, Some(offset)).await?;
            bytes = &bytes[shown..];
            offset += shown as u64;
            self.progress.set(Some(offset));
        }
        Ok(())
    }

    /// Shows something else, after which the terminal shows what the output up to `offset` does.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn paint(&mut self, mut bytes: &[u8], offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            bytes = &bytes[self.write(bytes, None).await?..];
        }
        self.progress.set(Some(offset));
        Ok(())
    }

    /// Writes some; `shown` is what the terminal has shown before. What it has afterwards is left
    /// to the caller to write down.
    async fn write(&self, bytes: &[u8], shown: Option<u64>) -> io::Result<usize> {
        loop {
            let mut ready = self.screen.writable().await?;
            self.progress.set(None);
            let error = match rustix::io::write(self.screen.get_ref(), bytes) {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            self.progress.set(shown);
            match error {
                Errno::AGAIN => ready.clear_ready(),
                Errno::INTR => {}
                error => return Err(error.into()),
            }
        }
    }
}

impl Progress {
    fn set(&self, shown: Option<u64>) {
        // Writing to memory; were it to fail, a client would be painted what it has seen already.
        let _ = self
            .0
            .write_all_at(&shown.unwrap_or(NOTHING).to_be_bytes(), 0);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

    use super::*;

    /// Both ends of a terminal in raw mode.
    fn terminal() -> (File, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal of our own");
        grantpt(&master).expect("a terminal of our own");
        unlockpt(&master).expect("a terminal of our own");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("a terminal of our own");
        let mut mode = tcgetattr(&slave).expect("a terminal of our own");
        mode.make_raw();
        rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &mode)
            .expect("a terminal of our own");
        (master.into(), slave)
    }

    fn lent(slave: &OwnedFd) -> (Lent, Loan) {
        let progress = memory_file().expect("a terminal of our own");
        Progress(progress.try_clone().expect("a terminal of our own")).set(None);
        let copy = || slave.try_clone().expect("a terminal of our own");
        let given = vec![
            copy(),
            copy(),
            progress.try_clone().expect("a terminal of our own").into(),
        ];
        (
            Lent::open(given).expect("a terminal of our own"),
            Loan { progress },
        )
    }

    #[tokio::test]
    async fn keys_and_output_go_through_and_progress_is_written_down() {
        let (mut user, slave) = terminal();
        let (lent, loan) = lent(&slave);
        let mut used = lent.watch().unwrap();
        user.write_all(b"key").unwrap();
        let mut typed = [0; 16];
        assert_eq!(used.keys.read(&mut typed).await.unwrap(), 3);
        assert_eq!(loan.shown(), None);
        used.screen.paint(b"PAINT", 100).await.unwrap();
        assert_eq!(loan.shown(), Some(100));
        used.screen.show(100, b"output").await.unwrap();
        assert_eq!(loan.shown(), Some(106));
        let mut seen = [0; 11];
        user.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"PAINToutput");
    }

    #[tokio::test]
    async fn who_has_seen_a_piece_is_never_told_that_it_has_not() {
        let (mut user, slave) = terminal();
        let (lent, loan) = lent(&slave);
        let mut used = lent.watch().unwrap();
        let pieces = 2000;
        let looking = std::thread::spawn(move || {
            for offset in 0..pieces {
                user.read_exact(&mut [0]).unwrap();
                let shown = loan.shown();
                assert!(shown.is_none_or(|shown| shown > offset), "{shown:?}");
            }
            (user, loan)
        });
        for offset in 0..pieces {
            used.screen.show(offset, b"x").await.unwrap();
        }
        let (_user, loan) = looking.join().unwrap();
        assert_eq!(loan.shown(), Some(pieces));
    }

    #[tokio::test]
    async fn a_terminal_that_takes_nothing_is_waited_for_and_stays_blocking_for_others() {
        let (mut user, slave) = terminal();
        let (lent, loan) = lent(&slave);
        let mut used = lent.watch().unwrap();
        let much = vec![b'x'; 1 << 20];
        {
            let showing = used.screen.show(0, &much);
            tokio::pin!(showing);
            tokio::select! {
                biased;
                shown = &mut showing => panic!("nobody reads: {shown:?}"),
                () = tokio::task::yield_now() => {}
            }
            let reading = tokio::task::spawn_blocking(move || {
                let mut seen = vec![0; 1 << 20];
                user.read_exact(&mut seen).map(|()| (user, seen))
            });
            showing.await.unwrap();
            let (_user, seen) = reading.await.unwrap().unwrap();
            assert!(seen == much);
        }
        assert_eq!(loan.shown(), Some(1 << 20));
        let flags = rustix::fs::fcntl_getfl(&slave).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }

    #[test]
    fn what_is_no_terminal_or_could_not_be_used_by_the_client_is_refused() {
        let (_user, slave) = terminal();
        let file = || OwnedFd::from(memory_file().unwrap());
        assert!(Lent::open(vec![file(), file(), file()]).is_err());
        assert!(Lent::open(vec![slave.try_clone().unwrap()]).is_err());
        let copy = || slave.try_clone().unwrap();
        let disk = OwnedFd::from(File::open("/proc/self/exe").unwrap());
        assert!(Lent::open(vec![copy(), copy(), disk]).is_err());
        let path = format!("/proc/self/fd/{}", slave.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NOCTTY;
        let looks = || rustix::fs::open(&*path, flags, rustix::fs::Mode::empty()).unwrap();
        let refused = Lent::open(vec![looks(), looks(), file()]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(Lent::open(vec![looks(), slave, file()]).is_ok());
    }
}
