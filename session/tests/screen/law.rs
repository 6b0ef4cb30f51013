//! The law, judged by our own screen: everything it knows is the same.

use session::Size;
use session::screen::Screen;

use crate::cases::{BYTES, CASES};

pub(crate) const SIZE: Size = Size { cols: 20, rows: 6 };

pub(crate) fn screen(size: Size, bytes: &[u8]) -> Screen {
    let mut screen = Screen::new(size);
    screen.feed(bytes);
    screen
}

/// The small streams.
pub(crate) fn small() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let text = CASES.iter().map(|(name, text)| (*name, text.as_bytes()));
    text.chain(BYTES.iter().copied())
}

/// Cuts a stream and compares.
pub(crate) fn holds(name: &str, size: Size, bytes: &[u8], cut: usize, whole: &Screen) {
    let restore = screen(size, &bytes[..cut]).restore(usize::MAX);
    let mut screen = screen(size, &restore);
    screen.feed(&bytes[cut..]);
    same(&screen.describe(), &whole.describe(), || {
        let before = String::from_utf8_lossy(&bytes[cut.saturating_sub(20)..cut]).into_owned();
        let restore = String::from_utf8_lossy(&restore);
        format!("{name}, cut at {cut} after {before:?}, restored by {restore:?}")
    });
}

/// Compares line by line.
pub(crate) fn same(got: &str, expected: &str, context: impl Fn() -> String) {
    if got == expected {
        return;
    }
    let mut lines: Vec<String> = got.lines().map(|line| format!("got      {line}")).collect();
    let mut differences = Vec::new();
    for (at, line) in expected.lines().enumerate() {
        match lines.get_mut(at) {
            Some(got) if got[9..] == *line => {}
            Some(got) => differences.push(format!("{got}\nexpected {line}")),
            None => differences.push(format!("missing  {line}")),
        }
    }
    let more = lines.split_off(expected.lines().count().min(lines.len()));
    differences.extend(more);
    differences.truncate(12);
    panic!("{}\n{}", context(), differences.join("\n"));
}

#[test]
fn small_streams_at_every_byte() {
    for (name, bytes) in small() {
        let whole = screen(SIZE, bytes);
        for cut in 0..=bytes.len() {
            holds(name, SIZE, bytes, cut, &whole);
        }
    }
}

#[test]
fn small_streams_at_the_cut_itself() {
    for (name, bytes) in small() {
        for cut in 0..=bytes.len() {
            let whole = screen(SIZE, &bytes[..cut]);
            holds(name, SIZE, &bytes[..cut], cut, &whole);
        }
    }
}

/// All small streams one after the other: what one leaves behind is there in
/// the next.
#[test]
fn streams_in_a_row() {
    for (first, before) in small() {
        for (second, after) in small() {
            let all = [before, after].concat();
            let whole = screen(SIZE, &all);
            let name = format!("{first}, then {second}");
            holds(&name, SIZE, &all, before.len(), &whole);
        }
    }
}
