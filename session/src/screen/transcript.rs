//! What a human saw, as lines of text.
//!
//! The stream goes through a screen, and a line is taken down when it is over:
//!
//! - on a line feed, as long as the program only writes on;
//! - once a program has gone back up to write over what it wrote (progress
//!   bars, spinners of several lines, menus), when a line leaves the screen, so
//!   that of a thousand redraws the first and the last are taken down. A line
//!   that was taken down and leaves the screen as another is taken down again;
//! - of the alternate screen, the lines that have changed since it was last
//!   taken down: when the program leaves it, and when the caller says that it
//!   has settled.
//!
//! Lines come without escape sequences, tabs as blanks, blanks at their ends
//! cut off, lines that were broken at the right margin joined again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::dump;
use super::grid::Row;
use super::parser::{Act, Parser};
use super::state::State;
use crate::Size;

/// Longest line, bytes; what is longer becomes several.
const LINE_MAX: usize = 64 * 1024;

/// Most bytes of lines for one call, beside sixteen for each byte of its input:
/// a few bytes can fill and scroll a screen. The rest of the call is left out,
/// and [`LEFT_OUT`] says so.
const OUT_MAX: usize = 4 * 1024 * 1024;

/// A run of characters is taken in pieces of so many, so that no line passes
/// the history unseen.
const RUN: usize = 1024;

/// What stands for lines beyond [`OUT_MAX`].
const LEFT_OUT: &str = "[lines left out]";

/// A stream on its way to text. Memory is that of a [`Screen`](super::Screen),
/// 64 KiB of an unfinished line, and the lines of one call.
#[derive(Debug)]
pub struct Transcript {
    parser: Parser,
    scribe: Scribe,
}

#[derive(Debug)]
struct Scribe {
    state: State,
    /// Lines that have left the screen so far: the number of its first row.
    top: u64,
    /// Rows before this one are taken down.
    written: u64,
    /// What was taken down of the rows that are still there, from `top` on.
    hashes: VecDeque<u64>,
    /// The lowest row when the program last went up: until it has left the
    /// screen, rows are taken down only as they leave.
    held: Option<u64>,
    /// Where the cursor was.
    row: u64,
    /// The beginning of a line that goes on in the next row.
    partial: String,
    /// The alternate screen as it was taken down.
    shown: Vec<String>,
    lines: Vec<String>,
    /// Bytes that may still go into `lines`.
    room: usize,
}

impl Transcript {
    /// Of a terminal of this size.
    #[must_use]
    pub fn new(size: Size) -> Self {
        Self {
            parser: Parser::default(),
            scribe: Scribe {
                state: State::new(super::clamped(size)),
                top: 0,
                written: 0,
                hashes: VecDeque::new(),
                held: None,
                row: 0,
                partial: String::new(),
                shown: Vec::new(),
                lines: Vec::new(),
                room: OUT_MAX,
            },
        }
    }

    /// Goes on with what the program wrote, cut anywhere. Returns the lines
    /// that are over.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.scribe.room = OUT_MAX + 16 * bytes.len();
        self.parser.advance(bytes, &mut self.scribe);
        self.scribe.take()
    }

    /// The program has paused, says the caller: returns what is there and not
    /// taken down, but the line of the cursor.
    pub fn settle(&mut self) -> Vec<String> {
        self.scribe.room = OUT_MAX;
        if self.scribe.state.on_alternate {
            self.scribe.show();
        } else {
            self.scribe.held = None;
            self.scribe.write_to(self.scribe.row);
        }
        self.scribe.take()
    }

    /// The terminal has another size. Returns what is there and not taken down.
    pub fn resize(&mut self, size: Size) -> Vec<String> {
        let mut lines = self.settle();
        let size = super::clamped(size);
        let scribe = &mut self.scribe;
        scribe.state.resize(size.cols.into(), size.rows.into());
        scribe.room = OUT_MAX;
        scribe.begin_page();
        lines.append(&mut scribe.take());
        lines
    }

    /// The stream is over. Returns all that was not taken down.
    #[must_use]
    pub fn finish(mut self) -> Vec<String> {
        let scribe = &mut self.scribe;
        scribe.room = OUT_MAX;
        if scribe.state.on_alternate {
            scribe.show();
            // The screen behind it.
            scribe.state.on_alternate = false;
        }
        scribe.end_page();
        scribe.end_line();
        scribe.take()
    }
}

impl Scribe {
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn push(&mut self, line: String) {
        let cost = line.len() + 1;
        if self.room >= cost {
            self.room -= cost;
            self.lines.push(line);
        } else if self.room > 0 {
            self.room = 0;
            self.lines.push(LEFT_OUT.to_owned());
        }
    }

    /// A row that is over.
    fn write(&mut self, text: &str, wrapped: bool) {
        self.partial.push_str(text);
        if !wrapped || self.partial.len() > LINE_MAX {
            let mut line = std::mem::take(&mut self.partial);
            line.truncate(line.trim_end_matches(' ').len());
            self.push(line);
        }
    }

    fn end_line(&mut self) {
        if !self.partial.is_empty() {
            self.write("", false);
        }
    }

    /// Takes rows of the screen down, up to before this one.
    fn write_to(&mut self, row: u64) {
        while self.written < row {
            let index = usize::try_from(self.written - self.top).unwrap_or(usize::MAX);
            let Some(line) = self.state.primary.grid.rows.get(index) else {
                return;
            };
            let (text, wrapped) = (text(&self.state, line), line.wrapped);
            self.hashes.push_back(hash(&text));
            self.written += 1;
            self.write(&text, wrapped);
        }
    }

    /// Looks after lines that have left the screen, and where the cursor went.
    fn look(&mut self, line_feed: bool) {
        if self.state.on_alternate {
            return;
        }
        self.collect();
        let before = std::mem::replace(&mut self.row, self.top + self.state.cursor.row as u64);
        let up = self.row < before + u64::from(line_feed);
        // A line feed at the bottom of a region goes nowhere.
        let at_bottom =
            line_feed && self.row == before && self.state.cursor.row == self.state.region.1;
        if up && !at_bottom {
            let bottom = self.top + self.lowest() as u64;
            self.held = self.held.max(Some(bottom.max(before)));
        }
        if self.held.is_some_and(|bottom| bottom < self.top) {
            self.held = None;
        }
        if line_feed && self.held.is_none() {
            self.write_to(self.row);
        }
    }

    /// Takes what has left the screen at the top.
    fn collect(&mut self) {
        if self.state.primary.grid.history.is_empty() {
            return;
        }
        let rows = std::mem::take(&mut self.state.primary.grid.history);
        self.state.primary.grid.forget();
        for row in &rows {
            let text = text(&self.state, row);
            if self.written <= self.top {
                self.written = self.top + 1;
                self.write(&text, row.wrapped);
            } else if self.hashes.pop_front() != Some(hash(&text)) {
                self.write(&text, row.wrapped);
            }
            self.top += 1;
        }
    }

    /// The lowest row with something in it.
    fn lowest(&self) -> usize {
        let rows = &self.state.primary.grid.rows;
        let last = rows.iter().rposition(|row| !row.trimmed().is_empty());
        last.unwrap_or(0)
    }

    /// Takes down what is on the primary screen and is about to go.
    fn end_page(&mut self) {
        let rows = &self.state.primary.grid.rows;
        let last = rows.iter().rposition(|row| !row.trimmed().is_empty());
        let end = last.map_or(0, |last| last as u64 + 1);
        // Those that were taken down and have changed.
        for index in 0..self.hashes.len() {
            let Some(row) = self.state.primary.grid.rows.get(index) else {
                break;
            };
            let (text, wrapped) = (text(&self.state, row), row.wrapped);
            if hash(&text) != self.hashes[index] {
                self.hashes[index] = hash(&text);
                if !text.trim().is_empty() {
                    self.write(&text, wrapped);
                }
            }
        }
        self.write_to(self.top + end);
    }

    /// Everything has another place. What is above the line of the cursor has
    /// been taken down; that line begins anew.
    fn begin_page(&mut self) {
        self.partial.clear();
        let above = std::mem::take(&mut self.state.primary.grid.history);
        self.state.primary.grid.forget();
        self.top += above.len() as u64;
        let cursor = if self.state.on_alternate {
            self.state.primary.saved.cursor.row
        } else {
            self.state.cursor.row
        };
        (self.row, self.held) = (self.top + cursor as u64, None);
        let rows = &self.state.primary.grid.rows;
        let before: Vec<&Row> = above.iter().chain(rows.iter().take(cursor)).collect();
        let ended = before.iter().rposition(|row| !row.wrapped);
        let line = ended.map_or(0, |ended| ended + 1);
        let gone: Vec<_> = above.iter().skip(line).collect();
        let gone: Vec<String> = gone.iter().map(|row| text(&self.state, row)).collect();
        let kept = rows.iter().take(line.saturating_sub(above.len()));
        self.hashes = kept.map(|row| hash(&text(&self.state, row))).collect();
        self.written = self.top + self.hashes.len() as u64;
        for part in gone {
            self.write(&part, true);
        }
    }

    /// Takes down what has changed on the alternate screen.
    fn show(&mut self) {
        let rows = &self.state.alternate.grid.rows;
        let now: Vec<String> = rows
            .iter()
            .map(|row| text(&self.state, row).trim_end_matches(' ').to_owned())
            .collect();
        let before = std::mem::replace(&mut self.shown, now.clone());
        for (index, line) in now.into_iter().enumerate() {
            if !line.is_empty() && before.get(index) != Some(&line) {
                self.push(line);
            }
        }
    }

    /// Before a sequence that takes away what can be seen.
    fn before(&mut self, body: &[u8], last: u8) {
        match (body, last) {
            (b"?1049" | b"?1047" | b"?47", b'l') if self.state.on_alternate => {
                self.show();
                self.shown.clear();
            }
            (b"2" | b"3", b'J') if !self.state.on_alternate => self.clear(),
            _ => {}
        }
    }

    fn clear(&mut self) {
        self.end_page();
        // What comes is compared with what was there, row by row.
        self.held = None;
    }
}

impl Act for Scribe {
    fn print(&mut self, ch: char) {
        self.state.print(ch);
        self.look(false);
    }

    fn print_ascii(&mut self, run: &[u8]) {
        for part in run.chunks(RUN) {
            self.state.print_ascii(part);
            self.look(false);
        }
    }

    fn control(&mut self, byte: u8) {
        self.state.control(byte);
        self.look((0x0a..=0x0c).contains(&byte));
    }

    fn escape(&mut self, intermediates: &[u8], last: u8) {
        if intermediates.is_empty() && last == b'c' {
            if self.state.on_alternate {
                self.show();
                self.shown.clear();
            }
            self.end_page();
        }
        self.state.escape(intermediates, last);
        self.look(false);
    }

    fn csi(&mut self, body: &[u8], last: u8) {
        self.before(body, last);
        self.state.csi(body, last);
        self.state.answers.take();
        self.look(false);
    }

    fn osc(&mut self, body: &[u8]) {
        self.state.osc(body);
        self.state.answers.take();
    }

    fn dcs(&mut self, body: &[u8]) {
        self.state.dcs(body);
        self.state.answers.take();
    }
}

/// The text of a row. One that goes on in the next keeps its blanks.
fn text(state: &State, row: &Row) -> String {
    let mut line = String::new();
    for cell in &row.cells {
        dump::glyph(&mut line, state, cell);
    }
    if row.wrapped {
        // One column is left where something wide did not fit.
        let missing = state.cols.saturating_sub(row.cells.len());
        if missing > 1 || (missing == 1 && state.cols == 1) {
            line.extend(std::iter::repeat_n(' ', missing));
        }
    } else {
        line.truncate(line.trim_end_matches(' ').len());
    }
    line
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.trim_end_matches(' ').hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size { cols: 20, rows: 6 };

    fn all(pieces: &[&str]) -> Vec<String> {
        let mut transcript = Transcript::new(SIZE);
        let mut lines = Vec::new();
        for piece in pieces {
            lines.extend(transcript.feed(piece.as_bytes()));
        }
        lines.extend(transcript.finish());
        lines
    }

    #[test]
    fn a_line_is_told_at_its_end() {
        let mut transcript = Transcript::new(SIZE);
        assert_eq!(transcript.feed(b"one\r\n\x1b[1mtw"), ["one"]);
        assert_eq!(transcript.feed(b"o\x1b[m\r\n\r\n"), ["two", ""]);
        assert_eq!(transcript.feed(b"$ "), Vec::<String>::new());
        assert_eq!(transcript.finish(), ["$"]);
    }

    #[test]
    fn what_is_overwritten_in_its_line_is_told_once() {
        let spinner: String = (0..1000).map(|n| format!("\r{n}%")).collect();
        assert_eq!(all(&[&spinner, "\rok\r\n"]), ["ok9%"]);
    }

    #[test]
    fn frames_drawn_again_are_told_first_and_last() {
        let mut stream = "start\r\n".to_owned();
        stream.push_str("a 0\r\nb 0\r\n");
        for n in 1..1000 {
            stream.push_str(&format!("\x1b[2A\x1b[Ka {n}\r\n\x1b[Kb {n}\r\n"));
        }
        stream.push_str("end\r\n");
        let expected = ["start", "a 0", "b 0", "a 999", "b 999", "end"];
        assert_eq!(all(&[&stream]), expected);
        // And lines after it are told at once again when it has left.
        let mut transcript = Transcript::new(SIZE);
        transcript.feed(stream.as_bytes());
        let more = transcript.feed(b"1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n");
        assert_eq!(more.last().unwrap(), "7");
    }

    #[test]
    fn a_screen_of_its_own_is_told_as_it_settles() {
        let mut transcript = Transcript::new(SIZE);
        let before = transcript.feed(b"$ vim\r\n\x1b[?1049h\x1b[Hfirst\x1b[3;1Hline");
        assert_eq!(before, ["$ vim"]);
        assert_eq!(transcript.settle(), ["first", "line"]);
        assert_eq!(transcript.settle(), Vec::<String>::new());
        assert!(transcript.feed(b"\x1b[3;1Hlime").is_empty());
        assert_eq!(transcript.settle(), ["lime"]);
        let left = transcript.feed(b"\x1b[4;1Hbye\x1b[?1049l$ ls\r\nfile\r\n");
        assert_eq!(left, ["bye", "$ ls", "file"]);
        assert!(transcript.finish().is_empty());
    }

    #[test]
    fn what_is_cleared_was_seen() {
        let stream = "one\r\ntwo\x1b[H\x1b[2Jthree\r\n";
        assert_eq!(all(&[stream]), ["one", "two", "three"]);
        let clock: String = (0..100).map(|_| "\x1b[H\x1b[2Jsame\r\n").collect();
        assert_eq!(all(&[&clock]), ["same"]);
    }

    #[test]
    fn another_size_loses_nothing() {
        let mut transcript = Transcript::new(SIZE);
        let mut lines = transcript.feed("q".repeat(30).as_bytes());
        lines.extend(transcript.resize(Size { cols: 7, rows: 3 }));
        lines.extend(transcript.feed(b"\r\nnext\r\n"));
        lines.extend(transcript.finish());
        assert_eq!(lines.concat().matches('q').count(), 30);
        assert_eq!(lines.last().unwrap(), "next");
    }

    #[test]
    fn a_few_bytes_cannot_become_endless_lines() {
        let mut transcript = Transcript::new(Size {
            cols: 2000,
            rows: 1000,
        });
        let lines = transcript.feed("x\x1b[2000b\x1b[1000S".repeat(5000).as_bytes());
        let bytes: usize = lines.iter().map(String::len).sum();
        assert!(bytes < OUT_MAX + 16 * 80_000 + 100);
    }

    proptest! {
        #[test]
        fn plain_lines_pass_unchanged(
            lines in prop::collection::vec("([ -~]|[äß漢字🦀é]){0,70}", 0..40),
            cols in 2..40_u16,
            // On a screen of one row, blanks at the margin are lost.
            rows in 2..10_u16,
            piece in 1..50_usize,
        ) {
            let lines: Vec<_> = lines.iter().map(|line| line.trim_end().to_owned()).collect();
            let stream: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let mut transcript = Transcript::new(Size { cols, rows });
            let mut told = Vec::new();
            for part in stream.as_bytes().chunks(piece) {
                told.extend(transcript.feed(part));
            }
            prop_assert_eq!(&told, &lines);
            prop_assert!(transcript.finish().is_empty());
        }

        #[test]
        fn any_bytes_are_survived(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    "\x1b\\[[?0-9;]{0,5}[A-Za-z]".prop_map(String::into_bytes),
                    "\r|\n|\x1b[cM78]|[a-z]{1,30}".prop_map(String::into_bytes),
                ],
                0..60,
            ),
            sizes in prop::collection::vec((1..30_u16, 1..9_u16), 1..4),
        ) {
            let (cols, rows) = sizes[0];
            let mut transcript = Transcript::new(Size { cols, rows });
            for (number, part) in parts.iter().enumerate() {
                transcript.feed(part);
                if number % 7 == 0 {
                    transcript.settle();
                }
                if number % 17 == 0 {
                    let (cols, rows) = sizes[number % sizes.len()];
                    transcript.resize(Size { cols, rows });
                }
            }
            let _ = transcript.finish();
        }
    }
}
