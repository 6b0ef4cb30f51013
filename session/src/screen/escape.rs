//! What controls, escape sequences and operating system commands do.

use super::cursor::Charset;
use super::modes;
use super::parser::Act;
use super::state::State;
use super::words::{self, word};
use crate::Size;

/// Longest hyperlink with its parameters, bytes; as in other terminals.
const LINK_MAX: usize = 2083 + 250;

impl Act for State {
    fn print(&mut self, ch: char) {
        self.print_char(ch);
    }

    fn print_ascii(&mut self, run: &[u8]) {
        self.print_run(run);
    }

    fn control(&mut self, byte: u8) {
        self.last = None;
        match byte {
            0x08 => self.backspace(),
            0x09 => self.tab(),
            0x0a..=0x0c => {
                if self.modes.newline {
                    self.cursor.col = 0;
                }
                self.down();
            }
            0x0d => {
                self.cursor.col = 0;
                self.cursor.pending = false;
            }
            0x0e => self.cursor.charsets.shift = 1,
            0x0f => self.cursor.charsets.shift = 0,
            _ => {}
        }
    }

    fn escape(&mut self, intermediates: &[u8], last: u8) {
        self.last = None;
        match (intermediates, last) {
            ([], _) => self.handle_escape(last),
            ([set @ b'('..=b'+'], _) => self.designate(set - b'(', last),
            // Sets of 96 characters: there are none for UTF-8.
            ([set @ b'-'..=b'/'], _) => self.designate(set - b'-' + 1, b'B'),
            (b"#", b'8') => self.align(),
            _ => {}
        }
    }

    fn csi(&mut self, body: &[u8], last: u8) {
        if last != b'b' {
            self.last = None;
        }
        self.handle_csi(body, last);
    }

    fn osc(&mut self, body: &[u8]) {
        self.last = None;
        let end = body.iter().position(|byte| *byte == b';');
        let (number, rest) = match end {
            Some(end) => (&body[..end], &body[end + 1..]),
            None => (body, &[][..]),
        };
        match number {
            b"0" => {
                self.titles.now.icon = Some(word(rest));
                self.titles.now.window = Some(word(rest));
            }
            b"1" => self.titles.now.icon = Some(word(rest)),
            b"2" => self.titles.now.window = Some(word(rest)),
            b"4" => self.osc_palette(rest),
            b"7" => self.directory = Some(word(rest)).filter(|word| !word.is_empty()),
            b"8" => self.osc_link(rest),
            b"104" => self.osc_reset_palette(rest),
            [b'1', digit @ b'0'..=b'9'] => self.osc_dynamic(10 + u16::from(digit - b'0'), rest),
            [b'1', b'1', digit @ b'0'..=b'9'] => {
                self.colors.dynamic.remove(&(10 + u16::from(digit - b'0')));
            }
            _ => {}
        }
    }

    fn dcs(&mut self, body: &[u8]) {
        self.last = None;
        self.handle_dcs(body);
    }
}

impl State {
    fn handle_escape(&mut self, last: u8) {
        match last {
            b'7' => self.save_cursor(),
            b'8' => self.restore_cursor(),
            b'=' => self.modes.set(modes::KEYPAD, true),
            b'>' => self.modes.set(modes::KEYPAD, false),
            b'D' => self.down(),
            b'E' => {
                self.cursor.col = 0;
                self.down();
            }
            // At the first column it would stop nothing.
            b'H' => self.tabs[self.cursor.col] = self.cursor.col > 0,
            b'M' => self.up(),
            b'N' => self.cursor.charsets.single = Some(2),
            b'O' => self.cursor.charsets.single = Some(3),
            b'n' => self.cursor.charsets.shift = 2,
            b'o' => self.cursor.charsets.shift = 3,
            b'Z' => self.answer_attributes(0),
            b'c' => self.reset(),
            _ => {}
        }
    }

    fn designate(&mut self, set: u8, name: u8) {
        self.cursor.charsets.sets[usize::from(set) & 3] = Charset::named(name);
    }

    fn backspace(&mut self) {
        let wraps = self.modes.is_on(modes::REVERSE_WRAP) && self.modes.is_on(modes::AUTOWRAP);
        self.cursor.pending = false;
        match self.cursor.col.checked_sub(1) {
            Some(col) => self.cursor.col = col,
            None if wraps && self.cursor.row > self.region.0 => {
                self.cursor.row -= 1;
                self.cursor.col = self.cols - 1;
            }
            None => {}
        }
    }

    /// RIS. Titles and the directory are the window's: they stay.
    fn reset(&mut self) {
        let clamp = |side: usize| u16::try_from(side).unwrap_or(u16::MAX);
        let size = Size {
            cols: clamp(self.cols),
            rows: clamp(self.rows),
        };
        let mut fresh = Self::new(size);
        std::mem::swap(&mut fresh.titles, &mut self.titles);
        std::mem::swap(&mut fresh.directory, &mut self.directory);
        std::mem::swap(&mut fresh.answers, &mut self.answers);
        *self = fresh;
    }

    /// `index ; colour` once or more; `?` asks.
    fn osc_palette(&mut self, rest: &[u8]) {
        let mut parts = rest.split(|byte| *byte == b';');
        while let (Some(index), Some(name)) = (parts.next(), parts.next()) {
            match (number(index), name) {
                (Some(index), b"?") => self.answer_palette(index),
                (Some(index), name) => self.colors.set_palette(index, name),
                (None, _) => {}
            }
        }
    }

    fn osc_reset_palette(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            return self.colors.palette.clear();
        }
        for index in rest.split(|byte| *byte == b';').filter_map(number) {
            self.colors.palette.remove(&index);
        }
    }

    /// Several colours go to the numbers that follow.
    fn osc_dynamic(&mut self, first: u16, rest: &[u8]) {
        for (number, name) in (first..20).zip(rest.split(|byte| *byte == b';')) {
            match name {
                b"" => {}
                b"?" => self.answer_color(number),
                _ => self.colors.set_dynamic(number, name),
            }
        }
    }

    /// `parameters ; address`; without address the link ends.
    fn osc_link(&mut self, rest: &[u8]) {
        let address = rest.iter().position(|byte| *byte == b';');
        let some = address.is_some_and(|at| at + 1 < rest.len());
        if some && rest.len() <= LINK_MAX {
            self.open_link(&words::word_of(rest, LINK_MAX));
        } else {
            self.link = 0;
        }
    }
}

fn number(digits: &[u8]) -> Option<u8> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
