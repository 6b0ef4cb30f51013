//! A session whose program does what we tell it, at the moment we tell it.
//!
//! Two named pipes: a line into the one lets the program go on, a line out of the other says that
//! it has. So nothing has to be typed into a client that may not be ready for it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// How long a program may take to do what it was told.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a program prints before and after the output that is measured.
pub const BEGIN: &[u8] = b"BEGIN-OUTPUT\r\n";
pub const DONE: &[u8] = b"DONE-OUTPUT";

/// The two pipes.
pub struct Stage {
    go: File,
    done: File,
    go_path: PathBuf,
    done_path: PathBuf,
}

impl Stage {
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let go_path = dir.join(format!("{name}.go"));
        let done_path = dir.join(format!("{name}.done"));
        for path in [&go_path, &done_path] {
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        // For both, so that nobody waits for anybody when opening.
        let open = |path: &Path| File::options().read(true).write(true).open(path);
        Ok(Self {
            go: open(&go_path)?,
            done: open(&done_path)?,
            go_path,
            done_path,
        })
    }

    /// A program that prints `file` so many times when told, says so, and ends when told again.
    pub fn script(&self, file: &Path, times: usize) -> String {
        let file = file.display().to_string();
        let files = vec![file.as_str(); times].join(" ");
        let (go, done) = (self.go_path.display(), self.done_path.display());
        format!(
            "read x < {go}; echo BEGIN-OUTPUT; cat {files}; echo DONE-OUTPUT; \
             echo done > {done}; read x < {go}"
        )
    }

    /// A program that prints what is written by [`Stage::say`].
    pub fn echo_script(&self) -> String {
        format!("stty raw -echo; exec cat {}", self.go_path.display())
    }

    /// Lets it go on.
    pub fn go(&mut self) -> Result<()> {
        self.say(b"go\n")
    }

    pub fn say(&mut self, line: &[u8]) -> Result<()> {
        Ok(self.go.write_all(line)?)
    }

    /// Waits until it has done what it was told.
    pub fn wait(&mut self) -> Result<()> {
        let limit = Timespec::try_from(PATIENCE)?;
        if poll(&mut [PollFd::new(&self.done, PollFlags::IN)], Some(&limit))? == 0 {
            bail!("a program did not end within {} s", PATIENCE.as_secs());
        }
        self.done.read_exact(&mut [0; 5])?;
        Ok(())
    }
}
