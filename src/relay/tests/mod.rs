//! The relay and its nodes together, over loopback.

mod enrol;
mod evil;
mod hostile;
mod kv;
mod lies;
mod live;
mod rig;
mod rotate;
mod ssh;
mod start;
mod stolen;
mod tls;
