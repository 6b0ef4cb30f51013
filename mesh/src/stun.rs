//! As much of STUN (RFC 8489) as it takes to ask a server "where do you see me?".
//!
//! A request is a header of 20 bytes: type 0x0001, length, the magic cookie
//! 0x2112A442 and a transaction id of 12 bytes. A success response (0x0101)
//! repeats cookie and id and has attributes, each a type, a length and a value
//! padded to four bytes. The address is in XOR-MAPPED-ADDRESS (0x0020), or, from
//! old servers, in MAPPED-ADDRESS (0x0001); OTHER-ADDRESS (0x802C, RFC 5780) says
//! where else the server may be asked, which shows how a NAT chooses ports. No
//! message of WireGuard begins like a response.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

const REQUEST: [u8; 2] = [0x00, 0x01];
const RESPONSE: [u8; 2] = [0x01, 0x01];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER_LEN: usize = 20;
const MAPPED: u16 = 0x0001;
const XOR_MAPPED: u16 = 0x0020;
const OTHER: u16 = 0x802c;

/// Ties a response to its request; random, or anybody could answer.
pub type Id = [u8; 12];

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the request.
    pub id: Id,
    /// Where the request came from.
    pub addr: SocketAddr,
    /// Where else the server listens. An unspecified address means the one that was asked.
    pub other: Option<SocketAddr>,
}

/// A binding request.
#[must_use]
pub fn request(id: &Id) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..2].copy_from_slice(&REQUEST);
    out[4..8].copy_from_slice(&COOKIE);
    out[8..].copy_from_slice(id);
    out
}

/// Reads a success response; `None` if it is none, or says no address.
#[must_use]
pub fn parse_response(bytes: &[u8]) -> Option<Answer> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    if header[..2] != RESPONSE || header[4..8] != COOKIE {
        return None;
    }
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let id = header.last_chunk::<12>()?;
    let mut attributes = rest.get(..len)?;
    let (mut mixed, mut plain, mut other) = (None, None, None);
    while let Some((head, rest)) = attributes.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..len)?;
        match kind {
            XOR_MAPPED => mixed = Some(address(value, Some(id))?),
            MAPPED => plain = address(value, None),
            OTHER => other = address(value, None),
            _ => {}
        }
        attributes = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    let addr = mixed.or(plain)?;
    Some(Answer {
        id: *id,
        addr,
        other,
    })
}

/// Reads an address: a zero, the family (1 or 2), port, address; the last two
/// mixed with cookie and id if `xor` is given.
fn address(value: &[u8], xor: Option<&Id>) -> Option<SocketAddr> {
    let (head, ip) = value.split_first_chunk::<4>()?;
    let mut mask = [0; 16];
    if let Some(id) = xor {
        mask[..4].copy_from_slice(&COOKIE);
        mask[4..].copy_from_slice(id);
    }
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let ip = match head[1] {
        1 => {
            let ip = ip.first_chunk::<4>()?;
            let ip: [u8; 4] = std::array::from_fn(|at| ip[at] ^ mask[at]);
            Ipv4Addr::from(ip).into()
        }
        2 => {
            let ip = ip.first_chunk::<16>()?;
            let ip: [u8; 16] = std::array::from_fn(|at| ip[at] ^ mask[at]);
            Ipv6Addr::from(ip).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 5769, 2.2 and 2.3: the ends of the sample responses.
    const ID: Id = [
        0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
    ];

    fn found(addr: &str, other: Option<&str>) -> Option<Answer> {
        Some(Answer {
            id: ID,
            addr: addr.parse().unwrap(),
            other: other.map(|other| other.parse().unwrap()),
        })
    }

    fn response(attributes: &[u8]) -> Vec<u8> {
        let mut out = RESPONSE.to_vec();
        out.extend((attributes.len() as u16).to_be_bytes());
        out.extend(COOKIE);
        out.extend(ID);
        out.extend(attributes);
        out
    }

    #[test]
    fn the_samples_of_the_rfc_are_read() {
        let v4 = [
            0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
        ];
        // A SOFTWARE attribute of 11 bytes, padded, comes first.
        let software = *b"\x80\x22\x00\x0btest vector ";
        let both = [&software[..], &v4[..]].concat();
        let expected = found("192.0.2.1:32853", None);
        assert_eq!(parse_response(&response(&both)), expected);
        let v6 = [
            0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3,
            0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        let expected = found("[2001:db8:1234:5678:11:2233:4455:6677]:32853", None);
        assert_eq!(parse_response(&response(&v6)), expected);
        let plain = [0, 1, 0, 8, 0, 1, 0, 80, 192, 0, 2, 1];
        let expected = found("192.0.2.1:80", None);
        assert_eq!(parse_response(&response(&plain)), expected);
        let other = [0x80, 0x2c, 0, 8, 0, 1, 0, 81, 0, 0, 0, 0];
        let expected = found("192.0.2.1:80", Some("0.0.0.0:81"));
        for both in [[plain, other].concat(), [other, plain].concat()] {
            assert_eq!(parse_response(&response(&both)), expected);
        }
        assert_eq!(parse_response(&response(&other)), None, "no address");
    }

    #[test]
    fn a5_stun_what_is_no_response_tells_nothing() {
        let address = [0, 1, 0, 8, 0, 1, 0, 80, 192, 0, 2, 1];
        let good = response(&address);
        let turned = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let empty = |kind: u8| [0, kind, 0, 0];
        let rows = [
            ("nothing", vec![]),
            ("a request", turned(0, 0)),
            ("an error response", turned(1, 0x11)),
            ("another cookie", turned(4, 0x22)),
            ("a length past its end", turned(3, 13)),
            (
                "a length of 65,535",
                [&good[..2], &[0xff; 2], &good[4..]].concat(),
            ),
            (
                "an attribute past the end",
                response(&[0, 1, 0, 9, 0, 1, 0, 80, 192, 0, 2, 1]),
            ),
            (
                "an attribute of 65,535",
                response(&[0, 1, 0xff, 0xff, 0, 1, 0, 80]),
            ),
            ("half an attribute", response(&[0, 1, 0])),
            ("no attribute", response(&[])),
            ("an address of no length", response(&empty(1))),
            ("a mixed address of no length", response(&empty(0x20))),
            (
                "a family that is none",
                response(&[0, 1, 0, 8, 0, 3, 0, 80, 192, 0, 2, 1]),
            ),
            (
                "an IPv6 address too short",
                response(&[0, 1, 0, 8, 0, 2, 0, 80, 192, 0, 2, 1]),
            ),
            (
                "16,000 attributes of nothing",
                response(&empty(0x22).repeat(16_000)),
            ),
        ];
        for (row, bytes) in rows {
            assert_eq!(parse_response(&bytes), None, "{row}");
        }
        for len in 0..good.len() {
            assert_eq!(parse_response(&good[..len]), None, "cut to {len} bytes");
        }
        // Whose id is not asked for is not believed: see `reflect`.
        assert_eq!(
            parse_response(&turned(8, 0)).map(|answer| answer.id == ID),
            Some(false)
        );
    }

    #[test]
    fn a_request_is_a_header_and_no_response() {
        let request = request(&ID);
        assert_eq!(request[..8], [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        assert_eq!(parse_response(&request), None);
    }

    proptest! {
        #[test]
        fn any_attributes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_response(&response(&bytes));
            let _ = parse_response(&bytes);
        }
    }
}
