//! The processes of a measurement, as whoever measures sees them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::way::Kind;

/// A process of this program; killed when dropped.
pub struct Child {
    process: Process,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
    /// What it said of itself.
    pub about: String,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Child {
    /// Starts it, in a network namespace if one is named, and waits until it is ready.
    pub fn start(namespace: Option<&str>, words: &[&str]) -> Result<Self> {
        match namespace {
            Some(namespace) => Self::behind(&["ip", "netns", "exec", namespace], words),
            None => Self::behind(&[], words),
        }
    }

    /// Starts it by another program, which is named with its own words, and waits until it is ready.
    pub fn behind(starter: &[&str], words: &[&str]) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = match starter {
            [starter, of_starter @ ..] => {
                let mut command = Command::new(starter);
                command.args(of_starter).arg(program);
                command
            }
            [] => Command::new(program),
        };
        let mut process = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let told = process.stdin.take().context("no input")?;
        let says = BufReader::new(process.stdout.take().context("no output")?);
        let about = String::new();
        let mut child = Self {
            process,
            told,
            says,
            about,
        };
        let line = child.hear()?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ready", about) => about.clone_into(&mut child.about),
            _ => bail!("{words:?} does not start: {line:?}"),
        }
        Ok(child)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Stops it where it is, as a sleeping machine does.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_child(&self.process);
        Ok(kill_process(id, signal)?)
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.says.read_line(&mut line)? > 0, "the process has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Tells it something, and gives what it says.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.told, "{line}")?;
        let said = self.hear()?;
        match said.starts_with("error: ") {
            true => bail!("{said}"),
            false => Ok(said),
        }
    }

    /// The same, where it says that many numbers.
    pub fn numbers<const N: usize>(&mut self, line: &str) -> Result<[f64; N]> {
        let said = self.ask(line)?;
        let numbers: Result<Vec<f64>, _> = said.split(' ').map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("{line}: {said:?}"))?;
        let numbers = numbers.try_into();
        numbers.map_err(|_| anyhow::anyhow!("{line}: not {N} numbers: {said:?}"))
    }
}

/// Where the processes of a way run; `None` on this machine as it is.
#[derive(Clone, Copy, Default)]
pub struct Where<'a> {
    pub near: Option<&'a str>,
    pub far: Option<&'a str>,
}

/// Both ends of a way, and its relay.
pub struct Pair {
    pub kind: Kind,
    pub near: Child,
    pub far: Child,
    _relay: Option<Child>,
}

impl Pair {
    /// Starts the ends, and the relay that they need, on this machine.
    pub fn start(kind: Kind) -> Result<Self> {
        let relay = match kind.relay() {
            Some(whose) => Some(Child::start(None, &["relay", whose, "127.0.0.1:0"])?),
            None => None,
        };
        let url = relay.as_ref().map_or("-", |relay| &relay.about).to_owned();
        let mut pair = Self::by(kind, &url, Where::default())?;
        pair._relay = relay;
        Ok(pair)
    }

    /// Starts the ends, with a relay that is there already.
    pub fn by(kind: Kind, url: &str, at: Where<'_>) -> Result<Self> {
        let far = Child::start(at.far, &["end", kind.name(), "far", url, "-"])?;
        let near = ["end", kind.name(), "near", url, &far.about];
        let mut near = Child::start(at.near, &near)?;
        near.ask("online")?;
        Ok(Self {
            kind,
            near,
            far,
            _relay: None,
        })
    }

    /// Waits until it is the way that it is to be.
    pub fn settle(&mut self) -> Result<()> {
        self.near.ask("first")?;
        match self.kind {
            Kind::Ours | Kind::OursSingly => drop(self.near.ask("path direct")?),
            Kind::OursRelayed => drop(self.near.ask("path relayed")?),
            _ => {}
        }
        Ok(())
    }

    /// Puts each end on a core.
    pub fn pin(&mut self, near: usize, far: usize) -> Result<()> {
        self.near.ask(&format!("pin {near}"))?;
        self.far.ask(&format!("pin {far}"))?;
        Ok(())
    }

    /// Processor time of both ends so far, seconds.
    pub fn cpu(&mut self) -> Result<[f64; 2]> {
        let [near] = self.near.numbers("cpu")?;
        let [far] = self.far.numbers("cpu")?;
        Ok([near, far])
    }

    /// Sends so many bytes: how fast, and what it took.
    pub fn bulk(&mut self, length: u64) -> Result<Bulk> {
        let [near, far] = self.cpu()?;
        let [seconds] = self.near.numbers(&format!("bulk {length}"))?;
        let [near_after, far_after] = self.cpu()?;
        let gib = length as f64 / f64::from(1 << 30);
        Ok(Bulk {
            gbits: length as f64 * 8.0 / seconds / 1e9,
            near: (near_after - near) / gib,
            far: (far_after - far) / gib,
        })
    }
}

/// What bulk was like.
pub struct Bulk {
    pub gbits: f64,
    /// Processor time of the end that sent, s/GiB.
    pub near: f64,
    /// Of the end that received.
    pub far: f64,
}
