//! The lines of one screen, and those that have left it at the top.
//!
//! A line holds only the cells up to the last one that is not blank; what is
//! missing is blank. So an empty screen costs next to nothing, and a line of
//! history as much as its text.

use std::collections::VecDeque;

use super::cell::{Cell, Color};
use crate::Size;

/// Most lines kept above the screen.
pub(super) const HISTORY_LINES: usize = 2000;

/// Most cells in them: 8 MB. Only lines of more than 200 characters are
/// fewer than [`HISTORY_LINES`] because of it.
const HISTORY_CELLS: usize = 400_000;

/// Cells that a line of history may have room for beside twice its own.
const ROOM: usize = 16;

/// One line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Row {
    /// May be shorter than the screen is wide, never longer.
    pub(super) cells: Vec<Cell>,
    /// The next line continues this one: it ended at the right margin, not by
    /// a line feed.
    pub(super) wrapped: bool,
}

impl Row {
    /// What is at a column.
    pub(super) fn get(&self, col: usize) -> Cell {
        self.cells.get(col).copied().unwrap_or(Cell::BLANK)
    }

    /// The cells up to the last that is not blank.
    pub(super) fn trimmed(&self) -> &[Cell] {
        let blank = self.cells.iter().rev().take_while(|c| **c == Cell::BLANK);
        &self.cells[..self.cells.len() - blank.count()]
    }

    /// An empty line that needs no new memory for a text of this length.
    fn cleared(mut self) -> Self {
        self.cells.clear();
        self.wrapped = false;
        self
    }

    /// The first `len` cells for writing, all of them there.
    pub(super) fn upto(&mut self, len: usize) -> &mut [Cell] {
        if self.cells.len() < len {
            self.cells.resize(len, Cell::BLANK);
        }
        &mut self.cells[..len]
    }

    /// Replaces half a wide character on either side of `col` by blanks: it is
    /// about to lose its other half.
    pub(super) fn split_at(&mut self, col: usize) {
        if col > 0 && self.get(col).is_tail() {
            for half in [col - 1, col] {
                let pen = self.cells[half].pen;
                self.cells[half] = Cell::erased(pen.bg);
            }
        }
    }

    /// Erases from `from` to before `to`; `cols` is the width of the screen.
    pub(super) fn erase(&mut self, from: usize, to: usize, cols: usize, bg: Color) {
        self.split_at(from);
        self.split_at(to);
        if to >= cols {
            self.wrapped = false;
            if bg == Color::Default {
                return self.cells.truncate(from);
            }
        }
        self.upto(to.min(cols))[from..].fill(Cell::erased(bg));
    }

    /// Makes room for `count` cells at `at`; what leaves at the right is gone.
    pub(super) fn insert(&mut self, at: usize, count: usize, cols: usize, bg: Color) {
        self.wrapped = false;
        let count = count.min(cols - at);
        self.split_at(at);
        // What is wide and will straddle the edge.
        self.split_at(cols - count);
        self.upto(at);
        let new = std::iter::repeat_n(Cell::erased(bg), count);
        self.cells.splice(at..at, new);
        self.cells.truncate(cols);
    }

    /// Takes out `count` cells at `at`; the rest moves to the left.
    pub(super) fn delete(&mut self, at: usize, count: usize, cols: usize, bg: Color) {
        self.wrapped = false;
        let count = count.min(cols - at);
        self.split_at(at);
        self.split_at(at + count);
        if bg != Color::Default {
            self.upto(cols);
            let new = std::iter::repeat_n(Cell::erased(bg), count);
            self.cells.extend(new);
        }
        let end = self.cells.len();
        self.cells.drain(at.min(end)..(at + count).min(end));
    }
}

/// The lines of a screen.
#[derive(Debug)]
pub(super) struct Grid {
    pub(super) rows: VecDeque<Row>,
    pub(super) history: VecDeque<Row>,
    /// Columns.
    pub(super) cols: usize,
    /// Cells in the history.
    cells: usize,
    keeps: bool,
}

impl Grid {
    /// An empty screen; `keeps` says whether lines that leave it are kept.
    pub(super) fn new(size: Size, keeps: bool) -> Self {
        Self {
            rows: (0..size.rows).map(|_| Row::default()).collect(),
            history: VecDeque::new(),
            cols: usize::from(size.cols),
            cells: 0,
            keeps,
        }
    }

    /// A line that has left the screen at the top. Returns one that is not
    /// needed any more, without its text, for the next.
    pub(super) fn keep(&mut self, mut row: Row) -> Row {
        if !self.keeps {
            return row.cleared();
        }
        // A line that goes on has its blanks for a reason.
        if !row.wrapped {
            row.cells.truncate(row.trimmed().len());
        }
        // Room of a longer line.
        if row.cells.capacity() > 2 * row.cells.len() + ROOM {
            row.cells.shrink_to_fit();
        }
        self.cells += row.cells.len();
        self.history.push_back(row);
        let mut spare = Row::default();
        while self.history.len() > HISTORY_LINES || self.cells > HISTORY_CELLS {
            let Some(gone) = self.history.pop_front() else {
                break;
            };
            self.cells -= gone.cells.len();
            spare = gone;
        }
        spare.cleared()
    }

    /// Forgets the lines that have left.
    pub(super) fn forget(&mut self) {
        self.history.clear();
        self.cells = 0;
    }

    /// Takes all lines out, those that have left first.
    pub(super) fn take(&mut self) -> Vec<Row> {
        self.cells = 0;
        let mut rows: Vec<_> = std::mem::take(&mut self.history).into();
        rows.extend(std::mem::take(&mut self.rows));
        rows
    }

    /// The line before `row`, if there is one.
    pub(super) fn before(&mut self, row: usize) -> Option<&mut Row> {
        match row.checked_sub(1) {
            Some(before) => self.rows.get_mut(before),
            None => self.history.back_mut(),
        }
    }

    /// Moves the lines from `top` to `bottom` up by `count`. With `keep`, those
    /// that leave at the very top become history.
    pub(super) fn scroll_up(
        &mut self,
        (top, bottom): (usize, usize),
        count: usize,
        bg: Color,
        keep: bool,
    ) {
        let count = count.min(bottom + 1 - top);
        let keep = keep && top == 0 && self.keeps;
        if !keep && let Some(row) = self.before(top) {
            row.wrapped = false;
        }
        // Its continuation stays behind.
        self.rows[bottom].wrapped = false;
        for _ in 0..count {
            let row = self.rows.remove(top).unwrap_or_default();
            let row = if keep { self.keep(row) } else { row.cleared() };
            self.rows.insert(bottom, self.blank(row, bg));
        }
    }

    /// Moves the lines from `top` to `bottom` down by `count`.
    pub(super) fn scroll_down(&mut self, (top, bottom): (usize, usize), count: usize, bg: Color) {
        let count = count.min(bottom + 1 - top);
        if let Some(row) = self.before(top) {
            row.wrapped = false;
        }
        for _ in 0..count {
            let row = self.rows.remove(bottom).unwrap_or_default().cleared();
            self.rows.insert(top, self.blank(row, bg));
        }
        self.rows[bottom].wrapped = false;
    }

    /// Erases whole lines from `from` to before `to`.
    pub(super) fn erase(&mut self, from: usize, to: usize, bg: Color) {
        if from == 0
            && let Some(row) = self.history.back_mut()
        {
            row.wrapped = false;
        }
        for row in self.rows.range_mut(from..to) {
            row.erase(0, self.cols, self.cols, bg);
        }
    }

    /// A blank line; `row` is empty.
    fn blank(&self, mut row: Row, bg: Color) -> Row {
        if bg != Color::Default {
            row.cells.resize(self.cols, Cell::erased(bg));
        }
        row
    }
}
