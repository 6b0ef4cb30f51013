//! The detach chord as a byte machine: Ctrl+B, then `d`.
//!
//! Both keys may also come as the kitty keyboard protocol writes them (`CSI 98;5u`, `CSI 100u`).
//! Between them, reports that the terminal sends by itself (focus, mouse, cursor) pass through
//! and change nothing. Ctrl+B twice sends one Ctrl+B; any other key after Ctrl+B is sent with it.
//! A lone ESC outside a chord passes at once: it is never held back to see what follows.

/// What to do with typed bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// These go to the session.
    pub bytes: Vec<u8>,
    /// The chord was completed; what came after it is dropped.
    pub detach: bool,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Detach {
    /// The prefix as it was typed, while the second key is awaited.
    prefix: Vec<u8>,
    /// An escape sequence that has begun after the prefix, or that may be a kitty prefix.
    sequence: Vec<u8>,
}

/// The longest escape sequence that is held back, in bytes; a longer one is no key.
const SEQUENCE_MAX: usize = 64;

impl Detach {
    /// Takes what was typed.
    pub fn feed(&mut self, input: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for &byte in input {
            self.step(byte, &mut typed);
            if typed.detach {
                return typed;
            }
        }
        // What may yet become a kitty prefix is held back only while more than its ESC has come:
        // a lone ESC is a key of its own.
        if self.prefix.is_empty() && self.sequence == b"\x1b" {
            typed.bytes.append(&mut self.sequence);
        }
        typed
    }

    fn step(&mut self, byte: u8, typed: &mut Typed) {
        if !self.sequence.is_empty() {
            self.sequence.push(byte);
            return self.advance(typed);
        }
        match (byte, self.prefix.is_empty()) {
            (0x1b, _) => self.sequence.push(byte),
            (0x02, true) => self.prefix.push(byte),
            (0x02, false) => {
                self.prefix.clear();
                typed.bytes.push(0x02);
            }
            (b'd', false) => typed.detach = true,
            (_, false) => {
                typed.bytes.append(&mut self.prefix);
                typed.bytes.push(byte);
            }
            (_, true) => typed.bytes.push(byte),
        }
    }

    /// The sequence has grown by a byte.
    fn advance(&mut self, typed: &mut Typed) {
        let complete = match self.sequence.as_slice() {
            [0x1b, b'['] => false,
            [0x1b, b'[', .., last] => (0x40..=0x7e).contains(last),
            // Two bytes that are no CSI: Alt and a key, or SS3. No key of the chord.
            _ => true,
        };
        if !complete && self.sequence.len() < SEQUENCE_MAX {
            return;
        }
        let sequence = std::mem::take(&mut self.sequence);
        match (Key::of(&sequence), self.prefix.is_empty()) {
            (Key::CtrlB, true) => self.prefix = sequence,
            (Key::CtrlB, false) => {
                self.prefix.clear();
                typed.bytes.extend_from_slice(&sequence);
            }
            (Key::D, false) => typed.detach = true,
            (Key::Other, false) => {
                typed.bytes.append(&mut self.prefix);
                typed.bytes.extend_from_slice(&sequence);
            }
            (Key::D | Key::Other | Key::Report, true) | (Key::Report, false) => {
                typed.bytes.extend_from_slice(&sequence);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    CtrlB,
    D,
    /// A kitty key that is neither.
    Other,
    /// Not a key of the kitty protocol: focus, mouse, cursor position, arrows.
    Report,
}

impl Key {
    /// Reads `CSI code[:…][;modifiers[:event]] u`.
    fn of(sequence: &[u8]) -> Self {
        let Some(body) = sequence
            .strip_prefix(b"\x1b[")
            .and_then(|rest| rest.strip_suffix(b"u"))
        else {
            return Self::Report;
        };
        let Ok(body) = std::str::from_utf8(body) else {
            return Self::Report;
        };
        let mut parameters = body
            .split(';')
            .map(|part| part.split(':').next().unwrap_or(""));
        let code: u32 = match parameters.next().unwrap_or("").parse() {
            Ok(code) => code,
            Err(_) => return Self::Report,
        };
        let modifiers = parameters
            .next()
            .filter(|text| !text.is_empty())
            .map_or(Ok(1), str::parse::<u32>);
        match (code, modifiers) {
            (98, Ok(5)) => Self::CtrlB,
            (100, Ok(1)) => Self::D,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(input: &[u8]) -> (Vec<u8>, bool) {
        let typed = Detach::default().feed(input);
        (typed.bytes, typed.detach)
    }

    #[test]
    fn s58_the_chord_lets_go() {
        for chord in [
            &b"\x02d"[..],
            b"\x1b[98;5ud",
            b"\x02\x1b[100u",
            b"\x02\x1b[100;1u",
            b"\x1b[98;5u\x1b[100;1:1u",
        ] {
            assert_eq!(feed(chord), (vec![], true), "{chord:?}");
        }
        assert_eq!(feed(b"ab\x02dcd"), (b"ab".to_vec(), true));
    }

    #[test]
    fn everything_else_passes() {
        for (input, output) in [
            (&b"abc"[..], &b"abc"[..]),
            (b"\x02x", b"\x02x"),
            (b"\x02\x02", b"\x02"),
            (b"\x02\x02d", b"\x02d"),
            (b"\x1b[A\x1bOB\x1bx", b"\x1b[A\x1bOB\x1bx"),
            (b"\x1b[2;5ud", b"\x1b[2;5ud"),
            (b"\x02\x1b[100;5u", b"\x02\x1b[100;5u"),
            (b"\x02\x1b[97u", b"\x02\x1b[97u"),
            (b"\x1b", b"\x1b"),
        ] {
            assert_eq!(feed(input), (output.to_vec(), false), "{input:?}");
        }
    }

    #[test]
    fn reports_between_the_keys_pass_and_change_nothing() {
        assert_eq!(feed(b"\x02\x1b[Id"), (b"\x1b[I".to_vec(), true));
        assert_eq!(
            feed(b"\x1b[98;5u\x1b[<0;1;1Md"),
            (b"\x1b[<0;1;1M".to_vec(), true)
        );
    }

    #[test]
    fn w21_a_lone_escape_is_not_held_back() {
        let mut detach = Detach::default();
        assert_eq!(detach.feed(b"\x1b").bytes, b"\x1b");
        assert_eq!(detach.feed(b"x").bytes, b"x");
    }

    #[test]
    fn every_split_means_the_same() {
        let input = b"a\x02\x1b[I\x02b\x02\x1b[100u";
        let whole = feed(input);
        for cut in 1..input.len() {
            // A cut right behind an ESC is a key of its own, by decision.
            if input[cut - 1] == 0x1b {
                continue;
            }
            let mut detach = Detach::default();
            let first = detach.feed(&input[..cut]);
            let second = detach.feed(&input[cut..]);
            assert_eq!(
                ([first.bytes, second.bytes].concat(), second.detach),
                whole,
                "{cut}"
            );
        }
    }

    #[test]
    fn a_sequence_without_end_is_passed_on() {
        let long = [b"\x1b[".to_vec(), vec![b'1'; 200]].concat();
        assert_eq!(feed(&long), (long.clone(), false));
    }
}
