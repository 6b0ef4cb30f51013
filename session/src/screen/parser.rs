//! Cuts a stream of bytes into characters, controls and escape sequences.
//!
//! The state machine is that of the DEC terminals as xterm and ECMA-48 have it,
//! for UTF-8 only: 8-bit controls do not exist. It differs from other parsers
//! in one thing: it knows what is unfinished. [`Parser::unfinished`] returns
//! the bytes that bring a fresh terminal into the middle of the same sequence
//! or character, so that what comes next completes it there as well.
//!
//! Controls inside a sequence take effect at once and do not belong to it.
//! Strings (OSC, DCS) are complete at their ESC, not only at the `\` after it.

/// Longest string or sequence that is kept, bytes. Titles, colours and links
/// are far below; an image that is larger and was cut in the middle is lost.
pub(super) const STRING_MAX: usize = 64 * 1024;

/// Longest control sequence (CSI), bytes. Longer ones are ignored whole.
const CSI_MAX: usize = 1024;

const ESC: u8 = 0x1b;

/// Takes what the parser finds.
pub(super) trait Act {
    /// A character that is not a control.
    fn print(&mut self, ch: char);
    /// Several, all of them printable ASCII.
    fn print_ascii(&mut self, run: &[u8]);
    /// A control character below 0x20.
    fn control(&mut self, byte: u8);
    /// `ESC`, intermediates, a final byte.
    fn escape(&mut self, intermediates: &[u8], last: u8);
    /// What is between `CSI` and the final byte, and that.
    fn csi(&mut self, body: &[u8], last: u8);
    /// What is between `OSC` and its end.
    fn osc(&mut self, body: &[u8]);
    /// What is between `DCS` and its end.
    fn dcs(&mut self, body: &[u8]);
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Ground,
    /// In a character of this many bytes.
    Utf8(u8),
    Escape,
    EscapeIntermediate,
    Csi,
    CsiIntermediate,
    CsiIgnore,
    Osc,
    Dcs,
    /// SOS, PM, APC: skipped to its end.
    Skip,
}

/// The state between two bytes.
#[derive(Debug, Default)]
pub(super) struct Parser {
    state: State,
    /// The sequence so far, from its first byte.
    pending: Vec<u8>,
    /// More came than is kept.
    overflow: bool,
}

impl Parser {
    /// Goes on with `bytes`.
    pub(super) fn advance(&mut self, bytes: &[u8], act: &mut impl Act) {
        let mut at = 0;
        while at < bytes.len() {
            if self.state == State::Ground {
                let run = bytes[at..]
                    .iter()
                    .take_while(|byte| (0x20..0x7f).contains(*byte))
                    .count();
                if run > 0 {
                    act.print_ascii(&bytes[at..at + run]);
                    at += run;
                    continue;
                }
                let whole = at_once(&bytes[at..], act);
                if whole > 0 {
                    at += whole;
                    continue;
                }
            }
            self.step(bytes[at], act);
            at += 1;
        }
    }

    /// Whether nothing is unfinished.
    pub(super) fn is_between(&self) -> bool {
        self.state == State::Ground
    }

    /// What brings a fresh parser into this state.
    pub(super) fn unfinished(&self) -> Vec<u8> {
        if !self.overflow {
            return self.pending.clone();
        }
        // Nothing of it shall take effect, but all of it has to be swallowed.
        match self.state {
            State::Osc => b"\x1b]7777;".to_vec(),
            _ => b"\x1bX".to_vec(),
        }
    }

    fn step(&mut self, byte: u8, act: &mut impl Act) {
        match self.state {
            State::Ground => self.ground(byte, act),
            State::Utf8(len) => self.utf8(len, byte, act),
            _ if byte == ESC => {
                self.end_string(act);
                self.begin(State::Escape, byte);
            }
            State::Osc if byte == 0x07 => self.end_string(act),
            State::Osc | State::Dcs | State::Skip => self.string(byte),
            // CAN and SUB give the sequence up.
            _ if byte == 0x18 || byte == 0x1a => self.reset(),
            _ if byte < 0x20 => act.control(byte),
            // DEL, and what cannot be part of any sequence.
            _ if byte >= 0x7f => {}
            State::Escape => self.escape(byte, act),
            State::EscapeIntermediate => self.escape_intermediate(byte, act),
            State::Csi | State::CsiIntermediate => self.csi(byte, act),
            State::CsiIgnore => {
                if byte >= 0x40 {
                    self.reset();
                }
            }
        }
    }

    fn begin(&mut self, state: State, byte: u8) {
        self.reset();
        self.state = state;
        self.pending.push(byte);
    }

    fn reset(&mut self) {
        self.state = State::Ground;
        self.overflow = false;
        if self.pending.capacity() > CSI_MAX {
            self.pending = Vec::new();
        }
        self.pending.clear();
    }

    fn ground(&mut self, byte: u8, act: &mut impl Act) {
        match byte {
            ESC => self.begin(State::Escape, byte),
            0..0x20 => act.control(byte),
            0x20..0x7f => act.print_ascii(&[byte]),
            0x7f => {}
            0xc2..=0xdf => self.begin(State::Utf8(2), byte),
            0xe0..=0xef => self.begin(State::Utf8(3), byte),
            0xf0..=0xf4 => self.begin(State::Utf8(4), byte),
            _ => act.print(char::REPLACEMENT_CHARACTER),
        }
    }

    fn utf8(&mut self, len: u8, byte: u8, act: &mut impl Act) {
        let continues = match self.pending.as_slice() {
            [0xe0] => (0xa0..=0xbf).contains(&byte),
            [0xed] => (0x80..=0x9f).contains(&byte),
            [0xf0] => (0x90..=0xbf).contains(&byte),
            [0xf4] => (0x80..=0x8f).contains(&byte),
            _ => (0x80..=0xbf).contains(&byte),
        };
        if !continues {
            self.reset();
            act.print(char::REPLACEMENT_CHARACTER);
            return self.step(byte, act);
        }
        self.pending.push(byte);
        if self.pending.len() < usize::from(len) {
            return;
        }
        let ch = std::str::from_utf8(&self.pending)
            .ok()
            .and_then(|text| text.chars().next());
        self.reset();
        act.print(ch.unwrap_or(char::REPLACEMENT_CHARACTER));
    }

    fn escape(&mut self, byte: u8, act: &mut impl Act) {
        self.pending.push(byte);
        self.state = match byte {
            0x20..=0x2f => State::EscapeIntermediate,
            b'[' => State::Csi,
            b']' => State::Osc,
            b'P' => State::Dcs,
            b'X' | b'^' | b'_' => State::Skip,
            _ => {
                self.reset();
                return act.escape(&[], byte);
            }
        };
    }

    fn escape_intermediate(&mut self, byte: u8, act: &mut impl Act) {
        if byte < 0x30 {
            // More than two exist nowhere; the rest would only cost memory.
            if self.pending.len() < 4 {
                self.pending.push(byte);
            }
            return;
        }
        act.escape(&self.pending[1..], byte);
        self.reset();
    }

    fn csi(&mut self, byte: u8, act: &mut impl Act) {
        if byte >= 0x40 {
            act.csi(&self.pending[2..], byte);
            return self.reset();
        }
        let allowed = match byte {
            0x20..=0x2f => {
                self.state = State::CsiIntermediate;
                true
            }
            _ if self.state == State::CsiIntermediate => false,
            // Only the first says that it is private.
            b'<'..=b'?' => self.pending.len() == 2,
            _ => true,
        };
        if allowed && self.pending.len() < CSI_MAX {
            return self.pending.push(byte);
        }
        self.state = State::CsiIgnore;
        // Whoever reads these two after anything ignores the rest as well.
        self.pending.extend_from_slice(b" 0");
    }

    fn string(&mut self, byte: u8) {
        match byte {
            0x18 | 0x1a => self.reset(),
            _ if self.overflow => {}
            _ if self.state == State::Osc && byte < 0x20 => {}
            _ if self.pending.len() >= STRING_MAX => {
                self.overflow = true;
                self.pending = Vec::new();
            }
            _ => self.pending.push(byte),
        }
    }

    fn end_string(&mut self, act: &mut impl Act) {
        if !self.overflow {
            match self.state {
                State::Osc => act.osc(&self.pending[2..]),
                State::Dcs => act.dcs(&self.pending[2..]),
                _ => {}
            }
        }
        self.reset();
    }
}

/// Handles what most streams are made of without going through the states: a
/// control sequence or a character that is there as a whole. Returns how many
/// bytes that was, 0 when the states have to see to it.
fn at_once(bytes: &[u8], act: &mut impl Act) -> usize {
    match bytes {
        [ESC, b'[', rest @ ..] => {
            let private = usize::from(matches!(rest.first(), Some(b'<'..=b'?')));
            let rest_of_body = rest.iter().skip(private);
            let digits = rest_of_body.take_while(|byte| (b'0'..=b';').contains(*byte));
            let len = private + digits.take(CSI_MAX / 2).count();
            match rest.get(len) {
                Some(last @ 0x40..=0x7e) => {
                    act.csi(&rest[..len], *last);
                    len + 3
                }
                _ => 0,
            }
        }
        [first @ 0xc2..=0xf4, ..] => {
            let len = match first {
                ..=0xdf => 2,
                ..=0xef => 3,
                _ => 4,
            };
            let ch = bytes.get(..len).and_then(|ch| std::str::from_utf8(ch).ok());
            match ch.and_then(|text| text.chars().next()) {
                Some(ch) => {
                    act.print(ch);
                    len
                }
                None => 0,
            }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Seen(Vec<String>);

    impl Act for Seen {
        fn print(&mut self, ch: char) {
            self.0.push(format!("print {ch}"));
        }
        fn print_ascii(&mut self, run: &[u8]) {
            for byte in run {
                self.print(char::from(*byte));
            }
        }
        fn control(&mut self, byte: u8) {
            self.0.push(format!("control {byte:02x}"));
        }
        fn escape(&mut self, intermediates: &[u8], last: u8) {
            let between = String::from_utf8_lossy(intermediates);
            self.0.push(format!("escape {between}{}", char::from(last)));
        }
        fn csi(&mut self, body: &[u8], last: u8) {
            let body = String::from_utf8_lossy(body);
            self.0.push(format!("csi {body} {}", char::from(last)));
        }
        fn osc(&mut self, body: &[u8]) {
            self.0
                .push(format!("osc {}", String::from_utf8_lossy(body)));
        }
        fn dcs(&mut self, body: &[u8]) {
            self.0
                .push(format!("dcs {}", String::from_utf8_lossy(body)));
        }
    }

    fn parse(bytes: &[u8]) -> Vec<String> {
        let mut seen = Seen::default();
        Parser::default().advance(bytes, &mut seen);
        seen.0
    }

    #[test]
    fn sequences_and_text_are_told_apart() {
        assert_eq!(
            parse("a\r\x1b[1;31mé\x1b(0\x1b7".as_bytes()),
            [
                "print a",
                "control 0d",
                "csi 1;31 m",
                "print é",
                "escape (0",
                "escape 7"
            ]
        );
        assert_eq!(
            parse(b"\x1b]2;hi\x07\x1b]0;yo\x1b\\\x1bP$qm\x1b\\\x1b_x\x07y\x1b\\z"),
            [
                "osc 2;hi",
                "osc 0;yo",
                "escape \\",
                "dcs $qm",
                "escape \\",
                "escape \\",
                "print z"
            ]
        );
    }

    #[test]
    fn controls_inside_a_sequence_take_effect_at_once() {
        assert_eq!(parse(b"\x1b[1\n2A"), ["control 0a", "csi 12 A"]);
        assert_eq!(parse(b"\x1b[1\x182A"), ["print 2", "print A"]);
        assert_eq!(parse(b"\x1b[1\x1b[2A"), ["csi 2 A"]);
    }

    #[test]
    fn malformed_sequences_are_ignored_whole() {
        assert_eq!(parse(b"\x1b[1?5hx"), ["print x"]);
        assert_eq!(parse(b"\x1b[1 2qx"), ["print x"]);
        let mut long = b"\x1b[".to_vec();
        long.extend(std::iter::repeat_n(b'1', 5000));
        long.extend(b"Ax");
        assert_eq!(parse(&long), ["print x"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(parse(b"\xffa"), ["print \u{fffd}", "print a"]);
        assert_eq!(parse(b"\xe2\x82a"), ["print \u{fffd}", "print a"]);
        assert_eq!(parse(b"\xed\xa0\x80").len(), 3, "no surrogates");
        assert_eq!(parse(b"\xe2\x82\x1b[m"), ["print \u{fffd}", "csi  m"]);
    }

    #[test]
    fn the_unfinished_part_continues_elsewhere() {
        let all = "x\u{20ac}\x1b[38;2\n;1;2;3m\x1b]2;t\u{e9}\x1b\\\x1bPq#0\x1b\\\x1b[1?9z\x1b%Gy";
        let bytes = all.as_bytes();
        let whole = parse(bytes);
        for cut in 0..=bytes.len() {
            let mut seen = Seen::default();
            let mut first = Parser::default();
            first.advance(&bytes[..cut], &mut seen);
            let mut second = Parser::default();
            second.advance(&first.unfinished(), &mut seen);
            second.advance(&bytes[cut..], &mut seen);
            assert_eq!(seen.0, whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_short_way_is_the_long_way() {
        let all = "x\u{20ac}\x1b[38;2;1;2;3mé\x1b[?25h\x1b[>4;2m\x1b[1 q\x1b[!p\x1b[1?5hy\x1b[4:3m";
        let mut bytes = all.as_bytes().to_vec();
        bytes.extend(b"\xe2\x82z\xed\xa0\x80\x1b[1\n2A\x1b[");
        bytes.extend([b'1'; 2000]);
        bytes.extend("m\u{e9}".as_bytes());
        let mut seen = Seen::default();
        let mut parser = Parser::default();
        for byte in &bytes {
            parser.advance(std::slice::from_ref(byte), &mut seen);
        }
        assert_eq!(parse(&bytes), seen.0);
    }

    #[test]
    fn an_endless_string_is_swallowed_in_little_memory() {
        let mut seen = Seen::default();
        let mut parser = Parser::default();
        parser.advance(b"\x1b]2;", &mut seen);
        for _ in 0..100 {
            parser.advance(&[b'x'; 4096], &mut seen);
        }
        assert!(parser.pending.capacity() <= 2 * STRING_MAX);
        let mut other = Parser::default();
        other.advance(&parser.unfinished(), &mut seen);
        other.advance(b"xx\x07y", &mut seen);
        assert_eq!(seen.0, ["osc 7777;xx", "print y"]);
    }
}
