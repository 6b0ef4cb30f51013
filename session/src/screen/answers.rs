//! What the terminal says back when a program asks.
//!
//! Only used while nobody's real terminal is there to answer. Whoever owns the
//! screen takes the answers and types them; what is not taken in time is not
//! kept for ever: a program that asks without reading gets no more after
//! [`PENDING_MAX`] bytes.

use super::modes;
use super::state::State;

/// Most bytes of answers that wait to be taken.
const PENDING_MAX: usize = 4096;

/// Answers not yet taken.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<u8>);

impl Answers {
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    fn say(&mut self, answer: &str) {
        if self.0.len() + answer.len() <= PENDING_MAX {
            self.0.extend_from_slice(answer.as_bytes());
        }
    }
}

impl State {
    /// DA: a VT220 with colours, as widely understood as can be.
    pub(super) fn answer_attributes(&mut self, private: u8) {
        self.answers.say(match private {
            0 => "\x1b[?62;22c",
            b'>' => "\x1b[>1;10;0c",
            b'=' => "\x1bP!|00000000\x1b\\",
            _ => return,
        });
    }

    /// DSR.
    pub(super) fn answer_status(&mut self, private: u8, what: u16) {
        let top = if self.modes.is_on(modes::ORIGIN) {
            self.region.0
        } else {
            0
        };
        let row = self.cursor.row.saturating_sub(top) + 1;
        let col = self.cursor.col + 1;
        match (private, what) {
            (0, 5) => self.answers.say("\x1b[0n"),
            (0, 6) => self.answers.say(&format!("\x1b[{row};{col}R")),
            (b'?', 6) => self.answers.say(&format!("\x1b[?{row};{col};1R")),
            // Dark or light: as dark as the background we answer with.
            (b'?', 996) => self.answers.say("\x1b[?997;1n"),
            _ => {}
        }
    }

    /// DECRQM.
    pub(super) fn answer_mode(&mut self, private: bool, number: u16) {
        let (mark, state) = if private {
            let state = match number {
                47 | 1047 | 1049 => 2 - u8::from(self.on_alternate),
                2026 => 2,
                _ => self.modes.report(number),
            };
            ("?", state)
        } else {
            let state = match number {
                4 => 2 - u8::from(self.modes.insert),
                20 => 2 - u8::from(self.modes.newline),
                _ => 0,
            };
            ("", state)
        };
        self.answers.say(&format!("\x1b[{mark}{number};{state}$y"));
    }

    /// XTVERSION.
    pub(super) fn answer_version(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        self.answers.say(&format!("\x1bP>|cw {version}\x1b\\"));
    }

    /// `CSI ? u`.
    pub(super) fn answer_keyboard(&mut self) {
        let flags = self.side().keyboard.flags;
        self.answers.say(&format!("\x1b[?{flags}u"));
    }

    /// The sizes among XTWINOPS. A pixel is a tenth of a column and a
    /// twentieth of a row. Titles are never reported: what reads as typed must
    /// not come from what was printed.
    pub(super) fn answer_window(&mut self, what: u16) {
        let (rows, cols) = (self.rows, self.cols);
        let answer = match what {
            14 => format!("\x1b[4;{};{}t", rows * 20, cols * 10),
            16 => "\x1b[6;20;10t".to_owned(),
            18 => format!("\x1b[8;{rows};{cols}t"),
            _ => return,
        };
        self.answers.say(&answer);
    }

    /// The colour of text (10), background (11) or cursor (12): what was set
    /// in a form that can be said, else light on dark.
    pub(super) fn answer_color(&mut self, number: u16) {
        let set = self.colors.dynamic.get(&number);
        let value = match set.and_then(|name| rgb(name)) {
            Some(value) => value,
            None if number == 11 => "rgb:0000/0000/0000".to_owned(),
            None if number == 10 || number == 12 => "rgb:d0d0/d0d0/d0d0".to_owned(),
            None => return,
        };
        self.answers.say(&format!("\x1b]{number};{value}\x1b\\"));
    }

    /// A colour of the palette, if a program has set it.
    pub(super) fn answer_palette(&mut self, index: u8) {
        let set = self.colors.palette.get(&index);
        let value = set
            .and_then(|name| rgb(name))
            .unwrap_or_else(|| standard(index));
        self.answers.say(&format!("\x1b]4;{index};{value}\x1b\\"));
    }

    /// DECRQSS and XTGETTCAP.
    pub(super) fn handle_dcs(&mut self, body: &[u8]) {
        match body {
            b"$qm" => {
                let pen = self.cursor.pen;
                let mut sgr = String::from("0");
                super::sgr::describe(&mut sgr, pen);
                self.answers.say(&format!("\x1bP1$r{sgr}m\x1b\\"));
            }
            b"$qr" => {
                let (top, bottom) = (self.region.0 + 1, self.region.1 + 1);
                self.answers.say(&format!("\x1bP1$r{top};{bottom}r\x1b\\"));
            }
            b"$q q" => {
                let style = self.cursor_style.max(1);
                self.answers.say(&format!("\x1bP1$r{style} q\x1b\\"));
            }
            [b'$', b'q', ..] => self.answers.say("\x1bP0$r\x1b\\"),
            [b'+', b'q', ..] => self.answers.say("\x1bP0+r\x1b\\"),
            _ => {}
        }
    }
}

/// `#rrggbb` and `rgb:…` as terminals report them; names cannot be.
fn rgb(name: &str) -> Option<String> {
    if name.starts_with("rgb:") {
        return Some(name.to_owned());
    }
    let digits = name.strip_prefix('#')?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let (r, g, b) = match digits.len() {
        6 => (digits.get(..2)?, digits.get(2..4)?, digits.get(4..)?),
        12 => (digits.get(..4)?, digits.get(4..8)?, digits.get(8..)?),
        _ => return None,
    };
    let double = |part: &str| {
        if part.len() == 2 {
            part.repeat(2)
        } else {
            part.to_owned()
        }
    };
    Some(format!("rgb:{}/{}/{}", double(r), double(g), double(b)))
}

/// The palette as xterm has it.
fn standard(index: u8) -> String {
    let (r, g, b) = match index {
        7 => (0xe5, 0xe5, 0xe5),
        8 => (0x7f, 0x7f, 0x7f),
        0..=15 => {
            let on = if index < 8 { 0xcd } else { 0xff };
            let part = |bit: u8| if index & bit != 0 { on } else { 0 };
            (part(1), part(2), part(4))
        }
        16..=231 => {
            let step = |value: u8| if value == 0 { 0 } else { 55 + 40 * value };
            let index = index - 16;
            (step(index / 36), step(index / 6 % 6), step(index % 6))
        }
        232.. => {
            let gray = 8 + 10 * (index - 232);
            (gray, gray, gray)
        }
    };
    format!("rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_said_as_terminals_say_them() {
        assert_eq!(rgb("#ff8000").as_deref(), Some("rgb:ffff/8080/0000"));
        assert_eq!(rgb("rgb:1/2/3").as_deref(), Some("rgb:1/2/3"));
        assert_eq!(rgb("red"), None);
        assert_eq!(rgb("#é1234"), None);
        assert_eq!(standard(9), "rgb:ffff/0000/0000");
        assert_eq!(standard(231), "rgb:ffff/ffff/ffff");
        assert_eq!(standard(255), "rgb:eeee/eeee/eeee");
    }
}
