//! The screen of a session as a terminal would show it, and how to bring
//! another terminal there.
//!
//! A [`Screen`] takes what a program writes and keeps what a terminal would
//! know: both screens, the lines that have left at the top, the cursor, and
//! whatever modes, titles, colours and stacks the program has set.
//! [`Screen::restore`] writes that down as escape sequences for a terminal
//! fresh from a reset. The law that this module stands for: cut a stream at any
//! byte; a fresh terminal that gets the restore of the first part and then the
//! second part shows the same as one that got all of it.
//!
//! So everything that can be set is kept here in a form that can be said
//! again, and what the parser has in hand at the cut (half a character, half a
//! sequence) is at the very end of the restore, to be completed by what comes.
//!
//! # Why not an emulator from elsewhere
//!
//! `alacritty_terminal` has no serializer, hides the screen that is not shown
//! and does not keep tab stops, palettes, titles and more where they can be
//! read, so the whole stream would have to be parsed a second time beside it;
//! it needs 28 MiB for 10 000 lines and brings a terminal's event loop along.
//! `vt100` and `avt` can write themselves down but know neither keyboard
//! stacks nor wrapped lines nor charsets of their own cut. `vte`, a good
//! parser, does not tell whether it is in the middle of something. The
//! emulators serve as judges in the tests instead.
//!
//! # What is not kept
//!
//! Images (sixel, kitty, iTerm), lines of double width or height, selective
//! erasure, left and right margins, semantic prompt marks, and the values that
//! `CSI ? s` puts aside. Synchronised updates (mode 2026) are shown at once
//! and never left on. A hyperlink beyond the limits loses its address.

mod answers;
mod cell;
mod csi;
mod cursor;
mod dump;
mod edit;
mod escape;
mod grid;
mod interner;
mod keyboard;
mod modes;
mod paint;
mod params;
mod parser;
mod plain;
mod reflow;
mod restore;
mod sgr;
mod skip;
mod state;
mod transcript;
mod words;

use parser::Parser;
pub use plain::last_text;
use state::State;
pub use transcript::Transcript;

use crate::Size;

/// Widest screen, columns: twice what fits on the widest displays. A screen
/// larger than this is kept as one of this size.
const COLS_MAX: u16 = 2048;

/// Highest screen, lines.
const ROWS_MAX: u16 = 1024;

/// What a terminal would show.
///
/// Memory is bounded whatever a program writes: 2 000 lines of history (fewer
/// when they are very long), 64 KiB of an unfinished sequence, 1 MiB of
/// hyperlinks, 2 KiB for each title.
#[derive(Debug)]
pub struct Screen {
    parser: Parser,
    state: State,
}

impl Screen {
    /// An empty screen, as after a reset.
    #[must_use]
    pub fn new(size: Size) -> Self {
        Self {
            parser: Parser::default(),
            state: State::new(clamped(size)),
        }
    }

    /// Goes on with what the program wrote. Any bytes will do, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let unseen = self.scrolls().then(|| skip::unseen(bytes, self.state.rows));
        let Some(unseen) = unseen.flatten() else {
            return self.parser.advance(bytes, &mut self.state);
        };
        self.parser.advance(&bytes[..unseen.start], &mut self.state);
        self.parser.advance(&bytes[unseen.end..], &mut self.state);
    }

    /// Whether text and line ends move all lines up and do nothing else.
    fn scrolls(&self) -> bool {
        let state = &self.state;
        self.parser.is_between()
            && !state.on_alternate
            && state.region == (0, state.rows - 1)
            && state.cursor.charsets.single.is_none()
    }

    /// The terminal has another size now.
    pub fn resize(&mut self, size: Size) {
        let size = clamped(size);
        self.state.resize(size.cols.into(), size.rows.into());
    }

    /// The size it has.
    #[must_use]
    pub fn size(&self) -> Size {
        let side = |cells: usize| u16::try_from(cells).unwrap_or(u16::MAX);
        Size {
            cols: side(self.state.cols),
            rows: side(self.state.rows),
        }
    }

    /// What brings a terminal of the same size, fresh from a reset, into this
    /// state, with at most so many lines above the screen.
    #[must_use]
    pub fn restore(&self, scrollback_lines: usize) -> Vec<u8> {
        let mut out = restore::state(&self.state, scrollback_lines);
        out.extend(self.parser.unfinished());
        out
    }

    /// What the terminal has to say to questions that the program asked since
    /// the last call: to be typed in when no real terminal is there to answer,
    /// else to be dropped.
    pub fn take_answers(&mut self) -> Vec<u8> {
        self.state.answers.take()
    }

    /// The lines of the screen as plain text without blanks at their ends,
    /// after at most so many lines above it.
    #[must_use]
    pub fn text(&self, scrollback_lines: usize) -> Vec<String> {
        dump::text(&self.state, scrollback_lines)
    }

    /// Row and column of the cursor, from 0.
    #[must_use]
    pub const fn cursor(&self) -> (usize, usize) {
        (self.state.cursor.row, self.state.cursor.col)
    }

    /// Whether the program shows its alternate screen.
    #[must_use]
    pub const fn is_alternate(&self) -> bool {
        self.state.on_alternate
    }

    /// Whether the program wants pasted text to be marked as such.
    #[must_use]
    pub fn takes_paste(&self) -> bool {
        self.state.modes.is_on(modes::PASTE)
    }

    /// The title of the window, if the program has set one.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.state.titles.now.window.as_deref()
    }

    /// Everything that is kept, in words: two screens are the same if and only
    /// if this is. For tests and for people; the form may change.
    #[must_use]
    pub fn describe(&self) -> String {
        dump::describe(&self.state)
    }
}

fn clamped(size: Size) -> Size {
    let size = size.at_least_one();
    Size {
        cols: size.cols.min(COLS_MAX),
        rows: size.rows.min(ROWS_MAX),
    }
}
