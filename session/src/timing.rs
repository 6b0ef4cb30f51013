//! When output came: a compact record beside each file of the output log.
//!
//! ```text
//! "cw-timing 1\n", base u64, at u64, cols u16, rows u16   all big-endian
//! then records of variable-length numbers (LEB128):
//!   time, length << 1                  output: so many bytes came
//!   time, 1, columns, rows             the terminal has another size
//! ```
//!
//! `base` is the offset of the first byte in the file beside it, `at` unix
//! milliseconds, columns and rows the size at the beginning; the time of a
//! record is in milliseconds since the one before. Output that comes within
//! [`GRAIN`] is one record, so that a session which never pauses costs at most
//! about 100 bytes a second. A record that is not whole is the end.

use crate::Size;

/// Output closer together than this is one record, milliseconds.
pub const GRAIN: u64 = 50;

/// Bytes of the header.
pub const HEADER: usize = MAGIC.len() + 20;

const MAGIC: &[u8] = b"cw-timing 1\n";

/// How a record of times begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Offset of the first byte of output.
    pub base: u64,
    /// When, unix milliseconds.
    pub at_ms: u64,
    /// The size of the terminal.
    pub size: Size,
}

/// Something that happened at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// When, unix milliseconds.
    pub at_ms: u64,
    /// Bytes of output that were there then, from the beginning of the session.
    pub end: u64,
    /// The size of the terminal from then on, if it changed.
    pub size: Option<Size>,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.base.to_be_bytes());
        out.extend(self.at_ms.to_be_bytes());
        out.extend(self.size.cols.to_be_bytes());
        out.extend(self.size.rows.to_be_bytes());
        out
    }

    /// From the first [`HEADER`] bytes of a file, or more.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (base, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (cols, rest) = rest.split_first_chunk()?;
        let (rows, _) = rest.split_first_chunk()?;
        Some(Self {
            base: u64::from_be_bytes(*base),
            at_ms: u64::from_be_bytes(*at),
            size: Size {
                cols: u16::from_be_bytes(*cols),
                rows: u16::from_be_bytes(*rows),
            },
        })
    }
}

/// Makes records.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    at_ms: u64,
    end: u64,
    /// Output that has no record yet: when the first of it came, and its end.
    group: Option<(u64, u64)>,
}

impl Clock {
    /// After a header, or after the last moment of a file.
    #[must_use]
    pub const fn new(at_ms: u64, end: u64) -> Self {
        Self {
            at_ms,
            end,
            group: None,
        }
    }

    /// So much output is there now. Appends a record of what came before, if
    /// this is not part of it any more.
    pub fn handle_output(&mut self, now_ms: u64, end: u64, out: &mut Vec<u8>) {
        match &mut self.group {
            Some((first_ms, seen)) if now_ms < first_ms.saturating_add(GRAIN) => *seen = end,
            _ => {
                self.close(out);
                self.group = Some((now_ms, end));
            }
        }
    }

    /// The terminal has this size now.
    pub fn handle_size(&mut self, now_ms: u64, size: Size, out: &mut Vec<u8>) {
        self.close(out);
        self.time(now_ms, out);
        number(1, out);
        number(size.cols.into(), out);
        number(size.rows.into(), out);
    }

    /// Appends a record of the output that has none.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((first_ms, seen)) = self.group.take()
            && seen > self.end
        {
            self.time(first_ms, out);
            number((seen - self.end) << 1, out);
            self.end = seen;
        }
    }

    /// Time does not go back, whatever the clock of the machine does.
    fn time(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        number(now_ms.saturating_sub(self.at_ms), out);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

/// A file that was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// How it begins.
    pub header: Header,
    /// All that happened.
    pub moments: Vec<Moment>,
    /// Bytes of it that are good.
    pub intact: usize,
}

/// Reads a file. A damaged one ends early.
#[must_use]
pub fn parse(file: &[u8]) -> Option<Times> {
    let header = Header::parse(file)?;
    let mut rest = &file[HEADER..];
    let (mut at_ms, mut end) = (header.at_ms, header.base);
    let mut times = Times {
        header,
        moments: Vec::new(),
        intact: HEADER,
    };
    let mut next = || {
        at_ms = at_ms.saturating_add(take(&mut rest)?);
        let what = take(&mut rest)?;
        let size = if what == 1 {
            Some(Size {
                cols: u16::try_from(take(&mut rest)?).ok()?,
                rows: u16::try_from(take(&mut rest)?).ok()?,
            })
        } else {
            end = end.checked_add(what >> 1)?;
            None
        };
        Some((Moment { at_ms, end, size }, file.len() - rest.len()))
    };
    while let Some((moment, intact)) = next() {
        times.moments.push(moment);
        times.intact = intact;
    }
    Some(times)
}

fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: Header = Header {
        base: 1000,
        at_ms: 1_767_225_599_042,
        size: Size { cols: 80, rows: 24 },
    };

    #[test]
    fn what_is_close_together_is_one_record() {
        let mut file = HEAD.encode();
        let mut clock = Clock::new(HEAD.at_ms, HEAD.base);
        let size = Size { cols: 7, rows: 300 };
        let at = |ms| HEAD.at_ms + ms;
        for ms in 1..=100 {
            clock.handle_output(at(ms), 1000 + ms, &mut file);
        }
        // The last of it came before a long silence, and is not told after it.
        clock.handle_output(at(5000), 1110, &mut file);
        clock.handle_size(at(5020), size, &mut file);
        // The clock of the machine was set back.
        clock.handle_output(at(60), 1130, &mut file);
        clock.close(&mut file);
        let times = parse(&file).unwrap();
        assert_eq!((times.header, times.intact), (HEAD, file.len()));
        let moment = |ms, end, size| Moment {
            at_ms: at(ms),
            end,
            size,
        };
        let expected = [
            moment(1, 1050, None),
            moment(51, 1100, None),
            moment(5000, 1110, None),
            moment(5020, 1110, Some(size)),
            moment(5020, 1130, None),
        ];
        assert_eq!(times.moments, expected);
        assert!(file.len() < HEADER + 24);
        for cut in HEADER..file.len() {
            let torn = parse(&file[..cut]).unwrap();
            assert_eq!(torn.moments, expected[..torn.moments.len()]);
            assert!(torn.intact <= cut);
            assert_eq!(parse(&file[..torn.intact]).unwrap(), torn);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut file = HEAD.encode();
            file.extend(tail);
            prop_assert!(parse(&file).unwrap().intact <= file.len());
        }
    }
}
