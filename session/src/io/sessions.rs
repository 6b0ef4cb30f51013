//! The handle on all sessions of a directory.

mod messages;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use self::messages::Kept;
use super::disk::Flusher;
use super::inner::Inner;
use super::keeper::{Client, Link};
use super::{
    Attachment, Filter, From, How, LaunchSpec, Options, Reader, Recording, Subscription, prune,
    recover, snapshot, unix_ms_now,
};
use crate::engine::Engine;
use crate::{Brief, Error, Event, EventKind, Info, Name, SessionId, SessionRef, Size, Tag};

/// All sessions of one directory. Clones are handles on the same ones.
///
/// Dropping the last handle leaves the sessions to the keeper.
#[derive(Clone, Debug)]
pub struct Sessions {
    inner: Arc<Inner>,
}

impl Sessions {
    /// Takes over a directory: reads back every session from disk and connects
    /// the live ones that the keeper holds. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::KeeperUnavailable`]; [`Error::Locked`] when a keeper that this
    /// process has started finds the directory in use; [`Error::Io`].
    pub async fn open(dir: PathBuf, keeper: Link, options: Options) -> Result<Self, Error> {
        let mut options = options;
        let keeper_argv = std::mem::take(&mut options.keeper_argv);
        let (events, from_keeper) = mpsc::unbounded_channel();
        let opened = tokio::task::spawn_blocking(move || {
            // First the keeper: it has the lock.
            let (client, holdings) = Client::connect(keeper, keeper_argv, events)?;
            let mut found = recover::read(&dir, options.log_cap)?;
            let repairs = found.take_repairs();
            let flusher = Flusher::start(options.sync_always)?;
            let inner = Inner::new(dir, found.engine, found.desks, client, flusher, options)?;
            Ok((inner, repairs, holdings))
        });
        let (inner, repairs, holdings) = opened.await.map_err(|_| Error::ShuttingDown)??;
        recover::connect(&inner, repairs, holdings).await;
        prune::soon(&inner);
        let weak = Arc::downgrade(&inner);
        let listening = Inner::hear(weak.clone(), from_keeper);
        inner.runtime.spawn(listening);
        let changed = Arc::clone(&inner.changed);
        inner.runtime.spawn(snapshot::keep(weak, changed));
        Ok(Self { inner })
    }

    /// Starts a program in a new terminal. Goes on when the caller leaves.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::TagInvalid`], [`Error::CommandInvalid`],
    /// [`Error::CommandNotFound`], [`Error::DirNotFound`],
    /// [`Error::LaunchFailed`], [`Error::TooManySessions`],
    /// [`Error::KeeperUnavailable`], [`Error::DiskFull`], [`Error::Io`].
    pub async fn launch(&self, spec: LaunchSpec) -> Result<Info, Error> {
        // Not on the thread that moves output: it would wait for the disk, and this for it.
        let launched = tokio::spawn(Arc::clone(&self.inner).launch(spec)).await;
        launched.map_err(|_| Error::ShuttingDown)?
    }

    /// Every session, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Info> {
        self.inner.list()
    }

    /// Shows every session, oldest first. Sessions do nothing meanwhile: to be
    /// used for what takes microseconds.
    pub fn glance(&self, mut each: impl FnMut(Brief<'_>)) {
        let engine = self.inner.engine.lock();
        let desks = self.inner.desks.read();
        for session in engine.iter() {
            if desks.contains_key(&session.id) {
                each(session.brief());
            }
        }
    }

    /// One session: by number; by name the live one, else the newest that had
    /// the name.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn find(&self, session: &SessionRef) -> Result<Info, Error> {
        let id = self.inner.engine.lock().resolve(session)?;
        self.inner.info(id)
    }

    /// The number of a session.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn resolve(&self, session: &SessionRef) -> Result<SessionId, Error> {
        self.inner.engine.lock().resolve(session)
    }

    /// The tags of a session.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn tags(&self, id: SessionId) -> Result<Vec<Tag>, Error> {
        Ok(self.inner.engine.lock().get(id)?.tags().to_vec())
    }

    /// Ends a session: SIGTERM, and after `grace` SIGKILL, to its whole tree.
    /// Returns when the end is recorded and the tree is gone. Goes on when the
    /// caller leaves.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotRunning`];
    /// [`Error::OutputWaits`] when the tree is gone, and the end is recorded as
    /// soon as there is room for the last output.
    pub async fn kill(&self, id: SessionId, grace: Duration) -> Result<Info, Error> {
        Arc::clone(&self.inner).kill(id, grace).await
    }

    /// Types into the terminal. Waits for room in the queue (1 MiB a session).
    /// What is in the queue and not yet typed is lost when the node is killed.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotRunning`];
    /// [`Error::SessionEnded`] when it ends while waiting.
    pub async fn input(&self, id: SessionId, bytes: Bytes) -> Result<usize, Error> {
        let (desk, terminal) = self.inner.terminal(id)?;
        let len = bytes.len();
        terminal.input(bytes).await?;
        if let Some(bytes) = desk.tally(len as u64, unix_ms_now()) {
            let source = "input".to_owned();
            self.inner.note(id, EventKind::Input { source, bytes });
        }
        Ok(len)
    }

    /// Changes the size of the terminal.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotRunning`], [`Error::Io`].
    pub fn resize(&self, id: SessionId, size: Size) -> Result<(), Error> {
        let (desk, terminal) = self.inner.terminal(id)?;
        terminal.resize(size)?;
        desk.set_size(size);
        Ok(())
    }

    /// A cursor into the output, also of a session that has ended.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::Io`].
    pub fn reader(&self, id: SessionId, from: From) -> Result<Reader, Error> {
        self.inner.desk(id)?.log.reader(from)
    }

    /// What a session has shown so far and when, to play it again.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn recording(&self, id: SessionId) -> Result<Recording, Error> {
        let desk = self.inner.desk(id)?;
        let engine = self.inner.engine.lock();
        let session = engine.get(id)?;
        let (created_ms, size) = (session.created_ms, session.created.size);
        drop(engine);
        Ok(Recording::new(&desk.log, created_ms, size))
    }

    /// Looks at what a session shows, or showed last. Reads what the screen has
    /// not seen yet, which may take as long as an attach.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::Io`].
    pub fn screen(&self, id: SessionId) -> Result<super::Shown, Error> {
        super::look::look(&self.inner, id)
    }

    /// Comes to the terminal.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotRunning`], [`Error::Io`].
    pub fn attach(&self, id: SessionId) -> Result<Attachment, Error> {
        self.attach_as(id, How::default())
    }

    /// Comes to the terminal with a size, or only to watch.
    ///
    /// # Errors
    /// As [`Sessions::attach`].
    pub fn attach_as(&self, id: SessionId, how: How) -> Result<Attachment, Error> {
        Attachment::new(&self.inner, id, how)
    }

    /// The runtime of the thread that moves output. A task that shows output is told of it soonest
    /// there; it must not block, for that holds up all sessions.
    #[must_use]
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.inner.runtime.handle()
    }

    /// Gives a session another name, or takes its name away. Its programs keep
    /// the `CW_SESSION_NAME` that they were started with.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::NameTaken`], [`Error::DiskFull`],
    /// [`Error::Io`].
    pub async fn rename(&self, id: SessionId, name: Option<Name>) -> Result<Info, Error> {
        self.change(id, |engine, now| engine.handle_rename(id, name, now))
            .await
    }

    /// Adds tags to a session and removes others; one that is in both lists is
    /// removed. What it has or has not already does not matter.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::TagInvalid`] when it would have more
    /// than [`MAX_TAGS`](crate::tag::MAX_TAGS); [`Error::DiskFull`],
    /// [`Error::Io`].
    pub async fn retag(
        &self,
        id: SessionId,
        add: Vec<Tag>,
        remove: Vec<Tag>,
    ) -> Result<Info, Error> {
        self.change(id, |engine, now| {
            engine.handle_retag(id, &add, &remove, now)
        })
        .await
    }

    async fn change(
        &self,
        id: SessionId,
        decide: impl FnOnce(&Engine, u64) -> Result<Option<Event>, Error>,
    ) -> Result<Info, Error> {
        self.inner.check_open()?;
        let flush = {
            let mut engine = self.inner.engine.lock();
            engine.resolve(&SessionRef::Id(id))?;
            match decide(&engine, unix_ms_now())? {
                Some(event) => self.inner.write(&mut engine, event)?.0,
                None => 0,
            }
        };
        self.inner.flusher.acknowledge(flush).await;
        self.inner.info(id)
    }

    /// Events from now on.
    #[must_use]
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        Subscription::new(&self.inner, filter, None)
    }

    /// Events after a cursor: those that have happened, from the files, then
    /// those that happen, without a seam. 0 is everything there is, also what
    /// was written before there were cursors.
    #[must_use]
    pub fn subscribe_since(&self, filter: Filter, since: u64) -> Subscription {
        Subscription::new(&self.inner, filter, Some(since))
    }

    /// The cursor of the last event that subscribers have been told; 0 when
    /// there was none.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.inner.news.told()
    }

    /// The live session to whose process tree a process belongs: one of its
    /// ancestors leads the session, or the system says that it is of that
    /// session, or it was left to the keeper and its environment names the
    /// session. `None` when it is outside of all; always where there is no `/proc`.
    ///
    /// # Errors
    /// [`Error::CallerUnknown`] when the process is gone, or was started in a
    /// session that is over; [`Error::TooManyFiles`].
    pub fn session_of_pid(&self, pid: u32) -> Result<Option<SessionId>, Error> {
        super::origin::of_pid(&self.inner, pid)
    }

    /// Has the keeper execute another program in its place, with the arguments
    /// it was started with, which must lead to
    /// [`keeper::run`](super::keeper::run()) or
    /// [`keeper::adopt`](super::keeper::adopt) of this directory again. Sessions
    /// run on, and it still tells how they end. The next node is started as the
    /// new program says. Returns when the new keeper has answered.
    ///
    /// # Errors
    /// [`Error::LaunchFailed`] when it cannot be executed: the old one goes on.
    /// [`Error::KeeperUnavailable`] when there is no answer.
    pub async fn upgrade_keeper(&self, program: PathBuf) -> Result<(), Error> {
        self.inner.check_open()?;
        self.inner.client.upgrade(program).await
    }

    /// Ends all sessions, writes everything and tells the keeper that the node
    /// will now exit on purpose. Nothing can be launched or sent from now on.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.closing.store(true, Ordering::SeqCst);
        let running = self.list().into_iter();
        let killing: Vec<_> = running
            .filter(|info| info.status.is_running())
            .map(|info| {
                let kill = Arc::clone(&self.inner).kill(info.id, grace);
                self.inner.runtime.spawn(kill)
            })
            .collect();
        for kill in killing {
            match kill.await {
                Ok(Ok(_) | Err(Error::SessionNotRunning(_))) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a session is not ended"),
                Err(error) => tracing::error!(%error, "a session is not ended"),
            }
        }
        self.inner.waiters.clear();
        self.inner.flusher.settle().await;
        let inner = Arc::clone(&self.inner);
        let written = tokio::task::spawn_blocking(move || snapshot::write(&inner)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the list of sessions is not up to date");
        }
        self.inner.client.stopping();
    }
}

impl Inner {
    pub(super) fn list(&self) -> Vec<Info> {
        let engine = self.engine.lock();
        let desks = self.desks.read();
        let listed = engine.iter();
        listed
            .filter_map(|session| Some(desks.get(&session.id)?.info(session)))
            .collect()
    }
}
