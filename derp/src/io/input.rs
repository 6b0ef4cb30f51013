//! The bytes a connection has received and not yet taken apart.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Error;
use crate::frame::{self, Frame, Receives};

/// What one read may bring while the connection is quiet. There may be
/// thousands of quiet ones.
const SMALL: usize = 512;
/// What one read may bring while the connection is busy.
const LARGE: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Input {
    side: Receives,
    bytes: BytesMut,
    /// How much the next read may bring.
    want: usize,
}

impl Input {
    /// `bytes` were received before, with the HTTP upgrade.
    pub(super) const fn new(side: Receives, bytes: BytesMut) -> Self {
        Self {
            side,
            bytes,
            want: SMALL,
        }
    }

    /// Reads once; how many bytes came. May be dropped at any time without
    /// losing any.
    ///
    /// # Errors
    ///
    /// What the connection says; [`Error::Closed`] at its end.
    pub(super) async fn read(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<usize, Error> {
        self.bytes.reserve(self.want);
        let room = self.bytes.capacity() - self.bytes.len();
        let read = io.read_buf(&mut self.bytes).await?;
        if read == 0 {
            return Err(Error::Closed("the other side hung up"));
        }
        if read == room {
            self.want = (self.want * 2).min(LARGE);
        }
        Ok(read)
    }

    /// The first frame, if it is all there, and how many bytes to
    /// [`Input::consume`] for it.
    pub(super) fn peek(&self) -> Result<Option<(Frame<'_>, usize)>, Error> {
        frame::decode(self.side, &self.bytes)
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.bytes.advance(len);
    }

    /// Takes the first `len` bytes out, without copying them.
    pub(super) fn split(&mut self, len: usize) -> Bytes {
        self.bytes.split_to(len).freeze()
    }

    /// Gives memory back after a quiet while.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.want = SMALL;
        }
    }

    /// Reads until the first frame is all there.
    pub(super) async fn frame(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Result<(Frame<'_>, usize), Error> {
        while self.peek()?.is_none() {
            self.read(io).await?;
        }
        self.peek()?
            .ok_or(Error::Protocol("a frame that was there is gone"))
    }
}
