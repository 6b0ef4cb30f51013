//! A frame of a type that is not in the table.

/// Kept so that a receiver can skip it and a log can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// The type byte.
    pub kind: u8,
    /// The body.
    pub body: &'a [u8],
}

impl Unknown<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let len = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        out.push(self.kind);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::golden;
    use super::*;

    #[test]
    fn bytes() {
        golden(
            Frame::Unknown(Unknown {
                kind: 0x7f,
                body: b"later",
            }),
            "7f 00000005 6c61746572",
        );
    }
}
