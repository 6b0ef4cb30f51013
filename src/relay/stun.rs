//! Tells a node under which address the internet sees it: STUN (RFC 5389),
//! the binding request and nothing else.
//!
//! ```text
//!  0x0001 request / 0x0101 success │ length of the attributes │ 0x2112A442
//!  transaction id, 12 bytes
//!  attributes: type, length, value padded to 4 bytes
//! ```
//!
//! The answer has XOR-MAPPED-ADDRESS and, where the relay listens at a second
//! port, OTHER-ADDRESS (RFC 5780) with that port and no address: it is the same
//! host, however that is called where the node is. Asked at both, a node learns
//! whether its NAT gives it one address for all. What is not a binding
//! request gets no answer, so two servers cannot be made to talk to each
//! other; a request is answered with at most 56 bytes.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::net::UdpSocket;

use super::limiter::Limiter;

const HEADER_LEN: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const COOKIE: u32 = 0x2112_A442;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const OTHER_ADDRESS: u16 = 0x802c;

/// Longer datagrams are not read: a request is a header and a few attributes.
const MAX_REQUEST: usize = 548;

/// Answers at `socket`, and at the port after it, or any if that is taken.
pub(crate) async fn serve(socket: UdpSocket) {
    let second = match socket.local_addr() {
        Ok(first) => second(first).await,
        Err(_) => None,
    };
    let port = second
        .as_ref()
        .and_then(|socket| socket.local_addr().ok())
        .map(|address| address.port());
    match second {
        Some(second) => {
            tokio::join!(answer_all(&socket, port), answer_all(&second, None));
        }
        None => answer_all(&socket, None).await,
    }
}

async fn second(first: SocketAddr) -> Option<UdpSocket> {
    let next = first.port().checked_add(1).unwrap_or(0);
    match UdpSocket::bind((first.ip(), next)).await {
        Ok(socket) => Some(socket),
        Err(_) => UdpSocket::bind((first.ip(), 0)).await.ok(),
    }
}

async fn answer_all(socket: &UdpSocket, other: Option<u16>) {
    // A node asks a few times when its network changes. The answer is larger
    // than the shortest request, so nobody gets many.
    let mut limiter = Limiter::new(64, 16.0);
    let mut datagram = [0; MAX_REQUEST];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut datagram).await else {
            // An answer to somebody could not be delivered; not our trouble.
            tokio::task::yield_now().await;
            continue;
        };
        let Some(answer) = answer(datagram.get(..len).unwrap_or_default(), from, other) else {
            continue;
        };
        if limiter.take(from.ip(), Instant::now()) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to `datagram`, which came from `from`; `None` if it is no
/// well-formed binding request. `other` is the relay's other port.
fn answer(datagram: &[u8], from: SocketAddr, other: Option<u16>) -> Option<Vec<u8>> {
    let (header, attributes) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *header;
    let is_request = u16::from_be_bytes([t0, t1]) == BINDING_REQUEST
        && u32::from_be_bytes([c0, c1, c2, c3]) == COOKIE
        && usize::from(u16::from_be_bytes([l0, l1])) == attributes.len();
    (is_request && are_well_formed(attributes)).then(|| success(transaction, from, other))
}

/// Walks the attributes. Unknown ones are passed over: none that a client
/// sends to a server without accounts changes the answer.
fn are_well_formed(mut attributes: &[u8]) -> bool {
    while let Some(([_, _, l0, l1], rest)) = attributes.split_first_chunk() {
        let padded = usize::from(u16::from_be_bytes([*l0, *l1])).next_multiple_of(4);
        match rest.get(padded..) {
            Some(rest) => attributes = rest,
            None => return false,
        }
    }
    attributes.is_empty()
}

fn success(transaction: [u8; 12], from: SocketAddr, other: Option<u16>) -> Vec<u8> {
    let cookie = COOKIE.to_be_bytes();
    let [p0, p1] = from.port().to_be_bytes();
    let mut value = vec![0, 0, p0 ^ cookie[0], p1 ^ cookie[1]];
    match from.ip().to_canonical() {
        IpAddr::V4(ip) => {
            value[1] = 0x01;
            value.extend(ip.octets().iter().zip(cookie).map(|(a, b)| a ^ b));
        }
        IpAddr::V6(ip) => {
            value[1] = 0x02;
            let mask = cookie.into_iter().chain(transaction);
            value.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b));
        }
    }
    // 8 or 20 bytes.
    let value_len = value.len() as u16;
    let other_len = if other.is_some() { 12 } else { 0 };
    let mut answer = Vec::with_capacity(HEADER_LEN + 4 + value.len() + 12);
    answer.extend(BINDING_SUCCESS.to_be_bytes());
    answer.extend((value_len + 4 + other_len).to_be_bytes());
    answer.extend(cookie);
    answer.extend(transaction);
    answer.extend(XOR_MAPPED_ADDRESS.to_be_bytes());
    answer.extend(value_len.to_be_bytes());
    answer.append(&mut value);
    if let Some(port) = other {
        answer.extend(OTHER_ADDRESS.to_be_bytes());
        let [p0, p1] = port.to_be_bytes();
        answer.extend([0, 8, 0, 1, p0, p1, 0, 0, 0, 0]);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1, without the attributes that need a password.
    const TRANSACTION: [u8; 12] = [
        0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
    ];

    fn request(attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap();
        let mut request = vec![0x00, 0x01];
        request.extend(length.to_be_bytes());
        request.extend([0x21, 0x12, 0xa4, 0x42]);
        request.extend(TRANSACTION);
        request.extend(attributes);
        request
    }

    #[test]
    fn the_mapped_addresses_of_rfc_5769() {
        let answer4 = answer(&request(&[]), "192.0.2.1:32853".parse().unwrap(), None).unwrap();
        assert_eq!(&answer4[..4], [0x01, 0x01, 0x00, 0x0c]);
        assert_eq!(answer4[8..20], TRANSACTION);
        let value4 = [
            0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
        ];
        assert_eq!(answer4[20..], value4);

        let from = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
        let answer6 = answer(&request(&[]), from.parse().unwrap(), None).unwrap();
        let value6 = [
            0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3,
            0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        assert_eq!(answer6[20..], value6);
    }

    #[test]
    fn a_mapped_v4_address_is_answered_as_v4() {
        let from = "[::ffff:192.0.2.1]:32853".parse().unwrap();
        assert_eq!(answer(&request(&[]), from, None).unwrap().len(), 32);
    }

    #[test]
    fn a_second_port_is_told_as_rfc_5780_does() {
        let from = "192.0.2.1:32853".parse().unwrap();
        let answer = answer(&request(&[]), from, Some(3479)).unwrap();
        assert_eq!(answer[2..4], [0, 24]);
        let value = [0x80, 0x2c, 0, 8, 0, 1, 0x0d, 0x97, 0, 0, 0, 0];
        assert_eq!(answer[32..], value);
    }

    #[test]
    fn attributes_are_passed_over_when_whole() {
        let software = [0x80, 0x22, 0x00, 0x03, b'a', b'b', b'c', 0];
        assert!(answer(&request(&software), "192.0.2.1:1".parse().unwrap(), None).is_some());
    }

    #[test]
    fn everything_else_gets_no_answer() {
        let from = "192.0.2.1:1".parse().unwrap();
        let good = request(&[]);
        let mut answer_to_us = good.clone();
        answer_to_us[0] = 0x01;
        let mut other_cookie = good.clone();
        other_cookie[4] = 0;
        let mut too_long = good.clone();
        too_long[3] = 4;
        let mut trailing = good.clone();
        trailing.push(0);
        let past_end = request(&[0x80, 0x22, 0xff, 0xff, 0, 0, 0, 0]);
        let torn = request(&[0x80, 0x22]);
        for bad in [
            answer_to_us,
            other_cookie,
            too_long,
            trailing,
            past_end,
            torn,
        ] {
            assert_eq!(answer(&bad, from, None), None);
        }
        for len in 0..HEADER_LEN {
            assert_eq!(answer(&good[..len], from, None), None);
        }
    }
}
