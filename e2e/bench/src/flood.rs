//! Calls between two nodes while both, and their relay, are flooded with forged packets: what the
//! slowest of a hundred takes, to what it takes in peace.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::commands::Rig;
use crate::forged::Flood;
use crate::report::{Samples, load};

const PER_SECOND: u64 = 50_000;
/// How long it is flooded, unless told; and how long is measured before and after.
const FLOODED: Duration = Duration::from_secs(60);
const PEACE: Duration = Duration::from_secs(10);
/// Between two calls.
const PAUSE: Duration = Duration::from_millis(2);

/// Measures and prints. `arguments` is nothing, or how many seconds.
pub fn run(program: &str, arguments: &[String]) -> Result<()> {
    let seconds = match arguments {
        [] => FLOODED,
        [seconds, ..] => Duration::from_secs(seconds.parse().context("usage: flood [seconds]")?),
    };
    println!("load before: {}", load());
    for direct in [true, false] {
        let stun = free_udp()?;
        let rig = Rig::start_with(&std::path::absolute(program)?, stun, direct)?;
        measure(&rig, stun, direct, seconds)?;
    }
    println!("load after: {}", load());
    Ok(())
}

fn measure(rig: &Rig, stun: SocketAddr, direct: bool, seconds: Duration) -> Result<()> {
    let mut targets = vec![stun];
    for node in ["dev-1", "dev-2"] {
        let standing = rig.out(node, &["node", "status", "--json"])?;
        let standing: serde_json::Value = serde_json::from_str(&standing)?;
        let ports = standing["network"]["udp"]["ports"].as_array();
        for port in ports
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_u64)
        {
            targets.push(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)));
        }
    }
    let mut line = Line::open(&rig.home("dev-1").join("codewire.sock"))?;
    let before = line.calls(PEACE)?;
    let flood = Flood::start(&targets, rig.relay(), PER_SECOND);
    let start = Instant::now();
    let during = line.calls(seconds)?;
    let rate = flood.sent() as f64 / start.elapsed().as_secs_f64();
    let sent = flood.sent();
    drop(flood);
    let after = line.calls(PEACE)?;
    let way = if direct { "direct" } else { "relayed" };
    println!(
        "{way}: {sent} forged packets in {:.1} s, {rate:.0} a second, at {} addresses and the relay",
        start.elapsed().as_secs_f64() - PEACE.as_secs_f64(),
        targets.len(),
    );
    for (when, calls) in [("before", &before), ("flooded", &during), ("after", &after)] {
        println!(
            "  {when:<8} {:>7} calls, none failed: p50 {:>8.0} us, p99 {:>8.0} us, max {:>8.0} us",
            calls.values().len(),
            calls.quantile(0.5),
            calls.quantile(0.99),
            calls.quantile(1.0),
        );
    }
    let peace = before.quantile(0.99).max(after.quantile(0.99));
    println!(
        "  p99 to that of peace: {:.2} x (goal <= 3 x)",
        during.quantile(0.99) / peace
    );
    Ok(())
}

fn free_udp() -> Result<SocketAddr> {
    Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

/// A connection to a node that is kept.
struct Line(UnixStream);

impl Line {
    fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(stream))
    }

    /// Calls for so long, one after the other. A call that fails is an error.
    fn calls(&mut self, seconds: Duration) -> Result<Samples> {
        let json = r#"{"type":"GetStatus","node":"dev-2","name":"coder"}"#;
        let call = crate::message::frame(json);
        let mut samples = Samples::default();
        let start = Instant::now();
        while start.elapsed() < seconds {
            let asked = Instant::now();
            self.0.write_all(&call)?;
            let answer = self.answer()?;
            samples.time(asked.elapsed());
            if !answer.contains(r#""SessionStatus""#) {
                bail!("a call failed: {answer}");
            }
            std::thread::sleep(PAUSE);
        }
        Ok(samples)
    }

    fn answer(&mut self) -> Result<String> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        ensure!(length <= 1 << 24, "a frame of {length} bytes");
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok(String::from_utf8(payload)?)
    }
}
