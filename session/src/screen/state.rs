//! The state of the terminal, and what printing does to it.

use std::collections::HashSet;

use unicode_width::UnicodeWidthChar as _;

use super::answers::Answers;
use super::cell::{Cell, Glyph, Text};
use super::cursor::{Cursor, Saved};
use super::grid::Grid;
use super::interner::{Interner, Limits};
use super::keyboard::{Keyboard, Modifiers};
use super::modes::{self, Modes};
use super::words::{Colors, Titles};
use crate::Size;

/// Hyperlinks at a time and bytes of them; text beyond has none. Numbers have
/// to fit a cell.
const LINKS: Limits = Limits {
    entries: u16::MAX as u32 - 1,
    bytes: 1024 * 1024,
    sweep: 1024,
};

/// Characters with combining marks at a time. There can be no more than cells,
/// and a sweep comes before there are more than half as many again.
const CLUSTERS: Limits = Limits {
    entries: u32::MAX / 2,
    bytes: 64 * 1024 * 1024,
    sweep: 16 * 1024,
};

/// Longest character with all its marks, bytes; more marks are dropped.
const CLUSTER_MAX: usize = 64;

/// What there is of each screen.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) grid: Grid,
    pub(super) saved: Saved,
    pub(super) keyboard: Keyboard,
}

impl Side {
    fn new(size: Size, keeps: bool) -> Self {
        Self {
            grid: Grid::new(size, keeps),
            saved: Saved::default(),
            keyboard: Keyboard::default(),
        }
    }
}

/// Everything a terminal knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) cols: usize,
    pub(super) rows: usize,
    pub(super) primary: Side,
    pub(super) alternate: Side,
    pub(super) on_alternate: bool,
    pub(super) cursor: Cursor,
    /// The hyperlink of what is printed; 0 for none.
    pub(super) link: u16,
    /// First and last row of the scroll region.
    pub(super) region: (usize, usize),
    /// For each column whether a tab stops there.
    pub(super) tabs: Vec<bool>,
    pub(super) modes: Modes,
    pub(super) modifiers: Modifiers,
    /// DECSCUSR; 0 is the user's own.
    pub(super) cursor_style: u8,
    pub(super) titles: Titles,
    pub(super) colors: Colors,
    /// OSC 7.
    pub(super) directory: Option<String>,
    /// What REP repeats: the character before it, as the program sent it.
    pub(super) last: Option<char>,
    pub(super) links: Interner,
    pub(super) clusters: Interner,
    pub(super) answers: Answers,
}

impl State {
    pub(super) fn new(size: Size) -> Self {
        let (cols, rows) = (usize::from(size.cols), usize::from(size.rows));
        Self {
            cols,
            rows,
            primary: Side::new(size, true),
            alternate: Side::new(size, false),
            on_alternate: false,
            cursor: Cursor::default(),
            link: 0,
            region: (0, rows - 1),
            tabs: (0..cols).map(is_default_tab).collect(),
            modes: Modes::default(),
            modifiers: Modifiers::default(),
            cursor_style: 0,
            titles: Titles::default(),
            colors: Colors::default(),
            directory: None,
            last: None,
            links: Interner::new(LINKS),
            clusters: Interner::new(CLUSTERS),
            answers: Answers::default(),
        }
    }

    /// The screen that is shown.
    pub(super) const fn side(&self) -> &Side {
        if self.on_alternate {
            &self.alternate
        } else {
            &self.primary
        }
    }

    pub(super) const fn side_mut(&mut self) -> &mut Side {
        if self.on_alternate {
            &mut self.alternate
        } else {
            &mut self.primary
        }
    }

    pub(super) const fn grid(&mut self) -> &mut Grid {
        &mut self.side_mut().grid
    }

    /// A character as the program sent it.
    pub(super) fn print_char(&mut self, raw: char) {
        let single = self.cursor.charsets.single.is_some();
        let ch = self.cursor.charsets.map(raw);
        match ch.width() {
            // Controls of the upper half: nothing to see.
            None => {}
            Some(0) => self.combine(ch),
            Some(width) => {
                self.put(ch, width);
                // A shift for one character cannot be had again.
                self.last = (!single).then_some(raw);
            }
        }
    }

    /// Printable ASCII, the whole run at once where nothing stands against it.
    pub(super) fn print_run(&mut self, mut run: &[u8]) {
        if !self.cursor.charsets.is_plain() || self.modes.insert {
            for byte in run {
                self.print_char(char::from(*byte));
            }
            return;
        }
        self.last = run.last().map(|byte| char::from(*byte));
        while !run.is_empty() {
            self.wrap_if_pending();
            let (row, col) = (self.cursor.row, self.cursor.col);
            let (pen, link, cols) = (self.cursor.pen, self.link, self.cols);
            let count = run.len().min(cols - col);
            let line = &mut self.grid().rows[row];
            line.split_at(col);
            line.split_at(col + count);
            for (cell, byte) in line.upto(col + count)[col..].iter_mut().zip(run) {
                let glyph = Glyph::char(char::from(*byte));
                *cell = Cell { glyph, pen, link };
            }
            self.advance(col + count);
            run = &run[count..];
        }
    }

    fn put(&mut self, ch: char, width: usize) {
        if width > self.cols {
            return;
        }
        self.wrap_if_pending();
        if self.cursor.col + width > self.cols {
            // It is wide and there is one column left.
            if self.modes.is_on(modes::AUTOWRAP) {
                let (row, col, cols) = (self.cursor.row, self.cursor.col, self.cols);
                let bg = self.cursor.pen.bg;
                self.grid().rows[row].erase(col, cols, cols, bg);
                self.wrap();
            } else {
                self.cursor.col = self.cols - width;
            }
        }
        let (row, col, cols) = (self.cursor.row, self.cursor.col, self.cols);
        let (pen, link, insert) = (self.cursor.pen, self.link, self.modes.insert);
        let line = &mut self.grid().rows[row];
        if insert {
            line.insert(col, width, cols, pen.bg);
        }
        line.split_at(col);
        line.split_at(col + width);
        let cells = &mut line.upto(col + width)[col..];
        cells.fill(Cell::tail(pen, link));
        cells[0].glyph = Glyph::char(ch);
        self.advance(col + width);
    }

    /// The columns before `col` have been written.
    fn advance(&mut self, col: usize) {
        if col < self.cols {
            self.cursor.col = col;
            return;
        }
        let row = self.cursor.row;
        self.grid().rows[row].wrapped = false;
        self.cursor.col = self.cols - 1;
        self.cursor.pending = true;
    }

    fn wrap_if_pending(&mut self) {
        if std::mem::take(&mut self.cursor.pending) && self.modes.is_on(modes::AUTOWRAP) {
            self.wrap();
        }
    }

    /// Goes to the next line because this one is full.
    fn wrap(&mut self) {
        self.cursor.col = 0;
        let before = self.cursor.row;
        let scrolls = before == self.region.1;
        self.down();
        // Lines of the alternate screen are never wrapped again.
        if self.on_alternate || !scrolls && before == self.cursor.row {
            return;
        }
        let row = self.cursor.row;
        // A region of one line has thrown the full line away.
        let lost = scrolls && self.region.0 == self.region.1 && row > 0;
        if let Some(line) = self.grid().before(row)
            && !lost
        {
            line.wrapped = true;
        }
    }

    /// Goes down a line; scrolls at the bottom of the region.
    pub(super) fn down(&mut self) {
        self.cursor.pending = false;
        if self.cursor.row == self.region.1 {
            self.scroll_up(1);
        } else if self.cursor.row + 1 < self.rows {
            self.cursor.row += 1;
        }
    }

    /// Goes up a line; scrolls at the top of the region.
    pub(super) fn up(&mut self) {
        self.cursor.pending = false;
        if self.cursor.row == self.region.0 {
            self.scroll_down(1);
        } else {
            self.cursor.row = self.cursor.row.saturating_sub(1);
        }
    }

    pub(super) fn scroll_up(&mut self, count: usize) {
        self.cursor.pending = false;
        let (region, bg) = (self.region, self.cursor.pen.bg);
        self.grid().scroll_up(region, count, bg, true);
    }

    pub(super) fn scroll_down(&mut self, count: usize) {
        self.cursor.pending = false;
        let (region, bg) = (self.region, self.cursor.pen.bg);
        self.grid().scroll_down(region, count, bg);
    }

    /// Adds a mark to the character before the cursor.
    fn combine(&mut self, mark: char) {
        self.last = None;
        let Cursor {
            row, col, pending, ..
        } = self.cursor;
        let Some(mut at) = (if pending {
            Some(col)
        } else {
            col.checked_sub(1)
        }) else {
            return;
        };
        if self.grid().rows[row].get(at).is_tail() {
            at -= 1;
        }
        let glyph = self.grid().rows[row].get(at).glyph;
        let mut text = self.text(glyph);
        if text.len() + mark.len_utf8() > CLUSTER_MAX {
            return;
        }
        text.push(mark);
        if self.clusters.is_due() {
            self.sweep_clusters();
        }
        if let Some(number) = self.clusters.intern(&text) {
            self.grid().rows[row].upto(at + 1)[at].glyph = Glyph::cluster(number);
        }
    }

    /// The text of a glyph; nothing for half a character.
    pub(super) fn text(&self, glyph: Glyph) -> String {
        match glyph.text() {
            Text::Char(ch) => ch.to_string(),
            Text::Cluster(number) => self.clusters.get(number).to_owned(),
            Text::Tail => String::new(),
        }
    }

    /// Begins a hyperlink: parameters and address as in OSC 8.
    pub(super) fn open_link(&mut self, link: &str) {
        if self.links.is_due() {
            self.sweep_links();
        }
        let number = self.links.intern(link);
        self.link = number.map_or(0, |number| u16::try_from(number + 1).unwrap_or(0));
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        let grids = [&self.primary.grid, &self.alternate.grid];
        let rows = grids
            .into_iter()
            .flat_map(|g| g.history.iter().chain(&g.rows));
        rows.flat_map(|row| &row.cells)
    }

    fn sweep_clusters(&mut self) {
        let used: HashSet<u32> = self
            .cells()
            .filter_map(|cell| match cell.glyph.text() {
                Text::Cluster(number) => Some(number),
                _ => None,
            })
            .collect();
        self.clusters.sweep(&used);
    }

    fn sweep_links(&mut self) {
        let used: HashSet<u32> = self
            .cells()
            .filter_map(|cell| u32::from(cell.link).checked_sub(1))
            .collect();
        self.links.sweep(&used);
    }
}

/// Every eighth column.
pub(super) const fn is_default_tab(col: usize) -> bool {
    col > 0 && col.is_multiple_of(8)
}
