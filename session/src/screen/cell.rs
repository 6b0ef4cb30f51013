//! What one place of the screen holds: a character and how it looks.
//!
//! Cells are small and `Copy`: 20 bytes. What rarely occurs (a character with
//! combining marks, a hyperlink) is a number that stands for an entry of an
//! [`Interner`](super::interner::Interner).

/// A colour as a program names it. What it looks like is the terminal's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Color {
    #[default]
    Default,
    /// The first 16 by their own parameters: some terminals brighten them with
    /// bold.
    Basic(u8),
    Indexed(u8),
    Rgb(u8, u8, u8),
}

/// Attributes as bits, with the kind of underline in the upper ones.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Attrs(u16);

impl Attrs {
    pub(super) const BOLD: u16 = 1;
    pub(super) const DIM: u16 = 1 << 1;
    pub(super) const ITALIC: u16 = 1 << 2;
    pub(super) const BLINK: u16 = 1 << 3;
    pub(super) const RAPID: u16 = 1 << 4;
    pub(super) const INVERSE: u16 = 1 << 5;
    pub(super) const HIDDEN: u16 = 1 << 6;
    pub(super) const STRIKE: u16 = 1 << 7;
    pub(super) const OVERLINE: u16 = 1 << 8;
    const UNDERLINE: u32 = 12;

    /// Every attribute that is on or off, with the parameter that sets it.
    pub(super) const ALL: [(u16, u8); 9] = [
        (Self::BOLD, 1),
        (Self::DIM, 2),
        (Self::ITALIC, 3),
        (Self::BLINK, 5),
        (Self::RAPID, 6),
        (Self::INVERSE, 7),
        (Self::HIDDEN, 8),
        (Self::STRIKE, 9),
        (Self::OVERLINE, 53),
    ];

    pub(super) const fn set(&mut self, bits: u16) {
        self.0 |= bits;
    }

    pub(super) const fn clear(&mut self, bits: u16) {
        self.0 &= !bits;
    }

    pub(super) const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// 0 none, 1 single, 2 double, 3 curly, 4 dotted, 5 dashed.
    pub(super) const fn underline(self) -> u8 {
        (self.0 >> Self::UNDERLINE) as u8
    }

    pub(super) const fn set_underline(&mut self, kind: u8) {
        let kind = if kind > 5 { 1 } else { kind };
        self.0 = self.0 & !(7 << Self::UNDERLINE) | (kind as u16) << Self::UNDERLINE;
    }

    /// Whether something is on here that is off in `next`.
    pub(super) const fn loses(self, next: Self) -> bool {
        let flags = (1 << Self::UNDERLINE) - 1;
        self.0 & !next.0 & flags != 0 || self.underline() != 0 && next.underline() == 0
    }
}

/// How characters look that are printed from now on: what SGR sets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Pen {
    pub(super) fg: Color,
    pub(super) bg: Color,
    /// The colour of the underline.
    pub(super) line: Color,
    pub(super) attrs: Attrs,
}

/// A character, or a character with combining marks by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Glyph(u32);

/// Numbers of clusters come after the last character.
const CLUSTERS: u32 = 0x11_0000;

/// What a [`Glyph`] stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Text {
    Char(char),
    /// A character with marks: an entry of the table of clusters.
    Cluster(u32),
    /// The right half of a wide character.
    Tail,
}

impl Glyph {
    pub(super) const BLANK: Self = Self(' ' as u32);
    const TAIL: Self = Self(0);

    pub(super) const fn char(ch: char) -> Self {
        Self(ch as u32)
    }

    pub(super) const fn cluster(number: u32) -> Self {
        Self(CLUSTERS.saturating_add(number))
    }

    pub(super) fn text(self) -> Text {
        if self == Self::TAIL {
            return Text::Tail;
        }
        match char::from_u32(self.0) {
            Some(ch) => Text::Char(ch),
            None => Text::Cluster(self.0.saturating_sub(CLUSTERS)),
        }
    }
}

/// One place of the screen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Cell {
    pub(super) glyph: Glyph,
    pub(super) pen: Pen,
    /// The hyperlink it belongs to; 0 for none.
    pub(super) link: u16,
}

impl Cell {
    /// What is where nothing was printed.
    pub(super) const BLANK: Self = Self {
        glyph: Glyph::BLANK,
        pen: Pen {
            fg: Color::Default,
            bg: Color::Default,
            line: Color::Default,
            attrs: Attrs(0),
        },
        link: 0,
    };

    /// What erasing leaves: the background goes on, nothing else.
    pub(super) const fn erased(bg: Color) -> Self {
        let mut cell = Self::BLANK;
        cell.pen.bg = bg;
        cell
    }

    /// The right half of a wide character.
    pub(super) const fn tail(pen: Pen, link: u16) -> Self {
        Self {
            glyph: Glyph::TAIL,
            pen,
            link,
        }
    }

    pub(super) fn is_tail(&self) -> bool {
        self.glyph == Glyph::TAIL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_small() {
        assert_eq!(size_of::<Cell>(), 20);
    }

    #[test]
    fn a_glyph_is_a_character_a_cluster_or_a_tail() {
        assert_eq!(Glyph::char('é').text(), Text::Char('é'));
        assert_eq!(Glyph::char('\u{10ffff}').text(), Text::Char('\u{10ffff}'));
        assert_eq!(Glyph::cluster(0).text(), Text::Cluster(0));
        assert_eq!(Glyph::cluster(77).text(), Text::Cluster(77));
        assert_eq!(Cell::tail(Pen::default(), 0).glyph.text(), Text::Tail);
    }

    #[test]
    fn the_kind_of_underline_is_apart_from_the_rest() {
        let mut attrs = Attrs::default();
        attrs.set(Attrs::BOLD | Attrs::OVERLINE);
        attrs.set_underline(3);
        assert_eq!(attrs.underline(), 3);
        attrs.set_underline(1);
        assert_eq!(attrs.underline(), 1);
        attrs.set_underline(99);
        assert_eq!(attrs.underline(), 1);
        assert!(attrs.has(Attrs::BOLD) && attrs.has(Attrs::OVERLINE));
        let mut plain = attrs;
        plain.set_underline(0);
        assert!(attrs.loses(plain) && !plain.loses(attrs));
    }
}
