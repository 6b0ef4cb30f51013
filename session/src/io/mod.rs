//! Sessions on a real machine: processes, terminals, files.
//!
//! Two processes share the work. The [`keeper`] opens terminals and is the
//! parent of the programs in them; it does nothing else and so has no reason
//! to die or to be replaced. The node holds copies of the same descriptors,
//! keeps the logs and answers everybody; [`Sessions`] is its handle. Either
//! may be killed at any moment and is started again by the other.

pub mod keeper;

mod attach;
mod log;
mod options;
mod sessions;
mod subscribe;

pub use attach::Attachment;
pub use log::{Chunk, From, Reader};
pub use options::{LaunchSpec, Options};
pub use sessions::{PendingReply, Sessions};
pub use subscribe::{Filter, Notice, Subscription};
