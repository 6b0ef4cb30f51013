//! For which domains, and from whom: the arguments of `cw relay serve` about it, checked.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::Uri;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Result};
use crate::uplink::tls;

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Domains of one relay, at most. Each is proven whenever the certificate is renewed.
const MAX_DOMAINS: usize = 32;

/// The longest domain and the longest part of one, as DNS has it.
const MAX_DOMAIN: usize = 253;
const MAX_LABEL: usize = 63;

/// The longest address of a person.
const MAX_EMAIL: usize = 254;

/// A certificate that the relay gets by itself.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Acme {
    /// Get a certificate for this domain, and renew it (ACME); its authority's terms are thereby
    /// accepted. Port 443 of the domain has to lead to --listen. Once for each domain
    #[arg(
        long,
        value_name = "DOMAIN",
        value_delimiter = ',',
        env = "CW_ACME_DOMAIN"
    )]
    pub acme_domain: Vec<String>,

    /// Where the authority may write to when something is wrong with the certificate
    #[arg(long, value_name = "EMAIL", env = "CW_ACME_EMAIL")]
    pub acme_email: Option<String>,

    /// The directory of the authority [default: that of Let's Encrypt]
    #[arg(long, value_name = "URL", env = "CW_ACME_DIRECTORY")]
    pub acme_directory: Option<String>,

    /// A file with certificates (PEM) that the directory may have, instead of those this system
    /// trusts
    #[arg(long, value_name = "FILE", env = "CW_ACME_CA", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub acme_ca: Option<PathBuf>,
}

/// What a relay that gets its certificate by itself needs to know.
pub(crate) struct Settings {
    /// In small letters, sorted, each once, at least one.
    pub(super) domains: Vec<String>,
    pub(super) email: Option<String>,
    pub(super) directory: String,
    /// Whom the directory is believed to be.
    pub(super) trust: Arc<ClientConfig>,
}

impl Acme {
    /// What is wanted, if anything; `base_url` is the relay's.
    ///
    /// # Errors
    ///
    /// `config_invalid`, or `tls` when the system trusts nobody.
    pub(crate) fn check(&self, base_url: &str) -> Result<Option<Settings>> {
        // The service's environment file may have them empty.
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let authority = self.acme_ca.as_ref();
        let authority = authority.filter(|file| !file.as_os_str().is_empty());
        let (email, directory) = (given(&self.acme_email), given(&self.acme_directory));
        let named = self.acme_domain.iter().filter(|domain| !domain.is_empty());
        let mut domains = named.map(|text| domain(text)).collect::<Result<Vec<_>>>()?;
        if domains.is_empty() {
            let alone = [
                (email.is_some(), "--acme-email"),
                (directory.is_some(), "--acme-directory"),
                (authority.is_some(), "--acme-ca"),
            ];
            let alone = alone.iter().find(|(is_given, _)| *is_given);
            return match alone {
                Some((_, flag)) => Err(invalid(format!(
                    "{flag} is of no use without --acme-domain"
                ))
                .hint("name the relay's domain with --acme-domain")),
                None => Ok(None),
            };
        }
        domains.sort();
        domains.dedup();
        if domains.len() > MAX_DOMAINS {
            let many = domains.len();
            return Err(invalid(format!("{many} domains, {MAX_DOMAINS} at most")));
        }
        covers(&domains, base_url)?;
        email.as_deref().map_or(Ok(()), check_email)?;
        Ok(Some(Settings {
            email,
            directory: check_directory(directory.as_deref().unwrap_or(DIRECTORY))?,
            trust: match authority {
                Some(file) => trust_only(file)?,
                None => tls::client_config()?,
            },
            domains,
        }))
    }
}

/// A domain in small letters.
fn domain(text: &str) -> Result<String> {
    let wrong = |why: &str, hint: &str| {
        Err(invalid(format!("--acme-domain {text:?} {why}")).hint(hint.to_owned()))
    };
    let plain = "a domain is such as relay.example.com";
    if text.contains('*') {
        let hint = "a relay can prove its own names alone: name each, up to 32 of them";
        return wrong("is for many names", hint);
    }
    if text.parse::<IpAddr>().is_ok() || text.contains([':', '/', '[']) {
        return wrong("is no domain", plain);
    }
    if !text.is_ascii() {
        let hint = "write it as DNS has it, in letters of ASCII that begin with xn--";
        return wrong("is not in letters of ASCII", hint);
    }
    let is_label = |label: &str| {
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(is_inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > MAX_DOMAIN || !text.split('.').all(is_label) {
        return wrong("is no domain", plain);
    }
    Ok(text.to_ascii_lowercase())
}

/// Whoever comes to the relay comes to its base URL, and looks for that name in the certificate.
fn covers(domains: &[String], base_url: &str) -> Result<()> {
    let url: Option<Uri> = base_url.parse().ok();
    let host = url.as_ref().and_then(Uri::host).unwrap_or_default();
    let host = host.to_ascii_lowercase();
    let is_https = url.as_ref().and_then(Uri::scheme_str) == Some("https");
    if is_https && domains.contains(&host) {
        return Ok(());
    }
    let first = &domains[0];
    let what = format!("--base-url {base_url:?} is not at one of the domains of --acme-domain");
    Err(invalid(what).hint(format!("it would be https://{first}, or one of the others")))
}

fn check_email(text: &str) -> Result<()> {
    let parts = text.split_once('@');
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    let is_one = parts.is_some_and(|(name, at)| is_word(name) && is_word(at) && !at.contains('@'));
    if is_one && text.len() <= MAX_EMAIL && !text.contains([',', '?', '<', '>']) {
        return Ok(());
    }
    Err(
        invalid(format!("--acme-email {text:?} is no e-mail address"))
            .hint("one address, such as admin@example.com"),
    )
}

fn check_directory(text: &str) -> Result<String> {
    let url: Option<Uri> = text.parse().ok();
    let is_https = url.is_some_and(|url| url.scheme_str() == Some("https") && url.host().is_some());
    if is_https {
        return Ok(text.to_owned());
    }
    Err(
        invalid(format!("--acme-directory {text:?} is no https URL")).hint(format!(
            "Let's Encrypt has its own at {DIRECTORY}, and one to try things with at \
             https://acme-staging-v02.api.letsencrypt.org/directory"
        )),
    )
}

fn trust_only(file: &Path) -> Result<Arc<ClientConfig>> {
    let unusable = |why: &dyn std::fmt::Display| {
        invalid(format!("--acme-ca {} is not usable: {why}", file.display()))
            .hint("a file with one certificate or more in PEM")
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"there is no certificate in it"));
    }
    tls::config_with(roots)
}

fn invalid(message: String) -> Error {
    Error::new("config_invalid", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &[u8] = include_bytes!("../tests/localhost.cert.pem");

    fn acme(domains: &[&str], dir: &tempfile::TempDir) -> Acme {
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, ROOT).unwrap();
        Acme {
            acme_domain: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            acme_ca: Some(ca),
            ..Acme::default()
        }
    }

    #[track_caller]
    fn refused(acme: &Acme, base_url: &str, word: &str) {
        let error = acme.check(base_url).err().unwrap();
        assert_eq!(error.code, "config_invalid");
        let hint = error.hint.clone().unwrap_or_default();
        let said = format!("{} {hint}", error.message);
        assert!(said.contains(word), "{said}");
    }

    #[test]
    fn domains_are_sorted_and_each_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = acme(
            &["b.example.com", "A.example.com", "b.example.com", ""],
            &dir,
        );
        let settings = wanted.check("https://B.example.com:8443").unwrap().unwrap();
        assert_eq!(settings.domains, ["a.example.com", "b.example.com"]);
        assert_eq!(settings.directory, DIRECTORY);
        assert!(Acme::default().check("http://x").unwrap().is_none());
    }

    #[test]
    fn what_is_no_domain_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let long = ["a".repeat(64), "a.".repeat(127) + "a"];
        for (text, word) in [
            ("*.example.com", "name each"),
            ("192.0.2.1", "relay.example.com"),
            ("::1", "relay.example.com"),
            ("[::1]", "relay.example.com"),
            ("https://x.example", "relay.example.com"),
            ("relay.example.com:443", "relay.example.com"),
            ("bücher.example", "xn--"),
            ("relay..example", "no domain"),
            ("relay.example.", "no domain"),
            ("-a.example", "no domain"),
            ("a-.example", "no domain"),
            ("a_b.example", "no domain"),
            ("a b.example", "no domain"),
            ("a\u{0}.example", "no domain"),
            (&long[0], "no domain"),
            (&long[1], "no domain"),
        ] {
            refused(&acme(&[text], &dir), "https://relay.example.com", word);
        }
        let many: Vec<_> = (0..=MAX_DOMAINS).map(|n| format!("r{n}.example")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        refused(&acme(&many, &dir), "https://r0.example", "32 at most");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let well = acme(&["relay.example"], &dir);
        refused(&well, "http://relay.example", "https://relay.example");
        refused(&well, "https://other.example", "https://relay.example");
        let alone = Acme {
            acme_email: Some("me@example.com".to_owned()),
            ..Acme::default()
        };
        refused(&alone, "https://relay.example", "--acme-domain");
        for text in ["me", "@", "me@", "a@b@c", "a b@c", "a@b,c@d", "a@b?x=y"] {
            let mut wrong = well.clone();
            wrong.acme_email = Some(text.to_owned());
            refused(&wrong, "https://relay.example", "--acme-email");
        }
        for text in ["http://ca.example/dir", "ca.example", "https://"] {
            let mut wrong = well.clone();
            wrong.acme_directory = Some(text.to_owned());
            refused(&wrong, "https://relay.example", "--acme-directory");
        }
        for content in [
            &b""[..],
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let wrong = acme(&["relay.example"], &dir);
            std::fs::write(wrong.acme_ca.as_ref().unwrap(), content).unwrap();
            refused(&wrong, "https://relay.example", "ca.pem");
        }
    }
}
