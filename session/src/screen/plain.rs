//! The last text in a stream, without a screen.

use super::parser::{Act, Parser};

/// The last line with text in it: without escape sequences, as far as it was
/// not overwritten, and of a long line the last `max` characters. The stream
/// may begin anywhere.
#[must_use]
pub fn last_text(bytes: &[u8], max: usize) -> String {
    // In the middle of a character.
    let begin = bytes.iter().position(|byte| byte & 0xc0 != 0x80);
    let mut lines = Lines::default();
    Parser::default().advance(&bytes[begin.unwrap_or(bytes.len())..], &mut lines);
    lines.end_line();
    let text = lines.last.trim();
    let skipped = text.chars().count().saturating_sub(max);
    text.chars().skip(skipped).collect()
}

#[derive(Default)]
struct Lines {
    last: String,
    line: String,
    /// What comes next takes the place of the line.
    returned: bool,
}

impl Lines {
    fn end_line(&mut self) {
        if !self.line.trim().is_empty() {
            std::mem::swap(&mut self.last, &mut self.line);
        }
        self.line.clear();
        self.returned = false;
    }

    fn begin(&mut self) {
        if std::mem::take(&mut self.returned) {
            self.end_line();
        }
    }
}

impl Act for Lines {
    fn print(&mut self, ch: char) {
        self.begin();
        self.line.push(ch);
    }

    fn print_ascii(&mut self, run: &[u8]) {
        self.begin();
        self.line.extend(run.iter().copied().map(char::from));
    }

    fn control(&mut self, byte: u8) {
        match byte {
            b'\n' | 0x0b | 0x0c => self.end_line(),
            b'\r' => self.returned = true,
            b'\t' => self.line.push(' '),
            0x08 => {
                self.line.pop();
            }
            _ => {}
        }
    }

    fn escape(&mut self, _intermediates: &[u8], _last: u8) {}

    fn csi(&mut self, _body: &[u8], last: u8) {
        match last {
            // To another line.
            b'A' | b'B' | b'E' | b'F' | b'H' | b'd' | b'f' | b'J' => self.end_line(),
            // To another column: a gap, not a word.
            b'C' | b'G' | b'`' if !self.line.is_empty() => self.line.push(' '),
            _ => {}
        }
    }

    fn osc(&mut self, _body: &[u8]) {}

    fn dcs(&mut self, _body: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_text_is_what_somebody_would_read() {
        for (stream, expected) in [
            ("one\r\ntwo\r\n", "two"),
            ("one\r\n\r\n  \r\n", "one"),
            ("\x1b[31mred\x1b[0m \x1b]2;title\x07end\r\n", "red end"),
            ("10%\r 20%\r30%", "30%"),
            ("done\r\n\x1b[2J\x1b[H", "done"),
            ("\x1b[5;1Hmenu\x1b[6;3Hhelp", "help"),
            ("", ""),
            ("0123456789äöü", "6789äöü"),
        ] {
            assert_eq!(last_text(stream.as_bytes(), 7), expected, "{stream:?}");
        }
        assert_eq!(last_text(b"\xbc\xbcabc", 9), "abc");
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_last_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(last_text(&bytes, 5).chars().count() <= 5);
        }
    }
}
