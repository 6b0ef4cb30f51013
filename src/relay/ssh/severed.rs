//! A stream that ends when it is told to, whoever has it and whatever they do with it.
//!
//! The SSH library serves a connection in a task of its own, which hears nothing but the connection
//! itself while keys are exchanged. So to be rid of somebody who stalls there the stream is ended
//! below it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// See the module.
pub(super) struct Severed<S> {
    stream: S,
    told: oneshot::Receiver<()>,
    is_over: bool,
}

/// The stream goes on until this is dropped.
pub(super) struct Held(
    #[expect(dead_code, reason = "that it is dropped is all")] oneshot::Sender<()>,
);

impl<S> Severed<S> {
    pub(super) fn new(stream: S) -> (Self, Held) {
        let (sender, told) = oneshot::channel();
        let severed = Self {
            stream,
            told,
            is_over: false,
        };
        (severed, Held(sender))
    }

    /// Whether it has ended; else whoever asks is woken when it does. Both directions are polled by
    /// one task.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_over = self.is_over || Pin::new(&mut self.told).poll(cx).is_ready();
        self.is_over
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn it_ends_for_who_waits_and_who_comes() {
        let (near, mut far) = duplex(8);
        let (mut severed, held) = Severed::new(near);
        far.write_all(b"one").await.unwrap();
        let mut three = [0; 3];
        severed.read_exact(&mut three).await.unwrap();
        severed.write_all(b"two").await.unwrap();
        let waiting = tokio::spawn(async move {
            let read = severed.read(&mut [0; 1]).await.unwrap();
            (read, severed.write(b"x").await.unwrap_err().kind())
        });
        tokio::task::yield_now().await;
        drop(held);
        assert_eq!(waiting.await.unwrap(), (0, io::ErrorKind::BrokenPipe));
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"two");
    }
}
