//! What real programs wrote, and longer streams like theirs, cut at a sample
//! of places: the same ones each time.
//!
//! The recordings are of 60 columns and 18 rows, with
//! `TERM=xterm-256color`: bash with readline, vim, less, top, htop and tmux,
//! each driven through what it does most.

use std::fmt::Write as _;

use session::Size;
use session::screen::Screen;

use crate::foreign::agrees;
use crate::judges::{Judge, alacritty, avt, vt100};
use crate::law::{holds, screen};

const SIZE: Size = Size { cols: 60, rows: 18 };

/// Places at which each stream is cut; more by the variable `SCREEN_CUTS`.
const CUTS: usize = 16;

const RECORDED: &[(&str, &[u8])] = &[
    ("bash", include_bytes!("recorded/bash.bin")),
    ("htop", include_bytes!("recorded/htop.bin")),
    ("less", include_bytes!("recorded/less.bin")),
    ("tmux", include_bytes!("recorded/tmux.bin")),
    ("top", include_bytes!("recorded/top.bin")),
    ("vim", include_bytes!("recorded/vim.bin")),
];

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// A shell that prints more lines than are kept, some of them wide or long.
fn shell() -> Vec<u8> {
    let mut dice = Dice(7);
    let mut out = String::new();
    let words = [
        "plain",
        "한국어",
        "日本語",
        "😀",
        "e\u{301}",
        "longer-than-the-others",
        "\x1b[32mok\x1b[m",
    ];
    for number in 0..2200 {
        let _ = write!(out, "\x1b[1;3{}m{number}\x1b[m", dice.roll(8));
        for _ in 0..dice.roll(4) {
            let _ = write!(out, " {}", words[dice.roll(words.len())]);
        }
        out.push_str("\r\n");
    }
    out.into_bytes()
}

/// A full screen drawn again and again in colour, in synchronised updates.
fn frames() -> Vec<u8> {
    let mut dice = Dice(11);
    let mut out = String::from("$ monitor\r\n\x1b[?1049h\x1b[?25l\x1b[?1006;1000h");
    for frame in 0..12 {
        out.push_str("\x1b[?2026h\x1b[H");
        for row in 1..=18 {
            let _ = write!(out, "\x1b[{row};1H\x1b[48;5;{}m\x1b[K", 16 + dice.roll(200));
            let _ = write!(out, "\x1b[38;2;{};9;9m{frame:3}", dice.roll(256));
            let _ = write!(out, "{}\x1b[m", "#".repeat(dice.roll(57)));
        }
        out.push_str("\x1b[?2026l");
    }
    out.push_str("\x1b[?1006;1000l\x1b[?25h\x1b[?1049l$ ");
    out.into_bytes()
}

/// What agents do: text that streams, and below it a box that is drawn anew
/// after going back up.
fn agent() -> Vec<u8> {
    let mut dice = Dice(13);
    let mut out = String::from("\x1b[?2004h\x1b[?1004h\x1b[>1u\x1b[?25l");
    for turn in 0..60 {
        let text = "The answer is not simple, 하지만 it can be said. ".repeat(dice.roll(4));
        let _ = write!(out, "\x1b[2K\x1b[1m\u{25cf}\x1b[22m {text}\r\n\r\n");
        let rule = "\u{2500}".repeat(56);
        let _ = write!(out, "\x1b[38;5;244m\u{256d}{rule}\u{256e}\x1b[39m\r\n");
        let _ = write!(
            out,
            "\u{2502}\x1b[7m \x1b[27m{:55}\u{2502}\r\n",
            format!(" turn {turn}")
        );
        let _ = write!(out, "\x1b[38;5;244m\u{2570}{rule}\u{256f}\x1b[39m\r\n");
        let _ = write!(
            out,
            "\x1b]0;turn {turn}\x07\x1b[2m  thinking\u{2026}\x1b[22m"
        );
        out.push_str("\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[G");
    }
    out.push_str("\x1b[<u\x1b[?25h\x1b[?1004l\x1b[?2004l");
    out.into_bytes()
}

fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<_> = RECORDED
        .iter()
        .map(|(name, bytes)| (*name, bytes.to_vec()))
        .collect();
    all.extend([("shell", shell()), ("frames", frames()), ("agent", agent())]);
    all
}

fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let wanted = std::env::var("SCREEN_CUTS")
        .ok()
        .and_then(|cuts| cuts.parse().ok());
    let mut dice = Dice(len as u64);
    (0..wanted.unwrap_or(CUTS)).map(move |_| dice.roll(len + 1))
}

#[test]
fn w03_w23_s59_the_law_holds() {
    for (name, bytes) in streams() {
        let whole = screen(SIZE, &bytes);
        cuts(bytes.len()).for_each(|cut| holds(name, SIZE, &bytes, cut, &whole));
    }
}

/// `instead`: what a judge sees in another way than most, and what to give it.
fn judged_by(judge: Judge, who: &str, instead: &[(&str, &str)]) {
    for (name, mut bytes) in streams() {
        for (from, to) in instead {
            bytes = replaced(&bytes, from.as_bytes(), to.as_bytes());
        }
        let whole = judge(SIZE, &bytes);
        let name = format!("{name} for {who}");
        for cut in cuts(bytes.len()) {
            agrees(judge, &name, SIZE, &bytes, cut, &whole);
        }
    }
}

fn replaced(mut bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        if let Some(rest) = bytes.strip_prefix(from) {
            out.extend_from_slice(to);
            bytes = rest;
        } else {
            out.push(*first);
            bytes = rest;
        }
    }
    out
}

/// It has no stack of titles.
#[test]
fn vt100_agrees() {
    judged_by(
        vt100,
        "vt100",
        &[("\x1b[22;", "\x1b[99;"), ("\x1b[23;", "\x1b[99;")],
    );
}

/// Clearing a screen makes history of it.
const CLEAR: (&str, &str) = ("\x1b[H\x1b[2J", "\x1b[H\x1b[J");

/// Marks take a place of their own in it.
#[test]
fn avt_agrees() {
    judged_by(avt, "avt", &[CLEAR, ("e\u{301}", "e")]);
}

#[test]
fn alacritty_agrees() {
    judged_by(alacritty, "alacritty", &[CLEAR]);
}

/// What a client gets when it comes is not large, even when much lies above
/// the screen.
#[test]
fn a_restore_is_small() {
    for (name, bytes) in streams() {
        let screen = screen(SIZE, &bytes);
        let (all, some) = (screen.restore(usize::MAX).len(), screen.restore(200).len());
        assert!(some <= 32 * 1024, "{name}: {some} of {all} bytes");
        assert!(screen.restore(0).len() <= 8 * 1024, "{name}");
    }
}

/// Fed byte by byte or at once is the same.
#[test]
fn pieces_do_not_matter() {
    for (name, bytes) in streams() {
        let mut screen = Screen::new(SIZE);
        let mut dice = Dice(3);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(1 + dice.roll(40)));
            screen.feed(piece);
            rest = more;
        }
        let whole = crate::law::screen(SIZE, &bytes);
        assert!(screen.describe() == whole.describe(), "{name}");
    }
}
