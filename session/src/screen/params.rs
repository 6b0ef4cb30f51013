//! The parameters of a control sequence.

/// Most parameters, subparameters included; the rest is ignored. xterm has 30.
const MAX: usize = 32;

/// What is between `CSI` and the final byte.
#[derive(Debug)]
pub(super) struct Params<'a> {
    /// One of `<=>?`, or 0.
    pub(super) private: u8,
    /// Bytes between the parameters and the final one.
    pub(super) intermediates: &'a [u8],
    values: [Option<u16>; MAX],
    /// Which values belong to the one before (`4:3`).
    sub: [bool; MAX],
    len: usize,
}

impl<'a> Params<'a> {
    /// Reads the body of a sequence that the parser has let pass.
    pub(super) fn parse(body: &'a [u8]) -> Self {
        let (private, body) = match body {
            [mark @ b'<'..=b'?', rest @ ..] => (*mark, rest),
            _ => (0, body),
        };
        let end = body.iter().position(|byte| *byte < 0x30);
        let (numbers, intermediates) = body.split_at(end.unwrap_or(body.len()));
        let mut params = Self {
            private,
            intermediates,
            values: [None; MAX],
            sub: [false; MAX],
            len: 1,
        };
        for byte in numbers {
            match byte {
                b'0'..=b'9' => {
                    let value = &mut params.values[params.len - 1];
                    let digit = u16::from(byte - b'0');
                    let before = value.unwrap_or(0);
                    *value = Some(before.saturating_mul(10).saturating_add(digit));
                }
                _ if params.len == MAX => break,
                _ => {
                    params.sub[params.len] = *byte == b':';
                    params.len += 1;
                }
            }
        }
        params
    }

    /// A parameter; missing ones are 0.
    pub(super) fn get(&self, at: usize) -> u16 {
        self.values.get(at).copied().flatten().unwrap_or(0)
    }

    /// A parameter that counts: missing or 0 means 1.
    pub(super) fn count(&self, at: usize) -> usize {
        usize::from(self.get(at).max(1))
    }

    /// A parameter, if it was given.
    pub(super) fn given(&self, at: usize) -> Option<u16> {
        self.values.get(at).copied().flatten()
    }

    /// All parameters, missing ones as 0; at least one.
    pub(super) fn all(&self) -> impl Iterator<Item = u16> {
        self.values[..self.len]
            .iter()
            .map(|value| value.unwrap_or(0))
    }

    /// The parameters with their subparameters.
    pub(super) fn groups(&self) -> Groups<'_> {
        Groups {
            params: self,
            at: 0,
        }
    }
}

/// Parameters, each with its subparameters after it.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    params: &'a Params<'a>,
    at: usize,
}

impl<'a> Iterator for Groups<'a> {
    type Item = &'a [Option<u16>];

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        if start >= self.params.len {
            return None;
        }
        let sub = &self.params.sub[start + 1..self.params.len];
        let more = sub.iter().take_while(|sub| **sub).count();
        self.at = start + 1 + more;
        Some(&self.params.values[start..self.at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let params = Params::parse(b"?25;;99999 q");
        assert_eq!(params.private, b'?');
        let params = Params::parse(b"1;;99999 ");
        assert_eq!(params.intermediates, b" ");
        assert_eq!(params.all().collect::<Vec<_>>(), [1, 0, 65535]);
        assert_eq!(
            (params.count(1), params.given(1), params.get(7)),
            (1, None, 0)
        );
    }

    #[test]
    fn subparameters_stay_together() {
        let params = Params::parse(b"4:3;38:2::1:2:3;0");
        let groups: Vec<_> = params.groups().map(<[_]>::to_vec).collect();
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[0], [Some(4), Some(3)]);
        assert_eq!(groups[1].len(), 6);
        assert_eq!(groups[2], [Some(0)]);
    }

    #[test]
    fn too_many_are_cut() {
        let body = b"1;".repeat(100);
        assert_eq!(Params::parse(&body).all().count(), MAX);
        assert_eq!(Params::parse(b"").all().count(), 1);
    }
}
