//! The programs that are compared: how each is told to do the same thing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No program at all: a terminal as it is.
    Raw,
    Cw,
    Tmux,
    Dtach,
    Screen,
    Shpool,
    Rmux,
}

/// All that are looked for on the `PATH`.
const PEERS: [Kind; 5] = [
    Kind::Tmux,
    Kind::Dtach,
    Kind::Screen,
    Kind::Shpool,
    Kind::Rmux,
];

/// One of them, with a directory of its own; ended when dropped.
pub struct Peer {
    pub kind: Kind,
    program: PathBuf,
    dir: tempfile::TempDir,
    /// What its processes carry in their environment.
    mark: String,
    /// A server that does not start by itself.
    server: Option<Child>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.kind == Kind::Cw {
            let _ = self.command(&["stop", "--grace", "1"]).output();
        }
        for pid in self.pids() {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if let Some(server) = &mut self.server {
            let _ = server.wait();
        }
    }
}

/// The terminal as it is, `cw`, and all peers that are there, each freshly started.
pub fn all(program: &Path) -> Result<Vec<Peer>> {
    let mut found = vec![
        Peer::start(Kind::Raw, PathBuf::new())?,
        Peer::start(Kind::Cw, program.to_path_buf())?,
    ];
    for kind in PEERS {
        if let Some(program) = on_path(kind.name()) {
            found.push(Peer::start(kind, program)?);
        }
    }
    Ok(found)
}

/// Prints which peers there are.
pub fn introduce() {
    for kind in PEERS {
        let version = on_path(kind.name()).map_or_else(
            || "absent".to_owned(),
            |program| {
                let flag = kind.version_flag();
                let output = Command::new(program).arg(flag).output();
                let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
                let text = String::from_utf8_lossy(&text).into_owned();
                text.lines().next().unwrap_or("present").to_owned()
            },
        );
        println!("peer {}: {version}", kind.name());
    }
}

/// A program on the `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|dir| dir.join(name));
    files.find_map(|file| file.canonicalize().ok().filter(|file| file.is_file()))
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Cw => "cw",
            Self::Tmux => "tmux",
            Self::Dtach => "dtach",
            Self::Screen => "screen",
            Self::Shpool => "shpool",
            Self::Rmux => "rmux",
        }
    }

    const fn version_flag(self) -> &'static str {
        match self {
            Self::Tmux | Self::Rmux => "-V",
            Self::Shpool => "version",
            _ => "--version",
        }
    }

    /// Whether a terminal gets the bytes of the program as they are.
    pub const fn passes(self) -> bool {
        matches!(self, Self::Raw | Self::Cw | Self::Dtach | Self::Shpool)
    }

    /// So slow that less is asked of it.
    pub const fn slow(self) -> bool {
        matches!(self, Self::Screen | Self::Shpool)
    }

    /// Whether one process holds many sessions.
    pub const fn serves_many(self) -> bool {
        matches!(self, Self::Cw | Self::Tmux | Self::Rmux)
    }
}

impl Peer {
    /// In a new directory, with nothing in it.
    pub fn start(kind: Kind, program: PathBuf) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cwb").tempdir()?;
        let mark = format!("CW_BENCH={}", dir.path().display());
        std::fs::write(
            dir.path().join("tmux.conf"),
            "set -g status off\nset -s exit-empty off\n",
        )?;
        std::fs::create_dir(dir.path().join("screen"))?;
        let only_me = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir.path().join("screen"), only_me)?;
        let mut peer = Self {
            kind,
            program,
            dir,
            mark,
            server: None,
        };
        if kind == Kind::Shpool {
            let mut daemon = peer.command(&["daemon"]);
            daemon.stdout(Stdio::null()).stderr(Stdio::null());
            peer.server = Some(daemon.spawn()?);
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(peer)
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its processes now, clients too.
    pub fn pids(&self) -> Vec<u32> {
        match self.kind {
            Kind::Raw => Vec::new(),
            _ => process::of(&self.program, &self.mark),
        }
    }

    /// Its processes without the clients that are named.
    pub fn servers(&self, clients: &[u32]) -> Vec<u32> {
        let mut pids = self.pids();
        pids.retain(|pid| !clients.contains(pid));
        pids
    }

    fn place(&self, command: &mut Command) {
        let dir = self.dir.path();
        for name in ["TMUX", "STY", "CW_SESSION_ID", "SHPOOL_SESSION_NAME"] {
            command.env_remove(name);
        }
        command
            .env("CW_BENCH", dir)
            .env("HOME", dir)
            .env("XDG_RUNTIME_DIR", dir)
            .env("XDG_CONFIG_HOME", dir)
            .env("TMUX_TMPDIR", dir)
            .env("RMUX_TMPDIR", dir)
            .env("SCREENDIR", dir.join("screen"))
            .env("CODEWIRE_HOME", dir.join("cw"))
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .env("LANG", "C.UTF-8")
            .current_dir(dir);
    }

    /// The program with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let dir = self.dir.path();
        match self.kind {
            Kind::Tmux | Kind::Rmux => {
                command
                    .args(["-L", "bench", "-f"])
                    .arg(dir.join("tmux.conf"));
            }
            Kind::Screen => {
                command.args(["-c", "/dev/null"]);
            }
            Kind::Shpool => {
                command.arg("--socket").arg(dir.join("shpool.sock"));
            }
            _ => {}
        }
        command.args(arguments).stdin(Stdio::null());
        self.place(&mut command);
        command
    }

    fn socket(&self, session: &str) -> String {
        self.dir.path().join(session).display().to_string()
    }

    /// Starts `script` by `sh` in a session with nobody attached.
    pub fn launch(&self, session: &str, script: &str) -> Command {
        let sh = ["/bin/sh", "-c", script];
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |more: &[&str]| arguments.extend(more.iter().map(ToString::to_string));
        match self.kind {
            Kind::Raw => {}
            Kind::Cw => {
                add(&["launch", session, "--"]);
                add(&sh);
            }
            Kind::Tmux | Kind::Rmux => {
                add(&["new-session", "-d", "-s", session, "-x", "120", "-y", "40"]);
                add(&sh);
            }
            Kind::Dtach => {
                add(&["-n", &self.socket(session)]);
                add(&sh);
            }
            Kind::Screen => {
                add(&["-dmS", session]);
                add(&sh);
            }
            // It takes one string, and splits it as a shell would.
            Kind::Shpool => {
                let quoted = format!("/bin/sh -c '{script}'");
                add(&["attach", "-b", "-c", &quoted, session]);
            }
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.command(&arguments)
    }

    /// Runs a command to its end.
    pub fn run(&self, mut command: Command) -> Result<String> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `screen -ls` says how many there are by its status.
        ensure!(
            output.status.success() || self.kind == Kind::Screen,
            "{command:?}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    /// Starts a session, or for [`Kind::Raw`] prepares to start it on the terminal.
    pub fn open(&self, session: &str, script: &str) -> Result<()> {
        if self.kind == Kind::Raw {
            return Ok(());
        }
        let ran = self.run(self.launch(session, script));
        ran.map(|_| ())
            .with_context(|| format!("{} does not launch", self.name()))
    }

    /// The client of a session; for [`Kind::Raw`] the script itself.
    pub fn attach(&self, session: &str, script: &str) -> Command {
        match self.kind {
            Kind::Raw => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", script]);
                self.place(&mut command);
                command
            }
            Kind::Cw | Kind::Shpool => self.command(&["attach", session]),
            Kind::Tmux | Kind::Rmux => self.command(&["attach-session", "-t", session]),
            Kind::Dtach => self.command(&["-a", &self.socket(session), "-r", "winch"]),
            Kind::Screen => self.command(&["-r", session]),
        }
    }

    /// The command that lists sessions, if there is one.
    pub fn list(&self) -> Option<Command> {
        match self.kind {
            Kind::Raw | Kind::Dtach => None,
            Kind::Cw | Kind::Shpool => Some(self.command(&["list"])),
            Kind::Tmux | Kind::Rmux => Some(self.command(&["list-sessions"])),
            Kind::Screen => Some(self.command(&["-ls"])),
        }
    }
}
