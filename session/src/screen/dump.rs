//! A screen in words.

use std::fmt::Write as _;

use super::cell::{Cell, Text};
use super::cursor::Cursor;
use super::grid::Row;
use super::sgr;
use super::state::{Side, State};

/// The lines as plain text.
pub(super) fn text(state: &State, history: usize) -> Vec<String> {
    let grid = &state.side().grid;
    let skip = grid.history.len().saturating_sub(history);
    let lines = grid.history.iter().skip(skip).chain(&grid.rows);
    lines.map(|row| plain(state, row)).collect()
}

fn plain(state: &State, row: &Row) -> String {
    let mut line = String::new();
    for cell in &row.cells {
        glyph(&mut line, state, cell);
    }
    line.truncate(line.trim_end_matches(' ').len());
    line
}

pub(super) fn glyph(out: &mut String, state: &State, cell: &Cell) {
    match cell.glyph.text() {
        Text::Char(ch) => out.push(ch),
        Text::Cluster(number) => out.push_str(state.clusters.get(number)),
        Text::Tail => {}
    }
}

/// Everything, a line for each thing. Writing to a string does not fail.
pub(super) fn describe(state: &State) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "size {}x{}", state.cols, state.rows);
    side(&mut out, state, "primary", &state.primary);
    if state.on_alternate {
        side(&mut out, state, "alternate", &state.alternate);
    } else {
        saved(&mut out, "alternate", &state.alternate);
    }
    cursor(&mut out, "cursor", &state.cursor);
    let _ = writeln!(out, "link {}", link(state, state.link));
    let _ = writeln!(out, "repeats {:?}", state.last);
    let _ = writeln!(out, "region {:?}", state.region);
    if !state.has_default_tabs() {
        let tabs = state.tabs.iter().enumerate().filter(|(_, tab)| **tab);
        let tabs: Vec<_> = tabs.map(|(col, _)| col).collect();
        let _ = writeln!(out, "tabs {tabs:?}");
    }
    let (insert, newline) = (state.modes.insert, state.modes.newline);
    let _ = writeln!(out, "insert {insert} newline {newline}");
    let _ = writeln!(out, "modes {:?}", state.modes.said(&[]));
    let modifiers: Vec<_> = state.modifiers.said().collect();
    let _ = writeln!(out, "modifiers {modifiers:?}");
    let _ = writeln!(out, "cursor style {}", state.cursor_style);
    let _ = writeln!(out, "titles {:?}", state.titles);
    let _ = writeln!(out, "directory {:?}", state.directory);
    let _ = writeln!(out, "colors {:?}", state.colors);
    out
}

fn side(out: &mut String, state: &State, name: &str, side: &Side) {
    saved(out, name, side);
    for row in &side.grid.history {
        line(out, state, "above ", row);
    }
    for row in &side.grid.rows {
        line(out, state, "row ", row);
    }
}

fn saved(out: &mut String, name: &str, side: &Side) {
    let _ = writeln!(out, "{name} keyboard {:?}", side.keyboard);
    let _ = writeln!(out, "{name} saved origin {}", side.saved.origin);
    cursor(out, "saved", &side.saved.cursor);
}

fn cursor(out: &mut String, name: &str, cursor: &Cursor) {
    let (row, col, pending) = (cursor.row, cursor.col, cursor.pending);
    let _ = write!(out, "{name} {row},{col} pending {pending} pen ");
    sgr::describe(out, cursor.pen);
    let _ = writeln!(out, " {:?}", cursor.charsets);
}

fn line(out: &mut String, state: &State, name: &str, row: &Row) {
    out.push_str(name);
    let mut before = Cell::BLANK;
    for cell in row.trimmed() {
        if cell.pen != before.pen {
            out.push('{');
            sgr::describe(out, cell.pen);
            out.push('}');
        }
        if cell.link != before.link {
            let _ = write!(out, "<{}>", link(state, cell.link));
        }
        before = *cell;
        if cell.is_tail() {
            out.push('\u{2190}');
        }
        glyph(out, state, cell);
    }
    out.push_str(if row.wrapped { "\u{21b5}\n" } else { "\n" });
}

fn link(state: &State, link: u16) -> &str {
    match u32::from(link).checked_sub(1) {
        Some(number) => state.links.get(number),
        None => "",
    }
}
