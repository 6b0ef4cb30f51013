//! A certificate that the relay gets by itself (ACME, RFC 8555), and renews.
//!
//! The relay proves that a domain is its own on the port where it speaks TLS (tls-alpn-01, RFC 8737):
//! the authority connects to port 443 of the domain and asks for nothing but the protocol
//! `acme-tls/1`; the answer is a certificate made for this one question ([`resolver`]). So nothing
//! before the relay may end TLS, and names with an asterisk cannot be proven.
//!
//! A certificate and its key, and the account at the authority, are kept in the relay's directory
//! ([`files`]): a relay that starts again asks for nothing. After two thirds of its time a
//! certificate is renewed ([`renewer`]), without a word to those who are connected. An authority that
//! is away, or that refuses, is asked again, later and later ([`pace`]); the relay runs meanwhile,
//! with the certificate it has.
//!
//! Each relay has its own certificate, those over one database too: the authority comes to the relay
//! that asks for one, so a domain has to lead to one relay alone.

mod certificate;
mod files;
mod order;
mod pace;
mod renewer;
mod resolver;
mod settings;
mod web;

pub(crate) use certificate::CertificateInfo;
pub(crate) use files::{Standing, standing};
pub(super) use renewer::Renewer;
pub(super) use resolver::is_challenge;
pub use settings::Acme;
pub(super) use settings::Settings;
