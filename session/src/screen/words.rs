//! What a program tells its terminal in words: titles, the directory, colours.

use std::collections::BTreeMap;

/// Longest title or directory, bytes; what is longer is cut.
const WORD_MAX: usize = 2048;

/// Most titles on the stack; as xterm.
const STACK_MAX: usize = 10;

/// Longest name of a colour, bytes; longer ones do not exist.
const COLOR_MAX: usize = 64;

/// Titles of the window and of its icon.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Titles {
    pub(super) now: Title,
    pub(super) stack: Vec<Title>,
}

/// `None` for what no program has set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Title {
    pub(super) icon: Option<String>,
    pub(super) window: Option<String>,
}

impl Titles {
    /// `CSI 22 t`. What does not fit pushes out the oldest.
    pub(super) fn push(&mut self) {
        if self.stack.len() == STACK_MAX {
            self.stack.remove(0);
        }
        self.stack.push(self.now.clone());
    }

    /// `CSI 23 ; which t`: 0 both, 1 icon, 2 window.
    pub(super) fn pop(&mut self, which: u16) {
        let Some(title) = self.stack.pop() else {
            return;
        };
        if which != 2 {
            self.now.icon = title.icon;
        }
        if which != 1 {
            self.now.window = title.window;
        }
    }
}

/// Text from an OSC without what could end or harm another one.
pub(super) fn word(bytes: &[u8]) -> String {
    word_of(bytes, WORD_MAX)
}

/// As [`word`], of at most `max` bytes.
pub(super) fn word_of(bytes: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut text: String = text.chars().filter(|ch| !ch.is_control()).collect();
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Colours that differ from those of the user.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Colors {
    /// OSC 4: the palette.
    pub(super) palette: BTreeMap<u8, String>,
    /// OSC 10 to 19: text, background, cursor and more.
    pub(super) dynamic: BTreeMap<u16, String>,
}

impl Colors {
    pub(super) fn set_palette(&mut self, index: u8, name: &[u8]) {
        if let Some(name) = color(name) {
            self.palette.insert(index, name);
        }
    }

    pub(super) fn set_dynamic(&mut self, number: u16, name: &[u8]) {
        if let Some(name) = color(name)
            && (10..20).contains(&number)
        {
            self.dynamic.insert(number, name);
        }
    }
}

/// `#rgb`, `rgb:r/g/b`, a name, and whatever else terminals understand.
fn color(bytes: &[u8]) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b';' || *byte == b' ';
    let fits = (1..=COLOR_MAX).contains(&bytes.len()) && bytes.iter().all(plain);
    fits.then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_come_back_in_order() {
        let mut titles = Titles::default();
        titles.now.window = Some("a".into());
        titles.push();
        titles.now.window = Some("b".into());
        titles.now.icon = Some("i".into());
        titles.push();
        titles.now = Title::default();
        titles.pop(2);
        assert_eq!(
            (&titles.now.icon, titles.now.window.as_deref()),
            (&None, Some("b"))
        );
        titles.pop(0);
        titles.pop(0);
        assert_eq!(titles.now.window.as_deref(), Some("a"));
        for _ in 0..1000 {
            titles.push();
        }
        assert_eq!(titles.stack.len(), STACK_MAX);
    }

    #[test]
    fn a_word_is_short_and_harmless() {
        assert_eq!(word("a\u{9c}é\n".as_bytes()), "aé");
        assert_eq!(word(&[0xff, b'x']), "\u{fffd}x");
        let long = word("é".repeat(5000).as_bytes());
        assert!(long.len() <= WORD_MAX && long.len() > WORD_MAX - 4);
    }

    #[test]
    fn only_colours_are_colours() {
        let mut colors = Colors::default();
        colors.set_palette(1, b"#ff0000");
        colors.set_palette(2, b"");
        colors.set_palette(3, &[b'x'; 65]);
        colors.set_dynamic(10, b"rgb:1/2/3");
        colors.set_dynamic(9, b"red");
        colors.set_dynamic(11, b"a\x07b");
        assert_eq!(colors.palette.len(), 1);
        assert_eq!(colors.dynamic.len(), 1);
    }
}
