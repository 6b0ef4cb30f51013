//! What callers say when they open a directory or launch a session.

use std::ffi::OsString;
use std::path::PathBuf;

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
