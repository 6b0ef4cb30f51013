//! What all handles share: the engine, the files, the keeper, and the one way
//! in which something becomes true.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};

use super::desk::Desk;
use super::disk::Flusher;
use super::keeper::fds::Fds;
use super::keeper::{Client, FromKeeper};
use super::messages::{Owed, Waiters};
use super::news::{News, Pointer};
use super::proc::Stat;
use super::runtime::Runtime;
use super::segments::Segment;
use super::terminal::Terminal;
use super::{Options, disk, platform, prune, pump, screen, summary, typist, unix_ms_now};
use crate::engine::Engine;
use crate::{
    Ended, Error, Event, EventKind, EventType, Info, Outcome, SessionId, SessionRef, Status, record,
};

/// How long to wait before a full disk is asked again to take an outcome.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: PathBuf,
    /// `<dir>/sessions`, to be synced when sessions are added.
    pub(super) sessions_dir: Arc<File>,
    pub(super) engine: Mutex<Engine>,
    pub(super) desks: RwLock<BTreeMap<SessionId, Arc<Desk>>>,
    pub(super) client: Client,
    pub(super) flusher: Flusher,
    pub(super) runtime: Runtime,
    pub(super) waiters: Waiters,
    /// Replies that the disk had no room for; only with the engine locked.
    pub(super) owed: Mutex<Vec<Owed>>,
    pub(super) news: News,
    /// Something has become of a message.
    pub(super) progressed: watch::Sender<()>,
    /// Something has changed that is in the snapshot.
    pub(super) changed: Arc<Notify>,
    /// Clients so far, which number the next one.
    pub(super) clients: AtomicU64,
    pub(super) closing: AtomicBool,
    /// Only what they say of limits.
    pub(super) limits: Options,
    /// The parent of the programs that run, which gets their orphans; 0 until
    /// there is one.
    keeper: AtomicU32,
    /// Let go of when there is no descriptor left to look up who calls.
    pub(super) spare: Mutex<Option<File>>,
    /// Held by who removes sessions.
    pub(super) pruning: Mutex<()>,
}

impl Inner {
    pub(super) fn new(
        dir: PathBuf,
        engine: Engine,
        desks: BTreeMap<SessionId, Arc<Desk>>,
        client: Client,
        flusher: Flusher,
        limits: Options,
    ) -> Result<Arc<Self>, Error> {
        let sessions = dir.join("sessions");
        let sessions_dir =
            File::open(&sessions).map_err(|error| disk::failed("open", &sessions, error))?;
        let news = News::new(engine.cursors().0);
        Ok(Arc::new(Self {
            dir,
            sessions_dir: Arc::new(sessions_dir),
            engine: Mutex::new(engine),
            desks: RwLock::new(desks),
            client,
            flusher,
            runtime: Runtime::start()?,
            waiters: Waiters::default(),
            owed: Mutex::default(),
            news,
            progressed: watch::Sender::new(()),
            changed: Arc::default(),
            clients: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            limits,
            keeper: AtomicU32::new(0),
            spare: Mutex::new(File::open("/dev/null").ok()),
            pruning: Mutex::default(),
        }))
    }

    /// Makes an event true: writes it, applies it, tells whoever wants to know.
    /// When it cannot be written, nothing has happened. Returns the flush to
    /// wait for.
    pub(super) fn write(&self, engine: &mut Engine, event: Event) -> Result<(u64, Event), Error> {
        let (flush, pointer, event) = self.write_quietly(engine, event)?;
        // Under the lock of the engine: in the order of cursors.
        self.tell(pointer);
        Ok((flush, event))
    }

    /// Tells all subscribers.
    pub(super) fn tell(&self, pointer: Pointer) {
        self.news.tell(pointer);
        if matches!(
            pointer.kind,
            EventType::Status | EventType::Killed | EventType::Renamed | EventType::Tagged
        ) {
            self.changed.notify_one();
        }
    }

    /// As [`Inner::write`], but nobody is told until [`Inner::tell`].
    pub(super) fn write_quietly(
        &self,
        engine: &mut Engine,
        mut event: Event,
    ) -> Result<(u64, Pointer, Event), Error> {
        let desk = self.desk(event.session)?;
        event.cursor = engine.cursors().0 + 1;
        let (place, file) = desk.journal.append(&record::encode(&event))?;
        let abandoned = engine.apply(&event, place);
        let flush = self.flusher.mark(&file);
        for request in abandoned {
            let ended = || Err(Error::SessionEnded(event.session));
            self.waiters.settle(request, ended);
        }
        if event.kind.event_type().is_message() || matches!(event.kind, EventKind::Exited(_)) {
            self.progressed.send_replace(());
            let is_typed = match &event.kind {
                EventKind::Message(message) => message.delivery.types(),
                _ => true,
            };
            if is_typed {
                desk.to_type.notify_one();
            }
        }
        let pointer = Pointer::new(&event, place);
        Ok((flush, pointer, event))
    }

    /// Writes something that has happened anyway; a disk that takes no more
    /// does not undo it.
    pub(super) fn note(&self, id: SessionId, kind: EventKind) {
        let mut engine = self.engine.lock();
        let noted = engine
            .handle_happened(id, kind, unix_ms_now())
            .and_then(|event| self.write(&mut engine, event));
        if let Err(error) = noted {
            tracing::warn!(%error, session = %id, "an event is not recorded");
        }
    }

    pub(super) fn desk(&self, id: SessionId) -> Result<Arc<Desk>, Error> {
        let desks = self.desks.read();
        let desk = desks.get(&id).cloned();
        desk.ok_or_else(|| Error::SessionNotFound(id.to_string()))
    }

    pub(super) fn info(&self, id: SessionId) -> Result<Info, Error> {
        let engine = self.engine.lock();
        // Also hides a session that is only starting.
        let id = engine.resolve(&SessionRef::Id(id))?;
        Ok(self.desk(id)?.info(engine.get(id)?))
    }

    /// The process that has the orphans of all sessions.
    pub(super) fn keeper_pid(&self) -> Option<u32> {
        let pid = self.keeper.load(Ordering::Relaxed);
        (pid > 1).then_some(pid)
    }

    /// The terminal of a session that runs.
    pub(super) fn terminal(&self, id: SessionId) -> Result<(Arc<Desk>, Arc<Terminal>), Error> {
        let desk = self.desk(id)?;
        let terminal = desk.terminal().ok_or(Error::SessionNotRunning(id))?;
        Ok((desk, terminal))
    }

    /// Takes the descriptors of a session and begins to serve it.
    pub(super) fn serve(
        self: &Arc<Self>,
        desk: &Arc<Desk>,
        pid: u32,
        fds: Fds,
    ) -> Result<Arc<Terminal>, Error> {
        let file = desk.log.writer()?;
        let _within = self.runtime.handle().enter();
        // The first process of the system has orphans of everybody's.
        if let Some(stat) = Stat::read(pid).filter(|stat| stat.parent > 1) {
            self.keeper.store(stat.parent, Ordering::Relaxed);
        }
        let (terminal, typed) = Terminal::new(desk.id, pid, fds)?;
        desk.handle_terminal(&terminal);
        self.runtime.spawn(Arc::clone(&terminal).type_all(typed));
        let look_after = Self::look_after(
            Arc::downgrade(self),
            Arc::clone(desk),
            Arc::clone(&terminal),
            file,
        );
        self.runtime.spawn(look_after);
        let follow = screen::follow(Arc::downgrade(desk), Arc::clone(&desk.log));
        self.runtime.spawn(follow);
        let weak = Arc::downgrade(desk);
        let sum_up = summary::follow(Arc::downgrade(self), weak, Arc::clone(&desk.log));
        self.runtime.spawn(sum_up);
        let weak = Arc::downgrade(self);
        self.runtime
            .spawn(typist::run(weak, Arc::clone(desk), Arc::clone(&terminal)));
        Ok(terminal)
    }

    /// Moves the output of a session until its end, and records that.
    async fn look_after(
        inner: Weak<Self>,
        desk: Arc<Desk>,
        terminal: Arc<Terminal>,
        file: Segment,
    ) {
        let mut exit = terminal.exit();
        let pumped = pump::run(terminal, Arc::clone(&desk.log), file).await;
        let ended = match pumped {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, session = %desk.id, "output is lost");
                let exit = exit.wait_for(Option::is_some).await;
                exit.ok()
                    .and_then(|exit| *exit)
                    .unwrap_or_else(|| Outcome::Unknown.into())
            }
        };
        Self::finish(&inner, &desk, ended).await;
    }

    /// Records the end of a session, however long the disk takes, and tells
    /// readers and keeper.
    pub(super) async fn finish(inner: &Weak<Self>, desk: &Arc<Desk>, ended: Ended) {
        let mut told = false;
        let (inner, flush) = loop {
            let Some(inner) = inner.upgrade() else {
                return;
            };
            match inner.record_end(desk, ended) {
                Ok(flush) => break (inner, flush),
                Err(error) if !told => {
                    tracing::error!(%error, session = %desk.id, "the end waits for the disk");
                    told = true;
                }
                Err(_) => {}
            }
            drop(inner);
            tokio::time::sleep(RETRY).await;
        };
        if let Some(flush) = flush {
            inner.flusher.acknowledge(flush).await;
        }
        inner.client.forget(desk.id);
        let status = inner.engine.lock().get(desk.id).map(|one| one.status());
        desk.handle_over(status.unwrap_or(Status::Exited {
            outcome: ended.outcome,
            killed: false,
        }));
        inner.changed.notify_one();
        prune::soon(&inner);
    }

    fn record_end(&self, desk: &Desk, ended: Ended) -> Result<Option<u64>, Error> {
        if let Some(bytes) = desk.take_tally() {
            let source = "input".to_owned();
            self.note(desk.id, EventKind::Input { source, bytes });
        }
        self.summarise(desk);
        let log = desk.log.state();
        let mut engine = self.engine.lock();
        let output = (log.end, log.lines);
        match engine.handle_exit(desk.id, ended, output, unix_ms_now())? {
            Some(event) => self.write(&mut engine, event).map(|(flush, _)| Some(flush)),
            None => Ok(None),
        }
    }

    /// Hears the keeper for as long as there is a node.
    pub(super) async fn hear(inner: Weak<Self>, mut keeper: mpsc::UnboundedReceiver<FromKeeper>) {
        while let Some(said) = keeper.recv().await {
            let Some(inner) = inner.upgrade() else {
                return;
            };
            match said {
                FromKeeper::Exited { id, ended } => {
                    if let Ok(desk) = inner.desk(id) {
                        desk.handle_exit(ended);
                    }
                }
                FromKeeper::Orphaned(ids) => {
                    for id in ids {
                        if let Ok((desk, terminal)) = inner.terminal(id) {
                            inner.watch_orphan(desk, &terminal);
                        }
                    }
                }
            }
        }
    }

    /// Watches a program whose parent was a keeper that is dead.
    pub(super) fn watch_orphan(&self, desk: Arc<Desk>, terminal: &Terminal) {
        let (pid, pidfd) = (terminal.pid(), terminal.fds().pidfd.clone());
        self.runtime.spawn(async move {
            let outcome = platform::exit_of_orphan(pid, pidfd).await;
            desk.handle_exit(outcome.into());
        });
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(Error::ShuttingDown);
        }
        Ok(())
    }
}
