//! Messages that a client sends back to back are acknowledged together.
//!
//! A client of the local socket may write many calls before it reads an answer; the answers come
//! in the order of the calls. Of those, messages to sessions of this node that nothing is waited
//! for (they are not typed, and the client does not ask to be told more) are decided and written
//! one after the other as they come. The disk and the socket are waited for once for all of them:
//! when nothing more has come, when another kind of call has, or when [`MOST`] are unanswered. So
//! neither a write to the socket nor, with `sync = "always"`, one to the disk is paid for each.

use std::sync::Arc;

use session::io::Kept;

use super::serve::own_session;
use super::{Caller, Host, Judge};
use crate::error::Result;
use crate::rpc::Channel;
use crate::rpc::frame::Frame;
use crate::verb::{Call, Failure, Reply, sending};

/// Messages that are acknowledged together at most: the first does not wait for long.
const MOST: usize = 512;

/// What is written and not acknowledged yet. Its answers are in the sender of the channel.
#[derive(Debug, Default)]
pub(super) struct Batch {
    count: usize,
    kept: Kept,
}

impl Batch {
    /// The next frame; before it is waited for, what there is is acknowledged.
    ///
    /// # Errors
    ///
    /// What the channel says.
    pub(super) async fn next_frame(
        &mut self,
        host: &Host,
        channel: &mut Channel,
    ) -> Result<Option<Frame>> {
        if self.count < MOST
            && let Some(frame) = channel.receiver.frame_at_hand().transpose()
            && frame.is_ok()
        {
            return frame.map(Some);
        }
        self.settle(host, channel).await?;
        // What is no frame is told here again.
        channel.receiver.next_frame().await
    }

    /// Takes a call if it is such a message; another is returned.
    ///
    /// # Errors
    ///
    /// `frame_too_large` for the answer.
    pub(super) fn take(
        &mut self,
        host: &Arc<Host>,
        caller: &Caller,
        call: Call,
        channel: &mut Channel,
    ) -> Result<Option<Call>> {
        let Call::MsgSend(msg) = &call else {
            return Ok(Some(call));
        };
        let acting = caller.acting(msg.from.as_ref(), &host.name(), |from| {
            own_session(host, from)
        });
        let Ok(acting) = acting else {
            return Ok(Some(call));
        };
        let judge = Judge {
            host: Arc::clone(host),
            caller: caller.clone(),
            acting,
            grant: None,
        };
        let Some(written) = sending::at_once(&judge, msg) else {
            return Ok(Some(call));
        };
        let reply = match written {
            Ok((sent, kept)) => {
                self.kept = self.kept.max(kept);
                Reply::MsgSent(sent)
            }
            Err(error) => Reply::Error(Failure::from(error)),
        };
        self.count += 1;
        channel.sender.put_off(&reply)?;
        Ok(None)
    }

    /// Acknowledges what was taken.
    ///
    /// # Errors
    ///
    /// `connection_lost` when the client is gone. What it sent is kept.
    pub(super) async fn settle(&mut self, host: &Host, channel: &mut Channel) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let Self { kept, .. } = std::mem::take(self);
        host.sessions.kept(kept).await;
        channel.sender.flush().await
    }
}
