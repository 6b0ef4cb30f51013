//! Bulk beside Debian's `wireguard-go`, with TCP in its tunnel: two namespaces on a cable, a tunnel
//! between them, `iperf3` at both ends.
//!
//! It is the snapshot of 2022, without batches or offloads: a weak peer, and a sanity check.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::bulk::{self, Figures};
use crate::child::Pair;
use crate::lab::{self, run};
use crate::report::Samples;
use crate::way::Kind;
use crate::{lines, rounds};

/// Bytes in a round, MiB.
const LENGTH: u64 = 128;
/// How long something may take to be there.
const SOON: Duration = Duration::from_secs(10);

/// Measures and prints.
pub fn measure() -> Result<()> {
    if let Err(why) = is_here() {
        println!("absent: wireguard-go ({why:#})");
        return Ok(());
    }
    let tunnel = Tunnel::new()?;
    let mut pair = Pair::start(Kind::Ours)?;
    pair.settle()?;
    let mut ours = Figures::default();
    let [mut gbits, mut cpu, mut all, mut busy, mut busy_ours] = [const { Samples::new() }; 5];
    let gib = LENGTH as f64 / 1024.0;
    for _ in 0..rounds() {
        let before = machine()?;
        bulk::round(&mut pair, LENGTH << 20, &mut ours)?;
        let between = machine()?;
        let (fast, took) = tunnel.bulk()?;
        busy_ours.number((between - before) / gib);
        busy.number((machine()? - between) / gib);
        gbits.number(fast);
        cpu.number(took);
    }
    for (near, far) in ours.near.values().iter().zip(ours.far.values()) {
        all.number(near + far);
    }
    let peers = [("wireguard-go", Some(cpu), "<= 0.20 x")];
    lines("cpu of both ends for bulk", "s/GiB", &all, &peers);
    // What the kernel does for a tunnel device is in no process.
    let peers = [("wireguard-go", Some(busy), "<= 0.20 x if idle else")];
    lines("  the whole machine", "s/GiB", &busy_ours, &peers);
    let peers = [("wireguard-go", Some(gbits), "reported")];
    lines("bulk, one stream", "Gbit/s", &ours.gbits, &peers);
    Ok(())
}

fn is_here() -> Result<()> {
    lab::may_build()?;
    for program in ["wireguard-go --version", "wg --version", "iperf3 --version"] {
        run(program).context("apt-get install wireguard-go wireguard-tools iperf3")?;
    }
    Ok(())
}

/// The tunnel; gone when dropped.
struct Tunnel {
    names: [String; 2],
    ends: Vec<Child>,
    keys: tempfile::TempDir,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for end in &mut self.ends {
            stop(end);
        }
        for name in &self.names {
            let _ = run(&format!("ip netns del {name}"));
        }
    }
}

impl Tunnel {
    fn new() -> Result<Self> {
        let mut tunnel = Self {
            names: lab::names(["wg-1", "wg-2"]),
            ends: Vec::new(),
            keys: tempfile::tempdir()?,
        };
        let [one, two] = &tunnel.names;
        for name in &tunnel.names {
            run(&format!("ip netns add {name}"))?;
            run(&format!("ip -n {name} link set lo up"))?;
        }
        run(&format!(
            "ip -n {one} link add net type veth peer name net netns {two}"
        ))?;
        let mut public = Vec::new();
        for number in [0, 1] {
            let secret = run("wg genkey")?;
            std::fs::write(tunnel.key(number), &secret)?;
            public.push(public_key(&secret)?);
        }
        for number in [0, 1] {
            let end = tunnel.end(number)?;
            tunnel.ends.push(end);
        }
        for number in [0, 1] {
            tunnel.set_up(number, &public[1 - number])?;
        }
        Ok(tunnel)
    }

    fn key(&self, number: usize) -> std::path::PathBuf {
        self.keys.path().join(number.to_string())
    }

    /// Its devices share one directory of sockets.
    fn device(number: usize) -> String {
        format!("cw{}w{number}", std::process::id())
    }

    fn end(&self, number: usize) -> Result<Child> {
        let name = &self.names[number];
        run(&format!(
            "ip -n {name} addr add 10.79.0.{}/24 dev net",
            number + 1
        ))?;
        run(&format!("ip -n {name} link set net up"))?;
        let child = Command::new("ip")
            .args(["netns", "exec", name, "wireguard-go", "-f"])
            .arg(Self::device(number))
            .env("LOG_LEVEL", "silent")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(child)
    }

    fn set_up(&self, number: usize, other: &str) -> Result<()> {
        let (name, device) = (&self.names[number], Self::device(number));
        let key = self.key(number);
        let (own, far) = (number + 1, 2 - number);
        let set = format!(
            "ip netns exec {name} wg set {device} private-key {} listen-port 51820 peer {other} \
             allowed-ips 10.80.0.0/24 endpoint 10.79.0.{far}:51820",
            key.display()
        );
        let start = Instant::now();
        while let Err(error) = run(&set) {
            if start.elapsed() > SOON {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        run(&format!(
            "ip -n {name} addr add 10.80.0.{own}/24 dev {device}"
        ))?;
        run(&format!("ip -n {name} link set {device} up"))?;
        Ok(())
    }

    /// Gbit/s, and what it took of the processor, everybody together, s/GiB.
    fn bulk(&self) -> Result<(f64, f64)> {
        let [one, two] = &self.names;
        let mut server = Command::new("ip")
            .args(["netns", "exec", two, "iperf3", "-s", "-1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let client = format!("ip netns exec {one} iperf3 -c 10.80.0.2 -n {LENGTH}M -J");
        let start = Instant::now();
        let before = self.cpu()?;
        let said = loop {
            match run(&client).and_then(|said| report(&said)) {
                Ok(said) => break said,
                // The server needs a moment.
                Err(_) if start.elapsed() < SOON => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => {
                    stop(&mut server);
                    return Err(error);
                }
            }
        };
        let tunnels = self.cpu()? - before;
        stop(&mut server);
        let number = |at: &str| said.pointer(at).and_then(serde_json::Value::as_f64);
        let number = |at: &str| number(at).with_context(|| format!("iperf3 says no {at}"));
        let seconds = number("/end/sum_sent/seconds")?;
        let percent = number("/end/cpu_utilization_percent/host_total")?
            + number("/end/cpu_utilization_percent/remote_total")?;
        let bits = number("/end/sum_received/bits_per_second")?;
        let bytes = number("/end/sum_sent/bytes")?;
        let cpu = tunnels + percent / 100.0 * seconds;
        Ok((bits / 1e9, cpu / (bytes / f64::from(1 << 30))))
    }

    /// Processor time of the tunnel's ends so far, seconds.
    fn cpu(&self) -> Result<f64> {
        let times = self.ends.iter().map(|end| cpu_of(end.id()));
        times.sum()
    }
}

/// What iperf3 says; of some errors it tells by nothing else.
fn report(said: &str) -> Result<serde_json::Value> {
    let said: serde_json::Value = serde_json::from_str(said)?;
    match said.get("error") {
        Some(error) => bail!("iperf3: {error}"),
        None => Ok(said),
    }
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn public_key(secret: &str) -> Result<String> {
    let mut wg = Command::new("wg")
        .arg("pubkey")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = wg.stdin.take().context("no input")?;
    writeln!(told, "{secret}")?;
    drop(told);
    let done = wg.wait_with_output()?;
    if !done.status.success() {
        bail!("wg pubkey");
    }
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

/// Processor time of the whole machine so far, seconds.
fn machine() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("no stat")?;
    let fields = fields.split_whitespace().skip(1);
    let mut ticks = fields.map(|it| it.parse::<f64>().unwrap_or_default());
    let mut next = || ticks.next().unwrap_or_default();
    let (user, nice, system) = (next(), next(), next());
    let (_idle, _waiting) = (next(), next());
    let (hard, soft) = (next(), next());
    Ok((user + nice + system + hard + soft) / 100.0)
}

/// Processor time of a process so far, seconds.
fn cpu_of(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no stat")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|it| it.parse::<f64>().ok());
    let (user, system) = ticks().zip(ticks()).context("no times")?;
    // USER_HZ is 100 on every Linux.
    Ok((user + system) / 100.0)
}
