//! Files over SSH: the subsystem `sftp` (version 3 of the protocol, with OpenSSH's extensions), for
//! `sftp`, `scp` and `sshfs`.
//!
//! A client sends packets, each with a length in front, and gets one answer to each, in their order.
//! Who may start a shell here has every file of its user anyway; this adds no rights, but a door,
//! and the owner opens it (`[node] ssh_sftp`). Files are those of the machine, named from the user's
//! home directory on.
//!
//! What the packets mean is `russh-sftp`'s to know ([`files`]). Its server loop is not used: one that
//! goes on after a packet that is too long, and that cannot be ended, is not for the open.

mod attributes;
mod files;

#[cfg(any(test, feature = "fuzzing"))]
mod anything;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bytes::{Buf as _, Bytes, BytesMut};
use russh::server::Handle;
use russh::{ChannelId, ChannelMsg, ChannelReadHalf};
use tokio::task::spawn_blocking;

use files::Files;

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use anything::hear_anything;

/// The name of the subsystem.
pub(super) const NAME: &str = "sftp";

/// The longest packet without its length, bytes; what OpenSSH takes too.
const MAX_PACKET: usize = 256 * 1024;

/// Bytes that wait to be looked at, at most, and one message. So many small requests fit in that
/// the client is heard even while it does not take its answers.
const MAX_INPUT: usize = 2 * MAX_PACKET;

/// How serving files ended.
pub(super) enum Ended {
    /// The client has said all.
    Well,
    /// It does not speak this protocol.
    Badly,
    /// It is gone.
    Gone,
}

/// Serves files, named from `base` on, until the client ends.
pub(super) async fn serve(
    requests: &mut ChannelReadHalf,
    id: ChannelId,
    handle: &Handle,
    base: PathBuf,
) -> Ended {
    let (mut files, mut input) = (Files::new(base), Input::default());
    loop {
        let packet = match input.packet() {
            Ok(Some(packet)) => packet,
            Ok(None) if input.ended => return Ended::Well,
            Ok(None) if input.hear(requests.wait().await) => continue,
            Ok(None) => return Ended::Gone,
            Err(TooLong) => return Ended::Badly,
        };
        let mut answered = std::pin::pin!(async {
            // Disks may take their time.
            let answered = spawn_blocking(move || (files.answer(packet), files)).await;
            let (answer, files) = answered.ok()?;
            handle.data(id, answer).await.ok()?;
            Some(files)
        });
        let done = loop {
            tokio::select! {
                done = &mut answered => break done,
                message = requests.wait(), if input.has_room() => {
                    if !input.hear(message) {
                        return Ended::Gone;
                    }
                }
            }
        };
        match done {
            Some(back) => files = back,
            None => return Ended::Gone,
        }
    }
}

/// A packet has an impossible length.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

/// What has come and was not looked at.
#[derive(Default)]
struct Input {
    bytes: BytesMut,
    ended: bool,
}

impl Input {
    /// Takes what the client said; false when it has closed the channel, or is gone.
    fn hear(&mut self, message: Option<ChannelMsg>) -> bool {
        match message {
            Some(ChannelMsg::Data { data }) => self.bytes.extend_from_slice(&data),
            Some(ChannelMsg::Eof) => self.ended = true,
            Some(ChannelMsg::Close) | None => return false,
            Some(_) => {}
        }
        true
    }

    fn has_room(&self) -> bool {
        self.bytes.len() < MAX_INPUT && !self.ended
    }

    /// The next whole packet, without its length.
    fn packet(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(length) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(1..=MAX_PACKET).contains(&length) {
            return Err(TooLong);
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        self.bytes.advance(4);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }
}
