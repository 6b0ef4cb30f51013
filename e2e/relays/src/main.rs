//! Measures our relay beside iroh's, in one run, in alternating rounds. Nothing here passes or
//! fails.
//!
//! `cw-relays [throughput|delay|memory …]`: all of them, or those named. Each relay runs in a
//! process of its own (`cw-relays serve …`), its clients in this one. Printed are medians over the
//! rounds, the ratio, the goal and the machine's load; and what of the relay's processor each
//! figure took, which a busy machine changes less.
//!
//! Theirs is also measured with ten datagrams in a message, as iroh sends them when it has as many
//! at once.

mod client;
mod delay;
mod load;
mod memory;
#[path = "../../bench/src/report.rs"]
#[expect(dead_code, reason = "others print more")]
mod report;
mod serve;
mod throughput;

use anyhow::{Result, bail};
use client::Kind;
use report::{head, load};
use serve::Tls;

fn main() -> Result<()> {
    raise_limit();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["serve", what, dir, ref core @ ..] = words[..] {
        return serve::run(what, dir, core.first().copied());
    }
    if let ["load", kind, address, dir] = words[..] {
        return load::run(kind, address, dir);
    }
    let parts = match words[..] {
        [] => vec!["throughput", "delay", "memory"],
        _ => words,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    println!("load before: {}", load());
    if !Kind::Theirs.is_here() {
        println!("absent: iroh-relay was not built");
    }
    head();
    for part in parts {
        for tls in [Tls::Plain, Tls::Tls] {
            match part {
                "throughput" => runtime.block_on(throughput::run(tls))?,
                "delay" => runtime.block_on(delay::run(tls))?,
                "memory" => runtime.block_on(memory::run(tls))?,
                _ => bail!("usage: cw-relays [throughput|delay|memory …]"),
            }
        }
    }
    println!("load after: {}", load());
    Ok(())
}

/// Ten thousand connections are ten thousand files.
fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
