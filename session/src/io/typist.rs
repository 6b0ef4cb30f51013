//! Types messages into the program of a session, one after the other.
//!
//! The order on disk is the order of typing. Before a message is typed that is
//! written down, and after it what came of it: a node that dies in between
//! leaves a message of which its successor says that it cannot be told, and
//! types it no second time.
//!
//! ```text
//! keys ── the program has read them ── it has been quiet ── Enter ── the text
//! is gone from the box: submitted. It is not: once more, after a longer pause.
//! ```

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::desk::Desk;
use super::inner::Inner;
use super::terminal::Terminal;
use super::{screen, unix_ms_now};
use crate::typing::{self, Look};
use crate::{Error, EventKind, Message, MessageId, Receipt, Step};

/// How often a terminal is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long a program may read nothing before it is not waited for.
const STUCK: Duration = Duration::from_secs(2);

/// The pause between the last character and Enter: programs take an Enter
/// within 120 ms of a burst for a part of it.
const PAUSE: Duration = Duration::from_millis(250);

/// How long the program must have shown nothing new before Enter.
const QUIET: Duration = Duration::from_millis(120);

/// The longest wait for that; some programs are never quiet.
const BUSY: Duration = Duration::from_secs(1);

/// The pause before Enter is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a program may take to show that it has taken its input.
const TAKES: Duration = Duration::from_secs(3);

/// How long a question must stand on the screen before a message is refused
/// because of it: it may have been answered, and we have not read that yet.
const STANDS: Duration = Duration::from_millis(500);

/// How long output that is there, and that we have not read, is waited for.
const UNSEEN: Duration = Duration::from_secs(8);

/// What came of typing.
type Outcome = (Step, Option<String>);

/// Types what is to be typed, until the program has ended.
pub(super) async fn run(inner: Weak<Inner>, desk: Arc<Desk>, terminal: Arc<Terminal>) {
    let mut exit = terminal.exit();
    let typing = async {
        loop {
            let next = inner.upgrade().and_then(|inner| next(&inner, &desk));
            match next {
                Some((message, true)) => {
                    let why = "the node ended while it was typing".to_owned();
                    record(&inner, &desk, message, (Step::Unverified, Some(why)));
                }
                Some((message, false)) => one(&inner, &desk, &terminal, message).await,
                None if inner.strong_count() == 0 => return,
                None => desk.to_type.notified().await,
            }
        }
    };
    tokio::select! {
        () = typing => {}
        _ = exit.wait_for(Option::is_some) => {}
    }
}

fn next(inner: &Inner, desk: &Desk) -> Option<(MessageId, bool)> {
    let engine = inner.engine.lock();
    engine.get(desk.id).ok()?.inbox.next_to_type()
}

async fn one(inner: &Weak<Inner>, desk: &Arc<Desk>, terminal: &Terminal, id: MessageId) {
    let Some(message) = inner.upgrade().and_then(|inner| inner.message(desk.id, id)) else {
        return record(
            inner,
            desk,
            id,
            (Step::Refused, Some("it cannot be read".to_owned())),
        );
    };
    record(inner, desk, id, (Step::Typing, None));
    let injected = || record(inner, desk, id, (Step::Injected, None));
    let outcome = match type_in(desk, terminal, &message, injected).await {
        Ok(outcome) => outcome,
        Err(error) => (Step::Unverified, Some(error.to_string())),
    };
    record(inner, desk, id, outcome);
}

/// Writes a step down. A disk that takes no more stops no typing; the message
/// must then not be typed again by this node.
fn record(inner: &Weak<Inner>, desk: &Desk, id: MessageId, (step, reason): Outcome) {
    let Some(inner) = inner.upgrade() else { return };
    let receipt = Receipt {
        messages: vec![id],
        step,
        reason,
    };
    if let Err(error) = inner.receipt(desk.id, receipt.clone()) {
        tracing::warn!(%error, session = %desk.id, "what became of a message is not recorded");
        inner.engine.lock().handle_unrecorded(desk.id, &receipt);
    }
}

impl Inner {
    /// Makes true that something has become of messages to a session.
    pub(super) fn receipt(
        &self,
        session: crate::SessionId,
        receipt: Receipt,
    ) -> Result<Option<u64>, Error> {
        let mut engine = self.engine.lock();
        match engine.handle_receipt(session, receipt, unix_ms_now())? {
            Some(event) => self.write(&mut engine, event).map(|(flush, _)| Some(flush)),
            None => Ok(None),
        }
    }

    fn message(&self, session: crate::SessionId, id: MessageId) -> Option<Message> {
        let place = self.engine.lock().get(session).ok()?.inbox.find(id)?;
        match self.read_event(session, place).ok()?.kind {
            EventKind::Message(message) => Some(message),
            _ => None,
        }
    }
}

async fn type_in(
    desk: &Arc<Desk>,
    terminal: &Terminal,
    message: &Message,
    injected: impl Fn(),
) -> Result<Outcome, Error> {
    let text = typing::text(message);
    let Ready {
        before,
        lines,
        mut keys,
    } = match ready(desk, terminal, &text).await? {
        Ok(ready) => ready,
        Err(why) => return Ok((Step::Refused, Some(why))),
    };
    if lines {
        // Whole lines are handed over; there is no box.
        keys.push(b'\r');
        terminal.input(keys.into()).await?;
        if !is_read(terminal).await {
            return Ok(unread());
        }
        injected();
        return Ok((Step::Submitted, None));
    }
    // What others type must not come between the text and its Enter.
    let turn = terminal.turn().await;
    turn.input(keys.into()).await?;
    if !is_read(terminal).await {
        return Ok(unread());
    }
    injected();
    settle(desk).await;
    let typed = look(desk).await?;
    if let Some(line) = typing::menu_over(&typed, &text) {
        return Ok(menu(&line));
    }
    turn.input((&b"\r"[..]).into()).await?;
    drop(turn);
    if shows_submission(desk, terminal, &before, &typed).await? {
        return Ok((Step::Submitted, None));
    }
    sleep(AGAIN).await;
    let now = look(desk).await?;
    if typing::is_submitted(&before, &typed, &now) {
        return Ok((Step::Submitted, None));
    }
    if let Some(line) = typing::menu_over(&now, &text) {
        return Ok(menu(&line));
    }
    terminal.input((&b"\r"[..]).into()).await?;
    if shows_submission(desk, terminal, &before, &typed).await? {
        return Ok((Step::Submitted, None));
    }
    let why = "the screen does not show that the program has taken it".to_owned();
    Ok((Step::Unverified, Some(why)))
}

/// A program that may be typed into.
struct Ready {
    before: Look,
    /// It reads whole lines.
    lines: bool,
    keys: Vec<u8>,
}

/// Looks whether a text may be typed now, or says why not. A question that is
/// on the screen, and a screen that is behind, are looked at again as something
/// comes.
async fn ready(
    desk: &Arc<Desk>,
    terminal: &Terminal,
    text: &str,
) -> Result<Result<Ready, String>, Error> {
    let mut changes = desk.log.subscribe();
    let start = Instant::now();
    loop {
        changes.borrow_and_update();
        let before = look(desk).await?;
        let manner = terminal.manner()?;
        let keys = typing::keys(text, before.pastes && !manner.lines);
        let front = terminal.front();
        let refusal = typing::refusal(&before, manner, front.as_deref(), keys.len());
        let unseen = terminal.has_output() || changes.has_changed().unwrap_or(false);
        let stands = match &refusal {
            // What has been written since may be a question.
            None if unseen => STANDS,
            None => Duration::ZERO,
            Some(refusal) if !refusal.may_pass => Duration::ZERO,
            // A disk that takes nothing keeps us from reading on.
            Some(_) if unseen => UNSEEN,
            Some(_) if terminal.unread() > 0 => STUCK,
            Some(_) => STANDS,
        };
        let left = stands.saturating_sub(start.elapsed());
        if !left.is_zero() {
            // Without a change it is looked at once more, at the end.
            let _ = timeout(left.min(STANDS), changes.changed()).await;
            continue;
        }
        return Ok(match refusal {
            Some(refusal) => Err(refusal.why),
            None => Ok(Ready {
                before,
                lines: manner.lines,
                keys,
            }),
        });
    }
}

fn menu(line: &str) -> Outcome {
    let why = format!("a menu came up while it was typed, and Enter would choose from it: {line}");
    (Step::Unverified, Some(why))
}

fn unread() -> Outcome {
    let why = "the program has not read it yet".to_owned();
    (Step::Unverified, Some(why))
}

/// Waits until the program has read all that was typed, for as long as it reads
/// on.
async fn is_read(terminal: &Terminal) -> bool {
    let mut before = u64::MAX;
    let mut since = Instant::now();
    loop {
        let unread = terminal.unread();
        if unread == 0 {
            return true;
        }
        if unread < before {
            (before, since) = (unread, Instant::now());
        } else if since.elapsed() > STUCK {
            return false;
        }
        sleep(LOOK).await;
    }
}

/// Waits until the program has shown what it has read.
async fn settle(desk: &Desk) {
    sleep(PAUSE).await;
    let start = Instant::now();
    let mut end = desk.log.state().end;
    let mut since = Instant::now();
    while since.elapsed() < QUIET && start.elapsed() < BUSY {
        sleep(LOOK).await;
        let now = desk.log.state().end;
        if now != end {
            (end, since) = (now, Instant::now());
        }
    }
}

async fn shows_submission(
    desk: &Arc<Desk>,
    terminal: &Terminal,
    before: &Look,
    typed: &Look,
) -> Result<bool, Error> {
    if !is_read(terminal).await {
        return Ok(false);
    }
    let start = Instant::now();
    let mut seen = None;
    while start.elapsed() < TAKES {
        let end = desk.log.state().end;
        if seen != Some(end) {
            seen = Some(end);
            let now = look(desk).await?;
            if typing::is_submitted(before, typed, &now) {
                return Ok(true);
            }
        }
        sleep(LOOK).await;
    }
    Ok(false)
}

/// What the session shows now.
async fn look(desk: &Arc<Desk>) -> Result<Look, Error> {
    let looking = Arc::clone(desk);
    // There may be much to read before.
    let looked = tokio::task::spawn_blocking(move || looking.screen.look(Look::of));
    let (look, answers) = looked.await.map_err(|_| Error::ShuttingDown)??;
    if !answers.is_empty() {
        let desk = Arc::clone(desk);
        // Not waited for: whoever looks may have the turn to type.
        tokio::spawn(async move { screen::answer(&desk, answers).await });
    }
    Ok(look)
}
