//! Agents in terminals that outlive you.
//!
//! A session is a program in a pseudo-terminal with everything it wrote and
//! everything that was said to it. It is launched, it runs, it ends; between
//! launch and end anybody may come, look, type and leave, and any of our own
//! processes may die without the session noticing.
//!
//! # Life of a session
//!
//! 1. **Launch.** The node reserves a number and a name, writes
//!    `session.created` into `sessions/<id>/events.jsonl` and asks the keeper
//!    to start the program. The keeper opens the terminal, becomes the
//!    program's parent and shares the descriptors.
//! 2. **Run.** Output moves from the terminal through a pipe into
//!    `sessions/<id>/output.log` inside the kernel; the byte offset in that
//!    file is the position of every reader. Nothing that the program wrote
//!    waits in a process that may die.
//! 3. **End.** The program exits; the terminal is drained to its end; the
//!    outcome is written as `session.status`; readers get the last byte, then
//!    the end, once.
//!
//! What is not here: machines other than this one. A caller may say that a
//! message comes from or goes to another node; how it travels is not our
//! concern.
//!
//! Everything outside [`io`] is pure: it takes the time and random bytes as
//! arguments and touches neither files nor processes.

pub mod ask;
pub mod engine;
pub mod error;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod harmless;
pub mod id;
pub mod inbox;
#[cfg(feature = "io")]
pub mod io;
pub mod message;
pub mod name;
pub mod party;
pub mod record;
pub mod screen;
pub mod seats;
pub mod session;
pub mod size;
pub mod status;
pub mod tag;
pub mod time;
pub mod timing;
pub mod typing;

pub use error::Error;
pub use event::{Created, Event, EventKind, EventType, Exited, OutputSummary};
pub use harmless::{hanging, harmless};
pub use id::{MessageId, MessageKind, SessionId};
pub use message::{Delivery, InboxItem, MAX_BODY, Message, Progress, Receipt, RequestState, Step};
pub use name::{Name, SessionRef};
pub use party::Party;
pub use size::Size;
pub use status::{Brief, Ended, Info, Outcome, Status, Usage};
pub use tag::Tag;
