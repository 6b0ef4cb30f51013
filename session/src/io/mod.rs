//! Sessions on a real machine: processes, terminals, files.
//!
//! Two processes share the work. The [`keeper`] opens terminals and is the
//! parent of the programs in them; it does nothing else and so has no reason
//! to die or to be replaced. The node holds copies of the same descriptors,
//! keeps the logs and answers everybody; [`Sessions`] is its handle. Either
//! may be killed at any moment and is started again by the other.
//!
//! ```text
//! <dir>/lock                        one node per directory
//! <dir>/sessions.json               a list for people and other programs
//! <dir>/pruned                      numbers of sessions that were removed
//! <dir>/sessions/<id>/events.jsonl  what happened: the only truth
//! <dir>/sessions/<id>/output.log    what the program wrote
//! <dir>/sessions/<id>/timing        when it wrote it
//! <dir>/sessions/<id>/screen        what its terminal shows, kept now and then
//! ```
//!
//! Files are for their owner alone (0600, directories 0700).

pub mod keeper;

mod attach;
mod desk;
mod disk;
mod front;
mod inner;
mod kill;
mod launch;
mod log;
mod look;
mod messages;
mod news;
mod options;
mod origin;
mod platform;
mod proc;
mod prune;
mod pty;
mod pump;
mod recording;
mod recover;
mod replay;
mod rest;
mod runtime;
mod screen;
mod segments;
mod sessions;
mod snapshot;
mod subscribe;
mod summary;
mod terminal;
mod typist;

use std::time::{SystemTime, UNIX_EPOCH};

pub use attach::{Attachment, CatchUp, How, Seat};
pub use log::{Chunk, From, Reader};
pub use look::Shown;
pub use messages::PendingReply;
pub use options::{LaunchSpec, Options};
pub use recording::{Played, Recording};
pub use rest::give_back_text;
pub use sessions::{Kept, Sessions};
pub use subscribe::{Filter, Notice, Subscription};

/// A moment as unix milliseconds; before 1970 is 0.
fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Now, as unix milliseconds.
fn unix_ms_now() -> u64 {
    unix_ms(SystemTime::now())
}
