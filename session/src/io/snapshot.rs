//! `sessions.json`: the list of sessions for people and other programs.
//!
//! It is written after a change, as a whole and in one step, at most every
//! 500 ms. We never need it: it is made from the events again at each start. A
//! file that is no list is kept aside as `sessions.json.corrupt.<time>`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::disk;
use super::inner::Inner;
use crate::{Error, Info, SessionId, time};

/// Changes gather for this long.
const GATHER: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Entry {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    prompt: String,
    working_dir: String,
    created_at: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
}

/// Writes the list whenever it has changed.
pub(super) async fn keep(inner: Weak<Inner>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        tokio::time::sleep(GATHER).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || write(&inner)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the list of sessions is not up to date");
        }
    }
}

/// Writes the list now.
pub(super) fn write(inner: &Inner) -> Result<(), Error> {
    let list = inner.list();
    let entries: Vec<_> = list.into_iter().map(Entry::from).collect();
    let mut json = serde_json::to_vec_pretty(&entries)
        .map_err(|error| Error::Protocol(format!("list of sessions: {error}")))?;
    json.push(b'\n');
    disk::replace(&path(&inner.dir), &json)
}

/// The highest number in the list, so that it is not used again even if the
/// directory of that session has been removed. A list that is none is put
/// aside.
pub(super) fn highest_id(dir: &Path) -> Option<SessionId> {
    #[derive(Deserialize)]
    struct Numbered {
        id: u32,
    }
    let path = path(dir);
    let text = std::fs::read(&path).ok()?;
    match serde_json::from_slice::<Vec<Numbered>>(&text) {
        Ok(entries) => entries.into_iter().map(|entry| SessionId(entry.id)).max(),
        Err(error) => {
            tracing::warn!(%error, "the list of sessions is corrupt; making a new one");
            put_aside(&path);
            None
        }
    }
}

fn put_aside(path: &Path) {
    // 2026-01-31T23:59:59.042Z becomes 20260131_235959.
    let now = time::format(super::unix_ms_now());
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".corrupt.{}_{}", &digits[..8], &digits[8..14]));
    if let Err(error) = std::fs::rename(path, PathBuf::from(name)) {
        tracing::warn!(%error, "cannot put the corrupt list aside");
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("sessions.json")
}

impl From<Info> for Entry {
    fn from(info: Info) -> Self {
        let outcome = info.status.outcome();
        Self {
            id: info.id.0,
            name: info.name.map(|name| name.to_string()),
            prompt: info.argv.join(" "),
            working_dir: info.cwd.to_string_lossy().into_owned(),
            created_at: time::format(info.created_ms),
            status: info.status.word(),
            pid: info.pid,
            tags: info.tags.iter().map(ToString::to_string).collect(),
            exit_code: outcome.and_then(crate::Outcome::code),
            signal: outcome.and_then(crate::Outcome::signal),
            completed_at: info.exited_ms.map(time::format),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrupt_list_is_put_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(highest_id(dir.path()), None);
        std::fs::write(
            path(dir.path()),
            br#"[{"id":3},{"id":12,"new":[]},{"id":4}]"#,
        )
        .unwrap();
        assert_eq!(highest_id(dir.path()), Some(SessionId(12)));
        std::fs::write(path(dir.path()), b"{not json").unwrap();
        assert_eq!(highest_id(dir.path()), None);
        assert_eq!(highest_id(dir.path()), None);
        let names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 1);
        let stamp = names[0].strip_prefix("sessions.json.corrupt.").unwrap();
        assert_eq!(stamp.len(), 15);
        assert_eq!(stamp.as_bytes()[8], b'_');
    }
}
