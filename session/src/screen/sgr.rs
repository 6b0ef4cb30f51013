//! How characters look, read from SGR and written as SGR.

use std::fmt::Write as _;

use super::cell::{Attrs, Color, Pen};
use super::params::{Groups, Params};

/// Changes a pen as SGR says.
pub(super) fn apply(pen: &mut Pen, params: &Params<'_>) {
    let mut groups = params.groups();
    while let Some(group) = groups.next() {
        let attrs = &mut pen.attrs;
        let value = |at: usize| group.get(at).copied().flatten();
        match value(0).unwrap_or(0) {
            0 => *pen = Pen::default(),
            4 => {
                let kind = value(1).map_or(1, |kind| kind.min(6));
                attrs.set_underline(u8::try_from(kind).unwrap_or(1));
            }
            21 => attrs.set_underline(2),
            22 => attrs.clear(Attrs::BOLD | Attrs::DIM),
            23 => attrs.clear(Attrs::ITALIC),
            24 => attrs.set_underline(0),
            25 => attrs.clear(Attrs::BLINK | Attrs::RAPID),
            27 => attrs.clear(Attrs::INVERSE),
            28 => attrs.clear(Attrs::HIDDEN),
            29 => attrs.clear(Attrs::STRIKE),
            55 => attrs.clear(Attrs::OVERLINE),
            39 => pen.fg = Color::Default,
            49 => pen.bg = Color::Default,
            59 => pen.line = Color::Default,
            38 => set(&mut pen.fg, group, &mut groups),
            48 => set(&mut pen.bg, group, &mut groups),
            58 => set(&mut pen.line, group, &mut groups),
            number => basic(pen, number),
        }
    }
}

fn basic(pen: &mut Pen, number: u16) {
    let Ok(number) = u8::try_from(number) else {
        return;
    };
    match number {
        30..=37 => pen.fg = Color::Basic(number - 30),
        40..=47 => pen.bg = Color::Basic(number - 40),
        90..=97 => pen.fg = Color::Basic(number - 82),
        100..=107 => pen.bg = Color::Basic(number - 92),
        _ => {
            let known = Attrs::ALL.iter().find(|(_, set)| *set == number);
            if let Some((bit, _)) = known {
                pen.attrs.set(*bit);
            }
        }
    }
}

/// `38:5:n`, `38:2::r:g:b` and the forms with semicolons.
fn set(color: &mut Color, group: &[Option<u16>], groups: &mut Groups<'_>) {
    let byte = |value: Option<u16>| u8::try_from(value.unwrap_or(0)).ok();
    let found = if group.len() > 1 {
        match (group[1], &group[2..]) {
            (Some(5), [index, ..]) => byte(*index).map(Color::Indexed),
            // With and without the number of a colour space.
            (Some(2), [r, g, b] | [_, r, g, b, ..]) => rgb(byte(*r), byte(*g), byte(*b)),
            _ => None,
        }
    } else {
        let mut next = || groups.next().and_then(|group| group[0]);
        match next() {
            Some(5) => byte(next()).map(Color::Indexed),
            Some(2) => {
                let (r, g, b) = (next(), next(), next());
                rgb(byte(r), byte(g), byte(b))
            }
            _ => None,
        }
    };
    if let Some(found) = found {
        *color = found;
    }
}

fn rgb(r: Option<u8>, g: Option<u8>, b: Option<u8>) -> Option<Color> {
    Some(Color::Rgb(r?, g?, b?))
}

/// Writes the sequence that changes one pen into another; nothing when they
/// are the same.
pub(super) fn change(out: &mut Vec<u8>, from: Pen, to: Pen) {
    if from == to {
        return;
    }
    if to == Pen::default() {
        return out.extend_from_slice(b"\x1b[m");
    }
    let mut text = String::new();
    let from = if from.attrs.loses(to.attrs) {
        text.push('0');
        Pen::default()
    } else {
        from
    };
    differences(&mut text, from, to);
    out.extend_from_slice(b"\x1b[");
    out.extend_from_slice(text.trim_start_matches(';').as_bytes());
    out.push(b'm');
}

/// The parameters that make a pen out of the default one, each after `;`.
pub(super) fn describe(out: &mut String, pen: Pen) {
    differences(out, Pen::default(), pen);
}

fn differences(out: &mut String, from: Pen, to: Pen) {
    for (bit, number) in Attrs::ALL {
        if to.attrs.has(bit) && !from.attrs.has(bit) {
            // Writing to a string does not fail.
            let _ = write!(out, ";{number}");
        }
    }
    match to.attrs.underline() {
        kind if kind == from.attrs.underline() => {}
        0 => out.push_str(";24"),
        1 => out.push_str(";4"),
        kind => {
            let _ = write!(out, ";4:{kind}");
        }
    }
    if from.fg != to.fg {
        color(out, to.fg, 30);
    }
    if from.bg != to.bg {
        color(out, to.bg, 40);
    }
    if from.line != to.line {
        // Only with colons: who does not know it must not read attributes.
        let _ = match to.line {
            Color::Default => write!(out, ";59"),
            Color::Basic(index) | Color::Indexed(index) => write!(out, ";58:5:{index}"),
            Color::Rgb(r, g, b) => write!(out, ";58:2::{r}:{g}:{b}"),
        };
    }
}

fn color(out: &mut String, color: Color, base: u16) {
    let _ = match color {
        Color::Default => write!(out, ";{}", base + 9),
        Color::Basic(index @ 0..=7) => write!(out, ";{}", base + u16::from(index)),
        Color::Basic(index) => write!(out, ";{}", base + 52 + u16::from(index)),
        Color::Indexed(index) => write!(out, ";{};5;{index}", base + 8),
        Color::Rgb(r, g, b) => write!(out, ";{};2;{r};{g};{b}", base + 8),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pen(body: &str) -> Pen {
        let mut pen = Pen::default();
        apply(&mut pen, &Params::parse(body.as_bytes()));
        pen
    }

    #[test]
    fn both_spellings_of_colours_are_read() {
        assert_eq!(pen("38;2;1;2;3").fg, Color::Rgb(1, 2, 3));
        assert_eq!(pen("38:2:1:2:3").fg, Color::Rgb(1, 2, 3));
        assert_eq!(pen("38:2::1:2:3").fg, Color::Rgb(1, 2, 3));
        assert_eq!(pen("48;5;200;1").bg, Color::Indexed(200));
        assert!(pen("48;5;200;1").attrs.has(Attrs::BOLD));
        assert_eq!(pen("97;101").fg, Color::Basic(15));
        assert_eq!(pen("97;101").bg, Color::Basic(9));
        assert_eq!(pen("38;2;999;0;0").fg, Color::Default);
        assert_eq!(pen("58:5:9").line, Color::Indexed(9));
        assert_eq!(pen("4:3").attrs.underline(), 3);
        assert_eq!(pen("4:0").attrs.underline(), 0);
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let pens = [
            "",
            "1;2;3;4;5;6;7;8;9;53",
            "4:3;58:2::1:2:3",
            "31;42",
            "95;106",
            "38;5;99",
            "48;2;9;8;7;1",
            "21",
            "4:5;38;5;15;48;5;7",
            "58:5:3;4",
        ]
        .map(pen);
        for from in pens {
            for to in pens {
                let mut out = Vec::new();
                change(&mut out, from, to);
                let mut got = from;
                if from == to {
                    assert!(out.is_empty());
                } else {
                    apply(&mut got, &Params::parse(&out[2..out.len() - 1]));
                }
                assert_eq!(got, to, "{}", String::from_utf8_lossy(&out));
            }
        }
    }
}
