//! Another size.
//!
//! Lines of the primary screen that ended at the right margin are joined and
//! cut anew, those above the screen as well. Taller, the screen takes lines
//! back; lower, it gives up blank lines below the cursor first. The alternate
//! screen is cut: its program draws it anew.

use super::cell::{Cell, Glyph};
use super::grid::{Grid, Row};
use super::state::{State, is_default_tab};

/// A place in a list of lines.
#[derive(Clone, Copy, Debug)]
struct Place {
    row: usize,
    col: usize,
}

impl State {
    pub(super) fn resize(&mut self, cols: usize, rows: usize) {
        if (cols, rows) == (self.cols, self.rows) {
            return;
        }
        let saved = &mut self.primary.saved.cursor;
        // While the other screen is shown, the cursor of this one is saved.
        let cursor = if self.on_alternate {
            *saved
        } else {
            self.cursor
        };
        let above = self.primary.grid.history.len();
        let mut places = [cursor, *saved].map(|cursor| Place {
            row: above + cursor.row,
            col: cursor.col + usize::from(cursor.pending),
        });
        let lines = self.primary.grid.take();
        let lines = rewrap(lines, self.cols, cols, &mut places);
        let first = self.primary.grid.fill(lines, cols, rows, places[0].row);
        let [cursor, at_save] = places.map(|place| Place {
            row: place.row.saturating_sub(first).min(rows - 1),
            col: place.col.min(cols - 1),
        });
        (saved.row, saved.col, saved.pending) = (at_save.row, at_save.col, false);
        cut(&mut self.alternate.grid, cols, rows, self.cursor.row);
        if self.on_alternate {
            let gone = (self.cursor.row + 1).saturating_sub(rows);
            self.cursor.row -= gone;
            self.cursor.col = self.cursor.col.min(cols - 1);
        } else {
            (self.cursor.row, self.cursor.col) = (cursor.row, cursor.col);
        }
        self.cursor.pending = false;
        let saved = &mut self.alternate.saved.cursor;
        saved.row = saved.row.min(rows - 1);
        saved.col = saved.col.min(cols - 1);
        saved.pending = false;
        self.tabs.truncate(cols);
        self.tabs
            .extend((self.tabs.len()..cols).map(is_default_tab));
        (self.cols, self.rows, self.region) = (cols, rows, (0, rows - 1));
        self.last = None;
    }
}

impl Grid {
    /// Fills an empty grid with lines: the last ones on the screen. Returns the
    /// number of the line at its top.
    fn fill(&mut self, mut lines: Vec<Row>, cols: usize, rows: usize, cursor: usize) -> usize {
        while lines.len() > rows
            && lines.len() > cursor + 1
            && lines.last().is_some_and(|line| line.trimmed().is_empty())
        {
            lines.pop();
        }
        self.cols = cols;
        let first = lines.len().saturating_sub(rows).min(cursor);
        lines.resize_with(lines.len().max(first + rows), Row::default);
        lines.truncate(first + rows);
        if let Some(last) = lines.last_mut() {
            last.wrapped = false;
        }
        self.rows = lines.split_off(first).into();
        for line in lines {
            let _ = self.keep(line);
        }
        first
    }
}

/// Joins and cuts lines, and moves the places along.
fn rewrap(lines: Vec<Row>, old: usize, cols: usize, places: &mut [Place]) -> Vec<Row> {
    let mut out = Vec::with_capacity(lines.len());
    let mut joined: Vec<Cell> = Vec::new();
    let mut moving: Vec<(usize, usize)> = Vec::new();
    let old_places = places.to_vec();
    let mut lines = lines.into_iter().enumerate().peekable();
    while let Some((number, mut line)) = lines.next() {
        for (which, place) in old_places.iter().enumerate() {
            if place.row == number {
                moving.push((which, joined.len() + place.col));
            }
        }
        let next = lines.peek().map(|(_, next)| next);
        if let Some(next) = next.filter(|_| line.wrapped) {
            let wide = next.get(1).is_tail();
            let full = if wide && line.get(old - 1) == Cell::BLANK {
                old - 1
            } else {
                old
            };
            joined.extend_from_slice(line.upto(full));
            continue;
        }
        joined.extend_from_slice(visible(&line, cols));
        let first = out.len();
        let ends = cut_line(&joined, cols, &mut out);
        for (which, offset) in moving.drain(..) {
            let part = ends.iter().position(|end| offset < *end);
            let part = part.unwrap_or(ends.len() - 1);
            let start = if part == 0 { 0 } else { ends[part - 1] };
            places[which] = Place {
                row: first + part,
                col: offset - start,
            };
        }
        joined.clear();
    }
    out
}

/// A line without what nobody would miss: coloured blanks at its end are cut,
/// not wrapped.
fn visible(line: &Row, cols: usize) -> &[Cell] {
    let cells = line.trimmed();
    let blank = |cell: &&Cell| cell.glyph == Glyph::BLANK && cell.link == 0;
    let text = cells.len() - cells.iter().rev().take_while(blank).count();
    &cells[..text.max(cells.len().min(cols))]
}

/// Cuts a long line. Returns where the parts end; there is at least one.
fn cut_line(cells: &[Cell], cols: usize, out: &mut Vec<Row>) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut from = 0;
    loop {
        let mut to = (from + cols).min(cells.len());
        if cells.get(to).is_some_and(Cell::is_tail) {
            to -= 1;
        }
        if to == from && from < cells.len() {
            // Wide, and there is only one column: nothing can show it.
            from += 2;
            continue;
        }
        out.push(Row {
            cells: cells[from.min(to)..to].to_vec(),
            wrapped: to < cells.len(),
        });
        ends.push(to);
        from = to;
        if from >= cells.len() {
            return ends;
        }
    }
}

/// Cuts a screen so that the cursor stays on it.
fn cut(grid: &mut Grid, cols: usize, rows: usize, cursor: usize) {
    let gone = (cursor + 1).saturating_sub(rows);
    grid.rows.drain(..gone.min(grid.rows.len()));
    grid.rows.resize_with(rows, Row::default);
    for row in &mut grid.rows {
        row.split_at(cols);
        row.cells.truncate(cols);
    }
    grid.cols = cols;
}

#[cfg(test)]
mod tests {
    use super::super::Screen;
    use crate::Size;

    fn lines(input: &str, steps: &[(u16, u16)]) -> Vec<String> {
        let mut sizes = steps.iter().map(|(cols, rows)| Size {
            cols: *cols,
            rows: *rows,
        });
        let mut screen = Screen::new(sizes.next().unwrap());
        screen.feed(input.as_bytes());
        sizes.for_each(|size| screen.resize(size));
        screen.text(100)
    }

    #[test]
    fn a_long_line_is_cut_anew() {
        assert_eq!(lines("abcdefgh", &[(4, 3), (8, 3)]), ["abcdefgh", "", ""]);
        assert_eq!(lines("abcdefgh", &[(8, 3), (3, 3)]), ["abc", "def", "gh"]);
        assert_eq!(lines("ab\r\ncd", &[(2, 3), (4, 3)]), ["ab", "cd", ""]);
    }

    #[test]
    fn wide_characters_are_not_cut_in_half() {
        assert_eq!(lines("a한글b", &[(6, 2), (4, 2)]), ["a한", "글b"]);
        assert_eq!(lines("a한글b", &[(4, 2), (6, 2)]), ["a한글b", ""]);
        assert_eq!(lines("한글", &[(4, 2), (1, 2)]), ["", ""]);
    }

    #[test]
    fn lines_go_up_and_come_back() {
        let text = "1\r\n2\r\n3\r\n4";
        let mut screen = Screen::new(Size { cols: 5, rows: 4 });
        screen.feed(text.as_bytes());
        screen.resize(Size { cols: 5, rows: 2 });
        assert_eq!(screen.text(0), ["3", "4"]);
        assert_eq!(screen.cursor(), (1, 1));
        screen.resize(Size { cols: 5, rows: 4 });
        assert_eq!(screen.text(0), ["1", "2", "3", "4"]);
        assert_eq!(screen.cursor(), (3, 1));
    }

    #[test]
    fn blank_lines_below_the_cursor_go_first() {
        assert_eq!(lines("1\r\n2", &[(5, 9), (5, 3)]), ["1", "2", ""]);
    }

    #[test]
    fn the_cursor_stays_with_its_text() {
        let mut screen = Screen::new(Size { cols: 10, rows: 3 });
        screen.feed(b"0123456789abc");
        assert_eq!(screen.cursor(), (1, 3));
        screen.resize(Size { cols: 20, rows: 3 });
        assert_eq!(screen.cursor(), (0, 13));
        screen.resize(Size { cols: 5, rows: 3 });
        assert_eq!(screen.cursor(), (2, 3));
    }
}
