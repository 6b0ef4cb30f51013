//! A command in a real terminal: types, reads what is on it, sees how it is left.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, MasterPty, PtySize, native_pty_system};

use crate::cw::Cw;
use crate::wait_until;

const ROWS: NonZeroU16 = NonZeroU16::new(30).expect("there are rows");
const COLS: NonZeroU16 = NonZeroU16::new(100).expect("there are columns");

/// A terminal with a command in it. Dropping it kills the command.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    shown: Arc<(Mutex<Shown>, Condvar)>,
    /// How the terminal was set before the command came.
    before: String,
}

#[derive(Default)]
struct Shown {
    bytes: Vec<u8>,
    closed: bool,
}

impl Terminal {
    /// Runs `cw` in a terminal of 100 columns and 30 rows.
    ///
    /// # Panics
    ///
    /// When there is no terminal to be had, or no such command.
    #[track_caller]
    #[must_use]
    pub fn run(cw: &Cw, arguments: &[&str]) -> Self {
        let size = PtySize {
            rows: ROWS.get(),
            cols: COLS.get(),
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system()
            .openpty(size)
            .expect("there are terminals left");
        let before = settings(&*pair.master);
        let child = pair
            .slave
            .spawn_command(cw.command_in_terminal(arguments))
            .expect("the command can be started");
        let reader = pair
            .master
            .try_clone_reader()
            .expect("a terminal can be read");
        let writer = pair
            .master
            .take_writer()
            .expect("a terminal can be written");
        Self {
            shown: collect(reader),
            writer,
            child,
            before,
            master: pair.master,
        }
    }

    /// Types.
    ///
    /// # Panics
    ///
    /// When the terminal is gone.
    #[track_caller]
    pub fn type_in(&mut self, keys: &str) {
        let typed = self
            .writer
            .write_all(keys.as_bytes())
            .and_then(|()| self.writer.flush());
        assert!(typed.is_ok(), "the terminal is gone: {typed:?}");
    }

    /// Waits until `text` has been shown.
    ///
    /// # Panics
    ///
    /// When it has not within `limit`.
    #[track_caller]
    pub fn shows(&self, text: &str, limit: Duration) {
        let end = Instant::now() + limit;
        let (lock, changed) = &*self.shown;
        let mut shown = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let screen = String::from_utf8_lossy(&shown.bytes).into_owned();
            if screen.contains(text) {
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(shown);
                panic!("the terminal does not show {text:?} within {limit:?}, but\n{screen}");
            }
            (shown, _) = changed
                .wait_timeout(shown, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Everything that has been shown, with its escape sequences.
    #[must_use]
    pub fn text(&self) -> String {
        let shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown.bytes).into_owned()
    }

    /// What somebody before it sees now, if its size was never changed.
    #[must_use]
    pub fn screen(&self) -> String {
        let shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut terminal = vt100::Parser::new(ROWS, COLS, 0);
        terminal.process(&shown.bytes);
        terminal.screen().contents()
    }

    /// Changes the size of the terminal.
    ///
    /// # Panics
    ///
    /// When the terminal is gone.
    pub fn resize(&self, cols: u16, rows: u16) {
        let size = PtySize {
            rows,
            cols,
            pixel_width: 0,
            pixel_height: 0,
        };
        self.master.resize(size).expect("a terminal can be resized");
    }

    /// Waits for the end of the command and of what it shows, and returns its exit status.
    ///
    /// # Panics
    ///
    /// When it does not end within `limit`.
    #[track_caller]
    pub fn ends(&mut self, limit: Duration) -> u32 {
        wait_until("the command in the terminal ends", limit, || {
            match self.child.try_wait() {
                Ok(Some(status)) if self.closed() => Ok(status.exit_code()),
                other => Err(format!("{other:?}; the terminal shows\n{}", self.text())),
            }
        })
    }

    /// Whether nothing more can come: no process has the terminal open.
    fn closed(&self) -> bool {
        self.shown
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed
    }

    /// Whether the terminal is as it was before the command, and what full-screen programs
    /// switch on has been switched off.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn restored(&self) -> Result<(), String> {
        let after = settings(&*self.master);
        if after != self.before {
            return Err(format!("settings before: {}\nafter: {after}", self.before));
        }
        let text = self.text();
        for sequence in [
            "\x1b[?1049l",
            "\x1b[?25h",
            "\x1b[?1000l",
            "\x1b[?1004l",
            "\x1b[?2004l",
        ] {
            if !text.contains(sequence) {
                return Err(format!("{sequence:?} was not written"));
            }
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios())
}

fn collect(mut reader: Box<dyn Read + Send>) -> Arc<(Mutex<Shown>, Condvar)> {
    let shown: Arc<(Mutex<Shown>, Condvar)> = Arc::default();
    let sink = Arc::clone(&shown);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let count = reader.read(&mut buffer).unwrap_or(0);
            let (lock, changed) = &*sink;
            let mut shown = lock.lock().unwrap_or_else(PoisonError::into_inner);
            shown.bytes.extend_from_slice(&buffer[..count]);
            shown.closed = count == 0;
            changed.notify_all();
            if shown.closed {
                return;
            }
        }
    });
    shown
}
