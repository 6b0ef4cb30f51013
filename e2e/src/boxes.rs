//! Programs that take input in the ways that agents and editors do (`programs/box.py`), and what
//! of a message each of them should take.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Cw, PATIENCE, steps, wait_until};

/// The program `box.py`, if there is what runs it.
///
/// # Errors
///
/// That there is no Python.
pub fn program() -> Result<String, String> {
    installed("python3")?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/box.py");
    Ok(program.display().to_string())
}

/// Whether a program is on the `PATH`.
///
/// # Errors
///
/// That it is not.
pub fn installed(program: &str) -> Result<(), String> {
    let found = Command::new(program).arg("--version").output();
    found
        .map(drop)
        .map_err(|error| format!("{program}: {error}"))
}

/// Starts a model as a session of this name, waits until it can be typed into, and returns the
/// file in which it writes what it takes.
///
/// # Panics
///
/// When it does not begin.
#[track_caller]
#[must_use]
pub fn start(cw: &Cw, program: &str, model: &str, name: &str) -> PathBuf {
    let file = cw.home().join(format!("{name}.out"));
    let path = file.display().to_string();
    steps::launch(cw, name, &["python3", program, model, &path]);
    let shows = match model {
        "claude" => "shortcuts",
        "codex" | "codex-marked" => "\u{203a}",
        "dialog" => "No",
        "password" => "Password",
        "deaf" => "deaf",
        _ => "$ ",
    };
    wait_until(&format!("{name} has begun"), PATIENCE, || {
        let log = cw.ok(&["logs", "--raw", name]);
        log.contains(shows).then_some(()).ok_or(log)
    });
    file
}

/// What a program has taken.
///
/// # Panics
///
/// When it has written something else than strings.
#[track_caller]
#[must_use]
pub fn taken(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may still be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A message of the owner, different each time, and what of it a program takes that knows marked
/// pastes or does not.
#[must_use]
pub fn message(round: usize, marked: bool) -> (String, String) {
    let body = match round % 5 {
        0 => format!("run the tests {round}"),
        1 => format!("first {round}\nsecond\n\nfourth"),
        2 => format!("\x1b[201~\rq {round} \x03\x1b[A grün ✓"),
        3 => format!("{round} {}", "long ".repeat(if marked { 400 } else { 15 })),
        _ => format!("is it 1. or 2. (y/n) {round}?"),
    };
    let text = arrives(&body, marked);
    (body, text)
}

/// What a program takes of a message of the owner.
#[must_use]
pub fn arrives(body: &str, marked: bool) -> String {
    let visible = |ch: char| match ch {
        '\0'..='\u{1f}' if ch != '\n' => char::from_u32(0x2400 + ch as u32).unwrap_or('?'),
        _ => ch,
    };
    let text: String = format!("Message from owner: {body}")
        .chars()
        .map(visible)
        .collect();
    if marked {
        // Lines after the first are set in: none looks like the head of a message.
        return text.replace('\n', "\n  ").replace("\n  \n", "\n\n");
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    lines.join(" / ")
}
