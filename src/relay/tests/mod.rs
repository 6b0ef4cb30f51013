//! The relay and its nodes together, over loopback.

mod enrol;
mod hostile;
mod kv;
mod live;
mod rig;
mod start;
mod tls;
