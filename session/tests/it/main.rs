//! Sessions with real processes, terminals and files.
#![cfg(feature = "io")]

#[cfg(test)]
mod clients;
#[cfg(test)]
mod common;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod events;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod world;
