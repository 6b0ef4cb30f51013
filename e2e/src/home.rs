//! The directory of one node as it looks from outside: which processes belong to it, what it
//! logged, and the end of all of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::cw::Cw;
use crate::wait::within;
use crate::{PATIENCE, wait_until};

/// How long `cw stop` may take at the end of a test before its processes are killed.
const STOP: Duration = Duration::from_secs(15);

/// One of the two processes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Answers calls.
    Node,
    /// Holds the terminals.
    Keeper,
}

/// The directory of a node.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
    cw: Cw,
}

impl Home {
    /// The node in `dir`, on whose host `cw` is typed like this.
    #[must_use]
    pub fn new(dir: &Path, cw: Cw) -> Self {
        Self {
            dir: dir.to_owned(),
            cw,
        }
    }

    /// `cw` on the host of this node.
    #[must_use]
    pub fn cw(&self) -> &Cw {
        &self.cw
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("codewire.sock")
    }

    /// What the node has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.join("node.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The process number of a part, if it runs.
    #[must_use]
    pub fn pid(&self, part: Part) -> Option<Pid> {
        let file = match part {
            Part::Node => "codewire.pid",
            Part::Keeper => "lock",
        };
        let text = std::fs::read_to_string(self.dir.join(file)).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        runs(pid).then_some(pid)
    }

    /// Waits until a part runs that is not `before`.
    ///
    /// # Panics
    ///
    /// When none does within [`PATIENCE`].
    #[track_caller]
    pub fn wait_for(&self, part: Part, before: Option<Pid>) -> Pid {
        wait_until(&format!("a {part:?} runs"), PATIENCE, || {
            match self.pid(part) {
                Some(pid) if Some(pid) != before => Ok(pid),
                other => Err(format!("{other:?}; the log says\n{}", self.log())),
            }
        })
    }

    /// Kills a part as nobody can prevent (SIGKILL), and returns its process number. It is gone
    /// when this returns.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[track_caller]
    pub fn kill(&self, part: Part) -> Pid {
        let pid = self.pid(part).unwrap_or_else(|| panic!("no {part:?} runs"));
        kill(pid);
        gone(pid);
        pid
    }

    /// Kills keeper and node as a crash of the machine would. The node is stopped first: it would
    /// start another keeper before it dies.
    ///
    /// # Panics
    ///
    /// When one of them does not run.
    #[track_caller]
    pub fn kill_both(&self) {
        let node = self
            .pid(Part::Node)
            .unwrap_or_else(|| panic!("no node runs"));
        let _ = kill_process(node, Signal::STOP);
        self.kill(Part::Keeper);
        kill(node);
        gone(node);
    }

    /// Ends everything that belongs to this directory: politely, then by force. Never panics.
    pub fn tear_down(&self) {
        if self.pid(Part::Node).is_some() {
            self.stop();
        }
        // Whatever is left carries the directory in its environment: keeper, node, sessions. One
        // that starts another while it is killed is met by the next round.
        let _ = within(STOP, || {
            let left = self.processes();
            left.iter().copied().for_each(kill);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
    }

    fn stop(&self) {
        let mut command = self.cw.command(&["stop", "--grace", "0"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let Ok(mut stop) = command.spawn() else {
            return;
        };
        let _ = within(STOP, || match stop.try_wait() {
            Ok(None) => Err("it runs".to_owned()),
            _ => Ok(()),
        });
        let _ = stop.kill();
        let _ = stop.wait();
    }

    /// The UDP ports of the node, as the kernel lists them.
    #[must_use]
    pub fn udp_ports(&self) -> Vec<u16> {
        let Some(pid) = self.pid(Part::Node) else {
            return Vec::new();
        };
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let sockets: Vec<String> = std::fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter_map(|link| {
                Some(
                    link.to_str()?
                        .strip_prefix("socket:[")?
                        .strip_suffix(']')?
                        .to_owned(),
                )
            })
            .collect();
        let mut ports: Vec<u16> = ["net/udp", "net/udp6"]
            .iter()
            .filter_map(|table| std::fs::read_to_string(process.join(table)).ok())
            .flat_map(|table| {
                table
                    .lines()
                    .filter_map(|row| port_of(row, &sockets))
                    .collect::<Vec<_>>()
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Every process that was started with this directory in its environment.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let mark = format!("CODEWIRE_HOME={}", self.dir.display()).into_bytes();
        let Ok(entries) = std::fs::read_dir("/proc") else {
            // No such directory on this system: the two numbers that we know.
            return [Part::Keeper, Part::Node]
                .into_iter()
                .filter_map(|part| self.pid(part))
                .collect();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                // One that has ended has no environment any more.
                let variables = std::fs::read(entry.path().join("environ")).ok()?;
                let ours = variables
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == mark);
                ours.then(|| Pid::from_raw(pid)).flatten()
            })
            .collect()
    }
}

/// The local port of a row of the kernel's table, if its socket is one of these.
fn port_of(row: &str, sockets: &[String]) -> Option<u16> {
    let columns: Vec<&str> = row.split_whitespace().collect();
    let (local, inode) = (columns.get(1)?, columns.get(9)?);
    let ours = sockets.iter().any(|socket| socket == inode);
    let (_, port) = local.split_once(':')?;
    ours.then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

fn kill(pid: Pid) {
    // It may have ended meanwhile.
    let _ = kill_process(pid, Signal::KILL);
}

#[track_caller]
fn gone(pid: Pid) {
    wait_until("a killed process is gone", PATIENCE, || {
        if runs(pid) {
            Err(format!("{pid:?} runs"))
        } else {
            Ok(())
        }
    });
}

/// Whether the process runs; one that has ended and that nobody has waited for does not.
fn runs(pid: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    match std::fs::read_to_string(path) {
        // The state is the first word after the name, which is in parentheses.
        Ok(stat) => !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => !Path::new("/proc/self").exists() && test_kill_process(pid).is_ok(),
    }
}
