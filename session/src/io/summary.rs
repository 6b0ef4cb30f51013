//! `session.output_summary`: now and then, how much a session wrote and what
//! it wrote last. A session that writes nothing costs nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::desk::Desk;
use super::inner::Inner;
use super::log::OutputLog;
use crate::event::MAX_PREVIEW;
use crate::{EventKind, OutputSummary, screen};

/// From the first output to its summary, and so the time between two of them:
/// somebody who watches sees that something happens, and a session that never
/// pauses writes no more than 17 280 lines a day.
const EVERY: Duration = Duration::from_secs(5);

/// Bytes at the end of the output that are looked through for text.
const LOOK: usize = 4 * 1024;

/// Sums up the output of a session until it ends. The last one is written
/// before its end, by whoever writes that.
pub(super) async fn follow(inner: Weak<Inner>, desk: Weak<Desk>, log: Arc<OutputLog>) {
    let mut changes = log.subscribe();
    let mut told = log.state().summarised;
    loop {
        let new = changes.wait_for(|log| log.ended.is_some() || log.end > told);
        if new.await.is_err() {
            return;
        }
        let over = changes.wait_for(|log| log.ended.is_some());
        if tokio::time::timeout(EVERY, over).await.is_ok() {
            return;
        }
        let (Some(inner), Some(desk)) = (inner.upgrade(), desk.upgrade()) else {
            return;
        };
        told = inner.summarise(&desk);
    }
}

impl Inner {
    /// Writes a summary if there is something new. Returns the bytes that are
    /// summed up.
    pub(super) fn summarise(&self, desk: &Desk) -> u64 {
        let log = desk.log.state();
        let (bytes, lines) = match self.engine.lock().get(desk.id) {
            Ok(session) => session.summarised,
            Err(_) => return log.end,
        };
        // What is in the file, of which the lines are counted.
        let (total_bytes, total_lines) = (log.counted, log.lines);
        if total_bytes <= bytes {
            return log.end;
        }
        let summary = OutputSummary {
            bytes_delta: total_bytes - bytes,
            lines_delta: total_lines.saturating_sub(lines),
            total_bytes,
            total_lines,
            preview: screen::last_text(&desk.log.tail(LOOK), MAX_PREVIEW),
        };
        self.note(desk.id, EventKind::OutputSummary(summary));
        log.counted
    }
}
