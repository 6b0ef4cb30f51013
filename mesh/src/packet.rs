//! The inner packet: what WireGuard encrypts.
//!
//! WireGuard carries IP packets, so every payload gets an IPv6 and a UDP header
//! (48 bytes). The addresses are the overlay addresses of the two nodes, the
//! port says what the payload is: QUIC or one of our own control messages.
//! There is no IP stack behind it. The UDP checksum is filled in, because a
//! kernel at the other end would drop packets without it; it is not checked,
//! because WireGuard has already authenticated every byte.

use std::net::Ipv6Addr;

/// IPv6 (40) and UDP (8) header.
pub(crate) const HEADER_LEN: usize = 48;
/// What WireGuard adds to a packet: type, index, counter and tag.
pub(crate) const SEAL_LEN: usize = 32;
/// The QUIC datagram size: with both headers an IPv6 packet of 1280 bytes, the
/// smallest size that every IPv6 link carries.
pub(crate) const QUIC_MTU: usize = 1232;
/// A whole WireGuard datagram of a full-size QUIC datagram.
pub(crate) const FULL_DATAGRAM: usize = QUIC_MTU + HEADER_LEN + SEAL_LEN;
/// The larger QUIC datagram size, for paths that have carried it: with all
/// headers, those of an outer IPv6 included, a packet of 1500 bytes.
pub(crate) const WIDE_MTU: usize = 1372;
/// A whole WireGuard datagram of one of those.
pub(crate) const WIDE_DATAGRAM: usize = WIDE_MTU + HEADER_LEN + SEAL_LEN;

const NEXT_HEADER_UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;
const PORT_QUIC: u16 = 4433;
const PORT_CONTROL: u16 = 4434;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// A QUIC datagram.
    Quic,
    /// A [`crate::control::Message`].
    Control,
}

impl Port {
    /// The UDP port number inside the tunnel.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::Quic => PORT_QUIC,
            Self::Control => PORT_CONTROL,
        }
    }
}

/// The two addresses of a tunnel, seen from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) local: Ipv6Addr,
    pub(crate) remote: Ipv6Addr,
}

impl Pair {
    /// Writes headers and payload into `out`, which must have room for both,
    /// and returns the length of the packet.
    pub(crate) fn build(&self, port: Port, payload: &[u8], out: &mut [u8]) -> usize {
        let len = HEADER_LEN + payload.len();
        let udp_len = ((len - 40) as u16).to_be_bytes();
        let number = port.number().to_be_bytes();
        let out = &mut out[..len];
        out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        out[4..6].copy_from_slice(&udp_len);
        out[6] = NEXT_HEADER_UDP;
        out[7] = HOP_LIMIT;
        out[8..24].copy_from_slice(&self.local.octets());
        out[24..40].copy_from_slice(&self.remote.octets());
        out[40..42].copy_from_slice(&number);
        out[42..44].copy_from_slice(&number);
        out[44..46].copy_from_slice(&udp_len);
        out[46..48].copy_from_slice(&[0, 0]);
        out[HEADER_LEN..].copy_from_slice(payload);
        let checksum = checksum(&out[8..], udp_len);
        out[46..48].copy_from_slice(&checksum);
        len
    }

    /// What a decrypted packet holds, if it is one of ours from this peer. The
    /// payload starts at [`HEADER_LEN`].
    pub(crate) fn parse(&self, packet: &[u8]) -> Option<Port> {
        let header = packet.first_chunk::<HEADER_LEN>()?;
        let from_peer = header[8..24] == self.remote.octets();
        let to_us = header[24..40] == self.local.octets();
        let udp_len = u16::from_be_bytes([header[44], header[45]]);
        let whole = usize::from(udp_len) == packet.len() - 40;
        let udp = header[0] >> 4 == 6 && header[6] == NEXT_HEADER_UDP;
        if !(udp && from_peer && to_us && whole) {
            return None;
        }
        match u16::from_be_bytes([header[42], header[43]]) {
            PORT_QUIC => Some(Port::Quic),
            PORT_CONTROL => Some(Port::Control),
            _ => None,
        }
    }
}

/// The UDP checksum over `bytes` (addresses, UDP header with a zero checksum,
/// payload) and the rest of the pseudo header.
fn checksum(bytes: &[u8], udp_len: [u8; 2]) -> [u8; 2] {
    // One's complement sums may be taken in any byte order and width, as long
    // as the result is read back the same way (RFC 1071).
    let mut sum = u64::from(u16::from_ne_bytes(udp_len));
    sum += u64::from(u16::from_ne_bytes([0, NEXT_HEADER_UDP]));
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        // Zero would mean "no checksum", which IPv6 does not allow.
        0 => [0xff, 0xff],
        sum => sum.to_ne_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> Pair {
        Pair {
            local: "fd7a:115c:a1e0::1".parse().unwrap(),
            remote: "fd7a:115c:a1e0::2".parse().unwrap(),
        }
    }

    fn other_side(pair: Pair) -> Pair {
        Pair {
            local: pair.remote,
            remote: pair.local,
        }
    }

    /// RFC 768 and 8200, word by word.
    fn plain_checksum(packet: &[u8]) -> u16 {
        let mut data = packet[8..40].to_vec();
        data.extend_from_slice(&[0, 0, packet[44], packet[45], 0, 0, 0, 17]);
        data.extend_from_slice(&packet[40..]);
        if data.len() % 2 == 1 {
            data.push(0);
        }
        let words = data
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
        let mut sum = words.sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed(payload in prop::collection::vec(any::<u8>(), 0..1500), control: bool) {
            let port = if control { Port::Control } else { Port::Quic };
            let mut out = [0; 2048];
            let len = pair().build(port, &payload, &mut out);
            let packet = &out[..len];
            prop_assert_eq!(other_side(pair()).parse(packet), Some(port));
            prop_assert_eq!(&packet[HEADER_LEN..], &payload[..]);
            // A valid packet sums to all ones, its checksum included.
            prop_assert_eq!(plain_checksum(packet), 0xffff);
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            pair().parse(&bytes);
        }
    }

    #[test]
    fn b05_b12_u07_only_the_peers_own_address_is_accepted() {
        let mut out = [0; 256];
        let len = pair().build(Port::Quic, b"hi", &mut out);
        assert_eq!(pair().parse(&out[..len]), None, "our own address as source");
        let mut forged = out;
        forged[23] ^= 1;
        assert_eq!(other_side(pair()).parse(&forged[..len]), None, "source");
        let mut forged = out;
        forged[39] ^= 1;
        assert_eq!(
            other_side(pair()).parse(&forged[..len]),
            None,
            "destination"
        );
        let mut forged = out;
        forged[43] ^= 0x40;
        assert_eq!(other_side(pair()).parse(&forged[..len]), None, "port");
        assert_eq!(other_side(pair()).parse(&out[..len - 1]), None, "length");
    }

    /// What listens on this machine is out of reach: there are two ports, and one protocol.
    #[test]
    fn b05_s24_no_other_port_or_protocol_is_there() {
        let mut out = [0; 256];
        let len = pair().build(Port::Quic, b"hi", &mut out);
        let listed = |packet: &[u8]| other_side(pair()).parse(packet);
        let open: Vec<u16> = (0..=u16::MAX)
            .filter(|port| {
                let mut packet = out;
                packet[42..44].copy_from_slice(&port.to_be_bytes());
                listed(&packet[..len]).is_some()
            })
            .collect();
        assert_eq!(open, [PORT_QUIC, PORT_CONTROL]);
        let spoken: Vec<u8> = (0..=u8::MAX)
            .filter(|protocol| {
                let mut packet = out;
                packet[6] = *protocol;
                listed(&packet[..len]).is_some()
            })
            .collect();
        assert_eq!(spoken, [NEXT_HEADER_UDP]);
    }

    #[test]
    fn a_full_datagram_fits_the_smallest_ipv6_link() {
        assert_eq!(QUIC_MTU + HEADER_LEN, 1280);
        assert_eq!(FULL_DATAGRAM, 1312);
        let outer_headers = 40 + 8;
        assert_eq!(WIDE_DATAGRAM + outer_headers, 1500);
    }
}
