//! Streams that nobody would write: sequences in any order, and any bytes.

use proptest::prelude::*;
use session::Size;
use session::screen::Screen;

use crate::cases::{CASES, SEQUENCES, WORDS};
use crate::law::{holds, same, screen};

const SMALL: Size = Size { cols: 11, rows: 5 };

/// A sequence with parameters that matter on a small screen.
fn sequence() -> impl Strategy<Value = String> {
    let number = prop_oneof![Just(String::new()), (0..14_u16).prop_map(|n| n.to_string())];
    let numbers = (number.clone(), number);
    (prop::sample::select(SEQUENCES), numbers).prop_map(|(sequence, (first, second))| {
        sequence.replace("{a}", &first).replace("{b}", &second)
    })
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(WORDS).prop_map(str::to_owned)
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![3 => sequence(), 2 => word()];
    prop::collection::vec(part, 1..40).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequences_in_any_order(bytes in stream(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(bytes.len() + 1);
        let whole = screen(SMALL, &bytes);
        holds("random", SMALL, &bytes, cut, &whole);
    }

    /// A restore of a restore is the same; another size then does the same to
    /// both.
    #[test]
    fn another_size_changes_both_alike(
        bytes in stream(),
        cols in 2..30_u16,
        rows in 1..12_u16,
    ) {
        let mut whole = screen(SMALL, &bytes);
        let restore = whole.restore(usize::MAX);
        let mut copy = screen(SMALL, &restore);
        prop_assert_eq!(&copy.restore(usize::MAX), &restore);
        let size = Size { cols, rows };
        whole.resize(size);
        copy.resize(size);
        same(&copy.describe(), &whole.describe(), || {
            format!("{:?} at {size:?}", String::from_utf8_lossy(&bytes))
        });
        holds("resized", size, &whole.restore(usize::MAX), 0, &whole);
    }

    #[test]
    fn bytes_of_any_kind(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(bytes.len() + 1);
        let whole = screen(SMALL, &bytes);
        holds("random", SMALL, &bytes, cut, &whole);
    }

    /// Real sequences with a few wrong bytes in them.
    #[test]
    fn damaged_streams(
        case in prop::sample::select(CASES),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cols in 1..40_u16,
        rows in 1..10_u16,
    ) {
        let mut bytes = case.1.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut screen = Screen::new(Size { cols, rows });
        for byte in &bytes {
            screen.feed(std::slice::from_ref(byte));
        }
        screen.resize(Size { cols: rows, rows: cols });
        screen.feed(&bytes);
        let size = screen.size();
        if size.cols > 1 {
            let whole = crate::law::screen(size, &screen.restore(usize::MAX));
            same(&whole.describe(), &screen.describe(), || format!("{bytes:?}"));
        }
    }
}

#[test]
fn extreme_sizes_and_numbers() {
    for (cols, rows) in [(0, 0), (1, 1), (1, 9), (2, 2), (9, 1), (u16::MAX, u16::MAX)] {
        let mut screen = Screen::new(Size { cols, rows });
        for number in ["0", "1", "65535", "99999999999999999999", "-1", ";;;;"] {
            for last in '@'..='~' {
                for mark in ["", "?", ">", "<", "="] {
                    screen.feed(format!("\x1b[{mark}{number}{last}한x").as_bytes());
                }
                for mark in ["!", " ", "$"] {
                    screen.feed(format!("\x1b[{number}{mark}{last}x").as_bytes());
                }
            }
        }
        let _ = screen.restore(10);
        screen.resize(Size { cols: 3, rows: 2 });
        assert!(screen.restore(usize::MAX).len() < 1024 * 1024);
    }
}
