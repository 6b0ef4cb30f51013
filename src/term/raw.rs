//! Raw mode, and everything put back as it was.
//!
//! What the session's program has switched on in the terminal is switched off when the client
//! lets go, whatever way it goes: other screen, hidden cursor, scroll region, mouse, focus and
//! paste reports, the kitty keyboard stack, character sets, cursor shape, colours.

use std::io::Write;
use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Error, Result};

/// Undoes what full-screen programs do. In this order: leave the other screen first, since some
/// of the rest is kept per screen; it goes back to a saved cursor also when it was not left, so
/// one is saved in front. Resetting the scroll region sends the cursor home, so its place
/// is kept; origin mode (DECOM) needs no undoing, it means nothing without a region.
const RESTORE: &[u8] = b"\x1b7\x1b[?1049l\x1b[?47l\x1b7\x1b[r\x1b8\x1b[?25h\x1b[?7h\x1b[4l\
\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?2004l\x1b[?2026l\
\x1b[?1l\x1b>\x1b[<99u\x1b[>4;0m\x1b(B\x0f\x1b[0 q\x1b[0m";

/// The terminal in raw mode; dropping it restores the terminal.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Whether there is a terminal.
    ///
    /// # Errors
    ///
    /// `not_a_terminal`.
    pub fn check() -> Result<()> {
        attributes().map(|_| ())
    }

    /// Switches the terminal on standard input to raw mode.
    ///
    /// # Errors
    ///
    /// `not_a_terminal`.
    pub fn enter() -> Result<Self> {
        let before = attributes()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

fn attributes() -> Result<Termios> {
    tcgetattr(std::io::stdin()).map_err(|_| {
        Error::new("not_a_terminal", "standard input is not a terminal")
            .hint("attach needs one; 'cw logs -f' and 'cw send' do not")
    })
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let mut out = std::io::stdout();
        // A terminal that is gone needs no restoring.
        let _ = out
            .write_all(RESTORE)
            .and_then(|()| out.write_all(b"\r\n"))
            .and_then(|()| out.flush());
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Columns and rows of the terminal on standard output or input, if there is one.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let of = |fd: std::os::fd::BorrowedFd<'_>| {
        tcgetwinsize(fd)
            .ok()
            .map(|size| (size.ws_col, size.ws_row))
            .filter(|(cols, rows)| *cols > 0 && *rows > 0)
    };
    of(std::io::stdout().as_fd()).or_else(|| of(std::io::stdin().as_fd()))
}
