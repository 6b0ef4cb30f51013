//! The relay under many nodes over real sockets: how soon all see a newcomer, how soon all are
//! back after the relay was killed, and what a node costs it.
//!
//! Networks beside each other stand for more nodes than one network is for.

mod crowd;
mod light;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::report::{Samples, head, load, row};
use crowd::Crowd;
use light::Light;

const TOKEN: &str = "bench-token";
/// Nodes that join while all others watch.
const NEWCOMERS: usize = 20;
/// Joins at the same time, while the network is filled.
const JOINERS: usize = 64;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Nodes of a network, and networks: measured unless told.
const SIZES: [(usize, usize); 2] = [(1_000, 1), (1_000, 10)];

/// Measures and prints. `arguments` is nothing, or nodes of a network and networks.
pub fn run(program: &str, arguments: &[String]) -> Result<()> {
    let numbers: Vec<usize> = arguments
        .iter()
        .map(|word| {
            word.parse()
                .context("usage: cw-bench relay <cw> [nodes [networks]]")
        })
        .collect::<Result<_>>()?;
    let sizes = match numbers[..] {
        [] => SIZES.to_vec(),
        [nodes] => vec![(nodes, 1)],
        [nodes, networks, ..] => vec![(nodes, networks)],
    };
    raise_limit();
    let program = std::path::absolute(program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    for (nodes, networks) in sizes {
        println!(
            "\n{nodes} nodes in each of {networks} network(s); load before: {}",
            load()
        );
        head();
        runtime.block_on(measure(&program, nodes, networks))?;
        println!("load after: {}", load());
    }
    Ok(())
}

async fn measure(program: &Path, nodes: usize, networks: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut relay = Relay::new(program, dir.path())?;
    relay.start().await?;
    let (crowd, mut sights) = Crowd::new(relay.address, nodes, nodes * networks);
    let crowd = Arc::new(crowd);
    let mut invites = Vec::new();
    for network in 0..networks {
        invites.push(relay.invite(&format!("bench-{network}")).await?);
    }
    let start = Instant::now();
    let lights = fill(&crowd, &invites).await?;
    single(
        "joined, all of them",
        "s",
        start.elapsed().as_secs_f64(),
        "",
    );

    let before = relay.resident()?;
    let start = Instant::now();
    let mut living = JoinSet::new();
    for light in lights {
        let crowd = Arc::clone(&crowd);
        living.spawn(async move { light.live(&crowd).await });
    }
    within(&crowd, "everybody sees everybody").await?;
    single(
        "connected, all see all",
        "s",
        start.elapsed().as_secs_f64(),
        "",
    );
    let each = (relay.resident()? - before) / crowd.all as f64;
    single("memory of a connected node", "KiB", each, "reported");

    let seen = newcomers(&crowd, &invites[0], &mut sights, &mut living).await?;
    single(
        "a join is seen by all, median",
        "ms",
        seen.median() / 1e3,
        "",
    );
    let goal = if networks == 1 {
        "<= 200 ms"
    } else {
        "reported"
    };
    single(
        "a join is seen by all, p99",
        "ms",
        seen.quantile(0.99) / 1e3,
        goal,
    );
    single(
        "a join is seen by all, last",
        "ms",
        seen.quantile(1.0) / 1e3,
        "",
    );

    come_back(&mut relay, &crowd, networks).await?;
    living.shutdown().await;
    Ok(())
}

/// Kills the relay, and waits until everybody is back.
async fn come_back(relay: &mut Relay, crowd: &Arc<Crowd>, networks: usize) -> Result<()> {
    let start = Instant::now();
    relay.kill()?;
    crowd.forget();
    relay.start().await?;
    let listens = start.elapsed();
    within(crowd, "everybody is back").await?;
    let goal = if networks == 1 { "<= 3 s" } else { "reported" };
    single("killed relay listens again", "s", listens.as_secs_f64(), "");
    single(
        "all are back and see all",
        "s",
        start.elapsed().as_secs_f64(),
        goal,
    );
    Ok(())
}

/// Lets everybody in.
async fn fill(crowd: &Arc<Crowd>, invites: &[String]) -> Result<Vec<Light>> {
    let mut joins = JoinSet::new();
    let mut lights = Vec::new();
    for number in 0..crowd.all {
        if joins.len() == JOINERS {
            lights.push(joins.join_next().await.context("no join")???);
        }
        let network = number / crowd.size;
        let (crowd, invite) = (Arc::clone(crowd), invites[network].clone());
        joins.spawn(async move {
            let network = format!("bench-{network}");
            let light = Light::join(crowd.relay, &network, &invite, number).await?;
            crowd.introduce(number, &light.record, &light.key());
            anyhow::Ok(light)
        });
    }
    while let Some(light) = joins.join_next().await {
        lights.push(light??);
    }
    Ok(lights)
}

/// From the request to join until each node has the record of who joined, one sample a node.
async fn newcomers(
    crowd: &Arc<Crowd>,
    invite: &str,
    sights: &mut UnboundedReceiver<(usize, Instant)>,
    living: &mut JoinSet<()>,
) -> Result<Samples> {
    let mut samples = Samples::default();
    for at in 0..NEWCOMERS {
        let start = Instant::now();
        let light = Light::join(crowd.relay, "bench-0", invite, crowd.all + at).await?;
        for _ in 0..crowd.size {
            let sight = timeout(LIMIT, sights.recv()).await?;
            let (_, when) = sight.context("nobody looks")?;
            samples.time(when.duration_since(start));
        }
        crowd.introduce(light.number, &light.record, &light.key());
        let crowd = Arc::clone(crowd);
        living.spawn(async move { light.live(&crowd).await });
    }
    Ok(samples)
}

async fn within(crowd: &Crowd, what: &str) -> Result<()> {
    let whole = timeout(LIMIT, crowd.whole()).await;
    ensure!(
        whole.is_ok(),
        "{what}: only {} of {} after {} s",
        crowd.complete(),
        crowd.all,
        LIMIT.as_secs()
    );
    Ok(())
}

fn single(name: &str, unit: &str, value: f64, goal: &str) {
    let mut samples = Samples::default();
    samples.number(value);
    row(name, unit, &samples, None, goal);
}

/// The relay's process; killed when dropped.
struct Relay {
    program: PathBuf,
    data: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Relay {
    fn new(program: &Path, dir: &Path) -> Result<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?;
        Ok(Self {
            program: program.to_path_buf(),
            data: dir.join("relay"),
            address: free.local_addr()?,
            child: None,
        })
    }

    /// Starts it, and waits until it listens.
    async fn start(&mut self) -> Result<()> {
        let url = format!("http://{}", self.address);
        let child = Command::new(&self.program)
            .args(["relay", "serve", "--base-url", &url, "--stun-listen", ""])
            .args(["--listen", &self.address.to_string(), "--data-dir"])
            .arg(&self.data)
            .env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN)
            .stderr(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        let start = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            ensure!(start.elapsed() < LIMIT, "the relay does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Makes a network, and an invite for as many as there may be.
    async fn invite(&self, network: &str) -> Result<String> {
        let from = light::address(0);
        let ask = async |path: &str, body| {
            light::post(self.address, from, path, Some(TOKEN), &body).await
        };
        ask("/api/v1/networks", json!({ "network_id": network })).await?;
        let new = json!({"network_id": network, "uses": 10_000, "ttl": "1h", "mine": true});
        let made = ask("/api/v1/invites", new).await?;
        let token = made["token"]
            .as_str()
            .or_else(|| made["invite_token"].as_str());
        Ok(token
            .with_context(|| format!("no token: {made}"))?
            .to_owned())
    }

    /// Its memory, KiB.
    fn resident(&self) -> Result<f64> {
        let child = self.child.as_ref().context("the relay does not run")?;
        resident(child.id())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The memory of a process, KiB.
pub fn resident(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// Ten thousand connections are ten thousand files.
pub fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
