//! Typing a message into a program: what is typed, when it must not be, and
//! how to tell from the screen that the program has taken it.
//!
//! Programs that talk to people have an input box. Into one that takes pasted
//! text (mode 2004) a message goes as that, with its lines; into any other as
//! one line. Nothing in a message can move the cursor, end the paste or press
//! a key: control characters become their visible names. Who sent it stands in
//! front, in words that no program takes for a command of its own.
//!
//! Enter is a key of its own and comes later, because some programs take an
//! Enter right behind a burst of characters for a new line of text. Whether it
//! has worked is seen from where the cursor stands: behind the same text as
//! before Enter, the text is still in the box.

use crate::screen::Screen;
use crate::{Message, MessageKind, hanging, harmless};

/// The longest line that a terminal in line mode takes; of a longer one the
/// system throws the rest away. With its end, bytes.
pub const LINE_MAX: usize = 4096;

/// Characters before the cursor that tell one place from another.
const MARK: usize = 48;

/// In front of the lines of a message but its first.
const INDENT: &str = "  ";

/// Lines at the bottom of the screen in which a dialog is looked for.
const BOTTOM: usize = 24;

/// Programs that would take typed text for commands, or put it into a file.
const OTHERS: [&str; 23] = [
    "ed",
    "emacs",
    "helix",
    "hx",
    "htop",
    "joe",
    "kak",
    "less",
    "man",
    "mcedit",
    "micro",
    "more",
    "most",
    "nano",
    "nvim",
    "pico",
    "rvim",
    "top",
    "vi",
    "view",
    "vim",
    "vim.basic",
    "vim.tiny",
];

/// What a program shows and how it reads, as far as typing is concerned.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Look {
    /// The lines of the screen.
    pub lines: Vec<String>,
    /// Row and column of the cursor, from 0.
    pub cursor: (usize, usize),
    /// The alternate screen is shown.
    pub alternate: bool,
    /// The program wants pasted text to be marked (mode 2004).
    pub pastes: bool,
}

impl Look {
    /// What a screen shows.
    #[must_use]
    pub fn of(screen: &Screen) -> Self {
        Self {
            lines: screen.text(0),
            cursor: screen.cursor(),
            alternate: screen.is_alternate(),
            pastes: screen.takes_paste(),
        }
    }
}

/// How the terminal hands over what is typed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Manner {
    /// Whole lines, edited by the system.
    pub lines: bool,
    /// What is typed is shown by the system.
    pub echo: bool,
}

/// What is typed for a message, without Enter. Harmless.
#[must_use]
pub fn text(message: &Message) -> String {
    let from = harmless(&message.from.to_string());
    // Set in, so that no line of it can pass as the head of another message.
    let body = hanging(&message.body, INDENT);
    match message.kind {
        MessageKind::Request => format!(
            "Request {id} from {from}: {body}\n\nReply with: cw reply {id} \"<response>\"",
            id = message.id
        ),
        MessageKind::Direct | MessageKind::Reply => format!("Message from {from}: {body}"),
    }
}

/// The keys for a text: a marked paste, or one line.
#[must_use]
pub fn keys(text: &str, pastes: bool) -> Vec<u8> {
    if pastes {
        // Terminals send a pasted line end as the Enter key does.
        let text = text.replace('\n', "\r");
        return format!("\x1b[200~{text}\x1b[201~").into_bytes();
    }
    let words: Vec<&str> = text.lines().map(str::trim).collect();
    let line: Vec<&str> = words.into_iter().filter(|line| !line.is_empty()).collect();
    line.join(" / ").replace('\t', " ").into_bytes()
}

/// Why a message must not be typed now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// In words.
    pub why: String,
    /// It is a question on the screen, which may have been answered already:
    /// what we have read of the screen is a little behind the program.
    pub may_pass: bool,
}

/// Why a message must not be typed now; `len` are the bytes of its one line,
/// `front` is the name of the program that reads, where that is known.
#[must_use]
pub fn refusal(look: &Look, manner: Manner, front: Option<&str>, len: usize) -> Option<Refusal> {
    let for_good = |why: String| {
        Some(Refusal {
            why,
            may_pass: false,
        })
    };
    if let Some(front) = front.filter(|front| OTHERS.contains(front)) {
        return for_good(format!("{front} is in front, which is no input box"));
    }
    if look.alternate && !look.pastes {
        return for_good("a full-screen program without an input box is in front".to_owned());
    }
    if manner.lines && !manner.echo {
        return Some(Refusal {
            why: "the program reads without showing it, as for a password".to_owned(),
            may_pass: true,
        });
    }
    if manner.lines && len >= LINE_MAX {
        return for_good(format!(
            "the program reads lines, of which the system takes {LINE_MAX} bytes; this has {len}"
        ));
    }
    dialog(look).map(|line| Refusal {
        why: format!("the program sits in a dialog: {line}"),
        may_pass: true,
    })
}

/// A menu that is on the screen while `text` stands in the box, and is no part
/// of it: an Enter would choose from it.
#[must_use]
pub fn menu_over(look: &Look, text: &str) -> Option<String> {
    let bare = |text: &str| text.replace(is_frame, "");
    let line = menu(&bottom(look))?;
    (!bare(text).contains(&bare(&line))).then_some(line)
}

/// The line of a dialog that waits for a choice, if one is on the screen.
fn dialog(look: &Look) -> Option<String> {
    let (row, col) = look.cursor;
    let at_cursor: String = look
        .lines
        .get(row)
        .map(|line| line.chars().take(col).collect())
        .unwrap_or_default();
    let asked = at_cursor.trim_end().to_lowercase();
    let endings = [
        "y/n)",
        "y/n]",
        "yes/no)",
        "yes/no]",
        "yes/no/[fingerprint])?",
    ];
    let colon = asked.trim_end_matches([':', '?', ' ']);
    if endings
        .iter()
        .any(|end| asked.ends_with(end) || colon.ends_with(end))
    {
        return Some(at_cursor.trim().to_owned());
    }
    let bottom = bottom(look);
    if let Some(line) = bottom.last()
        && (line.contains("--More--") || line.ends_with("(END)"))
    {
        return Some((*line).to_owned());
    }
    menu(&bottom)
}

/// The last lines that have something in them, without frames.
fn bottom(look: &Look) -> Vec<&str> {
    let lines = look.lines.iter();
    let mut shown: Vec<&str> = lines.map(|line| line.trim_matches(is_frame)).collect();
    let end = shown.iter().rposition(|line| !line.is_empty());
    shown.truncate(end.map_or(0, |end| end + 1));
    shown.split_off(shown.len().saturating_sub(BOTTOM))
}

/// The line of a menu on which the marker stands, if there is a menu.
fn menu(bottom: &[&str]) -> Option<String> {
    let chosen = bottom.iter().position(|line| is_choice(line))?;
    let options = bottom.iter().filter(|line| number(line).is_some()).count();
    (options > 0).then(|| bottom[chosen].to_owned())
}

/// `❯ 1. Yes`: the line of a menu on which the marker stands.
fn is_choice(line: &str) -> bool {
    let marked = line.trim_start_matches(is_frame);
    let rest = marked.strip_prefix(['❯', '›', '▶', '●', '▌', '>', '→']);
    rest.is_some_and(|rest| number(rest).is_some())
}

/// `2. No`, `2) No`: the number of an option.
fn number(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = line.get(digits..)?.strip_prefix(['.', ')'])?;
    let is_option = (1..=2).contains(&digits) && rest.starts_with(' ');
    is_option.then(|| &line[..digits])
}

/// Blanks, and what frames are drawn with.
fn is_frame(ch: char) -> bool {
    ch.is_whitespace() || ('\u{2500}'..='\u{257f}').contains(&ch)
}

/// Whether the program has taken what was typed: its screen before the text,
/// with the text, and now.
#[must_use]
pub fn is_submitted(before: &Look, typed: &Look, now: &Look) -> bool {
    let (first, with, last) = (mark(before), mark(typed), mark(now));
    if first != with {
        // The cursor stands behind the text. Somewhere else, the text is gone.
        return last.is_empty() || !with.ends_with(&last);
    }
    // The cursor is no help: the box is drawn elsewhere.
    let (with, last) = (words(typed), words(now));
    // A new line in the box may have pushed lines out at the top.
    !with.ends_with(&last)
}

/// The end of what stands before the cursor, without blanks and frames.
fn mark(look: &Look) -> String {
    let (row, col) = look.cursor;
    let above = look.lines.iter().take(row).flat_map(|line| line.chars());
    let line = look.lines.get(row);
    let beside = line.into_iter().flat_map(|line| line.chars().take(col));
    let text: Vec<char> = above.chain(beside).filter(|ch| !is_frame(*ch)).collect();
    text[text.len().saturating_sub(MARK)..].iter().collect()
}

/// The lines that have something in them.
fn words(look: &Look) -> Vec<String> {
    let lines = look.lines.iter();
    lines
        .map(|line| line.chars().filter(|ch| !is_frame(*ch)).collect::<String>())
        .filter(|line| !line.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delivery, MessageId, Party, SessionId};

    fn message(kind: MessageKind, body: &str) -> Message {
        Message {
            id: MessageId::new(kind, [7; 16]),
            at_ms: 0,
            kind,
            from: Party::local(SessionId(1), "planner".parse().ok()),
            to: Party::local(SessionId(2), None),
            body: body.to_owned(),
            request_id: None,
            delivery: Delivery::Pty,
            deadline_ms: None,
        }
    }

    fn look(lines: &[&str], cursor: (usize, usize)) -> Look {
        Look {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            cursor,
            alternate: false,
            pastes: true,
        }
    }

    const RAW: Manner = Manner {
        lines: false,
        echo: false,
    };

    #[test]
    fn nothing_in_a_message_is_a_key() {
        let hostile = "a\x1b[201~\rrm -rf\x03\u{9b}31m\x7f\u{202e}\tb\r\nc";
        let text = text(&message(MessageKind::Direct, hostile));
        assert!(
            text.starts_with("Message from planner: a\u{241b}[201~"),
            "{text}"
        );
        for pastes in [true, false] {
            let keys = String::from_utf8(keys(&text, pastes)).unwrap();
            let inside = keys
                .strip_prefix("\x1b[200~")
                .and_then(|keys| keys.strip_suffix("\x1b[201~"));
            assert_eq!(inside.is_some(), pastes);
            let inside = inside.unwrap_or(&keys);
            let control: Vec<_> = inside.chars().filter(|ch| ch.is_control()).collect();
            let expected: &[char] = if pastes { &['\t', '\r'] } else { &[] };
            assert_eq!(control, expected, "{inside:?}");
        }
    }

    #[test]
    fn a_request_says_how_to_reply() {
        let text = text(&message(MessageKind::Request, "ready?"));
        let id = MessageId::new(MessageKind::Request, [7; 16]);
        let line = String::from_utf8(keys(&text, false)).unwrap();
        let expected =
            format!("Request {id} from planner: ready? / Reply with: cw reply {id} \"<response>\"");
        assert_eq!(line, expected);
    }

    #[test]
    fn dialogs_and_programs_that_are_no_input_box_are_told_apart() {
        let refused = |lines: &[&str], cursor| refusal(&look(lines, cursor), RAW, None, 10);
        for (lines, cursor) in [
            (
                &["Do you want to proceed?", "│ ❯ 1. Yes  │", "│   2. No   │"][..],
                (1, 3),
            ),
            (&["› 1) Allow", "  2) Deny"], (0, 0)),
            (&[&["❯ 1. Yes", "  2. No"][..], &[""; 38]].concat(), (2, 0)),
            (&["Overwrite file? [y/N] "], (0, 22)),
            (&["continue (yes/no)? "], (0, 19)),
            (&["some text", "--More--(12%)"], (1, 13)),
            (&["some text", "(END)"], (1, 5)),
        ] {
            assert!(refused(lines, cursor).is_some(), "{lines:?}");
        }
        for (lines, cursor) in [
            (&["❯ "][..], (0, 2)),
            (&["1. first", "2. second", "> "], (2, 2)),
            (&["is it [y/N]?", "$ "], (1, 2)),
        ] {
            assert_eq!(refused(lines, cursor), None, "{lines:?}");
        }
        let box_ = look(&["> "], (0, 2));
        assert!(refusal(&box_, RAW, Some("vim"), 10).is_some());
        assert!(refusal(&box_, RAW, Some("claude"), 10).is_none());
        let full = Look {
            alternate: true,
            pastes: false,
            ..box_.clone()
        };
        assert!(refusal(&full, RAW, None, 10).is_some());
        let lines = |echo| Manner { lines: true, echo };
        assert!(refusal(&box_, lines(false), None, 10).is_some());
        assert!(refusal(&box_, lines(true), None, 10).is_none());
        assert!(refusal(&box_, lines(true), None, LINE_MAX).is_some());
        assert!(refusal(&box_, RAW, None, LINE_MAX).is_none());
    }

    #[test]
    fn a_menu_over_the_text_is_no_part_of_it() {
        let text = "Message from owner: choose\n  > 1. this\n  2. that";
        let typed = [
            "│ > Message from owner: choose │",
            "│   > 1. this │",
            "│   2. that │",
        ];
        assert_eq!(menu_over(&look(&typed, (2, 5)), text), None);
        let menu = ["│ > Message │", "Run it?", "❯ 1. Yes", "  2. No"];
        assert_eq!(
            menu_over(&look(&menu, (2, 0)), text).as_deref(),
            Some("❯ 1. Yes")
        );
        // Questions in the text itself are none.
        let asks = ["│ > Message from owner: go on (y/n) │"];
        assert_eq!(menu_over(&look(&asks, (0, 36)), "go on (y/n)"), None);
    }

    #[test]
    fn only_a_question_may_be_answered_already() {
        let asked = look(&["❯ 1. Yes", "  2. No"], (0, 0));
        let passes = |look: &Look, front| refusal(look, RAW, front, 10).map(|one| one.may_pass);
        assert_eq!(passes(&asked, None), Some(true));
        assert_eq!(passes(&asked, Some("vim")), Some(false));
    }

    #[test]
    fn a_new_line_in_the_box_is_not_a_submission() {
        let before = look(&["welcome", "╭───╮", "│ > │", "╰───╯"], (2, 4));
        let typed = look(&["welcome", "╭───╮", "│ > hi │", "╰───╯"], (2, 6));
        let newline = look(&["welcome", "╭───╮", "│ > hi │", "│    │", "╰───╯"], (3, 4));
        let taken = look(&["welcome", "> hi", "╭───╮", "│ > │", "╰───╯"], (3, 4));
        assert!(!is_submitted(&before, &typed, &typed));
        assert!(!is_submitted(&before, &typed, &newline));
        assert!(is_submitted(&before, &typed, &taken));
        // The same with a cursor that stands elsewhere.
        let away = |look: &Look| Look {
            cursor: (0, 0),
            ..look.clone()
        };
        let [before, typed] = [away(&before), away(&typed)];
        assert!(!is_submitted(&before, &typed, &away(&newline)));
        assert!(is_submitted(&before, &typed, &away(&taken)));
    }

    #[test]
    fn a_prompt_again_is_a_submission() {
        let before = look(&["$ "], (0, 2));
        let typed = look(&["$ hi"], (0, 4));
        let taken = look(&["$ hi", "$ "], (1, 2));
        let silent = look(&["$ hi", ""], (1, 0));
        assert!(is_submitted(&before, &typed, &taken));
        assert!(!is_submitted(&before, &typed, &silent));
    }
}
