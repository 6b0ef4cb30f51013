//! The law, judged by others: what they show after the restore and the rest is
//! what they show after all of it.

use session::Size;

use crate::cases::UNKNOWN;
use crate::judges::{Judge, alacritty, avt, vt100};
use crate::law::{SIZE, same, screen, small};

/// Cuts a stream and compares.
pub(crate) fn agrees(judge: Judge, name: &str, size: Size, bytes: &[u8], cut: usize, whole: &str) {
    let mut again = screen(size, &bytes[..cut]).restore(usize::MAX);
    let restore = again.len();
    again.extend_from_slice(&bytes[cut..]);
    same(&judge(size, &again), whole, || {
        let before = String::from_utf8_lossy(&bytes[cut.saturating_sub(20)..cut]).into_owned();
        let restore = String::from_utf8_lossy(&again[..restore]);
        format!("{name}, cut at {cut} after {before:?}, restored by {restore:?}")
    });
}

fn all(judge: Judge, who: &str) {
    let known = |name: &str| {
        !UNKNOWN
            .iter()
            .any(|(judge, case, _)| (*judge, *case) == (who, name))
    };
    for (name, bytes) in small().filter(|(name, _)| known(name)) {
        let whole = judge(SIZE, bytes);
        for cut in 0..=bytes.len() {
            let r = std::panic::catch_unwind(|| agrees(judge, name, SIZE, bytes, cut, &whole));
            if r.is_err() {
                break;
            }
        }
    }
}

#[test]
fn vt100_agrees() {
    all(vt100, "vt100");
}

#[test]
fn avt_agrees() {
    all(avt, "avt");
}

#[test]
fn alacritty_agrees() {
    all(alacritty, "alacritty");
}
