//! Text of others, made harmless.
//!
//! What somebody else has written (the body of a message, the words of a
//! command, a value) is shown in terminals and typed into programs. Nothing in
//! it may move the cursor, set a title, write a clipboard, press a key, or pass
//! as something that we have written ourselves.

/// Characters become what stands for them, unless they only stand there: control
/// characters (but newline and tab) their visible names, marks that reorder,
/// break or hide text the replacement character.
#[must_use]
pub fn harmless(text: &str) -> String {
    // Nearly all text; a list of many sessions is looked at in no time.
    if text.as_bytes().chunks(CHUNK).all(is_plain) {
        return text.to_owned();
    }
    text.chars().map(visible).collect()
}

/// The same, with the lines after the first set in by `indent`: whatever is in
/// them, they do not look like lines of ours. A carriage return before a newline
/// goes.
#[must_use]
pub fn hanging(text: &str, indent: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let mut lines = text.split('\n');
    let mut out = harmless(lines.next().unwrap_or_default());
    for line in lines {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(indent);
            out.push_str(&harmless(line));
        }
    }
    out
}

/// Bytes that are looked at in one go.
const CHUNK: usize = 256;

/// Whether all of it is printable ASCII, newlines and tabs. Without a way out in
/// the middle, which would keep the compiler from looking at many bytes at once.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, byte| {
        plain & matches!(byte, b'\n' | b'\t' | b' '..=b'~')
    })
}

fn visible(ch: char) -> char {
    match ch {
        '\n' | '\t' => ch,
        '\0'..='\u{1f}' => char::from_u32(0x2400 + ch as u32).unwrap_or('?'),
        '\u{7f}' => '\u{2421}',
        // C1 controls.
        '\u{80}'..='\u{9f}'
        // Marks of direction, and what embeds, overrides and isolates it.
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        // Other ends of lines and paragraphs.
        | '\u{2028}'
        | '\u{2029}'
        // Invisible: spaces and operators without width, annotations, tags. Joiners stay, without
        // which some scripts and emoji cannot be written.
        | '\u{180e}'
        | '\u{200b}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
        _ => ch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;
    use crate::screen::Screen;

    /// Beginnings of sequences that terminals act upon.
    const STARTS: [&str; 16] = [
        "\u{1b}[", "\u{9b}", "\u{1b}]", "\u{9d}", "\u{1b}P", "\u{90}", "\u{1b}_", "\u{9f}",
        "\u{1b}^", "\u{9e}", "\u{1b}X", "\u{98}", "\u{1b}#", "\u{1b}(", "\u{1b}", "\u{8e}",
    ];

    /// What follows them: cursor, screen, modes, colours, questions, titles, clipboard, links,
    /// palettes, keys, programmed answers.
    const MIDDLES: [&str; 36] = [
        "2J",
        "H",
        "1;1H",
        "10A",
        "3J",
        "?1049h",
        "?2004l",
        "?25l",
        "?1000h",
        "?1006h",
        "31m",
        "6n",
        "c",
        ">c",
        "=c",
        "5n",
        "?u",
        ">1u",
        "18t",
        "21t",
        "22;0t",
        "4;2;2t",
        "!p",
        "r",
        "2;5r",
        "s",
        "0;title",
        "2;title",
        "52;c;aGVsbG8=",
        "8;;http://x",
        "4;1;?",
        "11;?",
        "1337;File=x:AAAA",
        "9;done",
        "777;notify;a;b",
        "$q\"p",
    ];

    /// How they end.
    const ENDS: [&str; 4] = ["", "\u{7}", "\u{1b}\\", "\u{9c}"];

    fn vectors() -> Vec<String> {
        let mut vectors = Vec::new();
        for start in STARTS {
            for middle in MIDDLES {
                for end in ENDS {
                    vectors.push(format!("{start}{middle}{end}"));
                }
            }
        }
        let lone = (0..=0x9f).chain(0x2000..=0x206f).chain(0xe0000..=0xe007f);
        vectors.extend(lone.filter_map(char::from_u32).map(String::from));
        vectors.retain(|vector| !["\n", "\t"].contains(&vector.as_str()));
        vectors
    }

    /// On a terminal each vector is text: it takes its place, the cursor stands behind it, and
    /// nothing else of the terminal has changed.
    #[test]
    fn a_terminal_only_prints_it() {
        let vectors = vectors();
        assert!(vectors.len() > 2_000, "{}", vectors.len());
        let size = Size {
            rows: 10,
            cols: 200,
        };
        for vector in &vectors {
            let clean = harmless(vector);
            let mut screen = Screen::new(size);
            screen.feed(b"ours\r\n");
            screen.feed(clean.as_bytes());
            screen.feed(b"|end");
            assert_eq!(screen.take_answers(), b"", "{vector:?}");
            assert_eq!(
                (screen.title(), screen.is_alternate()),
                (None, false),
                "{vector:?}"
            );
            let lines = screen.text(0);
            assert_eq!(lines[0], "ours", "{vector:?}");
            assert!(lines[1].ends_with("|end"), "{vector:?}: {lines:?}");
            assert_eq!(screen.cursor().0, 1, "{vector:?}");
            let mut other = Screen::new(size);
            other.feed(b"ours\r\n");
            other.feed(lines[1].as_bytes());
            assert_eq!(screen.describe(), other.describe(), "{vector:?}");
        }
    }

    #[test]
    fn text_stays_text() {
        for text in ["a\tb\nc", "日本語 émoji 👩‍👩‍👧 \u{200d}\u{200c}", "«»|/\\\"'"]
        {
            assert_eq!(harmless(text), text);
        }
    }

    #[test]
    fn lines_of_others_are_set_in() {
        let forged = "hi\r\n[2026-01-01T00:00:00.000Z] owner → you: forged\n\n\rlast";
        assert_eq!(
            hanging(forged, "    "),
            "hi\n    [2026-01-01T00:00:00.000Z] owner → you: forged\n\n    ␍last"
        );
        assert_eq!(hanging("", "  "), "");
        assert_eq!(hanging("one", "  "), "one");
    }
}
