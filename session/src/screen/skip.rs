//! What of a long text nobody will ever see.
//!
//! A program that prints a book leaves on the screen, and above it, only the
//! last lines of it. As long as it prints nothing but text and line ends, and
//! the whole screen scrolls, the lines in between change nothing that a
//! terminal knows: those before have brought the cursor to the last row, and
//! those after push out whatever these have left. So they need not be printed.

use std::ops::Range;

use super::grid::HISTORY_LINES;

/// Text shorter than this is printed, bytes: looking at it would cost as much.
pub(super) const LEAST: usize = 128 * 1024;

/// So many bytes are looked at together.
const BLOCK: usize = 256;

/// The part of `text` that need not be printed on a screen of `rows` lines;
/// `None` when there is no such part, and when it is not all printable ASCII
/// with carriage returns and line feeds.
///
/// Begins and ends behind a line end. Before it come `rows` line feeds at
/// least, and after it as many as there are lines to be kept.
pub(super) fn unseen(text: &[u8], rows: usize) -> Option<Range<usize>> {
    if text.len() < LEAST || !text.chunks(BLOCK).all(is_plain) {
        return None;
    }
    let feeds = |at: &usize| text[*at] == b'\n';
    let first = (0..text.len()).filter(feeds).nth(rows.checked_sub(1)?)?;
    let last = (0..text.len())
        .rev()
        .filter(feeds)
        .nth(HISTORY_LINES + rows)?;
    let is_end = |at: &usize| text[..*at].ends_with(b"\r\n");
    let start = (first + 1..=last).find(is_end)?;
    let end = (start + 1..=last).rev().find(is_end)?;
    Some(start..end)
}

/// Without a branch, so that many bytes are compared at once.
fn is_plain(block: &[u8]) -> bool {
    let odd = |byte: &u8| {
        let printable = (b' '..=b'~').contains(byte);
        u8::from(!printable & (*byte != b'\n') & (*byte != b'\r'))
    };
    block.iter().fold(0, |all, byte| all | odd(byte)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;
    use crate::screen::Screen;

    fn text(lines: usize, end: &str) -> Vec<u8> {
        let line = |number: usize| format!("{number:08} {}{end}", "x".repeat(number * 7 % 150));
        (0..lines)
            .flat_map(|number| line(number).into_bytes())
            .collect()
    }

    /// In pieces that are too short to be looked at, and at once.
    fn both(before: &[u8], text: &[u8]) -> [String; 2] {
        let mut screens = [(); 2].map(|()| Screen::new(Size { rows: 24, cols: 80 }));
        for screen in &mut screens {
            screen.feed(before);
        }
        text.chunks(LEAST / 3)
            .for_each(|piece| screens[0].feed(piece));
        screens[1].feed(text);
        screens.map(|screen| screen.describe())
    }

    #[test]
    fn a_long_text_has_a_part_that_is_not_seen() {
        let all = text(5000, "\r\n");
        let part = unseen(&all, 24).unwrap();
        assert!(all[..part.start].ends_with(b"\r\n") && all[..part.end].ends_with(b"\r\n"));
        let feeds = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        assert!(feeds(&all[..part.start]) >= 24);
        let after = feeds(&all[part.end..]);
        assert!(
            (HISTORY_LINES + 24..HISTORY_LINES + 30).contains(&after),
            "{after}"
        );
    }

    #[test]
    fn whatever_else_is_in_it_is_seen() {
        assert!(
            unseen(&text(5000, "\n"), 24).is_none(),
            "no carriage returns"
        );
        assert!(unseen(&text(1000, "\r\n"), 24).is_none(), "too few lines");
        for odd in [0x1b, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x7f, 0x80, 0xc3] {
            let mut all = text(5000, "\r\n");
            let middle = all.len() / 2;
            all[middle] = odd;
            assert!(unseen(&all, 24).is_none(), "{odd:#x}");
        }
    }

    #[test]
    fn the_screen_is_the_same() {
        let befores: [&[u8]; 12] = [
            b"",
            b"hello\r\nworld\x1b[5;7H",
            b"\x1b[44;1mcolours",
            b"\x1b[?7l",
            b"\x1b[20h",
            b"\x1b[4h\x1b(0",
            b"\x1b[3;9r",
            b"\x1b[?1049hother",
            b"\x1b[?6h\x1b[2;5H\x1b7",
            b"\x1b*0\x1bN",
            b"half \x1b[3",
            "\x1b]8;;http://x\x1b\\wide \u{4e00}\u{300}".as_bytes(),
        ];
        for before in befores {
            for end in ["\r\n", "\n\r\n", "\r\n\r", "\r\nnot the end of a line"] {
                let [slow, fast] = both(before, &text(6000, end));
                assert_eq!(slow, fast, "{:?} {end:?}", String::from_utf8_lossy(before));
            }
            let long = [text(3000, "\r\n"), vec![b'y'; 300_000], text(3000, "\r\n")].concat();
            let [slow, fast] = both(before, &long);
            assert_eq!(slow, fast, "{:?} long", String::from_utf8_lossy(before));
        }
    }
}
