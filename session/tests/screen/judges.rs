//! Terminals by others, to judge the restore.

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use alacritty_terminal::event::{Event, EventListener};
use alacritty_terminal::grid::{Dimensions, Row};
use alacritty_terminal::index::Line;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::term::{Config, Term};
use alacritty_terminal::vte::ansi::{Processor, StdSyncHandler};
use session::Size;

/// Lines above the screen that are compared: as many as we keep.
const HISTORY: usize = 2000;

/// What a terminal shows after this stream, in words.
pub(crate) type Judge = fn(Size, &[u8]) -> String;

/// The titles as vt100 hears of them.
#[derive(Default)]
struct Heard {
    title: String,
    icon: String,
}

impl vt100::Callbacks for Heard {
    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        self.title = String::from_utf8_lossy(title).into_owned();
    }

    fn set_window_icon_name(&mut self, _: &mut vt100::Screen, icon: &[u8]) {
        self.icon = String::from_utf8_lossy(icon).into_owned();
    }
}

/// The crate `vt100`.
pub(crate) fn vt100(size: Size, bytes: &[u8]) -> String {
    let side = |cells: u16| NonZeroU16::new(cells).unwrap();
    let (rows, cols) = (side(size.rows), side(size.cols));
    let mut parser = vt100::Parser::new_with_callbacks(rows, cols, HISTORY, Heard::default());
    parser.process(bytes);
    let mut out = String::new();
    let heard = parser.callbacks();
    let _ = writeln!(out, "title {:?} icon {:?}", heard.title, heard.icon);
    let screen = parser.screen_mut();
    let above = screen.scrollback_len();
    // Lines above the screen can be seen by scrolling to them.
    for offset in (1..=above).rev() {
        screen.set_scrollback(offset);
        vt100_row(&mut out, screen, 0, size.cols);
    }
    screen.set_scrollback(0);
    for row in 0..size.rows {
        vt100_row(&mut out, screen, row, size.cols);
    }
    let _ = writeln!(out, "cursor {:?}", screen.cursor_position());
    let _ = writeln!(
        out,
        "alternate {} keypad {} keys {} hidden {} paste {} mouse {:?} {:?} style {:?}",
        screen.alternate_screen(),
        screen.application_keypad(),
        screen.application_cursor(),
        screen.hide_cursor(),
        screen.bracketed_paste(),
        screen.mouse_protocol_mode(),
        screen.mouse_protocol_encoding(),
        screen.cursor_style(),
    );
    let _ = writeln!(
        out,
        "pen {:?} {:?} {} {} {} {} {}",
        screen.fgcolor(),
        screen.bgcolor(),
        screen.bold(),
        screen.dim(),
        screen.italic(),
        screen.underline(),
        screen.inverse(),
    );
    out
}

fn vt100_row(out: &mut String, screen: &vt100::Screen, row: u16, cols: u16) {
    let mut line = String::new();
    let mut before = String::new();
    for col in 0..cols {
        let cell = screen.cell(row, col).unwrap();
        if cell.is_wide_continuation() {
            continue;
        }
        let blank = matches!(cell.contents(), "" | " ");
        let flags = [
            cell.bold(),
            cell.dim(),
            cell.italic(),
            cell.underline(),
            cell.inverse(),
        ];
        // On a blank only the background is seen.
        let visible = !blank || flags[3] || flags[4];
        let (fg, flags) = if visible {
            (cell.fgcolor(), flags)
        } else {
            (vt100::Color::Default, [false; 5])
        };
        let style = format!("{fg:?}{:?}{flags:?}", cell.bgcolor());
        if style != before {
            let _ = write!(line, "{{{style}}}");
            before = style;
        }
        line.push_str(if blank { " " } else { cell.contents() });
    }
    let wrapped = if screen.row_wrapped(row) {
        "\u{21b5}"
    } else {
        ""
    };
    let _ = writeln!(out, "row {line}{wrapped}");
}

/// The crate `avt`.
pub(crate) fn avt(size: Size, bytes: &[u8]) -> String {
    let (cols, rows) = (usize::from(size.cols), usize::from(size.rows));
    let mut terminal = avt::Terminal::with_scrollback(cols, rows, Some(HISTORY)).unwrap();
    terminal.feed(&*String::from_utf8_lossy(bytes));
    let mut out = String::new();
    let kind = terminal.active_screen_kind();
    let _ = writeln!(out, "{kind:?} keys {}", terminal.cursor_key_app_mode());
    for line in terminal.screen().all_lines() {
        out.push_str("row ");
        let mut before = String::new();
        for cell in line.cells().iter().filter(|cell| cell.width() > 0) {
            let style = format!("{:?}", cell.pen());
            if style != before {
                let _ = write!(out, "{{{style}}}");
                before = style;
            }
            // Two of the line drawing characters are a matter of taste.
            out.push(match cell.char() {
                '\u{2666}' => '\u{25c6}',
                '\u{22c5}' => '\u{b7}',
                ch => ch,
            });
        }
        out.push_str(if line.is_wrapped() {
            "\u{21b5}\n"
        } else {
            "\n"
        });
    }
    let _ = writeln!(out, "{:?}", terminal.cursor());
    let _ = writeln!(out, "{:?}", terminal.dump().replace('\u{1b}', "\n"));
    out
}

/// What alacritty tells its window.
#[derive(Clone, Default)]
struct Window(Arc<Mutex<Option<String>>>);

impl EventListener for Window {
    fn send_event(&self, event: Event) {
        match event {
            Event::Title(title) => *self.0.lock().unwrap() = Some(title),
            Event::ResetTitle => *self.0.lock().unwrap() = None,
            _ => {}
        }
    }
}

struct Sides(Size);

impl Dimensions for Sides {
    fn total_lines(&self) -> usize {
        self.0.rows.into()
    }

    fn screen_lines(&self) -> usize {
        self.0.rows.into()
    }

    fn columns(&self) -> usize {
        self.0.cols.into()
    }
}

/// The crate `alacritty_terminal`.
pub(crate) fn alacritty(size: Size, bytes: &[u8]) -> String {
    let config = Config {
        scrolling_history: HISTORY,
        kitty_keyboard: true,
        ..Config::default()
    };
    let window = Window::default();
    let mut terminal = Term::new(config, &Sides(size), window.clone());
    let mut processor = Processor::<StdSyncHandler>::new();
    processor.advance(&mut terminal, bytes);
    processor.stop_sync(&mut terminal);
    let mut out = String::new();
    let _ = writeln!(out, "title {:?}", window.0.lock().unwrap());
    let grid = terminal.grid();
    for line in grid.topmost_line().0..i32::from(size.rows) {
        alacritty_row(&mut out, &grid[Line(line)]);
    }
    let _ = writeln!(
        out,
        "mode {:?} style {:?}",
        terminal.mode(),
        terminal.cursor_style()
    );
    for (name, cursor) in [("cursor", &grid.cursor), ("saved", &grid.saved_cursor)] {
        let point = cursor.point;
        let (wraps, cell) = (cursor.input_needs_wrap, &cursor.template);
        let _ = writeln!(
            out,
            "{name} {point:?} wraps {wraps} {:?} {:?} {:?} {:?} {:?} {:?}",
            cell.fg,
            cell.bg,
            cell.flags,
            cell.underline_color(),
            cell.hyperlink().map(|link| link.uri().to_owned()),
            cursor.charsets,
        );
    }
    let colors = terminal.colors();
    for index in 0..269 {
        if let Some(color) = colors[index] {
            let _ = writeln!(out, "colour {index} {color:?}");
        }
    }
    out
}

fn alacritty_row(out: &mut String, row: &Row<Cell>) {
    let mut line = String::new();
    let mut before = String::new();
    let wide = Flags::WIDE_CHAR | Flags::WIDE_CHAR_SPACER;
    // Says no more than the wide character in the next line.
    let hidden = wide | Flags::WRAPLINE | Flags::LEADING_WIDE_CHAR_SPACER;
    for cell in row {
        if cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
            continue;
        }
        let style = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            cell.fg,
            cell.bg,
            cell.flags - hidden,
            cell.underline_color(),
            cell.hyperlink().map(|link| link.uri().to_owned()),
        );
        if style != before {
            let _ = write!(line, "{{{style}}}");
            before = style;
        }
        // It remembers tabs, and shows blanks.
        line.push(if cell.c == '\t' { ' ' } else { cell.c });
        line.extend(cell.zerowidth().unwrap_or_default());
    }
    let wraps = row
        .last()
        .is_some_and(|cell| cell.flags.contains(Flags::WRAPLINE));
    let _ = writeln!(out, "row {line}{}", if wraps { "\u{21b5}" } else { "" });
}
