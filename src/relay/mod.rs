//! The relay: introduces nodes to each other and forwards what they seal.
//!
//! One process, one HTTP port: the API ([`api`]), the coordination of nodes
//! ([`coordinate`], over the pure [`directory`]) and DERP ([`derp`]); beside
//! it STUN on UDP ([`stun`]). Everything that has to survive is in the
//! [`store`]. The relay signs who is a member and sees who talks to whom; it
//! cannot read what they say.

mod acme;
pub(crate) mod api;
mod app;
mod assemble;
mod auth;
mod backup;
mod begun;
mod clock;
mod cluster;
mod config;
mod connection;
mod coordinate;
mod database;
mod derp;
mod directory;
pub(crate) mod error;
mod guards;
mod hub;
mod limiter;
mod listen;
mod login;
mod nonces;
mod page;
mod papers;
mod policy;
mod reports;
mod server;
mod shared;
pub(crate) mod signed;
pub(crate) mod ssh;
mod store;
mod strangers;
mod stun;
#[cfg(test)]
mod tests;
mod tls;
mod visits;

pub use acme::Acme;
pub(crate) use acme::{
    CertificateInfo, Standing as CertificateStanding, standing as certificate_standing,
};
pub(crate) use api::document as openapi;
pub(crate) use backup::{backup, check, check_at, restore};
pub use config::{Config, default_dir};
pub(crate) use config::{database_address, database_elsewhere, is_in_use};
pub use login::Providers;
pub use server::serve;
pub(crate) use store::Contents;
