//! The relay and its nodes together, over loopback.

mod churn;
mod enrol;
mod evil;
mod hostile;
mod kv;
mod lies;
mod live;
mod matrix;
mod packets;
mod page;
mod postgres;
mod requests;
mod rig;
mod rotate;
mod ssh;
mod start;
mod stolen;
mod tls;
mod two;
