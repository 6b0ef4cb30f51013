//! What a fuzzer throws at this crate: each target takes any bytes and must come back, soon, with
//! what it promises. `fuzz/` runs them; a test here plays its corpora again.

use crate::record::{self, Place, Recovery, Repair};
use crate::screen::{Screen, Transcript};
use crate::{Event, MessageId, Name, SessionId, SessionRef, Size, Tag};

/// A name, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their corpora.
pub const TARGETS: &[Target] = &[
    ("terminal", terminal),
    ("terminal_resize", terminal_resize),
    ("transcript", transcript),
    ("events", events),
    ("event_line", event_line),
    ("session_words", words),
    #[cfg(feature = "io")]
    ("keeper_frames", keeper_frames),
];

/// The law of restoring, for any bytes, cut anywhere: three bytes say the size and where.
pub fn terminal(data: &[u8]) {
    let Some(([cols, rows, cut], bytes)) = data.split_first_chunk::<3>() else {
        return;
    };
    // A wide character does not fit on a screen of one column, whatever we do.
    let size = Size {
        cols: 2 + u16::from(cols % 40),
        rows: 1 + u16::from(rows % 16),
    };
    let cut = bytes.len() * usize::from(*cut) / 255;
    let (before, after) = bytes.split_at(cut);
    let mut whole = Screen::new(size);
    whole.feed(before);
    let _ = whole.take_answers();
    let restore = whole.restore(usize::MAX);
    let mut copy = Screen::new(size);
    copy.feed(&restore);
    assert_eq!(copy.describe(), whole.describe(), "restored");
    whole.feed(after);
    copy.feed(after);
    assert_eq!(copy.describe(), whole.describe(), "and gone on with");
    let answers = whole.take_answers();
    assert!(answers.len() <= 64 * 1024, "answers are bounded");
    let _ = (whole.text(10), whole.title(), whole.cursor());
}

/// Output between changes of size, each said by three bytes: what is kept stays small, and what
/// is restored is what there was.
pub fn terminal_resize(data: &[u8]) {
    let mut screen = Screen::new(Size { cols: 20, rows: 6 });
    let mut script = data;
    while let Some(([cols, rows, len], rest)) = script.split_first_chunk::<3>() {
        let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        script = rest;
        screen.feed(bytes);
        screen.resize(Size {
            cols: u16::from(*cols),
            rows: u16::from(rows % 64),
        });
        let size = screen.size();
        let (row, col) = screen.cursor();
        assert!(row < usize::from(size.rows) && col < usize::from(size.cols));
    }
    let size = screen.size();
    if size.cols > 1 {
        let mut copy = Screen::new(size);
        copy.feed(&screen.restore(usize::MAX));
        assert_eq!(copy.describe(), screen.describe());
    }
}

/// A transcript says the same however the bytes come, and nothing in it acts on a terminal.
pub fn transcript(data: &[u8]) {
    let Some(([cols, rows, piece], bytes)) = data.split_first_chunk::<3>() else {
        return;
    };
    let size = Size {
        cols: 1 + u16::from(cols % 40),
        rows: 1 + u16::from(rows % 16),
    };
    let mut whole = Transcript::new(size);
    let mut lines = whole.feed(bytes);
    lines.extend(whole.finish());
    let mut pieces = Transcript::new(size);
    let mut again = Vec::new();
    for part in bytes.chunks(1 + usize::from(*piece)) {
        again.extend(pieces.feed(part));
    }
    again.extend(pieces.finish());
    assert_eq!(lines, again);
    for line in &lines {
        let ends = |ch: char| ch < ' ' || ch == '\u{7f}';
        assert!(!line.contains(ends), "{line:?}");
    }
    // A pause after every piece, and another size, are no trouble either.
    let mut paused = Transcript::new(size);
    for (part, number) in bytes
        .chunks(1 + usize::from(*piece))
        .zip((0..=u16::MAX).cycle())
    {
        let _ = (paused.feed(part), paused.settle());
        if number % 5 == 4 {
            let _ = paused.resize(Size {
                cols: 1 + number % 50,
                rows: 1 + number % 7,
            });
        }
    }
    let _ = paused.finish();
}

/// A file of events in any state: read back in any pieces it gives the same; once repaired it is
/// good, and no event that was there is lost or found twice.
pub fn events(data: &[u8]) {
    let (piece, file) = data
        .split_first()
        .map_or((1, data), |(piece, file)| (1 + usize::from(*piece), file));
    let (found, repair) = recover(file, usize::MAX);
    assert_eq!(recover(file, piece), (found.clone(), repair));
    assert_eq!(repair.intact + repair.torn_bytes, file.len() as u64);
    let mut end = 0;
    for (event, place) in &found {
        assert!(place.offset >= end, "places are in order and apart");
        end = place.offset + u64::from(place.len);
        let at = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let line = &file[at..(at + place.len as usize).min(file.len())];
        assert_eq!(decoded(line).as_ref(), Some(event));
    }
    let intact = usize::try_from(repair.intact).unwrap_or(usize::MAX);
    let mut mended = file[..intact].to_vec();
    if repair.missing_end {
        mended.push(b'\n');
    }
    let (again, clean) = recover(&mended, 1 << 16);
    assert_eq!(again, found);
    assert_eq!((clean.torn_bytes, clean.missing_end), (0, false));
    assert_eq!(clean.damaged_lines, repair.damaged_lines);
}

fn recover(file: &[u8], piece: usize) -> (Vec<(Event, Place)>, Repair) {
    let mut found = Vec::new();
    let mut recovery = Recovery::new(SessionId(7));
    for part in file.chunks(piece) {
        recovery.handle_bytes(part, |event, place| found.push((event, place)));
    }
    let repair = recovery.finish(|event, place| found.push((event, place)));
    (found, repair)
}

/// One line: an event that was read is written and read back as it was.
pub fn event_line(data: &[u8]) {
    let _ = record::order(data);
    if let Some(event) = decoded(data) {
        let line = record::encode(&event);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(decoded(&line), Some(event));
    }
}

fn decoded(line: &[u8]) -> Option<Event> {
    record::decode(SessionId(7), line).ok().flatten()
}

/// Names, numbers, tags, ids, times, sizes; and text of others made harmless.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(session) = text.parse::<SessionRef>() {
        assert_eq!(session.to_string().parse().ok(), Some(session));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.to_string(), text);
    }
    if let Ok(id) = text.parse::<MessageId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Some(ms) = crate::time::parse(&text) {
        assert_eq!(crate::time::parse(&crate::time::format(ms)), Some(ms));
    }
    let shown = crate::harmless(&text);
    assert_eq!(crate::harmless(&shown), shown);
    let acts = |ch: char| ch.is_control() && ch != '\n' && ch != '\t';
    assert!(!shown.contains(acts));
    assert!(!crate::hanging(&text, "  ").contains(acts));
    let pasted = crate::typing::keys(&shown, true);
    let escapes = pasted.iter().filter(|byte| **byte == 0x1b).count();
    assert_eq!(escapes, 2, "the two ends of the paste");
    let line = crate::typing::keys(&shown, false);
    assert!(!line.iter().any(|byte| *byte < b' '), "one line");
    let last = crate::screen::last_text(data, 80);
    assert!(last.chars().count() <= 80 && !last.contains(|ch| ch < ' '));
}

/// What keeper and node say to each other.
#[cfg(feature = "io")]
pub fn keeper_frames(data: &[u8]) {
    use std::io::Write as _;

    use crate::io::keeper::fds::FrameReader;
    use crate::io::keeper::proto::{ToKeeper, ToNode};

    // As much as a socket takes at once.
    let data = &data[..data.len().min(32 * 1024)];
    for to_keeper in [true, false] {
        let Ok((ours, mut theirs)) = std::os::unix::net::UnixStream::pair() else {
            return;
        };
        if theirs.write_all(data).is_err() {
            return;
        }
        drop(theirs);
        let mut reader = FrameReader::default();
        let mut frames = 0;
        loop {
            let read = if to_keeper {
                reader.read::<ToKeeper>(&ours).map(|frame| frame.is_some())
            } else {
                reader.read::<ToNode>(&ours).map(|frame| frame.is_some())
            };
            match read {
                Ok(true) => frames += 1,
                Ok(false) => break,
                // Not understood; the next can be.
                Err(error) if error.kind() == std::io::ErrorKind::Other => frames += 1,
                Err(_) => break,
            }
            assert!(frames <= data.len());
        }
    }
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn corpora_are_played_again() {
    replay::replay(TARGETS);
}
