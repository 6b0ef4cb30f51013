//! The parties: how each is started and found.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{cw, nats, redis};
use crate::session::on_path;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cw,
    Nats,
    Redis,
}

/// A party that can be started.
pub struct Server {
    pub kind: Kind,
    pub program: PathBuf,
    pub always: bool,
}

/// A server that runs in a directory of its own; ended when dropped.
pub struct Running {
    pub dir: tempfile::TempDir,
    pub kind: Kind,
    program: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// A connection.
pub enum Line {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Which peers there are, and what they are measured by.
pub fn introduce() {
    for (name, kind) in [("nats-server", Kind::Nats), ("redis-server", Kind::Redis)] {
        if on_path(name).is_none() {
            println!("peer {name}: absent");
            continue;
        }
        // By its name: Debian's Redis is one file that looks how it was called.
        let program = PathBuf::from(name);
        let said = Command::new(&program).arg("--version").output();
        let said = said.map_or_else(|_| Vec::new(), |said| said.stdout);
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        println!("peer {name}: {said}");
        if kind == Kind::Nats && !nats::can_sync(&program) {
            println!("peer {name}: this version cannot be told to sync always; absent there");
        }
    }
}

/// Ours and the peers that are there.
pub fn parties(program: &Path, always: bool) -> Result<Vec<Server>> {
    let mut found = vec![Server {
        kind: Kind::Cw,
        program: program.to_path_buf(),
        always,
    }];
    for (name, kind) in [("nats-server", Kind::Nats), ("redis-server", Kind::Redis)] {
        let program = PathBuf::from(name);
        if on_path(name).is_some() && (kind != Kind::Nats || !always || nats::can_sync(&program)) {
            found.push(Server {
                kind,
                program,
                always,
            });
        }
    }
    Ok(found)
}

impl Server {
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Cw => "cw",
            Kind::Nats => "nats",
            Kind::Redis => "redis",
        }
    }

    /// Starts it, with so many recipients.
    pub fn start(&self, recipients: usize) -> Result<Running> {
        let dir = tempfile::Builder::new().prefix("cwb").tempdir()?;
        let port = free_port()?;
        let mut command = match self.kind {
            Kind::Cw => {
                let running = Running {
                    dir,
                    kind: self.kind,
                    program: self.program.clone(),
                    port: 0,
                    child: None,
                };
                cw::start(&running, self.always, recipients)?;
                return Ok(running);
            }
            Kind::Nats => nats::command(&self.program, dir.path(), port, self.always)?,
            Kind::Redis => redis::command(&self.program, dir.path(), port, self.always),
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let running = Running {
            dir,
            kind: self.kind,
            program: self.program.clone(),
            port,
            child: Some(child),
        };
        running.wait()?;
        if self.kind == Kind::Nats {
            nats::prepare(&mut running.connect()?)?;
        }
        Ok(running)
    }
}

impl Running {
    /// The program, as its client.
    pub fn cw(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .env("CODEWIRE_HOME", self.home())
            .env("CW_BENCH", self.dir.path())
            .env_remove("CW_SESSION_ID")
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "cw {arguments:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The directory of the node.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("cw")
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Line> {
        let limit = Some(Duration::from_secs(60));
        if self.kind == Kind::Cw {
            let stream = UnixStream::connect(self.home().join("codewire.sock"))?;
            stream.set_read_timeout(limit)?;
            return Ok(Line::Unix(stream));
        }
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(limit)?;
        let mut line = Line::Tcp(stream);
        if self.kind == Kind::Nats {
            nats::greet(&mut line)?;
        }
        Ok(line)
    }

    fn wait(&self) -> Result<()> {
        for _ in 0..400 {
            if self.connect().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        bail!("{:?} did not come up within ten seconds", self.kind)
    }

    /// The processes of the server.
    pub fn pids(&self) -> Vec<u32> {
        let Some(child) = &self.child else {
            let mark = format!("CW_BENCH={}", self.dir.path().display());
            return crate::session::process::of(&self.program, &mark);
        };
        vec![child.id()]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        let _ = self.cw(&["stop", "--grace", "1"]);
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
