//! A command that runs: what it has printed so far, and its end.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cw::Done;
use crate::wait_until;

/// A command in the background. Dropping it kills it.
pub struct Running {
    line: String,
    child: Child,
    /// What it has printed on standard output.
    pub stdout: Output,
    /// What it has printed on standard error.
    pub stderr: Output,
    started: Instant,
}

/// One stream of a command, as it comes.
#[derive(Clone)]
pub struct Output(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    closed: bool,
}

impl Running {
    /// Starts `command` with `input` as its standard input, which is then closed.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn start(mut command: Command, input: &[u8]) -> Self {
        // Without the environment, which has tokens in it.
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(std::ffi::OsStr::to_string_lossy).collect();
        let line = words.join(" ");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(mut stdin) = stdin {
            let input = input.to_vec();
            // A command that ends early does not read everything.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        Self {
            line,
            child,
            stdout: Output::collect(stdout),
            stderr: Output::collect(stderr),
            started: Instant::now(),
        }
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended and both its streams are closed.
    ///
    /// # Panics
    ///
    /// When that takes longer than `limit`; it is then killed.
    #[track_caller]
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Done {
        let line = self.line.clone();
        let status = wait_until(&line, limit, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("it runs, and has printed\n{}", self.printed())),
            Err(error) => Err(error.to_string()),
        });
        // A child in the background that kept the streams would keep every script that waits.
        wait_until(&format!("{line}: its streams close"), limit, || {
            if self.stdout.closed() && self.stderr.closed() {
                Ok(())
            } else {
                Err("somebody holds them still".to_owned())
            }
        });
        Done {
            line,
            status: status.code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took: self.started.elapsed(),
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn printed(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Output {
    fn collect(stream: Option<impl Read + Send + 'static>) -> Self {
        let output = Self(Arc::default());
        let Some(mut stream) = stream else {
            return output;
        };
        let sink = output.clone();
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                sink.change(|heard| heard.bytes.extend_from_slice(&buffer[..count]));
            }
            sink.change(|heard| heard.closed = true);
        });
        output
    }

    /// Everything so far; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Everything so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
            .clone()
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed
    }

    /// Waits for the first whole line that contains `part`, and returns it.
    ///
    /// # Panics
    ///
    /// When it does not come within `limit`, or the stream ends before.
    #[track_caller]
    #[must_use]
    pub fn line(&self, part: &str, limit: Duration) -> String {
        let found = |heard: &Heard| {
            let text = String::from_utf8_lossy(&heard.bytes).into_owned();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole
                .lines()
                .find(|line| line.contains(part))
                .map(str::to_owned)
        };
        let (lock, changed) = &*self.0;
        let end = Instant::now() + limit;
        let mut heard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = found(&heard) {
                return line;
            }
            let left = end.saturating_duration_since(Instant::now());
            if heard.closed || left.is_zero() {
                let text = String::from_utf8_lossy(&heard.bytes).into_owned();
                drop(heard);
                panic!("no line with {part:?} within {limit:?}, only\n{text}");
            }
            (heard, _) = changed
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, with: impl FnOnce(&mut Heard)) {
        let (lock, changed) = &*self.0;
        with(&mut lock.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }
}
