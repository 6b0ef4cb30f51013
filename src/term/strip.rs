//! Plain text out of terminal output: escape sequences are dropped, also those that arrive in
//! pieces; text, newlines and tabs stay. Carriage returns go where they change nothing: at the
//! start of a line and before a newline.

/// A machine that drops escape sequences from a stream.
#[derive(Debug, Default)]
pub struct Strip {
    state: State,
    /// Whether something stands on the line.
    inked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// A carriage return that is kept only if no newline follows.
    Return,
    Escape,
    /// ESC and intermediate bytes: one more byte ends it.
    Intermediate,
    Csi,
    /// OSC, DCS, SOS, PM, APC: up to BEL or ST.
    Text0,
    /// ESC inside such a string: maybe ST.
    StringEscape,
    /// The first byte of U+0080 to U+00BF, the first half of which act as ESC and a letter do.
    Lead,
    /// The same inside a string.
    StringLead,
}

impl Strip {
    /// The text in the next piece of output.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            let before = out.len();
            self.step(byte, &mut out);
            if let Some(last) = out.get(before..).and_then(<[u8]>::last) {
                self.inked = *last != b'\n';
            }
        }
        out
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match (self.state, byte) {
            // Cancel and substitute end any sequence.
            (_, 0x18 | 0x1a) => State::Text,
            (State::Text0, 0x1b) => State::StringEscape,
            (State::Lead, 0x80..=0x9f) => return self.step_after_escape(byte - 0x40, out),
            (State::Lead, _) => {
                out.push(0xc2);
                self.state = State::Text;
                return self.step(byte, out);
            }
            (State::StringLead, 0x9c) => State::Text,
            (State::StringLead, 0x1b) => State::StringEscape,
            (State::StringLead, 0x07) => State::Text,
            (State::Text0, 0xc2) => State::StringLead,
            (State::Text0, 0x07) | (State::StringEscape, b'\\') => State::Text,
            (State::Text0 | State::StringLead, _) => State::Text0,
            (_, 0x1b) => State::Escape,
            (State::Return, b'\n') => {
                out.push(b'\n');
                State::Text
            }
            (State::Return, b'\r') => State::Return,
            (State::Return, _) => {
                out.push(b'\r');
                text(byte, out)
            }
            (State::Text, b'\r') if !self.inked => State::Text,
            (State::Text, byte) => text(byte, out),
            (State::Escape | State::StringEscape, b'[') => State::Csi,
            (State::Escape | State::StringEscape, b']' | b'P' | b'X' | b'^' | b'_') => State::Text0,
            (State::Escape | State::StringEscape | State::Intermediate, 0x20..=0x2f) => {
                State::Intermediate
            }
            (State::Csi, 0x40..=0x7e) => State::Text,
            (State::Csi, _) => State::Csi,
            (State::Escape | State::StringEscape | State::Intermediate, _) => State::Text,
        };
    }

    fn step_after_escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = State::Escape;
        self.step(byte, out);
    }
}

fn text(byte: u8, out: &mut Vec<u8>) -> State {
    match byte {
        b'\r' => return State::Return,
        0xc2 => return State::Lead,
        b'\n' | b'\t' | 0x20..=0x7e | 0x80..=0xff => out.push(byte),
        // Bell, backspace and the like have no place in a text.
        _ => {}
    }
    State::Text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s57_sequences_go_and_text_stays_however_it_is_cut() {
        let input = "\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \x1b]8;;x\x1b\\link\x1b(B\x1b7\x1b=\x1bPq#0\x1b\\é\r\nend\r\n".as_bytes();
        let expected = "red linké\nend\n".as_bytes();
        assert_eq!(Strip::default().feed(input), expected);
        for cut in 0..input.len() {
            let mut strip = Strip::default();
            let out = [strip.feed(&input[..cut]), strip.feed(&input[cut..])].concat();
            assert_eq!(out, expected, "{cut}");
        }
    }

    /// U+009B does what ESC [ does, in xterm and others.
    #[test]
    fn controls_of_two_bytes_are_sequences_too() {
        let input = "a\u{9b}31mb\u{9d}0;t\u{9c}c\u{9d}0;é\u{7}d\u{85}e\u{a0}é".as_bytes();
        let expected = "abcde\u{a0}é".as_bytes();
        for cut in 0..input.len() {
            let mut strip = Strip::default();
            let out = [strip.feed(&input[..cut]), strip.feed(&input[cut..])].concat();
            assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(expected)
            );
        }
    }

    #[test]
    fn a_return_at_the_start_of_a_line_goes() {
        assert_eq!(
            Strip::default().feed(b"\x1b[?2004l\rhello\r\n\r\rx"),
            b"hello\nx"
        );
    }

    #[test]
    fn a_return_without_a_newline_stays() {
        assert_eq!(Strip::default().feed(b"10%\r20%\n"), b"10%\r20%\n");
    }
}
