//! Clients at the terminal.
use bytes::Bytes;

use super::Reader;

/// One client at a session's terminal. Dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    /// What to write to the client's terminal first.
    pub repaint: Bytes,
    /// The output that follows, without a seam.
    pub reader: Reader,
}
