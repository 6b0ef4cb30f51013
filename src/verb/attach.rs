//! `cw attach <session>`: your terminal becomes the session's.
//!
//! The answer `Attached` and the first raw frame (a repaint) are taken in one step with the
//! offset where the live stream goes on, so nothing is lost or shown twice at the seam. Then raw
//! frames flow both ways; `Resize` and `Detach` come from the client; `Exited` ends it, after the
//! last byte.
//!
//! A client on the same machine may lend its terminal: it says `lends` in `Attach`, hears `waits`
//! in `Attached`, and sends `LendTerminal` with the descriptors ([`crate::term::lend`]). No raw
//! frames flow then; the rest is the same. `TerminalReturned` says that it could not be used, and
//! all goes on as with any other client.

use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Serialize};
use session::io::{Attachment, Chunk, How, Seat};
use session::{SessionId, Size};

use super::info::Exited;
use super::own::shows_itself;
use super::{Call, Failure, Reply};
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::{Caller, Context};
use crate::rpc::{Incoming, Receiver, Sender};

mod client;
mod lent;

/// How long a client that has let go waits for its last keys to be taken by a program that reads
/// none.
const LAST_KEYS: std::time::Duration = std::time::Duration::from_secs(1);
/// What a client that comes back is sent from where it was, in bytes; behind more it is repainted.
const RESUME_MAX: u64 = 1024 * 1024;
/// Shown in the place of output that is no longer kept.
const GAP: &[u8] = b"\r\n[cw] older output is gone\r\n";

/// Take a session over with your terminal; Ctrl+B d lets it go.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Attach {
    /// The session: its name or number, or node:session; the oldest that nobody is attached to if
    /// left out.
    #[arg(id = "target", value_name = "SESSION", default_value = "", hide_default_value = true,
          value_parser = target, add = super::complete::sessions())]
    #[serde(flatten)]
    pub target: Locator,
    /// Do not show what was printed before.
    #[arg(long)]
    #[serde(default)]
    pub no_history: bool,
    /// Only look: keys are not sent, and the session keeps its size.
    #[arg(short, long)]
    #[serde(default)]
    pub read_only: bool,
    /// The token of a grant, for a session of somebody else's node; only with --read-only.
    #[arg(long, value_name = "TOKEN", requires = "read_only")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Go on from this byte of the output, for a client that has shown what is before it.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<u64>,
    /// As existing clients say it.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_history: Option<bool>,
    /// The socket of the client's SSH agent; never sent to another machine.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_auth_sock: Option<String>,
    /// The size of the client's terminal.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Resize>,
    /// The client wants to lend its terminal, and waits to be asked for it.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lends: bool,
}

/// A terminal's size.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode,
)]
pub struct Resize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Attached {
    /// The session.
    pub id: u32,
    /// Where the live stream goes on, in bytes since the session's start.
    #[serde(default)]
    pub offset: u64,
    /// Bytes of the repaint that comes before it.
    #[serde(default)]
    pub repaint: u64,
    /// The terminal is waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

/// To a client that was far behind: what follows is a repaint.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Repainted {
    /// The first byte of output that was left out.
    pub from: u64,
    /// Where the live stream goes on.
    pub offset: u64,
    /// Bytes of the repaint that comes before it.
    pub repaint: u64,
}

impl From<Resize> for Size {
    fn from(size: Resize) -> Self {
        Self {
            cols: size.cols,
            rows: size.rows,
        }
    }
}

/// The end of an attachment that the client asked for.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Detached {
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
}

impl Attach {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let id = super::find(context, &self.target.session)?.id;
        if matches!(context.caller, Caller::Session(me, _) if me == id) {
            return Err(shows_itself());
        }
        if let Some(socket) = &self.ssh_auth_sock
            && context.caller == Caller::Owner
        {
            context.host.home.offer_agent(socket.as_ref());
        }
        let mut attachment = self.come(context, id)?;
        let waits = self.lends && context.channel.receiver.takes_descriptors();
        let attached = Attached {
            id: id.0,
            offset: attachment.reader.offset(),
            repaint: attachment.repaint.len() as u64,
            waits,
        };
        context
            .channel
            .sender
            .send(&Reply::Attached(attached))
            .await?;
        if waits {
            match lent::wait(context).await? {
                lent::Word::Lent(terminal) => {
                    let how = (terminal, self.read_only);
                    return lent::serve(context, id, attachment, how).await;
                }
                lent::Word::LetGo => return Ok(Reply::Detached(Detached { id: Some(id.0) })),
                lent::Word::Unusable => {
                    context
                        .channel
                        .sender
                        .send(&Reply::TerminalReturned)
                        .await?;
                }
            }
        }
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        if !attachment.repaint.is_empty() {
            sender.send_data(&attachment.repaint).await?;
        }
        let (input, inputs) = tokio::sync::mpsc::channel(16);
        let seat = attachment.seat.clone();
        let typed = type_in(seat.clone(), inputs);
        let steer = steer(&seat, self.read_only, receiver, &input);
        tokio::select! {
            let_go = steer => let_go.map(|()| Reply::Detached(Detached { id: Some(id.0) })),
            shown = show(&mut attachment, sender, context.modern) => {
                shown?;
                let info = context.host.sessions.find(&session::SessionRef::Id(id))?;
                Ok(end(&info, context.modern))
            }
            // Only ever ends by an error that the other two see better.
            () = typed => Err(Error::new("session_ended", "the session takes no more input")),
        }
    }

    /// Takes a place at the terminal, at what the client wants to see first.
    fn come(&self, context: &Context<'_>, id: SessionId) -> Result<Attachment> {
        let how = How {
            read_only: self.read_only,
            size: self.size.map(Size::from),
        };
        let mut attachment = context.host.sessions.attach_as(id, how)?;
        let offset = attachment.reader.offset();
        match self.resume {
            // What the client has missed costs less than showing everything again.
            Some(seen) if seen <= offset && offset - seen <= RESUME_MAX => {
                let from = session::io::From::Offset(seen);
                attachment.reader = context.host.sessions.reader(id, from)?;
                attachment.repaint = Bytes::new();
            }
            _ => {}
        }
        if !self.include_history.unwrap_or(!self.no_history) {
            attachment.repaint = Bytes::new();
        }
        Ok(attachment)
    }
}

/// The last frame: for clients that have not said hello it is the error they know as the end.
fn end(info: &session::Info, modern: bool) -> Reply {
    let exited = Exited::new(info);
    if modern {
        return Reply::Exited(exited);
    }
    Reply::Error(Failure {
        message: format!("session {}", exited.status),
        code: "session_ended".to_owned(),
        hint: None,
    })
}

/// Relays output until the session ends. A client that is far behind is shown what there is to see
/// now instead of all that led there, and is told so.
async fn show(attachment: &mut Attachment, sender: &mut Sender, modern: bool) -> Result<()> {
    loop {
        if let Some(skipped) = attachment.catch_up().await? {
            if modern {
                let told = Repainted {
                    from: skipped.from,
                    offset: skipped.to,
                    repaint: skipped.repaint.len() as u64,
                };
                sender.send(&Reply::Repainted(told)).await?;
            }
            sender.send_data(&skipped.repaint).await?;
        }
        match attachment.reader.next().await? {
            Chunk::Bytes { bytes, .. } => sender.send_data(&bytes).await?,
            Chunk::Gap { .. } => sender.send_data(GAP).await?,
            Chunk::End { .. } => return Ok(()),
        }
    }
}

/// Takes what the client sends until it lets go or is gone.
async fn steer(
    seat: &Seat,
    read_only: bool,
    receiver: &mut Receiver,
    input: &tokio::sync::mpsc::Sender<Bytes>,
) -> Result<()> {
    loop {
        match receiver.next::<Call>().await? {
            None | Some(Incoming::Control(Call::Detach)) => {
                last_keys(input).await;
                return Ok(());
            }
            Some(Incoming::Data(_)) if read_only => {
                return Err(Error::new("denied", "this attachment only reads"));
            }
            // When the session takes no more, its end is on the way.
            Some(Incoming::Data(bytes)) => drop(input.send(bytes).await),
            Some(Incoming::Control(Call::Resize(_))) if read_only => {}
            // So it is when it can no longer be resized.
            Some(Incoming::Control(Call::Resize(size))) => drop(seat.propose(size.into())),
            Some(Incoming::Control(_)) => {
                return Err(Error::bad_request(
                    "only Detach and Resize go with an attachment",
                ));
            }
        }
    }
}

/// Waits for what was typed before the client let go, or was lost, to be typed.
async fn last_keys(input: &tokio::sync::mpsc::Sender<Bytes>) {
    let taken = input.reserve_many(input.max_capacity());
    let _ = tokio::time::timeout(LAST_KEYS, taken).await;
}

/// Types what comes, in order, at the pace of the program; never ends while the session runs.
async fn type_in(seat: Seat, mut inputs: tokio::sync::mpsc::Receiver<Bytes>) {
    while let Some(bytes) = inputs.recv().await {
        if seat.input(bytes).await.is_err() {
            break;
        }
    }
    // The end of the session is told by its output, the end of the client by its stream.
    std::future::pending::<()>().await;
}

/// A session, or the number 0, which no session has: whichever is free.
fn target(text: &str) -> Result<Locator> {
    if text.is_empty() {
        return Ok(Locator::default());
    }
    text.parse()
}
