//! A certificate as it is given, with its key: what it is for, and until when.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The longest chain, bytes of PEM; usually it is below 8 KiB.
const MAX_CHAIN: usize = 256 << 10;

/// What a certificate says of itself. It is not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateInfo {
    /// Seconds since 1970.
    pub(crate) from: u64,
    /// Seconds since 1970.
    pub(crate) until: u64,
    /// The names of hosts in it.
    pub(crate) names: Vec<String>,
}

impl CertificateInfo {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|error| error.to_string())?;
        let validity = certificate.validity();
        let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
        let others = certificate
            .subject_alternative_name()
            .map_err(|error| error.to_string())?;
        let others = others.map_or(&[][..], |others| &others.value.general_names[..]);
        let names = others.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        Ok(Self {
            from: seconds(validity.not_before.timestamp()),
            until: seconds(validity.not_after.timestamp()),
            names: names.collect(),
        })
    }

    /// Whether it is for all of these hosts.
    pub(super) fn is_for(&self, domains: &[String]) -> bool {
        domains.iter().all(|name| self.names.contains(name))
    }
}

/// A certificate to serve TLS with.
pub(crate) struct Certificate {
    pub(in crate::relay) key: Arc<CertifiedKey>,
    pub(in crate::relay) info: CertificateInfo,
}

impl Certificate {
    /// Of a chain and a key, in PEM.
    ///
    /// # Errors
    ///
    /// Why they cannot be used, or not together.
    pub(super) fn of(chain: &str, key: &str) -> Result<Self, String> {
        if chain.len() > MAX_CHAIN {
            return Err(format!("the chain is longer than {MAX_CHAIN} bytes"));
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let first = chain
            .first()
            .ok_or("there is no certificate in the chain")?;
        let info = CertificateInfo::read(first)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|error| error.to_string())?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        Ok(Self {
            key: Arc::new(key.map_err(|error| error.to_string())?),
            info,
        })
    }

    /// The same, if it is for these domains and good `now`.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub(super) fn check(self, domains: &[String], now: u64) -> Result<Self, String> {
        let missing = domains.iter().find(|name| !self.info.names.contains(name));
        if let Some(name) = missing {
            return Err(format!("it is not for {name}"));
        }
        if self.info.until <= now {
            return Err("it has ended".to_owned());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: &str = include_str!("../tests/localhost.cert.pem");
    const KEY: &str = include_str!("../tests/localhost.key.pem");

    #[test]
    fn a_certificate_says_for_whom_and_until_when() {
        let certificate = Certificate::of(CERT, KEY).unwrap();
        let info = certificate.info.clone();
        assert!(info.names.contains(&"localhost".to_owned()), "{info:?}");
        assert!(info.from < info.until, "{info:?}");
        let names = ["localhost".to_owned()];
        let checked = certificate.check(&names, info.until - 1);
        assert!(checked.unwrap().check(&names, info.until).is_err());
        let other = Certificate::of(CERT, KEY).unwrap();
        assert!(other.check(&["other".to_owned()], info.from).is_err());
    }

    #[test]
    fn what_is_none_is_refused() {
        let another = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let broken = CERT.replace("MII", "AII");
        let long = CERT.repeat(1 + MAX_CHAIN / CERT.len());
        for (chain, key) in [
            ("", KEY),
            (CERT, ""),
            (KEY, KEY),
            (CERT, CERT),
            (CERT, &*another),
            (&*broken, KEY),
            (&*long, KEY),
        ] {
            assert!(
                Certificate::of(chain, key).is_err(),
                "{chain:.40} {key:.40}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn bytes_of_strangers_are_read_or_refused(bytes: Vec<u8>) {
            let _ = CertificateInfo::read(&bytes);
        }
    }
}
