//! The descriptors of a session, and how descriptors travel between processes.
//!
//! A frame on the socket between keeper and node is `[len u32 BE][json]`.
//! Descriptors ride as `SCM_RIGHTS` on its first byte. The receiver never reads
//! past the end of a frame in one call, so descriptors cannot be taken for
//! those of the next one.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes in the largest frame. An environment with arguments is limited by the
/// system to about 6 MiB (a quarter of the largest stack limit), and JSON may
/// double that.
pub(crate) const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Most descriptors on one frame: a session has four.
const MAX_FDS: usize = 8;

/// One message between keeper and node.
pub(crate) type Frame<T> = (T, Vec<OwnedFd>);

/// What keeps a session alive, held by keeper and node alike.
#[derive(Clone, Debug)]
pub(crate) struct Fds {
    /// The terminal's master side, not blocking.
    pub(crate) master: Arc<OwnedFd>,
    /// Where output waits between terminal and log, its end to read.
    pub(crate) pipe_r: Arc<OwnedFd>,
    /// The same pipe, its end to write.
    pub(crate) pipe_w: Arc<OwnedFd>,
    /// The process, where the system has such descriptors.
    pub(crate) pidfd: Option<Arc<OwnedFd>>,
}

impl Fds {
    /// The descriptors in the order in which they travel.
    pub(crate) fn shared(&self) -> Vec<Arc<OwnedFd>> {
        let three = [&self.master, &self.pipe_r, &self.pipe_w];
        three
            .into_iter()
            .chain(&self.pidfd)
            .map(Arc::clone)
            .collect()
    }

    /// The reverse of [`Fds::shared`]; `None` when some are missing.
    pub(crate) fn from_received(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter().map(Arc::new);
        Some(Self {
            master: fds.next()?,
            pipe_r: fds.next()?,
            pipe_w: fds.next()?,
            pidfd: fds.next(),
        })
    }
}

/// The bytes of a frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let len = bytes.len() - 4;
    if len > MAX_FRAME {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let len = u32::try_from(len).expect("MAX_FRAME fits in 32 bits");
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    Ok(bytes)
}

/// Sends as much of `bytes` as fits, with descriptors on the first one.
pub(crate) fn send_some(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[Arc<OwnedFd>],
) -> io::Result<usize> {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        let slice = [IoSlice::new(bytes)];
        match sendmsg(&socket, &slice, &mut control, SendFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Sends a whole frame on a socket that blocks.
pub(crate) fn send_blocking<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[Arc<OwnedFd>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut sent = send_some(&socket, &bytes, fds)?;
    while sent < bytes.len() {
        sent += send_some(&socket, &bytes[sent..], &[])?;
    }
    Ok(())
}

/// Puts frames together from a socket.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl FrameReader {
    /// The next frame. On a socket that does not block, `None` when it has not
    /// arrived whole. The end of the stream is
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). A frame that is not
    /// understood is [`Other`](io::ErrorKind::Other); the next can be read.
    pub(crate) fn read<T: DeserializeOwned>(
        &mut self,
        socket: impl AsFd,
    ) -> io::Result<Option<Frame<T>>> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                let message = serde_json::from_slice(&self.bytes[4..]);
                self.bytes.clear();
                let fds = std::mem::take(&mut self.fds);
                return Ok(Some((message.map_err(io::Error::other)?, fds)));
            }
            match self.receive(&socket, missing) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes until the header, then the frame, is complete.
    fn missing(&self) -> io::Result<usize> {
        let Some((header, body)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(4 - self.bytes.len());
        };
        let len = u32::from_be_bytes(*header) as usize;
        if len == 0 || len > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(len - body.len())
    }

    fn receive(&mut self, socket: impl AsFd, missing: usize) -> io::Result<usize> {
        let mut part = [0; 16 * 1024];
        let wanted = missing.min(part.len());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slice = [IoSliceMut::new(&mut part[..wanted])];
        let received = recvmsg(socket, &mut slice, &mut control, receive_flags())?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    close_on_exec(&fd)?;
                    self.fds.push(fd);
                }
            }
        }
        self.bytes.extend_from_slice(&part[..received.bytes]);
        Ok(received.bytes)
    }
}

/// Frames that wait to be sent on a socket that does not block.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<(Vec<u8>, usize, Vec<Arc<OwnedFd>>)>,
}

impl Outbox {
    /// Adds a frame. The queue holds a few frames for each session at most.
    pub(crate) fn push<T: Serialize>(
        &mut self,
        message: &T,
        fds: Vec<Arc<OwnedFd>>,
    ) -> io::Result<()> {
        self.frames.push_back((encode(message)?, 0, fds));
        Ok(())
    }

    /// Whether there is something to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sends until the socket takes no more.
    pub(crate) fn flush(&mut self, socket: impl AsFd) -> io::Result<()> {
        while let Some((bytes, sent, fds)) = self.frames.front_mut() {
            let riding: &[_] = if *sent == 0 { fds } else { &[] };
            match send_some(&socket, &bytes[*sent..], riding) {
                Ok(more) => *sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if *sent == bytes.len() {
                self.frames.pop_front();
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn receive_flags() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn receive_flags() -> RecvFlags {
    RecvFlags::empty()
}

/// Where the flag above does not exist, there is a moment in which a process
/// started by another thread inherits the descriptor.
fn close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    if cfg!(not(target_os = "linux")) {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn frames_and_their_descriptors_stay_together() {
        let (left, right) = UnixStream::pair().unwrap();
        let mut pairs = Vec::new();
        for number in 0..20_u32 {
            let (reader, writer) = io::pipe().unwrap();
            let text = "x".repeat(number as usize * 1000);
            let fds = [Arc::new(OwnedFd::from(reader))];
            send_blocking(&left, &(number, text), &fds).unwrap();
            pairs.push(writer);
        }
        drop(left);
        let mut frames = FrameReader::default();
        for (number, mut writer) in pairs.into_iter().enumerate() {
            let ((got, text), fds) = frames.read::<(usize, String)>(&right).unwrap().unwrap();
            assert_eq!((got, text.len()), (number, number * 1000));
            writer.write_all(&[got as u8]).unwrap();
            drop(writer);
            let mut file = std::fs::File::from(fds.into_iter().next().unwrap());
            let mut said = Vec::new();
            file.read_to_end(&mut said).unwrap();
            assert_eq!(said, [got as u8]);
        }
        let end = frames.read::<(usize, String)>(&right).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_outbox_survives_a_full_socket() {
        let (left, right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        right.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        for number in 0..8_u32 {
            outbox
                .push(&(number, "y".repeat(200_000)), Vec::new())
                .unwrap();
        }
        let mut frames = FrameReader::default();
        let mut seen = 0;
        while seen < 8 {
            outbox.flush(&left).unwrap();
            while let Some(((number, _), _)) = frames.read::<(u32, String)>(&right).unwrap() {
                assert_eq!(number, seen);
                seen += 1;
            }
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_frame_that_is_not_understood_does_not_hide_the_next() {
        let (left, right) = UnixStream::pair().unwrap();
        send_blocking(&left, &"words", &[]).unwrap();
        send_blocking(&left, &7, &[]).unwrap();
        let mut frames = FrameReader::default();
        let error = frames.read::<u32>(&right).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Other);
        let (seven, _) = frames.read::<u32>(&right).unwrap().unwrap();
        assert_eq!(seven, 7);
    }

    #[test]
    fn absurd_lengths_are_refused() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&u32::MAX.to_be_bytes()).unwrap();
        let error = FrameReader::default().read::<u32>(&right).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
