//! Faults, from a seed: everybody talks while processes die, stop and run out of things, links
//! break and clocks jump; then all is healed, and what is found is judged ([`crate::history`]).
//!
//! A [`World`](world::World) is a relay and two nodes that stay for several runs. A *run* has
//! sessions of its own on both nodes; each is a sender that makes its calls one after the other,
//! asks again with the same id when its node is lost before it has answered, as `cw` does, and
//! replies to what it is asked. A [`plan`] that follows from the seed says which fault comes after
//! how many calls. In the end both machines crash, and the inboxes are read from what their disks
//! have. How calls and faults interleave is left to the machine: a seed gives the same plan, not
//! the same race.

pub mod play;

mod client;
mod collect;
mod driver;
mod listener;
mod plan;
mod rng;
mod shim;
pub mod syscalls;
mod traffic;
pub mod world;
