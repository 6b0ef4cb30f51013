//! IPv4 by way of IPv6: addresses for a NAT64.
//!
//! A network without IPv4 may have a translator: whoever sends to an IPv6
//! address with a certain prefix and an IPv4 address in it (RFC 6052) reaches
//! the IPv4 host. The prefix shows when the name `ipv4only.arpa`, which has two
//! well-known IPv4 addresses and no others, resolves to IPv6 addresses all the
//! same (RFC 7050). To everybody but the sockets the translated addresses are
//! IPv4 addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The name to ask for, whose IPv6 addresses [`Prefix::discover`] takes.
pub(crate) const NAME: &str = "ipv4only.arpa";
/// What it resolves to in IPv4.
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
/// The lengths a prefix may have, the usual one first.
const LENGTHS: [usize; 6] = [96, 64, 56, 48, 40, 32];

/// The prefix of a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// With zeros after it.
    bytes: [u8; 16],
    /// In bits.
    len: usize,
}

impl Prefix {
    /// The prefix in the answer for [`NAME`], if there is one.
    pub(crate) fn discover(answers: impl IntoIterator<Item = Ipv6Addr>) -> Option<Self> {
        answers.into_iter().find_map(|answer| {
            LENGTHS.into_iter().find_map(|len| {
                let mut bytes = answer.octets();
                bytes[len / 8..].fill(0);
                let prefix = Self { bytes, len };
                let embedded = prefix.extract(answer)?;
                WELL_KNOWN.contains(&embedded).then_some(prefix)
            })
        })
    }

    /// The IPv6 address for an IPv4 address.
    pub(crate) fn embed(&self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = self.bytes;
        for (place, byte) in self.places().into_iter().zip(ip.octets()) {
            bytes[place] = byte;
        }
        bytes.into()
    }

    /// The IPv4 address in an IPv6 address of this translator.
    pub(crate) fn extract(&self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        let bytes = ip.octets();
        let found = Ipv4Addr::from(self.places().map(|place| bytes[place]));
        (self.embed(found) == ip).then_some(found)
    }

    /// Where to send what is for `to`.
    pub(crate) fn outward(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) => SocketAddr::new(self.embed(ip).into(), to.port()),
            IpAddr::V6(_) => to,
        }
    }

    /// Who it is that has sent from `source`.
    pub(crate) fn inward(&self, source: SocketAddr) -> SocketAddr {
        match source.ip() {
            IpAddr::V6(ip) => match self.extract(ip) {
                Some(ip) => SocketAddr::new(ip.into(), source.port()),
                None => source,
            },
            IpAddr::V4(_) => source,
        }
    }

    /// Which bytes the IPv4 address takes: those after the prefix, without the
    /// ninth, which is always zero.
    fn places(&self) -> [usize; 4] {
        let start = self.len / 8;
        std::array::from_fn(|n| {
            let place = start + n;
            place + usize::from(start <= 8 && place >= 8)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6052, 2.4: prefixes, and 192.0.2.33 in them.
    const SAMPLES: [(usize, &str); 6] = [
        (32, "2001:db8:c000:221::"),
        (40, "2001:db8:1c0:2:21::"),
        (48, "2001:db8:122:c000:2:2100::"),
        (56, "2001:db8:122:3c0:0:221::"),
        (64, "2001:db8:122:344:c0:2:2100::"),
        (96, "2001:db8:122:344::192.0.2.33"),
    ];

    #[test]
    fn the_samples_of_the_rfc_are_read_and_written() {
        let ip = Ipv4Addr::new(192, 0, 2, 33);
        for (len, text) in SAMPLES {
            let whole: Ipv6Addr = text.parse().unwrap();
            let mut bytes = whole.octets();
            bytes[len / 8..].fill(0);
            let prefix = Prefix { bytes, len };
            assert_eq!(prefix.embed(ip), whole, "/{len}");
            assert_eq!(prefix.extract(whole), Some(ip), "/{len}");
            let well_known = prefix.embed(WELL_KNOWN[1]);
            assert_eq!(Prefix::discover([well_known]), Some(prefix), "/{len}");
        }
    }

    #[test]
    fn other_answers_and_other_addresses_are_none() {
        assert_eq!(Prefix::discover([]), None);
        assert_eq!(Prefix::discover(["2001:db8::1".parse().unwrap()]), None);
        let prefix = Prefix::discover(["64:ff9b::192.0.0.170".parse().unwrap()]).unwrap();
        assert_eq!(
            prefix.extract("2001:db8::192.0.2.33".parse().unwrap()),
            None
        );
        let v6: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        assert_eq!((prefix.outward(v6), prefix.inward(v6)), (v6, v6));
        let v4: SocketAddr = "192.0.2.33:7".parse().unwrap();
        assert_eq!(
            prefix.outward(v4),
            "[64:ff9b::192.0.2.33]:7".parse().unwrap()
        );
        assert_eq!(prefix.inward(prefix.outward(v4)), v4);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes: [u8; 16], ip: [u8; 4]) {
            if let Some(prefix) = Prefix::discover([Ipv6Addr::from(bytes)]) {
                let ip = Ipv4Addr::from(ip);
                prop_assert_eq!(prefix.extract(prefix.embed(ip)), Some(ip));
            }
        }
    }
}
