//! Whether a session runs, and how it ended.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Name, SessionId, Size, Tag};

/// How a process ended, as far as the kernel told us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It called `exit` with this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is over, and nobody who knows how is left. Never a guess.
    Unknown,
}

impl Outcome {
    /// Reads the status word of `wait(2)`: the low seven bits are a signal, or
    /// zero and the exit code is in the next eight.
    #[must_use]
    pub const fn from_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }

    /// The exit code, if the process gave one.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) | Self::Unknown => None,
        }
    }

    /// The signal that ended the process, if one did.
    #[must_use]
    pub const fn signal(self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(signal),
            Self::Code(_) | Self::Unknown => None,
        }
    }
}

/// What a program and those of its descendants that it waited for have used.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// Time of processors in programs, milliseconds.
    pub user_ms: u64,
    /// Time of processors in the system for them, milliseconds.
    pub system_ms: u64,
    /// The most memory that one of them had at a time, bytes.
    pub max_rss_bytes: u64,
}

/// How a program ended and what it used. Only the process that collects it is
/// told what it used: nobody, when that was not the keeper.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What it used, if that is known.
    pub usage: Option<Usage>,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            usage: None,
        }
    }
}

/// The life of a session: it runs, then it has exited, and never runs again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// The process is there.
    Running,
    /// The process is gone and all it wrote is in the log.
    Exited {
        /// How it ended.
        outcome: Outcome,
        /// Whether somebody asked for the end. Stays true whatever the
        /// process answered.
        killed: bool,
    },
}

impl Status {
    /// Whether the process is there.
    #[must_use]
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running)
    }

    /// The word in lists and events: `running`, `completed` or `killed`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited { killed: true, .. } => "killed",
            Self::Exited { killed: false, .. } => "completed",
        }
    }

    /// How the process ended, once it has.
    #[must_use]
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Running => None,
            Self::Exited { outcome, .. } => Some(outcome),
        }
    }
}

impl fmt::Display for Status {
    /// `running`, `killed`, `completed (0)`, `completed (signal 9)`,
    /// `completed (unknown)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Exited { killed: true, .. } => f.write_str("killed"),
            Self::Exited { outcome, .. } => match outcome {
                Outcome::Code(code) => write!(f, "completed ({code})"),
                Outcome::Signal(signal) => write!(f, "completed (signal {signal})"),
                Outcome::Unknown => f.write_str("completed (unknown)"),
            },
        }
    }
}

/// All there is to say about a session at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Its number.
    pub id: SessionId,
    /// Its name, if it was given one.
    pub name: Option<Name>,
    /// Its tags, in the order given.
    pub tags: Vec<Tag>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory at launch.
    pub cwd: PathBuf,
    /// Size of its terminal.
    pub size: Size,
    /// Launch, unix milliseconds.
    pub created_ms: u64,
    /// Running, or how it ended.
    pub status: Status,
    /// Clients attached now.
    pub attached: u32,
    /// Process id; gone when the session has ended.
    pub pid: Option<u32>,
    /// First byte of output still kept.
    pub output_start: u64,
    /// Bytes of output so far: the offset of the next one.
    pub output_end: u64,
    /// Line feeds in the output. May trail `output_end` for a moment.
    pub output_lines: u64,
    /// When the last output came, unix milliseconds; after a restart of the
    /// node, when the log was last written.
    pub last_output_ms: Option<u64>,
    /// When it ended, unix milliseconds.
    pub exited_ms: Option<u64>,
    /// What its program used, when it has ended and that is known.
    pub usage: Option<Usage>,
    /// Requests addressed to it that wait for its reply.
    pub pending_requests: usize,
    /// The disk took no more output; the program waits until it does.
    pub disk_full: bool,
}

/// What a list says about a session, borrowed: a list of thousands copies
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Brief<'a> {
    /// Its number.
    pub id: SessionId,
    /// Its name, if it was given one.
    pub name: Option<&'a Name>,
    /// Its tags, in the order given.
    pub tags: &'a [Tag],
    /// Program and arguments.
    pub argv: &'a [String],
    /// Launch, unix milliseconds.
    pub created_ms: u64,
    /// Running, or how it ended.
    pub status: Status,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_is_read_as_the_kernel_writes_it() {
        assert_eq!(Outcome::from_wait_status(0), Outcome::Code(0));
        assert_eq!(Outcome::from_wait_status(42 << 8), Outcome::Code(42));
        assert_eq!(Outcome::from_wait_status(9), Outcome::Signal(9));
        // With the core-dump flag.
        assert_eq!(Outcome::from_wait_status(0x8b), Outcome::Signal(11));
    }

    #[test]
    fn killed_wins_over_the_exit_code_in_words() {
        let killed = Status::Exited {
            outcome: Outcome::Code(0),
            killed: true,
        };
        assert_eq!(killed.word(), "killed");
        assert_eq!(killed.to_string(), "killed");
        let done = Status::Exited {
            outcome: Outcome::Code(3),
            killed: false,
        };
        assert_eq!(done.to_string(), "completed (3)");
    }
}
