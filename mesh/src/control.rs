//! The control messages of two nodes, inside their tunnel.
//!
//! One message a packet: a type byte, then fixed big-endian fields. Bytes after
//! the last field are ignored, which lets a probe be padded to any size and a
//! later version say more; unknown types are ignored too. Since WireGuard has
//! authenticated the packet, a message needs no key or signature of its own.
//!
//! | type | message | fields |
//! |---|---|---|
//! | 1 | hello | boot id u64 |
//! | 2 | hello seen | the other's boot id u64 |
//! | 3 | call me maybe | count u8, count × (IPv6 or mapped IPv4 address 16, port u16) |
//! | 4 | probe | id u64, padding |
//! | 5 | pong | id u64, address 16, port u16: where the probe came from |
//! | 6 | echo | id u64 |
//! | 7 | echo reply | id u64 |
//! | 8 | bye | |
//! | 9 | outside | 1 if the NAT gives the same address to all, 2 if not, u8; address 16, port u16 |
//! | 10 | open up | address 16, port u16 |
//! | 11 | knock | |

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::packet::{QUIC_MTU, WIDE_MTU};
use crate::reflect::{Mapping, Outside};

/// How many addresses one "call me maybe" holds. A machine with more
/// interfaces than that names its first ones.
pub(crate) const MAX_ENDPOINTS: usize = 16;

const ADDRESS_LEN: usize = 18;

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// "I am this run of the program." A peer that says another number than
    /// before has been restarted.
    Hello { boot: u64 },
    /// The hello with this boot id has arrived.
    HelloSeen { boot: u64 },
    /// "Here is where I may be reached; I am probing your addresses now."
    CallMeMaybe { endpoints: Vec<SocketAddr> },
    /// A full-size packet to find out whether an address works, or one of the
    /// larger size to find out whether those do.
    Probe { id: u64, wide: bool },
    /// The answer, sent back the way the probe came.
    Pong { id: u64, observed: SocketAddr },
    /// A small packet to find out whether the peer is there at all.
    Echo { id: u64 },
    /// The answer, sent back the way the echo came.
    EchoReply { id: u64 },
    /// "I am leaving, or have nothing to do with you any more."
    Bye,
    /// "This is how I look from outside my NAT."
    Outside(Outside),
    /// "I shall knock at ports of yours from this address: send something to it
    /// from as many ports as you have, so that your NAT lets me in."
    OpenUp { from: SocketAddr },
    /// A small packet to an address that is a guess.
    Knock,
}

impl Message {
    /// The bytes of the message. A probe has the size of a full QUIC datagram,
    /// of the smaller or the larger kind.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        match self {
            Self::Hello { boot } => put(&mut out, 1, *boot),
            Self::HelloSeen { boot } => put(&mut out, 2, *boot),
            Self::CallMeMaybe { endpoints } => {
                let endpoints = &endpoints[..endpoints.len().min(MAX_ENDPOINTS)];
                out.push(3);
                out.push(endpoints.len() as u8);
                for endpoint in endpoints {
                    put_address(&mut out, endpoint);
                }
            }
            Self::Probe { id, wide } => {
                put(&mut out, 4, *id);
                out.resize(if *wide { WIDE_MTU } else { QUIC_MTU }, 0);
            }
            Self::Pong { id, observed } => {
                put(&mut out, 5, *id);
                put_address(&mut out, observed);
            }
            Self::Echo { id } => put(&mut out, 6, *id),
            Self::EchoReply { id } => put(&mut out, 7, *id),
            Self::Bye => out.push(8),
            Self::Outside(Outside { addr, mapping }) => {
                let mapping = match mapping {
                    Mapping::Unknown => 0,
                    Mapping::Same => 1,
                    Mapping::Varies => 2,
                };
                out.extend([9, mapping]);
                put_address(&mut out, addr);
            }
            Self::OpenUp { from } => {
                out.push(10);
                put_address(&mut out, from);
            }
            Self::Knock => out.push(11),
        }
        out
    }

    /// Reads a message; `None` if it is unknown, too short, or a probe that has
    /// not the full size.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        Some(match kind {
            1 => Self::Hello {
                boot: number(rest)?,
            },
            2 => Self::HelloSeen {
                boot: number(rest)?,
            },
            3 => {
                let (count, rest) = rest.split_first()?;
                let count = usize::from(*count).min(MAX_ENDPOINTS);
                let endpoints = rest.get(..count * ADDRESS_LEN)?;
                let endpoints = endpoints.chunks_exact(ADDRESS_LEN);
                Self::CallMeMaybe {
                    endpoints: endpoints.filter_map(address).collect(),
                }
            }
            4 if bytes.len() >= QUIC_MTU => Self::Probe {
                id: number(rest)?,
                wide: bytes.len() >= WIDE_MTU,
            },
            5 => Self::Pong {
                id: number(rest)?,
                observed: address(rest.get(8..)?)?,
            },
            6 => Self::Echo { id: number(rest)? },
            7 => Self::EchoReply { id: number(rest)? },
            8 => Self::Bye,
            9 => {
                let (mapping, rest) = rest.split_first()?;
                let mapping = match mapping {
                    1 => Mapping::Same,
                    2 => Mapping::Varies,
                    _ => Mapping::Unknown,
                };
                let addr = address(rest)?;
                Self::Outside(Outside { addr, mapping })
            }
            10 => Self::OpenUp {
                from: address(rest)?,
            },
            11 => Self::Knock,
            _ => return None,
        })
    }
}

fn put(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_address(out: &mut Vec<u8>, address: &SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, rest) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(*rest.first_chunk()?);
    Some(SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let v4: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:65535".parse().unwrap();
        for message in [
            Message::Hello { boot: 1 },
            Message::HelloSeen { boot: u64::MAX },
            Message::CallMeMaybe {
                endpoints: vec![v4, v6],
            },
            Message::CallMeMaybe { endpoints: vec![] },
            Message::Probe { id: 3, wide: false },
            Message::Probe { id: 3, wide: true },
            Message::Pong {
                id: 4,
                observed: v4,
            },
            Message::Pong {
                id: 4,
                observed: v6,
            },
            Message::Echo { id: 5 },
            Message::EchoReply { id: 6 },
            Message::Bye,
            Message::Outside(Outside {
                addr: v4,
                mapping: Mapping::Varies,
            }),
            Message::Outside(Outside {
                addr: v6,
                mapping: Mapping::Same,
            }),
            Message::OpenUp { from: v6 },
            Message::Knock,
        ] {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Some(message.clone()));
            let longer = [&bytes[..], &[0; 9]].concat();
            assert_eq!(Message::decode(&longer), Some(message));
        }
    }

    #[test]
    fn a5_disco_what_is_no_message_is_ignored() {
        let full = |kind: u8, len: usize| [&[kind][..], &vec![0xa5; len]].concat();
        let mut rows = vec![
            ("nothing".to_owned(), vec![]),
            ("a probe that is small".to_owned(), full(4, 8)),
            ("a probe without an id".to_owned(), vec![4]),
            ("endpoints without a count".to_owned(), vec![3]),
            ("16 endpoints, none there".to_owned(), vec![3, 16]),
            (
                "255 endpoints, 15 there".to_owned(),
                [&[3, 255][..], &[1; 15 * 18]].concat(),
            ),
            ("one endpoint, cut".to_owned(), full(3, 17)),
            ("a pong without an address".to_owned(), full(5, 8)),
            ("a pong with half an address".to_owned(), full(5, 8 + 17)),
            ("outside of nothing".to_owned(), vec![9]),
            ("outside with half an address".to_owned(), full(9, 1 + 17)),
            ("a door without an address".to_owned(), vec![10]),
            ("a door with half an address".to_owned(), full(10, 17)),
        ];
        for kind in [0].into_iter().chain(12..=255) {
            rows.push((format!("kind {kind}"), full(kind, QUIC_MTU)));
        }
        for kind in [1, 2, 6, 7] {
            for len in 0..8 {
                rows.push((format!("kind {kind} of {len} bytes"), full(kind, len)));
            }
        }
        for (row, bytes) in rows {
            assert_eq!(Message::decode(&bytes), None, "{row}");
        }
        // Ten thousand endpoints are sixteen.
        let many = [&[3, 255][..], &[1; 10_000 * 18]].concat();
        let Some(Message::CallMeMaybe { endpoints }) = Message::decode(&many) else {
            panic!("it is one");
        };
        assert_eq!(endpoints.len(), MAX_ENDPOINTS);
    }

    #[test]
    fn a_probe_has_the_full_size() {
        let bytes = Message::Probe { id: 1, wide: false }.encode();
        assert_eq!(bytes.len(), QUIC_MTU);
        assert_eq!(Message::decode(&bytes[..QUIC_MTU - 1]), None);
        let wide = Message::Probe { id: 1, wide: true };
        assert_eq!(wide.encode().len(), WIDE_MTU);
    }

    #[test]
    fn more_addresses_than_allowed_are_cut() {
        let endpoint = "192.0.2.1:7".parse().unwrap();
        let endpoints = vec![endpoint; MAX_ENDPOINTS + 5];
        let bytes = Message::CallMeMaybe { endpoints }.encode();
        let Some(Message::CallMeMaybe { endpoints }) = Message::decode(&bytes) else {
            panic!("no message");
        };
        assert_eq!(endpoints.len(), MAX_ENDPOINTS);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            Message::decode(&bytes);
        }
    }
}
