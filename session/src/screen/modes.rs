//! What a program has switched on and off.
//!
//! Modes that we do not act on ourselves (reporting of mouse, focus and colour
//! scheme, bracketed paste and others) are remembered all the same: the
//! terminal in front of the user does act on them.

/// A DEC private mode that is remembered, with what it is after a reset.
/// `None`: terminals do not agree, so it is restored once a program has said
/// what it wants.
const KNOWN: [(u16, Option<bool>); 23] = [
    (APPLICATION_CURSOR, Some(false)),
    (REVERSE, Some(false)),
    (ORIGIN, Some(false)),
    (AUTOWRAP, Some(true)),
    (8, Some(true)),
    (BLINK, None),
    (CURSOR, Some(true)),
    (REVERSE_WRAP, Some(false)),
    (KEYPAD, Some(false)),
    (67, None),
    (1004, Some(false)),
    (1007, None),
    (1034, None),
    (1035, None),
    (1036, None),
    (1039, None),
    (1042, None),
    (1043, None),
    (PASTE, Some(false)),
    (2027, None),
    (2031, Some(false)),
    (2048, Some(false)),
    (9001, Some(false)),
];

/// Cursor keys send `ESC O` sequences.
pub(super) const APPLICATION_CURSOR: u16 = 1;
/// The whole screen is inverted.
pub(super) const REVERSE: u16 = 5;
/// Rows count from the top of the scroll region.
pub(super) const ORIGIN: u16 = 6;
/// Text goes on in the next line.
pub(super) const AUTOWRAP: u16 = 7;
/// The cursor blinks.
pub(super) const BLINK: u16 = 12;
/// The cursor is visible.
pub(super) const CURSOR: u16 = 25;
/// Backspace goes back to the line before.
pub(super) const REVERSE_WRAP: u16 = 45;
/// The keypad sends sequences; also `ESC =` and `ESC >`.
pub(super) const KEYPAD: u16 = 66;

/// Pasted text is marked as such.
pub(super) const PASTE: u16 = 2004;

/// Kinds of mouse reports; a terminal has one of them at a time.
const MOUSE: [u16; 5] = [9, 1000, 1001, 1002, 1003];

/// How they are written; one at a time as well.
const MOUSE_FORMAT: [u16; 4] = [1005, 1006, 1015, 1016];

/// DEC private modes and the two ANSI modes that matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Modes {
    /// In the order of [`KNOWN`].
    said: [Option<bool>; KNOWN.len()],
    mouse: Group,
    format: Group,
    /// IRM: characters push those after them to the right.
    pub(super) insert: bool,
    /// LNM: a line feed returns as well.
    pub(super) newline: bool,
}

impl Modes {
    /// Whether a mode is on; for one that no terminal agrees on, `false` until
    /// a program has said.
    pub(super) fn is_on(&self, number: u16) -> bool {
        let known = KNOWN.iter().position(|(known, _)| *known == number);
        known.is_some_and(|at| self.said[at].or(KNOWN[at].1).unwrap_or(false))
    }

    /// What DECRQM answers: 0 unknown, 1 set, 2 reset.
    pub(super) fn report(&self, number: u16) -> u8 {
        let on = if MOUSE.contains(&number) {
            self.mouse.on.contains(&number)
        } else if MOUSE_FORMAT.contains(&number) {
            self.format.on.contains(&number)
        } else if KNOWN.iter().any(|(known, _)| *known == number) {
            self.is_on(number)
        } else {
            return 0;
        };
        if on { 1 } else { 2 }
    }

    /// Sets or resets a mode that is only remembered or asked for elsewhere.
    pub(super) fn set(&mut self, number: u16, on: bool) {
        if MOUSE.contains(&number) {
            self.mouse.say(number, on);
        } else if MOUSE_FORMAT.contains(&number) {
            self.format.say(number, on);
        } else if let Some(at) = KNOWN.iter().position(|(known, _)| *known == number) {
            self.said[at] = Some(on);
        }
    }

    /// It is as if nobody had ever said anything about this mode.
    pub(super) fn forget(&mut self, number: u16) {
        if let Some(at) = KNOWN.iter().position(|(known, _)| *known == number) {
            self.said[at] = None;
        }
    }

    /// What DECSTR changes.
    pub(super) fn soft_reset(&mut self) {
        self.insert = false;
        for number in [APPLICATION_CURSOR, ORIGIN, KEYPAD] {
            self.set(number, false);
        }
        self.set(AUTOWRAP, true);
        self.set(CURSOR, true);
    }

    /// What to say to a terminal after a reset so that it has the same modes,
    /// in order; without those in `but`.
    pub(super) fn said(&self, but: &[u16]) -> Vec<(u16, bool)> {
        let known = KNOWN.iter().zip(self.said);
        let mut all: Vec<_> = known
            .filter(|((number, _), _)| !but.contains(number))
            .filter_map(|((number, fresh), said)| Some((*number, *fresh, said?)))
            .filter(|(_, fresh, said)| *fresh != Some(*said))
            .map(|(number, _, said)| (number, said))
            .collect();
        all.extend(&self.mouse.log);
        all.extend(&self.format.log);
        all
    }
}

/// Modes of which a terminal has one at a time.
///
/// Terminals differ in what is left when one of several is reset: none, or the
/// one set before. So all that was said since none was on is said again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Group {
    /// Those set and not reset, the last one at the end.
    on: Vec<u16>,
    log: Vec<(u16, bool)>,
}

/// Then only what is on is said again.
const LOG_MAX: usize = 16;

impl Group {
    fn say(&mut self, number: u16, on: bool) {
        self.on.retain(|other| *other != number);
        if on {
            self.on.push(number);
        }
        if self.on.is_empty() {
            return self.log.clear();
        }
        if self.log.last() != Some(&(number, on)) {
            self.log.push((number, on));
        }
        if self.log.len() > LOG_MAX {
            self.log = self.on.iter().map(|number| (*number, true)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_said() {
        let mut modes = Modes::default();
        assert!(modes.said(&[]).is_empty());
        modes.set(AUTOWRAP, false);
        modes.set(2004, true);
        modes.set(1007, false);
        modes.set(4711, true);
        assert_eq!(modes.said(&[]), [(7, false), (1007, false), (2004, true)]);
        assert_eq!(modes.said(&[7]), [(1007, false), (2004, true)]);
        modes.set(AUTOWRAP, true);
        modes.set(2004, false);
        assert_eq!(modes.said(&[]), [(1007, false)]);
        assert_eq!(
            (modes.report(7), modes.report(2004), modes.report(4711)),
            (1, 2, 0)
        );
    }

    #[test]
    fn mouse_modes_are_said_as_the_program_did() {
        let mut modes = Modes::default();
        for (number, on) in [(1000, true), (1006, true), (1002, true), (1002, false)] {
            modes.set(number, on);
        }
        let said = [(1000, true), (1002, true), (1002, false), (1006, true)];
        assert_eq!(modes.said(&[]), said);
        modes.set(1000, false);
        assert_eq!(modes.said(&[]), [(1006, true)]);
    }

    #[test]
    fn a_program_that_toggles_for_ever_costs_little() {
        let mut modes = Modes::default();
        modes.set(1000, true);
        for _ in 0..1000 {
            modes.set(1002, true);
            modes.set(1002, false);
        }
        assert!(modes.said(&[]).len() <= LOG_MAX);
    }
}
