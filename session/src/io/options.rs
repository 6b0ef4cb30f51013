//! What callers say when they open a directory or launch a session.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::{Name, Size, Tag};

/// How [`Sessions`](super::Sessions) work.
#[derive(Clone, Debug)]
pub struct Options {
    /// Program and arguments that start a new keeper when the present one dies;
    /// they must end up in [`keeper::adopt`](super::keeper::adopt) for the same
    /// directory.
    pub keeper_argv: Vec<OsString>,
    /// Whether an acknowledgement waits until the disk has the data. Otherwise
    /// it waits for the operating system only, and the disk follows within
    /// 100 ms.
    pub sync_always: bool,
    /// Bytes of output to keep of each session; of more, the oldest go, an
    /// eighth of this at a time. 256 MiB unless told otherwise: days of an
    /// agent's work, and a thousand sessions that never stop fill no more than
    /// a disk can hold.
    pub log_cap: u64,
    /// Finished sessions to keep, 2 000 unless told otherwise: a list that
    /// somebody may still look through. Up to a 32nd more may be there for a
    /// while. Of more, those that ended first go, with output and messages.
    pub keep_finished: usize,
    /// How long to keep a finished session, 30 days unless told otherwise.
    pub keep_finished_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keeper_argv: Vec::new(),
            sync_always: false,
            log_cap: 256 * 1024 * 1024,
            keep_finished: 2000,
            keep_finished_for: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// What to launch.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// Program and arguments. A program without a slash is looked up in the
    /// `PATH` of `env`; one with a slash is relative to `cwd`.
    pub argv: Vec<String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// The complete environment. The session adds `CW_SESSION_ID`,
    /// `CW_SESSION_NAME` (if named) and `CW_COHORT_TAG` (the first tag), which
    /// win over what is given here.
    pub env: Vec<(String, String)>,
    /// A name that no live session has.
    pub name: Option<Name>,
    /// At most [`MAX_TAGS`](crate::tag::MAX_TAGS) tags.
    pub tags: Vec<Tag>,
    /// Size of the terminal.
    pub size: Size,
    /// Typed into the terminal right after the start.
    pub input: Option<Bytes>,
}
