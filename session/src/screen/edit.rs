//! Erasing, shifting and tabs.

use super::cell::{Cell, Glyph};
use super::state::{State, is_default_tab};

impl State {
    /// ED: 0 from the cursor on, 1 up to the cursor, 2 all, 3 what has left
    /// the screen.
    pub(super) fn erase_display(&mut self, what: u16) {
        let (row, rows, bg) = (self.cursor.row, self.rows, self.cursor.pen.bg);
        match what {
            0 => {
                self.erase_line(0);
                self.grid().erase(row + 1, rows, bg);
            }
            1 => {
                self.grid().erase(0, row, bg);
                self.erase_line(1);
            }
            2 => self.grid().erase(0, rows, bg),
            3 => self.grid().forget(),
            _ => {}
        }
    }

    /// EL: 0 from the cursor on, 1 up to the cursor, 2 all. A cursor that waits
    /// for the next line has nothing behind it; terminals do not agree, but
    /// this one loses no text.
    pub(super) fn erase_line(&mut self, what: u16) {
        let (col, cols) = (self.cursor.col, self.cols);
        match what {
            0 if self.cursor.pending => {}
            0 => self.erase_cells(col, cols),
            1 => self.erase_keeping(0, col + 1),
            2 => self.erase_keeping(0, cols),
            _ => {}
        }
    }

    /// Erases in the line of the cursor, which then waits for nothing.
    pub(super) fn erase_cells(&mut self, from: usize, to: usize) {
        self.cursor.pending = false;
        self.erase_keeping(from, to);
    }

    fn erase_keeping(&mut self, from: usize, to: usize) {
        let (row, cols, bg) = (self.cursor.row, self.cols, self.cursor.pen.bg);
        self.grid().rows[row].erase(from, to, cols, bg);
    }

    pub(super) fn insert_or_delete_cells(&mut self, count: usize, insert: bool) {
        self.cursor.pending = false;
        let (row, col, cols) = (self.cursor.row, self.cursor.col, self.cols);
        let bg = self.cursor.pen.bg;
        let line = &mut self.grid().rows[row];
        if insert {
            line.insert(col, count, cols, bg);
        } else {
            line.delete(col, count, cols, bg);
        }
    }

    /// IL and DL: within the scroll region only.
    pub(super) fn insert_or_delete_lines(&mut self, count: usize, insert: bool) {
        let (row, bg) = (self.cursor.row, self.cursor.pen.bg);
        let (top, bottom) = self.region;
        if row < top || row > bottom {
            return;
        }
        if insert {
            self.grid().scroll_down((row, bottom), count, bg);
        } else {
            self.grid().scroll_up((row, bottom), count, bg, false);
        }
        self.cursor.col = 0;
        self.cursor.pending = false;
    }

    /// HT. At the last column it stays, also in front of a new line.
    pub(super) fn tab(&mut self) {
        let next = (self.cursor.col + 1..self.cols).find(|col| self.tabs[*col]);
        let col = next.unwrap_or(self.cols - 1);
        if col != self.cursor.col {
            self.cursor.col = col;
            self.cursor.pending = false;
        }
    }

    /// CBT.
    pub(super) fn tab_back(&mut self, count: usize) {
        self.cursor.pending = false;
        for _ in 0..count.min(self.cols) {
            let before = (0..self.cursor.col).rev().find(|col| self.tabs[*col]);
            self.cursor.col = before.unwrap_or(0);
        }
    }

    /// TBC: 0 at the cursor, 3 all.
    pub(super) fn clear_tabs(&mut self, what: u16) {
        match what {
            0 => self.tabs[self.cursor.col] = false,
            3 => self.tabs.fill(false),
            _ => {}
        }
    }

    /// Whether tabs stop where they do after a reset.
    pub(super) fn has_default_tabs(&self) -> bool {
        let mut tabs = self.tabs.iter().enumerate();
        tabs.all(|(col, tab)| *tab == is_default_tab(col))
    }

    /// DECALN: the screen full of `E`.
    pub(super) fn align(&mut self) {
        self.region = (0, self.rows - 1);
        self.cursor.row = 0;
        self.cursor.col = 0;
        self.cursor.pending = false;
        let cols = self.cols;
        let mut cell = Cell::BLANK;
        cell.glyph = Glyph::char('E');
        let rows = self.rows;
        self.grid().erase(0, rows, <_>::default());
        for row in &mut self.grid().rows {
            row.upto(cols).fill(cell);
        }
    }
}
