//! Other programs of this machine: container engine, cluster.

use std::path::Path;
use std::process::{Command, Output};

/// Runs a command line, whose words are apart by spaces alone, and returns what it printed.
///
/// # Errors
///
/// Why it failed: its last line.
pub(crate) fn run(line: &str) -> Result<String, String> {
    let done = output(line).map_err(|error| format!("{line}: {error}"))?;
    if done.status.success() {
        return Ok(text(&done.stdout));
    }
    let said = text(&done.stderr);
    let last = said.lines().next_back().unwrap_or_default();
    Err(format!("{line}: {last}"))
}

/// The same of one that has to work.
///
/// # Panics
///
/// When it fails.
#[track_caller]
pub(crate) fn must(line: &str) -> String {
    run(line).unwrap_or_else(|why| panic!("{why}"))
}

/// Both its streams, whatever became of it; for logs.
pub(crate) fn both(line: &str) -> String {
    let done = output(line);
    done.map_or_else(
        |error| error.to_string(),
        |done| text(&[done.stdout, done.stderr].concat()),
    )
}

/// From the root of the sources.
fn output(line: &str) -> std::io::Result<Output> {
    let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap_or_default())
        .args(words)
        .current_dir(e2e.parent().unwrap_or(e2e))
        .output()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}
