//! The last known netmap, papers and relays, in a file, so that a node that starts
//! while the relay is away still knows its peers and what they may.
//!
//! Losing it costs a snapshot, and until then closes what others may open, so it is written without waiting for the disk;
//! it is replaced whole, never half.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::netmap::Saved as SavedNetmap;
use super::papers::SavedPapers;
use crate::coord::RelayPlace;

/// The longest file that is read, bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What is in the file: nothing of it is believed without its signature.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    #[serde(flatten)]
    pub(crate) netmap: SavedNetmap,
    #[serde(default)]
    pub(crate) papers: SavedPapers,
    /// Where other relays are, as far as they said.
    #[serde(default)]
    pub(crate) relays: Vec<RelayPlace>,
}

/// Reads the file; nothing if there is none, or none that can be read.
pub(crate) fn read(path: &Path) -> Saved {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size == 0 || size > MAX_FILE {
        return Saved::default();
    }
    let read = std::fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    read.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the cached netmap is unreadable");
        Saved::default()
    })
}

/// Writes what comes in, the newest, until the sender is gone.
pub(crate) async fn keep(path: PathBuf, mut news: watch::Receiver<Option<Vec<u8>>>) {
    while news.changed().await.is_ok() {
        let Some(bytes) = news.borrow_and_update().clone() else {
            continue;
        };
        let target = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&target, &bytes)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(path = %path.display(), %error, "cannot cache the netmap");
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    std::fs::rename(partial, path)
}
