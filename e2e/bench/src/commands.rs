//! Whole commands of the program, from start to exit, as a user waits for them.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use crate::postgres::Server;
use crate::report::{Samples, row};

/// Alternating rounds.
const ROUNDS: usize = 40;
const TOKEN: &str = "bench-token";

/// Relays, mostly one, and two nodes; ended when dropped.
pub struct Rig {
    program: PathBuf,
    // Dropped in this order: who writes goes before what is written in.
    relays: Vec<Relay>,
    dir: tempfile::TempDir,
    /// The one that new nodes and whoever keeps the network are told of.
    named: usize,
    direct: bool,
    /// What the relays share, if there are several.
    _database: Option<Server>,
}

struct Relay {
    url: String,
    serve: Command,
    process: Child,
}

impl Relay {
    fn start(program: &Path, data: &Path, stun: &str, database: Option<&str>) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let url = format!("http://127.0.0.1:{port}");
        let mut serve = Command::new(program);
        serve
            .args(["relay", "serve", "--base-url", &url, "--stun-listen", stun])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(data)
            .env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN)
            .stderr(Stdio::null());
        if let Some(database) = database {
            serve.env("CW_DATABASE_URL", database);
            serve.env("CW_PEER_URL", "http://127.0.0.1:0");
        }
        let process = serve.spawn()?;
        Ok(Self {
            url,
            serve,
            process,
        })
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for node in ["dev-1", "dev-2"] {
            self.stop(node);
        }
    }
}

impl Rig {
    pub fn start(program: &Path) -> Result<Self> {
        Self::begin(program, "", true, None)
    }

    /// The same with an answer to STUN at this address, and by the relay if not direct.
    pub fn start_with(program: &Path, stun: SocketAddr, direct: bool) -> Result<Self> {
        Self::begin(program, &stun.to_string(), direct, None)
    }

    /// The same with two relays over one database, and by relays alone.
    pub fn start_together(program: &Path) -> Result<Self> {
        let server = Server::own().context("two relays share a PostgreSQL database")?;
        Self::begin(program, "", false, Some(server))
    }

    fn begin(program: &Path, stun: &str, direct: bool, server: Option<Server>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let database = server.as_ref().map(Server::database);
        let names: &[&str] = if server.is_some() {
            &["a", "b"]
        } else {
            &["relay"]
        };
        let mut relays = Vec::new();
        for name in names {
            let data = dir.path().join(name);
            relays.push(Relay::start(program, &data, stun, database.as_deref())?);
        }
        let rig = Self {
            program: program.to_path_buf(),
            dir,
            relays,
            named: 0,
            direct,
            _database: server,
        };
        rig.wait(|| rig.ok("dev-1", &["network", "create", "bench"]))?;
        for node in ["dev-1", "dev-2"] {
            let invite = rig.out("dev-1", &["network", "invite", "--mine"])?;
            rig.out(node, &["network", "join", invite.trim()])?;
        }
        rig.out("dev-1", &["launch", "planner", "--", "cat"])?;
        rig.out("dev-2", &["launch", "coder", "--", "cat"])?;
        rig.wait(|| {
            rig.out("dev-1", &["node", "list"])
                .is_ok_and(|text| text.contains(if direct { "direct" } else { "relayed" }))
        })?;
        Ok(rig)
    }

    /// Where a node keeps its files.
    pub fn home(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    /// The relay's process; the first one's, if there are several.
    pub fn relay_pid(&self) -> u32 {
        self.relays[0].process.id()
    }

    /// How many relays there are.
    pub const fn relays(&self) -> usize {
        self.relays.len()
    }

    /// Kills a relay. From now on the next one is named.
    pub fn kill_relay(&mut self, number: usize) {
        self.relays[number].kill();
        self.named = (number + 1) % self.relays.len();
    }

    /// Starts a relay that was killed, where it was.
    pub fn start_relay(&mut self, number: usize) -> Result<()> {
        let relay = &mut self.relays[number];
        relay.process = relay.serve.spawn()?;
        Ok(())
    }

    /// Whether a relay takes connections.
    pub fn answers(&self, number: usize) -> bool {
        let url = &self.relays[number].url;
        std::net::TcpStream::connect(url.trim_start_matches("http://")).is_ok()
    }

    fn url(&self) -> &str {
        &self.relays[self.named].url
    }

    /// Where the relay listens.
    pub fn relay(&self) -> SocketAddr {
        let address = self.url().trim_start_matches("http://").parse();
        address.unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Ends a node.
    pub fn stop(&self, node: &str) {
        let _ = self.cw(node, &["stop", "--grace", "1"]).output();
    }

    pub fn cw(&self, node: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("CODEWIRE_HOME", self.dir.path().join(node))
            .env("CODEWIRE_NODE_NAME", node)
            .env("CODEWIRE_DIRECT", if self.direct { "1" } else { "0" })
            .env("CODEWIRE_RELAY_URL", self.url())
            .env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN)
            .stdin(Stdio::null());
        command
    }

    pub fn ok(&self, node: &str, arguments: &[&str]) -> bool {
        self.cw(node, arguments)
            .output()
            .is_ok_and(|output| output.status.success())
    }

    pub fn out(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let output = self.cw(node, arguments).output()?;
        ensure!(
            output.status.success(),
            "cw {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn wait(&self, done: impl Fn() -> bool) -> Result<()> {
        for _ in 0..200 {
            if done() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the rig did not come up within ten seconds")
    }

    fn timed(&self, arguments: &[&str]) -> Result<Duration> {
        let start = Instant::now();
        ensure!(self.ok("dev-1", arguments), "cw {arguments:?} failed");
        Ok(start.elapsed())
    }

    /// From the start of `cw attach` to the first byte of the session on the terminal.
    pub fn attach(&self, session: &str) -> Result<Duration> {
        let pty = native_pty_system().openpty(PtySize {
            rows: 40,
            cols: 120,
            pixel_width: 0,
            pixel_height: 0,
        })?;
        let mut command = CommandBuilder::new(&self.program);
        command.args(["attach", session]);
        command.env("CODEWIRE_HOME", self.dir.path().join("dev-1"));
        let mut reader = pty.master.try_clone_reader()?;
        let start = Instant::now();
        let mut child = pty.slave.spawn_command(command)?;
        drop(pty.slave);
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !seen.windows(5).any(|window| window == b"MARK!") {
            let count = reader.read(&mut buffer).context("the terminal closed")?;
            ensure!(count > 0, "attach ended early");
            seen.extend_from_slice(&buffer[..count]);
        }
        let time = start.elapsed();
        pty.master.take_writer()?.write_all(b"\x02d")?;
        child.wait()?;
        Ok(time)
    }
}

use std::io::Write;

/// Measures and prints.
pub fn run(program: &str) -> Result<()> {
    let rig = Rig::start(&std::path::absolute(program)?)?;
    rig.out("dev-1", &["send", "planner", "MARK!"])?;
    rig.out("dev-2", &["send", "coder", "MARK!"])?;
    let mut figures: [Samples; 6] = Default::default();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        Command::new("true").status()?;
        figures[0].time(start.elapsed());
        figures[1].time(rig.timed(&["list"])?);
        figures[2].time(rig.timed(&["msg", "planner", "hello"])?);
        figures[3].time(rig.timed(&["msg", "-f", "planner", "dev-2:coder", "hello"])?);
        figures[4].time(rig.attach("planner")?);
        figures[5].time(rig.attach("dev-2:coder")?);
    }
    let [nothing, list, local, remote, attach, far] = &figures;
    let peer = Some(("true(1)", nothing));
    row("cw list, whole command", "us", list, peer, "<= 3 ms");
    row("cw msg, local, whole command", "us", local, peer, "");
    row(
        "cw msg, remote, whole command",
        "us",
        remote,
        Some(("cw msg local", local)),
        "",
    );
    row(
        "cw attach to first byte, local",
        "us",
        attach,
        peer,
        "<= 6 ms",
    );
    row(
        "cw attach to first byte, remote",
        "us",
        far,
        Some(("attach local", attach)),
        "",
    );
    Ok(())
}
