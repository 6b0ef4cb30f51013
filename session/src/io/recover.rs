//! Taking over a directory: what is on disk, what the keeper holds, and what
//! follows from the two.
//!
//! | on disk | keeper | so |
//! |---|---|---|
//! | runs | holds it | it is served on, from the end of its log |
//! | runs | does not | it ended while nobody watched: status unknown |
//! | ended | holds it | the keeper may let go |
//! | nothing | holds it | its events are lost; it is served, its command unknown |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::desk::{Desk, journal_path, session_dir};
use super::inner::Inner;
use super::keeper::Holding;
use super::news::Pointer;
use super::{disk, messages, unix_ms_now};
use crate::engine::Engine;
use crate::record::{Place, Recovery, Repair};
use crate::{Created, Error, Event, EventKind, Outcome, SessionId, Size, record};

/// What was found on disk.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) engine: Engine,
    pub(super) desks: BTreeMap<SessionId, Arc<Desk>>,
    /// Journals that were damaged.
    repairs: Vec<(SessionId, Repair)>,
}

/// Reads back every session. Blocks.
pub(super) fn read(dir: &Path, log_cap: u64) -> Result<Found, Error> {
    let sessions = dir.join("sessions");
    disk::create_dir(&sessions)?;
    let mut found = Found::default();
    if let Some((highest, cursor)) = super::prune::before(dir) {
        found.engine.handle_used_id(highest);
        found.engine.handle_pruned(cursor);
    }
    if let Some(highest) = super::snapshot::highest_id(dir) {
        found.engine.handle_used_id(highest);
    }
    for id in ids(&sessions)? {
        found.engine.handle_used_id(id);
        if let Err(error) = read_session(dir, id, log_cap, &mut found) {
            // One bad directory must not keep the others away.
            tracing::error!(%error, session = %id, "a session cannot be read back");
        }
    }
    found.engine.handle_read_back();
    Ok(found)
}

fn ids(sessions: &Path) -> Result<Vec<SessionId>, Error> {
    let failed = |error| disk::failed("read", sessions, error);
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(sessions).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
            ids.push(id);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

fn read_session(dir: &Path, id: SessionId, log_cap: u64, found: &mut Found) -> Result<(), Error> {
    let dir = session_dir(dir, id);
    let path = journal_path(&dir);
    let file = disk::open_private(&path).map_err(|error| disk::failed("open", &path, error))?;
    let engine = &mut found.engine;
    let (repair, len) =
        read_journal(&file, id, engine).map_err(|error| disk::failed("read", &path, error))?;
    let Ok(session) = engine.get(id) else {
        return Err(Error::Protocol("its first event is missing".into()));
    };
    let ended = session
        .exited
        .map(|(exited, _)| (session.status(), exited.output_lines));
    let desk = Desk::new(id, &dir, log_cap, len, ended)?;
    desk.set_size(session.created.size);
    desk.log.handle_summarised(session.summarised);
    if repair.torn_bytes > 0 || repair.damaged_lines > 0 {
        found.repairs.push((id, repair));
    }
    found.desks.insert(id, Arc::new(desk));
    Ok(())
}

/// Reads all events of a file and leaves it so that more can be appended.
fn read_journal(file: &File, id: SessionId, engine: &mut Engine) -> std::io::Result<(Repair, u64)> {
    let mut recovery = Recovery::new(id);
    let mut buffer = vec![0; 256 * 1024];
    let mut reader = file;
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        recovery.handle_bytes(&buffer[..read], |event, place| apply(engine, &event, place));
    }
    let repair = recovery.finish(|event, place| apply(engine, &event, place));
    let mut len = repair.intact;
    file.set_len(len)?;
    if repair.missing_end {
        file.write_all_at(b"\n", len)?;
        len += 1;
    }
    Ok((repair, len))
}

/// Makes an event true. When that of the launch cannot be read, its session is made up: the others
/// are worth no less.
fn apply(engine: &mut Engine, event: &Event, place: Place) {
    if engine.get(event.session).is_err() && !matches!(event.kind, EventKind::Created(_)) {
        let first = Event {
            kind: EventKind::Created(unknown()),
            ..event.clone()
        };
        engine.apply(&first, place);
    }
    engine.apply(event, place);
}

/// The launch of which nothing is known.
fn unknown() -> Created {
    Created {
        command: vec!["(unknown)".into()],
        working_dir: "/".into(),
        tags: Vec::new(),
        name: None,
        size: Size::default(),
    }
}

/// Connects what was found with what the keeper holds.
pub(super) async fn connect(
    inner: &Arc<Inner>,
    repairs: Vec<(SessionId, Repair)>,
    holdings: Vec<Holding>,
) {
    for (id, repair) in repairs {
        tracing::warn!(session = %id, ?repair, "events were damaged");
        inner.note(
            id,
            EventKind::Restored {
                torn_bytes: repair.torn_bytes,
                damaged_lines: repair.damaged_lines,
            },
        );
    }
    let mut held: BTreeMap<_, _> = holdings.into_iter().map(|one| (one.id, one)).collect();
    let unknown: Vec<_> = held.keys().copied().collect();
    for id in unknown {
        if inner.desk(id).is_err()
            && let Err(error) = invent(inner, id)
        {
            tracing::error!(%error, session = %id, "a session without events is not served");
        }
    }
    dismiss_clients(inner);
    let desks: Vec<_> = inner.desks.read().values().cloned().collect();
    for desk in desks {
        let holding = held.remove(&desk.id);
        let runs = inner.engine.lock().running(desk.id).is_ok();
        match holding {
            Some(_) if !runs => inner.client.forget(desk.id),
            Some(holding) => resume(inner, &desk, holding),
            None if runs => bury(inner, &desk).await,
            None => {}
        }
    }
    messages::repair_replies(inner);
    inner.changed.notify_one();
}

/// Clients of the node before us have gone with it.
fn dismiss_clients(inner: &Arc<Inner>) {
    let engine = inner.engine.lock();
    let clients: Vec<_> = engine
        .iter()
        .flat_map(|session| session.clients.iter().map(|client| (session.id, *client)))
        .collect();
    drop(engine);
    for (id, client) in clients {
        inner.note(id, EventKind::Detached { client });
    }
}

/// Serves a session that lives.
fn resume(inner: &Arc<Inner>, desk: &Arc<Desk>, holding: Holding) {
    let terminal = match inner.serve(desk, holding.pid, holding.fds) {
        Ok(terminal) => terminal,
        Err(error) => {
            tracing::error!(%error, session = %desk.id, "a live session cannot be served");
            return;
        }
    };
    if let Ok(size) = rustix::termios::tcgetwinsize(&terminal.fds().master) {
        desk.set_size(Size {
            cols: size.ws_col,
            rows: size.ws_row,
        });
    }
    if let Some(ended) = holding.exited {
        terminal.handle_exit(ended);
    } else if !holding.own {
        inner.watch_orphan(Arc::clone(desk), &terminal);
    }
}

/// Records the end of a session that ended with everything that held it.
async fn bury(inner: &Arc<Inner>, desk: &Arc<Desk>) {
    let log = Arc::clone(&desk.log);
    let counted = tokio::task::spawn_blocking(move || {
        let state = log.state();
        if let Ok(lines) = log.count_lines(state.counted, state.end) {
            log.update(|state| {
                state.lines += lines;
                state.counted = state.end;
            });
        }
    });
    // Without a count the session ends all the same.
    let _ = counted.await;
    Inner::finish(&Arc::downgrade(inner), desk, Outcome::Unknown.into()).await;
}

/// Makes up a first event for a session whose events are lost.
fn invent(inner: &Arc<Inner>, id: SessionId) -> Result<(), Error> {
    let dir = session_dir(&inner.dir, id);
    disk::create_dir(&dir)?;
    put_aside(&journal_path(&dir));
    let desk = Arc::new(Desk::new(id, &dir, inner.limits.log_cap, 0, None)?);
    inner.desks.write().insert(id, Arc::clone(&desk));
    let mut engine = inner.engine.lock();
    let event = Event {
        seq: 1,
        cursor: engine.cursors().0 + 1,
        at_ms: unix_ms_now(),
        session: id,
        kind: EventKind::Created(unknown()),
    };
    let (place, file) = desk.journal.append(&record::encode(&event))?;
    engine.apply(&event, place);
    inner.flusher.mark(&file);
    inner.news.tell(Pointer::new(&event, place));
    Ok(())
}

/// Keeps a file of which no line can be read for whoever can.
fn put_aside(path: &Path) {
    let empty = std::fs::metadata(path).map_or(true, |found| found.len() == 0);
    if !empty && let Err(error) = std::fs::rename(path, path.with_extension("jsonl.damaged")) {
        tracing::warn!(%error, "a damaged file of events is not kept");
    }
}

impl Found {
    /// The journals that were damaged, taken out.
    pub(super) fn take_repairs(&mut self) -> Vec<(SessionId, Repair)> {
        std::mem::take(&mut self.repairs)
    }
}
