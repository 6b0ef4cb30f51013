//! Keeper and node as processes that can be killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{PATIENCE, PROGRAM};

/// One directory with a keeper and its node.
pub(crate) struct World {
    dir: tempfile::TempDir,
    keeper: Child,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn start_in(dir: tempfile::TempDir) -> Self {
        let keeper = Command::new(PROGRAM)
            .arg("keeper")
            .arg(dir.path().join("home"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, keeper }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Asks the node, however long it takes until there is one.
    pub(crate) fn call(&self, words: &[&str]) -> Value {
        let start = Instant::now();
        loop {
            if let Some(answer) = self.try_call(words) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "no node answers {words:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn try_call(&self, words: &[&str]) -> Option<Value> {
        let mut stream = UnixStream::connect(self.path().join("control")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let line = serde_json::to_string(words).unwrap();
        writeln!(stream, "{line}").ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// Launches a shell command and waits for its first word.
    pub(crate) fn launch(&self, name: &str, script: &str) -> (String, u32) {
        let said = self.call(&["launch", name, "/bin/sh", "-c", script]);
        let id = said["id"].as_u64().unwrap_or_else(|| panic!("{said}"));
        let id = id.to_string();
        self.wait_for_output(&id, 0);
        (id, said["pid"].as_u64().unwrap() as u32)
    }

    /// The output of a session so far.
    pub(crate) fn output(&self, id: &str) -> Vec<u8> {
        let path = self.path().join("sessions").join(id).join("output.log");
        std::fs::read(path).unwrap()
    }

    /// Waits until the output has grown beyond `len`.
    pub(crate) fn wait_for_output(&self, id: &str, len: usize) {
        self.until("more output", || self.output(id).len() > len);
    }

    /// Waits for a condition.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "{what} never comes");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn node_pid(&self) -> u32 {
        self.call(&["pid"])["pid"].as_u64().unwrap() as u32
    }

    /// As written into the lock.
    pub(crate) fn keeper_pid(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.path().join("lock")).ok()?;
        text.trim().parse().ok()
    }

    /// Kills the keeper and waits until there is another.
    pub(crate) fn kill_keeper(&mut self) {
        let old = self.keeper_pid().unwrap();
        signal(old, Signal::KILL);
        if old == self.keeper.id() {
            self.keeper.wait().unwrap();
        }
        self.until("a new keeper", || {
            self.keeper_pid().is_some_and(|new| new != old)
        });
    }

    /// Kills the node and waits until there is another.
    pub(crate) fn kill_node(&self) {
        let old = self.node_pid();
        signal(old, Signal::KILL);
        self.until("a new node", || {
            let now = self.try_call(&["pid"]);
            now.is_some_and(|now| now["pid"].as_u64() != Some(u64::from(old)))
        });
    }

    /// Stops keeper and node as a user would.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        signal(self.keeper.id(), Signal::TERM);
        self.keeper.wait().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Both at the same moment, so that neither replaces the other.
        let node = self.try_call(&["pid"]);
        let node = node.and_then(|node| Some(node["pid"].as_u64()? as u32));
        let pids = [self.keeper_pid(), node];
        for pid in pids.iter().flatten() {
            try_signal(*pid, Signal::STOP);
        }
        for pid in pids.iter().flatten() {
            try_signal(*pid, Signal::KILL);
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    assert!(try_signal(pid, signal), "process {pid} is gone");
}

fn try_signal(pid: u32, signal: Signal) -> bool {
    Pid::from_raw(pid as i32).is_some_and(|pid| kill_process(pid, signal).is_ok())
}
