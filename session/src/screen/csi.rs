//! What control sequences do.

use super::cell::Color;
use super::cursor::Saved;
use super::modes;
use super::params::Params;
use super::sgr;
use super::state::State;

impl State {
    /// `CSI body last`.
    pub(super) fn handle_csi(&mut self, body: &[u8], last: u8) {
        let params = Params::parse(body);
        match (params.private, params.intermediates) {
            (0, []) => self.csi_plain(&params, last),
            (b'?', []) => self.csi_private(&params, last),
            (b'>' | b'<' | b'=', []) => self.csi_extended(&params, last),
            (0, b"!") if last == b'p' => self.soft_reset(),
            (0, b" ") if last == b'q' => {
                self.cursor_style = u8::try_from(params.get(0)).unwrap_or(0).min(6);
                // It says whether the cursor blinks as well.
                self.modes.forget(modes::BLINK);
            }
            (private @ (0 | b'?'), b"$") if last == b'p' => {
                self.answer_mode(private != 0, params.get(0));
            }
            _ => {}
        }
    }

    fn csi_plain(&mut self, params: &Params<'_>, last: u8) {
        let count = params.count(0);
        match last {
            b'A' => self.move_up(count),
            b'B' | b'e' => self.move_down(count),
            b'C' | b'a' => self.go_to_col(self.cursor.col.saturating_add(count)),
            b'D' => self.go_to_col(self.cursor.col.saturating_sub(count)),
            b'E' => {
                self.move_down(count);
                self.go_to_col(0);
            }
            b'F' => {
                self.move_up(count);
                self.go_to_col(0);
            }
            b'G' | b'`' => self.go_to_col(count - 1),
            b'H' | b'f' => self.go_to(count - 1, params.count(1) - 1),
            b'd' => self.go_to(count - 1, self.cursor.col),
            b'I' => (0..count.min(self.cols)).for_each(|_| self.tab()),
            b'Z' => self.tab_back(count),
            b'J' => self.erase_display(params.get(0)),
            b'K' => self.erase_line(params.get(0)),
            b'L' | b'M' => self.insert_or_delete_lines(count, last == b'L'),
            b'@' | b'P' => self.insert_or_delete_cells(count, last == b'@'),
            b'X' => {
                let to = self.cursor.col.saturating_add(count).min(self.cols);
                self.erase_cells(self.cursor.col, to);
            }
            b'S' => self.scroll_up(count),
            // With more parameters it is about tracking the mouse.
            b'T' if params.all().count() == 1 => self.scroll_down(count),
            b'b' => self.repeat(count),
            b'c' => self.answer_attributes(0),
            b'g' => self.clear_tabs(params.get(0)),
            b'h' | b'l' => self.ansi_modes(params, last == b'h'),
            b'm' => sgr::apply(&mut self.cursor.pen, params),
            b'n' => self.answer_status(0, params.get(0)),
            b'r' => self.set_region(params),
            b's' => self.save_cursor(),
            b'u' => self.restore_cursor(),
            b't' => self.window(params),
            _ => {}
        }
    }

    fn csi_private(&mut self, params: &Params<'_>, last: u8) {
        match last {
            b'h' | b'l' => {
                for number in params.all() {
                    self.private_mode(number, last == b'h');
                }
            }
            // Selective erasure: nothing is ever protected.
            b'J' => self.erase_display(params.get(0)),
            b'K' => self.erase_line(params.get(0)),
            b'n' => self.answer_status(b'?', params.get(0)),
            b'u' => self.answer_keyboard(),
            _ => {}
        }
    }

    fn csi_extended(&mut self, params: &Params<'_>, last: u8) {
        let small = |at: usize| u8::try_from(params.get(at)).unwrap_or(u8::MAX);
        match (params.private, last) {
            (mark @ (b'>' | b'='), b'c') => self.answer_attributes(mark),
            (b'>', b'q') => self.answer_version(),
            (b'>', b'u') => self.side_mut().keyboard.push(small(0)),
            (b'<', b'u') => self.side_mut().keyboard.pop(params.count(0)),
            (b'=', b'u') => {
                let mode = params.get(1);
                self.side_mut().keyboard.set(small(0), mode);
            }
            (b'>', b'm') if params.given(0).is_none() => self.modifiers = <_>::default(),
            (b'>', b'm') => {
                let value = params.given(1).and_then(|value| u8::try_from(value).ok());
                self.modifiers.set(params.get(0), value);
            }
            // Off is what it is after a reset as well.
            (b'>', b'n') => self.modifiers.set(params.given(0).unwrap_or(2), None),
            _ => {}
        }
    }

    fn ansi_modes(&mut self, params: &Params<'_>, on: bool) {
        for number in params.all() {
            match number {
                4 => self.modes.insert = on,
                20 => self.modes.newline = on,
                _ => {}
            }
        }
    }

    fn private_mode(&mut self, number: u16, on: bool) {
        match (number, on) {
            (47 | 1047, true) => self.enter_alternate(),
            (47 | 1047, false) => self.leave_alternate(),
            (1048, true) => self.save_cursor(),
            (1048, false) => self.restore_cursor(),
            (1049, true) => {
                self.save_cursor();
                self.enter_alternate();
                let (rows, bg) = (self.rows, self.cursor.pen.bg);
                self.alternate.grid.erase(0, rows, bg);
            }
            (1049, false) => {
                self.leave_alternate();
                self.restore_cursor();
            }
            _ => {
                self.modes.set(number, on);
                if number == modes::ORIGIN {
                    self.go_to(0, 0);
                }
            }
        }
    }

    fn enter_alternate(&mut self) {
        self.cursor.pending = false;
        self.on_alternate = true;
    }

    /// What was there is gone: nobody comes back to it.
    fn leave_alternate(&mut self) {
        self.cursor.pending = false;
        if std::mem::take(&mut self.on_alternate) {
            self.alternate.grid.erase(0, self.rows, Color::Default);
        }
    }

    pub(super) fn save_cursor(&mut self) {
        let mut cursor = self.cursor;
        cursor.charsets.single = None;
        let origin = self.modes.is_on(modes::ORIGIN);
        self.side_mut().saved = Saved { cursor, origin };
    }

    pub(super) fn restore_cursor(&mut self) {
        let Saved { cursor, origin } = self.side().saved;
        self.cursor = cursor;
        self.modes.set(modes::ORIGIN, origin);
        if origin {
            let row = cursor.row.clamp(self.region.0, self.region.1);
            self.cursor.pending &= row == cursor.row;
            self.cursor.row = row;
        }
    }

    fn go_to_col(&mut self, col: usize) {
        self.cursor.pending = false;
        self.cursor.col = col.min(self.cols - 1);
    }

    /// Goes to a place; with origin mode on, of the scroll region.
    pub(super) fn go_to(&mut self, row: usize, col: usize) {
        let (top, bottom) = if self.modes.is_on(modes::ORIGIN) {
            self.region
        } else {
            (0, self.rows - 1)
        };
        self.cursor.row = row.saturating_add(top).min(bottom);
        self.go_to_col(col);
    }

    fn move_up(&mut self, count: usize) {
        let row = self.cursor.row;
        let top = if row < self.region.0 {
            0
        } else {
            self.region.0
        };
        self.cursor.row = row.saturating_sub(count).max(top);
        self.cursor.pending = false;
    }

    fn move_down(&mut self, count: usize) {
        let row = self.cursor.row;
        let below = row > self.region.1;
        let bottom = if below { self.rows - 1 } else { self.region.1 };
        self.cursor.row = row.saturating_add(count).min(bottom);
        self.cursor.pending = false;
    }

    fn set_region(&mut self, params: &Params<'_>) {
        let top = params.count(0);
        let bottom = match usize::from(params.get(1)) {
            0 => self.rows,
            bottom => bottom.min(self.rows),
        };
        if top < bottom {
            self.region = (top - 1, bottom - 1);
            self.go_to(0, 0);
        }
    }

    fn repeat(&mut self, count: usize) {
        let Some(raw) = self.last else {
            return;
        };
        // More than a line is nothing that a program means.
        for _ in 0..count.min(self.cols) {
            self.print_char(raw);
        }
    }

    fn window(&mut self, params: &Params<'_>) {
        match params.get(0) {
            22 => self.titles.push(),
            23 => self.titles.pop(params.get(1)),
            what => self.answer_window(what),
        }
    }

    fn soft_reset(&mut self) {
        self.modes.soft_reset();
        self.region = (0, self.rows - 1);
        self.cursor.pen = <_>::default();
        self.cursor.charsets = <_>::default();
        self.cursor.pending = false;
        self.side_mut().saved = Saved::default();
    }
}
