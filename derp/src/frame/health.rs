//! `Health` and `Restarting`: what the server says about itself.

use std::time::Duration;

use super::Body;
use crate::Error;

/// A complaint about the connection, for people; empty when all is well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health<'a> {
    /// The text, which should be UTF-8.
    pub text: &'a [u8],
}

impl<'a> Body<'a> for Health<'a> {
    const KIND: u8 = 0x14;

    fn body_len(&self) -> usize {
        self.text.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text);
    }

    fn read(body: &'a [u8]) -> Result<Self, Error> {
        Ok(Self { text: body })
    }
}

/// The server goes away for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarting {
    /// Milliseconds to wait before connecting again.
    pub reconnect_in_ms: u32,
    /// Milliseconds for which to keep trying after that.
    pub try_for_ms: u32,
}

impl Restarting {
    /// From durations; what does not fit is cut to the longest that does, 49
    /// days.
    pub fn new(reconnect_in: Duration, try_for: Duration) -> Self {
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self {
            reconnect_in_ms: ms(reconnect_in),
            try_for_ms: ms(try_for),
        }
    }
}

impl Body<'_> for Restarting {
    const KIND: u8 = 0x15;

    fn body_len(&self) -> usize {
        8
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.reconnect_in_ms.to_be_bytes());
        out.extend_from_slice(&self.try_for_ms.to_be_bytes());
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        let short = Error::Protocol("short Restarting");
        let Some((first, rest)) = body.split_first_chunk() else {
            return Err(short);
        };
        let Some((second, _)) = rest.split_first_chunk() else {
            return Err(short);
        };
        Ok(Self {
            reconnect_in_ms: u32::from_be_bytes(*first),
            try_for_ms: u32::from_be_bytes(*second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::{golden, refused};
    use super::*;

    #[test]
    fn bytes() {
        golden(Frame::Health(Health { text: b"" }), "14 00000000");
        golden(Frame::Health(Health { text: b"dup" }), "14 00000003 647570");
        golden(
            Frame::Restarting(Restarting {
                reconnect_in_ms: 1500,
                try_for_ms: 60_000,
            }),
            "15 00000008 000005dc 0000ea60",
        );
        refused(0x15, &[0; 7]);
    }

    #[test]
    fn long_times_are_cut() {
        let frame = Restarting::new(Duration::MAX, Duration::from_secs(1));
        assert_eq!(frame.reconnect_in_ms, u32::MAX);
        assert_eq!(frame.try_for_ms, 1000);
    }
}
