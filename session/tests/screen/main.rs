//! The law of the screen: for every byte at which a stream is cut, the restore
//! of the first part and then the second part show the same as the whole.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[cfg(feature = "io")]
mod attached;
mod cases;
mod foreign;
mod judges;
mod law;
mod random;
mod recorded;
