//! Removing finished sessions when they are old or many.
//!
//! It happens when a node starts and when a session ends: a node in which
//! nothing happens has nothing to remove. What is gone for good, numbers and
//! cursors, is noted first, so that neither is used again:
//!
//! ```text
//! <dir>/pruned   {"id":41,"cursor":1234}   the highest of each
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::desk::session_dir;
use super::inner::Inner;
use super::{disk, unix_ms_now};
use crate::{Error, SessionId};

#[derive(Deserialize, Serialize)]
struct Pruned {
    id: u32,
    cursor: u64,
}

/// The highest number and cursor of what was removed from a directory.
pub(super) fn before(dir: &Path) -> Option<(SessionId, u64)> {
    let text = std::fs::read(path(dir)).ok()?;
    match serde_json::from_slice::<Pruned>(&text) {
        Ok(pruned) => Some((SessionId(pruned.id), pruned.cursor)),
        Err(error) => {
            tracing::warn!(%error, "what was removed before is not known");
            None
        }
    }
}

/// Removes what is to be removed now, without anybody waiting for it.
pub(super) fn soon(inner: &Arc<Inner>) {
    if !inner.prunable().is_empty() {
        let inner = Arc::clone(inner);
        let runtime = inner.runtime.handle().clone();
        runtime.spawn_blocking(move || {
            if let Err(error) = inner.prune() {
                tracing::warn!(%error, "old sessions stay");
            }
        });
    }
}

impl Inner {
    fn prunable(&self) -> Vec<SessionId> {
        let limits = &self.limits;
        let age = u64::try_from(limits.keep_finished_for.as_millis()).unwrap_or(u64::MAX);
        let ended_before = unix_ms_now().saturating_sub(age);
        let engine = self.engine.lock();
        engine.prunable(limits.keep_finished, ended_before)
    }

    /// Removes what is to be removed now. Blocks.
    fn prune(&self) -> Result<(), Error> {
        let _one = self.pruning.lock();
        let ids = self.prunable();
        let Some(pruned) = self.pruned(&ids) else {
            return Ok(());
        };
        let json = serde_json::to_vec(&pruned)
            .map_err(|error| Error::Protocol(format!("what was removed: {error}")))?;
        disk::replace(&path(&self.dir), &json)?;
        for id in ids {
            self.engine.lock().handle_removed(id);
            if let Some(desk) = self.desks.write().remove(&id) {
                desk.log.handle_removed();
            }
            let dir = session_dir(&self.dir, id);
            if let Err(error) = std::fs::remove_dir_all(&dir) {
                tracing::warn!(%error, session = %id, "a removed session leaves files behind");
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    fn pruned(&self, ids: &[SessionId]) -> Option<Pruned> {
        let engine = self.engine.lock();
        let cursors = ids
            .iter()
            .filter_map(|id| Some(engine.get(*id).ok()?.last_cursor));
        let cursor = cursors.max()?.max(engine.cursors().1);
        let id = engine.last_id().0;
        Some(Pruned { id, cursor })
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("pruned")
}
