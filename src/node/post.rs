//! The post of a node: messages to other nodes, kept until they are there.
//!
//! What is put in is on disk before its sender is told ([`journal`]), is carried in order
//! ([`lane`]), and what became of it can be asked for as long as the outbox remembers it
//! ([`outbox`]). A message may go out more than once and is kept once: its id tells.
//!
//! A reply is settled before it is put in, and cannot be taken back when the disk has no room for
//! it here. It is late then: it is put in before any other letter to that node.

pub(crate) mod journal;
mod lane;
pub(crate) mod outbox;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::NodeKey;
use parking_lot::Mutex;
use session::io::Sessions;
use session::{MessageId, Party, Receipt, SessionId, Step};
use tokio::sync::{Notify, watch};

use self::journal::Journal;
pub use self::outbox::{Answer, Letter, Record, State};
use self::outbox::{Change, Outbox};
use super::Host;
use super::network::Network;
use super::proxy::{self, Envelope};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::locator::Session;
use crate::show;
use crate::verb::deliver::{Deliver, Parcel};
use crate::verb::{Call, Reply};

/// How long a letter that is not to wait may take.
const NOW: Duration = Duration::from_secs(10);

/// How often it is tried whether there is room.
const ROOM: Duration = Duration::from_secs(1);

/// How long changes gather before the disk is asked to keep them.
const GATHER: Duration = Duration::from_millis(50);

/// See the module.
pub struct Post {
    books: Mutex<Books>,
    changed: watch::Sender<()>,
    /// Who carries to which node, and how to wake it.
    lanes: Mutex<HashMap<String, Arc<Notify>>>,
    /// Written and not yet brought to the disk.
    dirty: Arc<(Mutex<Option<Arc<File>>>, Notify)>,
    always: bool,
    /// When it was opened, and what the clock said then, unix milliseconds.
    opened: (Instant, u64),
    /// Whose logs say what became of what they sent.
    sessions: Sessions,
}

struct Books {
    journal: Journal,
    outbox: Outbox,
    /// Letters that have to go out and are not in the outbox yet, in their order.
    late: Vec<Letter>,
}

impl Books {
    /// What puts the late letters to a node in.
    fn late_for(&self, node: &str) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for letter in self.late.iter().filter(|letter| letter.node == node) {
            match self.outbox.handle_letter(letter.clone()) {
                Ok(change) => changes.extend(change),
                // It never will be.
                Err(error) if error.code == "id_taken" => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changes)
    }
}

impl Post {
    /// Reads the outbox back. Needs a tokio runtime.
    pub(super) fn open(home: &Home, always: bool, sessions: Sessions) -> Result<Self> {
        let (journal, outbox) = Journal::open(home.outbox())?;
        let dirty = Arc::new((Mutex::new(None), Notify::new()));
        tokio::spawn(flush(Arc::downgrade(&dirty)));
        Ok(Self {
            books: Mutex::new(Books {
                journal,
                outbox,
                late: Vec::new(),
            }),
            changed: watch::Sender::new(()),
            lanes: Mutex::default(),
            dirty,
            always,
            opened: (Instant::now(), show::now_ms()),
            sessions,
        })
    }

    /// Takes up what was left. Before anybody can put more in.
    pub(super) async fn start(&self, host: &Arc<Host>) {
        self.recover_replies(host).await;
        let nodes: BTreeSet<String> = {
            let books = self.books.lock();
            let waiting = books.outbox.iter().filter(|record| record.state.waits());
            waiting.map(|record| record.letter.node.clone()).collect()
        };
        for node in nodes {
            self.wake(host, &node);
        }
    }

    /// Takes replies up that a crash has kept from the outbox.
    async fn recover_replies(&self, host: &Arc<Host>) {
        let since = show::now_ms().saturating_sub(outbox::KEEP);
        for reply in host.sessions.foreign_replies(since) {
            if self.get(reply.id).is_some() {
                continue;
            }
            if let Some(letter) = letter_of(&reply) {
                self.put_surely(host, letter).await;
            }
        }
    }

    /// Puts a letter in that has to go out; as soon as the disk has room for it, should it have none.
    /// If this node ends before, the next start makes up for it.
    pub async fn put_surely(&self, host: &Arc<Host>, letter: Letter) {
        let Err(error) = self.put(host, letter.clone()).await else {
            return;
        };
        tracing::warn!(%error, "a reply is not in the outbox yet");
        if error.code == "id_taken" {
            return;
        }
        let node = letter.node.clone();
        let first = {
            let late = &mut self.books.lock().late;
            let first = late.iter().all(|letter| letter.node != node);
            if late.iter().all(|other| other.id != letter.id) {
                late.push(letter);
            }
            first
        };
        if first {
            tokio::spawn(put_late(Arc::downgrade(host), node));
        }
    }

    /// The network has changed: now may be the time.
    pub(super) fn handle_news(&self) {
        self.lanes
            .lock()
            .values()
            .for_each(|lane| lane.notify_one());
    }

    /// Puts a letter in; it is kept when this returns. One that is known is not put in again.
    ///
    /// # Errors
    ///
    /// `outbox_full`, `body_too_large`, `id_taken`, `disk_full`.
    pub async fn put(&self, host: &Arc<Host>, letter: Letter) -> Result<()> {
        let node = letter.node.clone();
        self.change_books(|books| {
            let mut changes = books.late_for(&node)?;
            if books.late.iter().all(|late| late.id != letter.id) {
                changes.extend(books.outbox.handle_letter(letter)?);
            }
            Ok(changes)
        })
        .await?;
        self.wake(host, &node);
        Ok(())
    }

    /// Carries a letter at once or not at all. What was not confirmed may have arrived.
    ///
    /// # Errors
    ///
    /// `node_down` also when others wait for that node; why it is refused.
    pub async fn send_now(&self, host: &Arc<Host>, letter: Letter) -> Result<Record> {
        let node = letter.node.clone();
        let others = {
            let books = self.books.lock();
            !books.outbox.next_for(&node, 1, 1).is_empty()
                || books.late.iter().any(|late| late.node == node)
        };
        if others {
            return Err(Error::new(
                "node_down",
                format!("messages wait for {node} already"),
            ));
        }
        let call = Call::MsgDeliver(Deliver {
            parcels: vec![Parcel::from(&letter)],
        });
        let reply = self.ask(host, &node, call, NOW).await?;
        let Reply::MsgDelivered(delivered) = reply else {
            return Err(reply.unexpected());
        };
        let outcome = delivered.outcomes.into_iter().next().unwrap_or_default();
        if outcome.state != "delivered" {
            let code = outcome.code.unwrap_or_else(|| "refused".to_owned());
            return Err(Error::new(&code, outcome.reason.unwrap_or_default()));
        }
        Ok(Record {
            letter,
            state: State::Delivered,
            code: None,
            reason: None,
            got_by: outcome.got_by,
            answer: None,
        })
    }

    /// Asks another node something short, as the owner of this one.
    ///
    /// # Errors
    ///
    /// As the other node says, or why it cannot be asked.
    pub async fn ask(
        &self,
        host: &Arc<Host>,
        node: &str,
        call: Call,
        limit: Duration,
    ) -> Result<Reply> {
        let network = host.network()?;
        let envelope = Envelope {
            session: None,
            grant: None,
            call,
        };
        proxy::ask(&network, node, &envelope, limit).await
    }

    /// A reply has come from a session of another node.
    ///
    /// # Errors
    ///
    /// `request_not_found`, `not_addressee`, `disk_full`.
    pub async fn answer(
        &self,
        request: MessageId,
        node: (&str, NodeKey),
        answer: Answer,
    ) -> Result<()> {
        self.change(|outbox| {
            Ok(outbox
                .handle_answer(request, node, answer)?
                .into_iter()
                .collect())
        })
        .await
    }

    /// Whether a reply would be taken, and for which session.
    ///
    /// # Errors
    ///
    /// As [`Self::answer`].
    pub fn check_answer(
        &self,
        request: MessageId,
        node: (&str, NodeKey),
        answer: &Answer,
    ) -> Result<Option<(u32, Option<String>)>> {
        let books = self.books.lock();
        books.outbox.handle_answer(request, node, answer.clone())?;
        Ok(books
            .outbox
            .get(request)
            .and_then(|record| record.letter.from.clone()))
    }

    /// A letter and what became of it.
    #[must_use]
    pub fn get(&self, id: MessageId) -> Option<Record> {
        let books = self.books.lock();
        let late = || books.late.iter().find(|letter| letter.id == id).map(shown);
        books.outbox.get(id).cloned().or_else(late)
    }

    /// How many letters wait to be carried.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let books = self.books.lock();
        books.outbox.iter().filter(|r| r.state.waits()).count()
    }

    /// The last letters in order; of one session, or of all.
    #[must_use]
    pub fn list(&self, from: Option<u32>, tail: usize) -> Vec<Record> {
        let books = self.books.lock();
        let of = |letter: &Letter| {
            let sender = letter.from.as_ref().map(|(id, _)| *id);
            from.is_none() || sender == from
        };
        let late = books
            .late
            .iter()
            .rev()
            .filter(|letter| of(letter))
            .map(shown);
        let kept = books.outbox.iter().rev();
        let kept = kept.filter(|record| of(&record.letter)).cloned();
        let mut found: Vec<_> = late.chain(kept).take(tail).collect();
        found.reverse();
        found
    }

    /// Waits until a letter is where it should be. May be cancelled.
    ///
    /// # Errors
    ///
    /// `request_not_found` when it is not (any more) in the outbox.
    pub async fn until(&self, id: MessageId, done: impl Fn(&Record) -> bool) -> Result<Record> {
        let mut news = self.changed.subscribe();
        loop {
            news.borrow_and_update();
            let record = self.get(id);
            let record = record.ok_or_else(|| session::Error::RequestNotFound(id.to_string()))?;
            if done(&record) {
                return Ok(record);
            }
            // The sender lives as long as we do.
            let _ = news.changed().await;
        }
    }

    /// The time by which letters are too old, unix milliseconds.
    fn age_ms(&self) -> u64 {
        let (opened, opened_ms) = self.opened;
        not_ahead(show::now_ms(), opened_ms, opened.elapsed())
    }

    fn wake(&self, host: &Arc<Host>, node: &str) {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(node) {
            return lane.notify_one();
        }
        let bell = Arc::new(Notify::new());
        lanes.insert(node.to_owned(), Arc::clone(&bell));
        tokio::spawn(lane::carry(Arc::downgrade(host), node.to_owned(), bell));
    }

    /// Tells the session that sent a letter what has become of it.
    fn tell(&self, record: Option<&Record>, step: Step, reason: Option<String>) {
        let Some(record) = record else { return };
        let Some((sender, _)) = &record.letter.from else {
            return;
        };
        let receipt = Receipt {
            messages: vec![record.letter.id],
            step,
            reason,
        };
        // The session may be gone with its log; the outbox knows it all the same.
        if let Err(error) = self.sessions.under_way(SessionId(*sender), receipt) {
            tracing::debug!(%error, "what became of a message is in the outbox alone");
        }
    }

    /// Decides, writes down and makes true.
    async fn change(&self, decide: impl FnOnce(&Outbox) -> Result<Vec<Change>>) -> Result<()> {
        self.change_books(|books| decide(&books.outbox)).await
    }

    /// As [`Self::change`], with what is late in sight.
    async fn change_books(&self, decide: impl FnOnce(&Books) -> Result<Vec<Change>>) -> Result<()> {
        let file = {
            let mut books = self.books.lock();
            let changes = decide(&books)?;
            if changes.is_empty() {
                return Ok(());
            }
            let file = books.journal.append(&changes)?;
            for change in changes {
                let told = change.step();
                books.outbox.apply(change);
                if let Some((id, step, reason)) = told {
                    self.tell(books.outbox.get(id), step, reason);
                }
            }
            let Books {
                journal,
                outbox,
                late,
            } = &mut *books;
            late.retain(|letter| outbox.get(letter.id).is_none());
            if let Err(error) = journal.compact(outbox) {
                tracing::warn!(%error, "the outbox stays long");
            }
            file
        };
        self.changed.send_replace(());
        if self.always {
            let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
            return Ok(synced.map_err(Error::internal)??);
        }
        *self.dirty.0.lock() = Some(file);
        self.dirty.1.notify_one();
        Ok(())
    }
}

/// What the clock says, but no more than has gone by since the node was started: a clock that is set
/// wrong while letters wait makes none of them too old.
fn not_ahead(now_ms: u64, opened_ms: u64, since: Duration) -> u64 {
    let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    now_ms.min(opened_ms.saturating_add(since))
}

/// A letter that is not in the outbox yet, as those are shown that are.
fn shown(letter: &Letter) -> Record {
    Record {
        letter: letter.clone(),
        state: State::Queued,
        code: Some("disk_full".to_owned()),
        reason: Some("it waits for room on the disk of its own node".to_owned()),
        got_by: None,
        answer: None,
    }
}

/// Puts the late letters to a node in, when there is room.
async fn put_late(host: std::sync::Weak<Host>, node: String) {
    loop {
        tokio::time::sleep(ROOM).await;
        let Some(host) = host.upgrade() else { return };
        let put = host.post.change_books(|books| books.late_for(&node)).await;
        match put {
            Ok(()) => return host.post.wake(&host, &node),
            Err(error) => tracing::debug!(%error, %node, "replies are not in the outbox yet"),
        }
    }
}

/// Brings what was written to the disk, a little later.
async fn flush(dirty: std::sync::Weak<(Mutex<Option<Arc<File>>>, Notify)>) {
    while let Some(shared) = dirty.upgrade() {
        // Looks again now and then whether there is still an outbox.
        let _ = tokio::time::timeout(Duration::from_secs(60), shared.1.notified()).await;
        tokio::time::sleep(GATHER).await;
        let Some(file) = shared.0.lock().take() else {
            continue;
        };
        drop(shared);
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        if let Ok(Err(error)) = synced {
            tracing::error!(%error, "the disk may have lost what was written");
        }
    }
}

/// The letter for a reply that is to go to another node.
#[must_use]
pub fn letter_of(reply: &session::Message) -> Option<Letter> {
    let party = |party: &Party| {
        let (id, name) = party.session.as_ref()?;
        Some((id.0, name.as_ref().map(ToString::to_string)))
    };
    Some(Letter {
        id: reply.id,
        node: reply.to.node.clone()?,
        key: None,
        from: party(&reply.from),
        to: party(&reply.to).map(|(id, _)| Session::Id(id)),
        body: reply.body.clone(),
        delivery: session::Delivery::Inbox.as_str().to_owned(),
        auto: false,
        request_id: reply.request_id,
        at_ms: reply.at_ms,
        deadline_ms: None,
    })
}

/// The key of a node, to be written on letters to it.
///
/// # Errors
///
/// `node_unknown`.
pub fn key_of(network: &Network, node: &str) -> Result<NodeKey> {
    Ok(network.peer(node)?.record.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_ahead_makes_no_letter_old() {
        let second = Duration::from_secs(1);
        assert_eq!(not_ahead(5_900, 5_000, second), 5_900);
        assert_eq!(not_ahead(400 * outbox::KEEP, 5_000, second), 6_000);
        // One that is set back makes them younger.
        assert_eq!(not_ahead(100, 5_000, second), 100);
    }
}
