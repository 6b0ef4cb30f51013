//! Where the next character goes, and as what.

use super::cell::Pen;

/// A set of characters that a program can put in place of ASCII.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Charset {
    #[default]
    Ascii,
    /// `#` is a pound sign.
    British,
    /// Lines and corners.
    Graphics,
}

/// The DEC special graphics from `_` to `~`.
const GRAPHICS: [char; 32] = [
    ' ', '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─',
    '⎼', '⎽', '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
];

impl Charset {
    /// The set that the last byte of `ESC ( <byte>` names; unknown ones are
    /// ASCII.
    pub(super) const fn named(byte: u8) -> Self {
        match byte {
            b'0' => Self::Graphics,
            b'A' => Self::British,
            _ => Self::Ascii,
        }
    }

    /// The byte that names it.
    pub(super) const fn name(self) -> u8 {
        match self {
            Self::Ascii => b'B',
            Self::British => b'A',
            Self::Graphics => b'0',
        }
    }

    const fn map(self, ch: char) -> char {
        match (self, ch) {
            (Self::British, '#') => '£',
            (Self::Graphics, '_'..='~') => GRAPHICS[ch as usize - '_' as usize],
            _ => ch,
        }
    }
}

/// The four sets G0 to G3 and which of them is in use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Charsets {
    pub(super) sets: [Charset; 4],
    /// The one that characters are taken from.
    pub(super) shift: u8,
    /// For one character, this one.
    pub(super) single: Option<u8>,
}

impl Charsets {
    /// Whether a character is what it is.
    pub(super) const fn is_plain(&self) -> bool {
        self.single.is_none() && matches!(self.sets[self.shift as usize & 3], Charset::Ascii)
    }

    /// What is shown for a character.
    pub(super) const fn map(&mut self, ch: char) -> char {
        let set = match self.single.take() {
            Some(set) => set,
            None => self.shift,
        };
        self.sets[set as usize & 3].map(ch)
    }
}

/// The place of the next character.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Cursor {
    pub(super) row: usize,
    pub(super) col: usize,
    /// The last column was just written: the next character begins a line.
    pub(super) pending: bool,
    pub(super) pen: Pen,
    pub(super) charsets: Charsets,
}

/// What DECSC keeps, once for each screen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Saved {
    pub(super) cursor: Cursor,
    /// Rows count from the top of the scroll region.
    pub(super) origin: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphics_are_lines() {
        let drawn: String = "lqkx".chars().map(|c| Charset::Graphics.map(c)).collect();
        assert_eq!(drawn, "┌─┐│");
        assert_eq!(Charset::Graphics.map('A'), 'A');
        assert_eq!(Charset::British.map('#'), '£');
        for set in [Charset::Ascii, Charset::British, Charset::Graphics] {
            assert_eq!(Charset::named(set.name()), set);
        }
    }

    #[test]
    fn a_single_shift_is_for_one_character() {
        let mut sets = Charsets::default();
        sets.sets[2] = Charset::Graphics;
        sets.single = Some(2);
        assert!(!sets.is_plain());
        assert_eq!((sets.map('q'), sets.map('q')), ('─', 'q'));
        assert!(sets.is_plain());
    }
}
