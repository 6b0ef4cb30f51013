//! How things look on a terminal: times, ages, cut names, text of others made harmless.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Milliseconds since 1970 as RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    session::time::format(ms)
}

/// Now, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// How long ago an RFC 3339 time was: `12s ago`, `3m ago`, `5h ago`, `2d ago`.
#[must_use]
pub fn age(time: &str) -> String {
    session::time::parse(time).map_or_else(|| "-".to_owned(), |then| since(then, now_ms()))
}

/// How long before another a time was, both in milliseconds since 1970.
#[must_use]
pub fn since(then: u64, now: u64) -> String {
    let seconds = (now / 1000).saturating_sub(then / 1000);
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86400),
    }
}

/// At most `width` characters, the last three dots when something was cut; harmless.
#[must_use]
pub fn cut(text: &str, width: usize) -> Cow<'_, str> {
    // Nearly all text is this, and a list has thousands of it.
    if text.len() <= width && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let text = clean(&text.replace(['\r', '\n', '\t'], " "));
    if text.chars().count() <= width {
        return Cow::Owned(text);
    }
    let kept = text.chars().take(width.saturating_sub(3));
    Cow::Owned(kept.chain("...".chars()).collect())
}

/// Adds a text and blanks up to a width in characters.
pub fn pad(out: &mut String, text: &str, width: usize) {
    const BLANKS: &str = "                                                                ";
    out.push_str(text);
    let characters = if text.is_ascii() {
        text.len()
    } else {
        text.chars().count()
    };
    // As whole slices: a list of many sessions is mostly this.
    let mut missing = width.saturating_sub(characters);
    while missing > 0 {
        let some = missing.min(BLANKS.len());
        out.push_str(&BLANKS[..some]);
        missing -= some;
    }
}

/// Text of others, such that a terminal only prints it; see [`session::harmless()`].
#[must_use]
pub fn clean(text: &str) -> String {
    session::harmless(text)
}

/// The same behind a head of ours: the lines after the first are set in, so that none of them can
/// pass for another head.
#[must_use]
pub fn hang(text: &str) -> String {
    session::hanging(text, "    ")
}

/// A QR code in half blocks.
///
/// # Errors
///
/// `internal` when the text does not fit into one.
pub fn qr(text: &str) -> Result<String> {
    let code = qrcode::QrCode::new(text).map_err(Error::internal)?;
    Ok(code
        .render::<qrcode::render::unicode::Dense1x2>()
        .quiet_zone(true)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_move_the_cursor() {
        for hostile in ["\x1b[2J", "\u{9b}2J", "\x07", "\r", "\u{202e}abc", "\x7f"] {
            assert!(
                clean(hostile)
                    .chars()
                    .all(|c| !c.is_control() && c != '\u{202e}'),
                "{hostile:?}"
            );
        }
        assert_eq!(clean("a\n\tb é😀"), "a\n\tb é😀");
    }

    #[test]
    fn long_words_are_cut_by_characters() {
        assert_eq!(cut("ééééé", 5), "ééééé");
        assert_eq!(cut("éééééé", 5), "éé...");
        assert_eq!(cut("a\tb", 5), "a b");
        assert_eq!(cut("abcdef", 5), "ab...");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64;
        assert_eq!(age(&rfc3339(now - 3 * 3_600_000)), "3h ago");
        assert_eq!(age("nonsense"), "-");
    }
}
