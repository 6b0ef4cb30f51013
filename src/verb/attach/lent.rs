//! The node's half of an attachment whose client has lent its terminal.
//!
//! Keys and output are read and shown on the thread that moves output; the connection only carries
//! sizes and the end. Whoever is gone first, client or terminal, ends it, and nothing is written to
//! the terminal after the client was told of the end.

use bytes::Bytes;
use session::io::{Attachment, Chunk, Seat};
use session::{SessionId, SessionRef};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Detached, last_keys, type_in};
use crate::error::{Error, Result};
use crate::node::Context;
use crate::rpc::{Incoming, Receiver};
use crate::term::Detach;
use crate::term::lend::{Display, Keys, Lent};
use crate::verb::{Call, Reply};

/// Keys that are read at a time, in bytes.
const KEYS: usize = 4096;

/// What the client said when its terminal was waited for.
pub(super) enum Word {
    Lent(Lent),
    Unusable,
    LetGo,
}

/// How it ended.
enum End {
    Detached,
    Exited,
}

impl End {
    fn reply(self, context: &Context<'_>, id: SessionId) -> Result<Reply> {
        match self {
            Self::Detached => Ok(Reply::Detached(Detached { id: Some(id.0) })),
            Self::Exited => {
                let info = context.host.sessions.find(&SessionRef::Id(id))?;
                Ok(super::end(&info, context.modern))
            }
        }
    }
}

/// Waits for the terminal.
pub(super) async fn wait(context: &mut Context<'_>) -> Result<Word> {
    let receiver = &mut context.channel.receiver;
    match receiver.next::<Call>().await? {
        None | Some(Incoming::Control(Call::Detach)) => Ok(Word::LetGo),
        Some(Incoming::Control(Call::LendTerminal)) => {
            Ok(match Lent::open(receiver.take_descriptors()) {
                Ok(terminal) => Word::Lent(terminal),
                Err(error) => {
                    tracing::debug!(%error, "a client keeps its terminal");
                    Word::Unusable
                }
            })
        }
        Some(_) => Err(Error::bad_request("LendTerminal was due")),
    }
}

/// Serves the terminal until the end.
pub(super) async fn serve(
    context: &mut Context<'_>,
    id: SessionId,
    attachment: Attachment,
    (terminal, read_only): (Lent, bool),
) -> Result<Reply> {
    let seat = attachment.seat.clone();
    let (input, inputs) = mpsc::channel(16);
    // Ended with this call, however that ends.
    let mut playing = JoinSet::new();
    playing.spawn_on(
        play(attachment, terminal, read_only, (input.clone(), inputs)),
        context.host.sessions.runtime(),
    );
    let ended = tokio::select! {
        let_go = follow(&seat, (read_only, input), &mut context.channel.receiver) => {
            let_go.map(|()| End::Detached)
        }
        ended = playing.join_next() => match ended {
            Some(Ok(ended)) => ended,
            _ => Err(Error::internal("the terminal is no longer served")),
        },
    };
    // From here on the terminal is the client's alone.
    playing.shutdown().await;
    ended?.reply(context, id)
}

/// Hears the client until it lets go or is gone.
async fn follow(
    seat: &Seat,
    (read_only, input): (bool, mpsc::Sender<Bytes>),
    receiver: &mut Receiver,
) -> Result<()> {
    loop {
        match receiver.next::<Call>().await? {
            None | Some(Incoming::Control(Call::Detach)) => return Ok(()),
            // One that cannot be resized ends.
            Some(Incoming::Control(Call::Resize(size))) if !read_only => {
                drop(seat.propose(size.into()));
            }
            Some(Incoming::Control(Call::Resize(_))) => {}
            // Keys that were not read in time, so that the client has read them.
            Some(Incoming::Data(bytes)) if !read_only => drop(input.send(bytes).await),
            Some(_) => return Err(Error::bad_request("the terminal was lent")),
        }
    }
}

/// Reads and shows until the session ends, the chord is typed, or the terminal is gone.
async fn play(
    attachment: Attachment,
    terminal: Lent,
    read_only: bool,
    (input, inputs): (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>),
) -> Result<End> {
    let terminal = terminal.watch()?;
    let seat = attachment.seat.clone();
    tokio::select! {
        // News for the screen first; what is typed is on its way within the same turn.
        biased;
        shown = show(attachment, terminal.screen) => shown,
        () = read(&terminal.keys, read_only, &input) => Ok(End::Detached),
        () = type_in(seat, inputs) => Err(Error::internal("nobody types")),
    }
}

/// As [`super::show`], onto the terminal itself.
async fn show(mut attachment: Attachment, mut screen: Display) -> Result<End> {
    let offset = attachment.reader.offset();
    let repaint = std::mem::take(&mut attachment.repaint);
    if screen.paint(&repaint, offset).await.is_err() {
        return Ok(End::Detached);
    }
    drop(repaint);
    loop {
        let shown = match attachment.catch_up().await? {
            Some(skipped) => screen.paint(&skipped.repaint, skipped.to).await,
            None => match attachment.reader.next().await? {
                Chunk::Bytes { offset, bytes } => screen.show(offset, &bytes).await,
                Chunk::Gap { resume_at } => screen.paint(super::GAP, resume_at).await,
                Chunk::End { .. } => return Ok(End::Exited),
            },
        };
        // Nobody is there to be told more.
        if shown.is_err() {
            return Ok(End::Detached);
        }
    }
}

/// Reads what is typed until the chord, or until the terminal is gone.
async fn read(keys: &Keys, read_only: bool, input: &mpsc::Sender<Bytes>) {
    let mut detach = Detach::default();
    let mut buffer = [0; KEYS];
    loop {
        let Ok(count) = keys.read(&mut buffer).await else {
            return;
        };
        let typed = detach.feed(&buffer[..count]);
        if !read_only && !typed.bytes.is_empty() {
            // When the session takes no more, its end is on the way.
            let _ = input.send(typed.bytes.into()).await;
        }
        if typed.detach || count == 0 {
            return last_keys(input).await;
        }
    }
}
