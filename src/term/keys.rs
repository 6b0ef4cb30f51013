//! Names of keys, as tmux has them, and the bytes that a terminal sends for them.
//!
//! `C-c`, `M-x`, `S-Tab`, `Enter`, `Up`, `F5`; what is no name is typed as it is.

/// The bytes of one key, or of the text itself.
#[must_use]
pub fn bytes(word: &str) -> Vec<u8> {
    if let Some(bytes) = named(word) {
        return bytes.to_vec();
    }
    match word.split_once('-') {
        Some(("C", key)) => control(key),
        Some(("M", key)) if !key.is_empty() => {
            let mut out = vec![0x1b];
            out.extend(bytes(key));
            Some(out)
        }
        _ => None,
    }
    .unwrap_or_else(|| word.as_bytes().to_vec())
}

/// Ctrl and a letter, or one of the few others that have a code.
fn control(key: &str) -> Option<Vec<u8>> {
    let code = match key.as_bytes() {
        [letter @ (b'a'..=b'z' | b'A'..=b'Z')] => letter.to_ascii_lowercase() - b'a' + 1,
        [b'@'] | b"Space" => 0,
        [b'['] => 0x1b,
        [b'\\'] => 0x1c,
        [b']'] => 0x1d,
        [b'^'] => 0x1e,
        [b'_'] => 0x1f,
        [b'?'] => 0x7f,
        _ => return None,
    };
    Some(vec![code])
}

fn named(word: &str) -> Option<&'static [u8]> {
    Some(match word {
        "Enter" => b"\r",
        "Tab" => b"\t",
        "S-Tab" | "BTab" => b"\x1b[Z",
        "Escape" | "Esc" => b"\x1b",
        "Space" => b" ",
        "BSpace" | "Backspace" => b"\x7f",
        "Up" => b"\x1b[A",
        "Down" => b"\x1b[B",
        "Right" => b"\x1b[C",
        "Left" => b"\x1b[D",
        "Home" => b"\x1b[H",
        "End" => b"\x1b[F",
        "Insert" | "IC" => b"\x1b[2~",
        "Delete" | "DC" => b"\x1b[3~",
        "PageUp" | "PgUp" => b"\x1b[5~",
        "PageDown" | "PgDn" => b"\x1b[6~",
        "F1" => b"\x1bOP",
        "F2" => b"\x1bOQ",
        "F3" => b"\x1bOR",
        "F4" => b"\x1bOS",
        "F5" => b"\x1b[15~",
        "F6" => b"\x1b[17~",
        "F7" => b"\x1b[18~",
        "F8" => b"\x1b[19~",
        "F9" => b"\x1b[20~",
        "F10" => b"\x1b[21~",
        "F11" => b"\x1b[23~",
        "F12" => b"\x1b[24~",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_keys_and_the_rest_is_text() {
        for (word, expected) in [
            ("C-c", b"\x03".as_slice()),
            ("C-[", b"\x1b"),
            ("M-x", b"\x1bx"),
            ("M-Enter", b"\x1b\r"),
            ("Enter", b"\r"),
            ("F12", b"\x1b[24~"),
            ("yes", b"yes"),
            ("C-", b"C-"),
            ("-", b"-"),
            ("C-xy", b"C-xy"),
        ] {
            assert_eq!(bytes(word), expected, "{word}");
        }
    }
}
