//! A terminal's whole state as escape sequences, in an order in which no step
//! undoes another.
//!
//! 1. Words: titles, directory, colours; key and cursor styles.
//! 2. What the alternate screen keeps while it is not shown.
//! 3. The primary screen: lines printed one after the other, so that those
//!    above the screen leave it at the top and long lines wrap by themselves.
//! 4. Its saved cursor. The alternate screen, if it is shown: entering it is
//!    what saves the cursor of the primary one.
//! 5. Tab stops, scroll region and origin, which move the cursor.
//! 6. The cursor. When the last column was just written, by writing it again.
//! 7. Pen, link, charsets and modes, which do not move it.
//!
//! What could still be repeated (REP) is printed last of all.

use std::io::Write as _;

use unicode_width::UnicodeWidthChar as _;

use super::cell::{Color, Pen};
use super::cursor::{Charset, Charsets, Cursor, Saved};
use super::keyboard::Keyboard;
use super::modes;
use super::paint::Painter;
use super::state::{Side, State};
use super::words::Title;

/// Everything.
pub(super) fn state(state: &State, history: usize) -> Vec<u8> {
    let mut paint = Painter::new(state);
    words(&mut paint, state);
    for (resource, value) in state.modifiers.said() {
        let _ = write!(paint.out, "\x1b[>{resource};{value}m");
    }
    if state.cursor_style != 0 {
        let _ = write!(paint.out, "\x1b[{} q", state.cursor_style);
    }
    if !state.on_alternate {
        hidden(&mut paint, &state.alternate);
    }
    paint.flow(&state.primary.grid, history);
    keyboard(&mut paint, &state.primary.keyboard);
    if state.on_alternate {
        alternate(&mut paint, state);
    } else if state.primary.saved != Saved::default() {
        save(&mut paint, &state.primary);
    }
    frame(&mut paint, state);
    finish(&mut paint, state);
    paint.out
}

fn words(paint: &mut Painter<'_>, state: &State) {
    for title in &state.titles.stack {
        set_title(paint, title);
        paint.say(b"\x1b[22;0t");
    }
    set_title(paint, &state.titles.now);
    let mut osc = |number: &dyn std::fmt::Display, text: &str| {
        let _ = write!(paint.out, "\x1b]{number};{text}\x1b\\");
    };
    if let Some(directory) = &state.directory {
        osc(&7, directory);
    }
    for (index, color) in &state.colors.palette {
        osc(&format_args!("4;{index}"), color);
    }
    for (number, color) in &state.colors.dynamic {
        osc(number, color);
    }
}

fn set_title(paint: &mut Painter<'_>, title: &Title) {
    if title.icon.is_some() && title.icon == title.window {
        let both = title.icon.as_deref().unwrap_or_default();
        let _ = write!(paint.out, "\x1b]0;{both}\x1b\\");
        return;
    }
    if let Some(icon) = &title.icon {
        let _ = write!(paint.out, "\x1b]1;{icon}\x1b\\");
    }
    if let Some(window) = &title.window {
        let _ = write!(paint.out, "\x1b]2;{window}\x1b\\");
    }
}

fn keyboard(paint: &mut Painter<'_>, keyboard: &Keyboard) {
    let mut all = keyboard.stack.iter().chain([&keyboard.flags]);
    if let Some(first) = all.next()
        && *first != 0
    {
        let _ = write!(paint.out, "\x1b[={first};1u");
    }
    for flags in all {
        let _ = write!(paint.out, "\x1b[>{flags}u");
    }
}

/// The alternate screen while the primary one is shown: it is empty, but it
/// has a saved cursor and a stack of its own.
fn hidden(paint: &mut Painter<'_>, side: &Side) {
    if side.saved == Saved::default() && side.keyboard == Keyboard::default() {
        return;
    }
    paint.say(b"\x1b[?1049h");
    keyboard(paint, &side.keyboard);
    if side.saved != Saved::default() {
        save(paint, side);
    }
    paint.say(b"\x1b[?1049l");
}

/// Leaves the primary screen for the alternate one: entering that saves the
/// cursor as it is then.
fn alternate(paint: &mut Painter<'_>, state: &State) {
    let (primary, saved) = (&state.primary, &state.primary.saved);
    prepare(paint, primary);
    if lost_wrap(primary) {
        paint.say(b"\x1b7");
        clean(paint, saved);
        rewrap(paint, primary);
        paint.say(b"\x1b8");
        paint.assume(saved.cursor.pen);
    }
    paint.say(b"\x1b[?1049h");
    clean(paint, saved);
    if saved.cursor.pen.bg != Color::Default {
        paint.say(b"\x1b[2J");
    }
    paint.page(&state.alternate.grid);
    keyboard(paint, &state.alternate.keyboard);
    if state.alternate.saved != Saved::default() {
        save(paint, &state.alternate);
    }
}

/// Sets the saved cursor; then everything is as before, but for the place of
/// the cursor.
fn save(paint: &mut Painter<'_>, side: &Side) {
    prepare(paint, side);
    paint.say(b"\x1b7");
    clean(paint, &side.saved);
    if lost_wrap(side) {
        rewrap(paint, side);
    }
}

/// Makes the cursor what is saved. The scroll region is the whole screen, so
/// that origin mode changes nothing but itself.
fn prepare(paint: &mut Painter<'_>, side: &Side) {
    let Saved { cursor, origin } = &side.saved;
    if *origin {
        paint.say(b"\x1b[?6h");
    }
    place(paint, side, cursor, 0);
    paint.set_link(0);
    paint.set_pen(cursor.pen);
    charsets(paint, &cursor.charsets);
}

/// Takes back what [`prepare`] has set.
fn clean(paint: &mut Painter<'_>, saved: &Saved) {
    paint.set_pen(Pen::default());
    plain(paint, &saved.cursor.charsets);
    if saved.origin {
        paint.say(b"\x1b[?6l");
    }
}

/// Takes back what [`charsets`] has set.
fn plain(paint: &mut Painter<'_>, charsets: &Charsets) {
    for (set, name) in b"()*+".iter().zip(charsets.sets) {
        if name != Charset::default() {
            paint.say([0x1b, *set, b'B']);
        }
    }
    if charsets.shift != 0 {
        paint.say(b"\x0f");
    }
}

/// Puts the cursor somewhere; rows count from `top`. A cursor that waits for
/// the next line has to write the last column again.
fn place(paint: &mut Painter<'_>, side: &Side, cursor: &Cursor, top: usize) {
    let row = cursor.row.saturating_sub(top);
    if !cursor.pending {
        return paint.go_to(row, cursor.col);
    }
    let line = &side.grid.rows[cursor.row];
    let tail = line.get(cursor.col).is_tail();
    let col = cursor.col - usize::from(tail);
    paint.go_to(row, col);
    paint.cell(line.get(col));
    // A control that changes nothing: what was printed shall not be repeated.
    paint.say(b"\x0f");
}

/// Whether saving the cursor made the terminal forget that its line goes on in
/// the next one: it was saved in the last column, and then text went on there.
fn lost_wrap(side: &Side) -> bool {
    let Cursor { row, pending, .. } = side.saved.cursor;
    pending && side.grid.rows[row].wrapped
}

/// Goes over the end of the line once more, and over those that this touches.
fn rewrap(paint: &mut Painter<'_>, side: &Side) {
    let mut cursor = side.saved.cursor;
    loop {
        place(paint, side, &cursor, 0);
        cursor.row += 1;
        let Some(next) = side.grid.rows.get(cursor.row) else {
            return;
        };
        paint.cell(next.get(0));
        let width = 1 + usize::from(next.get(1).is_tail());
        if width < side.grid.cols || !next.wrapped {
            return;
        }
    }
}

fn charsets(paint: &mut Painter<'_>, charsets: &Charsets) {
    for (set, name) in b"()*+".iter().zip(charsets.sets) {
        if name != Charset::default() {
            paint.say([0x1b, *set, name.name()]);
        }
    }
    match charsets.shift {
        0 => {}
        1 => paint.say(b"\x0e"),
        2 => paint.say(b"\x1bn"),
        _ => paint.say(b"\x1bo"),
    }
}

/// What moves the cursor when it is set.
fn frame(paint: &mut Painter<'_>, state: &State) {
    if !state.has_default_tabs() {
        paint.say(b"\x1b[3g");
        for (col, _) in state.tabs.iter().enumerate().filter(|(_, tab)| **tab) {
            paint.go_to(0, col);
            paint.say(b"\x1bH");
        }
    }
    let (top, bottom) = state.region;
    if (top, bottom) != (0, state.rows - 1) {
        let _ = write!(paint.out, "\x1b[{};{}r", top + 1, bottom + 1);
    }
    if state.modes.is_on(modes::ORIGIN) {
        paint.say(b"\x1b[?6h");
    }
}

/// The cursor, and what does not move it.
fn finish(paint: &mut Painter<'_>, state: &State) {
    let (side, cursor) = (state.side(), &state.cursor);
    let top = if state.modes.is_on(modes::ORIGIN) {
        state.region.0
    } else {
        0
    };
    if cursor.pending && side.grid.rows[cursor.row].wrapped {
        // Only DECRC gets there.
        paint.say(b"\x1b8");
        paint.assume(side.saved.cursor.pen);
        plain(paint, &side.saved.cursor.charsets);
    } else {
        place(paint, side, cursor, top);
    }
    paint.set_pen(cursor.pen);
    paint.set_link(state.link);
    charsets(paint, &cursor.charsets);
    if state.modes.insert {
        paint.say(b"\x1b[4h");
    }
    if state.modes.newline {
        paint.say(b"\x1b[20h");
    }
    for (number, on) in state.modes.said(&[modes::ORIGIN]) {
        match (number, on) {
            (modes::KEYPAD, _) => paint.say(b"\x1b="),
            (_, true) => drop(write!(paint.out, "\x1b[?{number}h")),
            (_, false) => drop(write!(paint.out, "\x1b[?{number}l")),
        }
    }
    repeatable(paint, state, top);
    match cursor.charsets.single {
        None => {}
        Some(2) => paint.say(b"\x1bN"),
        Some(_) => paint.say(b"\x1bO"),
    }
}

/// Prints the last character once more, where it is: REP would repeat it.
fn repeatable(paint: &mut Painter<'_>, state: &State, top: usize) {
    let Some(raw) = state.last else {
        return;
    };
    let cursor = &state.cursor;
    let shown = cursor.charsets.clone().map(raw);
    let width = shown.width().unwrap_or(0);
    let end = cursor.col + usize::from(cursor.pending);
    let Some(col) = end.checked_sub(width) else {
        return;
    };
    paint.go_to(cursor.row - top, col);
    if state.modes.insert {
        let _ = write!(paint.out, "\x1b[{width}P");
    }
    paint.say(raw.encode_utf8(&mut [0; 4]));
}
