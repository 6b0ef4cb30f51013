//! Writes lines of a screen so that a terminal shows them.

use std::io::Write as _;

use super::cell::{Cell, Color, Pen, Text};
use super::grid::{Grid, Row};
use super::sgr;
use super::state::State;

/// From how many blanks on it is shorter to move the cursor.
const SKIP: usize = 6;

/// Escape sequences in the making, and what they have set so far.
#[derive(Debug)]
pub(super) struct Painter<'a> {
    state: &'a State,
    pub(super) out: Vec<u8>,
    pen: Pen,
    link: u16,
}

impl<'a> Painter<'a> {
    pub(super) const fn new(state: &'a State) -> Self {
        Self {
            state,
            out: Vec::new(),
            pen: Cell::BLANK.pen,
            link: 0,
        }
    }

    /// Adds bytes as they are.
    pub(super) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.out.extend_from_slice(bytes.as_ref());
    }

    /// From now on characters look like this.
    pub(super) fn set_pen(&mut self, pen: Pen) {
        sgr::change(&mut self.out, self.pen, pen);
        self.pen = pen;
    }

    /// The terminal has changed by itself: this is how characters look now.
    pub(super) const fn assume(&mut self, pen: Pen) {
        self.pen = pen;
    }

    /// From now on characters belong to this hyperlink.
    pub(super) fn set_link(&mut self, link: u16) {
        if self.link == link {
            return;
        }
        self.link = link;
        let text = match u32::from(link).checked_sub(1) {
            Some(number) => self.state.links.get(number),
            None => ";",
        };
        // Writing to a vector does not fail.
        let _ = write!(self.out, "\x1b]8;{text}\x1b\\");
    }

    /// A place of the whole screen, from 0.
    pub(super) fn go_to(&mut self, row: usize, col: usize) {
        let _ = write!(self.out, "\x1b[{};{}H", row + 1, col + 1);
    }

    /// One character where the cursor is; nothing for half of one.
    pub(super) fn cell(&mut self, cell: Cell) {
        self.set_pen(cell.pen);
        self.set_link(cell.link);
        match cell.glyph.text() {
            Text::Char(ch) => self.say(ch.encode_utf8(&mut [0; 4])),
            Text::Cluster(number) => self.say(self.state.clusters.get(number)),
            Text::Tail => {}
        }
    }

    /// The whole screen from its top, after lines that shall leave it. Begins
    /// at the top of an empty screen; where the cursor is then says nothing.
    pub(super) fn flow(&mut self, grid: &Grid, history: usize) {
        let above = grid.history.len();
        let history = history.min(above);
        let mut lines: Vec<&Row> = grid.history.range(above - history..).collect();
        lines.extend(&grid.rows);
        if history == 0 {
            // Nothing has to leave the screen.
            let blank = |row: &&&Row| row.trimmed().is_empty() && !row.wrapped;
            let end = lines.len() - lines.iter().rev().take_while(blank).count();
            // What is continued is not blank, even when it is.
            let end = match end.checked_sub(1) {
                Some(last) if lines[last].wrapped => end + 1,
                _ => end,
            };
            lines.truncate(end);
        }
        let mut continued = false;
        for (number, row) in lines.into_iter().enumerate() {
            if continued {
                self.wrap_to(row);
            } else if number > 0 {
                // A new line has the background of the moment.
                self.set_pen(Pen::default());
                self.say(b"\r\n");
            }
            self.row(row, grid.cols);
            continued = row.wrapped;
        }
        self.set_pen(Pen::default());
        self.set_link(0);
    }

    /// The line before has just been filled: what is printed now makes the
    /// terminal go on in the next one.
    fn wrap_to(&mut self, row: &Row) {
        // A new line has the background of the moment, and blanks at the start
        // of a line may not be printed at all.
        let first = row.get(0);
        if first.pen.bg != Color::Default || first == Cell::BLANK {
            self.cell(Cell::BLANK);
            self.say(b"\r");
        }
    }

    /// All of a screen that has no lines above it.
    pub(super) fn page(&mut self, grid: &Grid) {
        for (number, row) in grid.rows.iter().enumerate() {
            if !row.trimmed().is_empty() {
                self.go_to(number, 0);
                self.row(row, grid.cols);
            }
        }
        self.set_pen(Pen::default());
        self.set_link(0);
    }

    /// A line from its first column on.
    fn row(&mut self, row: &Row, cols: usize) {
        let cells = row.trimmed();
        let len = if row.wrapped { cols } else { cells.len() };
        let mut col = 0;
        while col < len {
            let cell = row.get(col);
            if cell != Cell::erased(cell.pen.bg) || row.wrapped {
                self.cell(cell);
                col += 1;
                continue;
            }
            let same = (col..len).take_while(|col| row.get(*col) == cell).count();
            if same >= SKIP {
                if cell == Cell::BLANK {
                    let _ = write!(self.out, "\x1b[{same}C");
                    col += same;
                    continue;
                }
                if col + same == cols {
                    self.set_pen(cell.pen);
                    self.set_link(0);
                    return self.say(b"\x1b[K");
                }
            }
            self.cell(cell);
            col += 1;
        }
    }
}
