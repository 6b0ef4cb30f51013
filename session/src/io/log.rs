//! The output log and its readers.
use bytes::Bytes;

use crate::{Error, Status};

/// Where a reader starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum From {
    /// At the first byte still kept.
    Start,
    /// At this byte; before the first one kept there is a gap, after the last
    /// one it waits.
    Offset(u64),
    /// At the beginning of the last lines, at most this many.
    TailLines(usize),
    /// At most this many bytes before the end.
    TailBytes(u64),
    /// At the end: only what comes from now on.
    End,
}

/// What a reader finds next.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// Output, at most 64 KiB.
    Bytes {
        /// The position of the first byte in the log.
        offset: u64,
        /// The output as the program wrote it.
        bytes: Bytes,
    },
    /// What was to be read next is no longer kept.
    Gap {
        /// Where reading goes on.
        resume_at: u64,
    },
    /// There is no more and never will be.
    End {
        /// Bytes in the whole log.
        offset: u64,
        /// How the session ended.
        status: Status,
    },
}

/// A cursor into the output of one session. However slow it is, it misses
/// nothing that is still kept, and it costs nobody anything while it waits.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// The next piece of output; waits for it. After the last byte comes
    /// [`Chunk::End`], once.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] when called after the end was delivered;
    /// [`Error::Io`] when the log cannot be read.
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn next(&mut self) -> Result<Chunk, Error> {
        Err(Error::Protocol("not built yet".into()))
    }

    /// What is there now; `None` when that would mean waiting.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn try_next(&mut self) -> Result<Option<Chunk>, Error> {
        Err(Error::Protocol("not built yet".into()))
    }

    /// The position of the next byte this reader will return.
    #[must_use]
    pub fn offset(&self) -> u64 {
        0
    }
}
