//! A node is killed at a system call: at the k-th of a kind that one of its threads enters while
//! a script is played, for every k, by strace(1). Then what the disk has is judged as after any
//! other run.
//!
//! Strace counts for each thread by itself. The nodes of such a world have one thread for their
//! tasks, so that its count is that of the node, but for the threads that write to the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::client::{Client, End};
use super::collect;
use super::driver::Driver;
use super::listener::Listener;
use super::play::{Ends, Outcome, judged, listen};
use super::traffic::{Run, Sender, answer, text};
use super::world::World;
use crate::PATIENCE;
use crate::home::Part;
use crate::running::Running;
use crate::substrate::Host;

/// The calls that change something that others see: files, directories, pipes, sockets.
const CALLS: &str = "write,writev,pwrite64,sendto,sendmsg,splice,tee,fsync,fdatasync,ftruncate,\
    openat,mkdir,rename,renameat,renameat2,unlink,unlinkat,symlink,chmod,fchmod";

/// More of one kind are not tried: they are the same again.
const MOST: u32 = 40;

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Messages, requests and replies of sessions of one node.
    Local,
    /// Sessions are launched, renamed, labelled and ended.
    Sessions,
    /// Messages and a request to a node that is away and comes back.
    Away,
}

/// Where a node is killed.
#[derive(Clone, Debug)]
pub struct Point {
    /// While this is played.
    pub script: Script,
    /// At this call.
    pub call: String,
    /// The so-many-th of one thread.
    pub when: u32,
}

/// What came of it.
pub struct Killed {
    /// Whether it was killed; it may not have come so far this time.
    pub hit: bool,
    /// What was judged.
    pub outcome: Outcome,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} {}", self.script, self.call, self.when)
    }
}

impl Script {
    /// All.
    pub const ALL: [Self; 3] = [Self::Local, Self::Sessions, Self::Away];
}

/// Whether there is strace, and may be used.
///
/// # Errors
///
/// Why not.
pub fn available() -> Result<(), String> {
    let done = Command::new("strace")
        .args(["-qq", "-e", "inject=chdir:error=EPERM:when=9999", "true"])
        .output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim_end().to_owned()),
        Err(error) => Err(format!("strace: {error}")),
    }
}

/// Every point of a script, as it is played once without harm.
///
/// # Panics
///
/// When that breaks something.
#[must_use]
pub fn points(world: &World, script: Script) -> Vec<Point> {
    let file = world.home(Host::Dev1).dir().join("trace");
    let path = file.display().to_string();
    let words = [
        "-e".to_owned(),
        format!("trace={CALLS}"),
        "-o".to_owned(),
        path,
    ];
    let played = play(world, script, &words);
    let broken = &played.outcome.broken;
    assert!(broken.is_empty(), "{script:?}: {broken:?}");
    let trace = std::fs::read_to_string(file).unwrap_or_default();
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(rest)) = (words.next(), words.next()) else {
            continue;
        };
        // Not the second half of one that was interrupted by another.
        if let Some((call, _)) = rest.split_once('(').filter(|(call, _)| !call.is_empty()) {
            *counts.entry((call, thread)).or_default() += 1;
        }
    }
    let mut most: BTreeMap<&str, u32> = BTreeMap::new();
    for ((call, _), count) in counts {
        let known = most.entry(call).or_default();
        *known = (*known).max(count.min(MOST));
    }
    let all = most.into_iter().flat_map(|(call, most)| {
        (1..=most).map(move |when| Point {
            script,
            call: call.to_owned(),
            when,
        })
    });
    all.collect()
}

/// Plays a script, and the first node is killed at this point.
#[must_use]
pub fn kill_at(world: &World, point: &Point) -> Killed {
    let Point { call, when, .. } = point;
    let words = [
        "-e".to_owned(),
        format!("trace={call}"),
        "-e".to_owned(),
        format!("inject={call}:signal=KILL:when={when}"),
        "-o".to_owned(),
        "/dev/null".to_owned(),
    ];
    play(world, point.script, &words)
}

fn play(world: &World, script: Script, strace: &[String]) -> Killed {
    let mut hit = false;
    let mut run = Run::new(world, 0, 0);
    // Ids that no other run of this world has.
    run.seed = u64::from(run.number);
    let outcome = judged(&run, |run, driver, listeners| {
        let (killed, broken) = through(run, driver, listeners, script, strace)?;
        hit = killed;
        if broken.is_empty() {
            Ok(())
        } else {
            Err(broken.join("; "))
        }
    });
    Killed { hit, outcome }
}

fn through<'a>(
    run: &'a Run<'a>,
    driver: &Driver<'a>,
    listeners: &[Listener; 2],
    script: Script,
    strace: &[String],
) -> Result<(bool, Vec<String>), String> {
    Host::ALL
        .into_iter()
        .for_each(|host| driver.launch_talkers(host));
    thread::scope(|scope| {
        let ends = Ends(run, listeners);
        listen(run, scope, listeners);
        for host in Host::ALL {
            scope.spawn(move || answer(run, host, 1));
        }
        let before = run.world.home(Host::Dev1).wait_for(Part::Node, None);
        let tracer = attach(before, strace);
        let mut sessions = Sessions::new(run);
        match script {
            Script::Local => local(run),
            Script::Sessions => sessions.play(),
            Script::Away => away(run),
        }
        collect::drain(run)?;
        detach(tracer);
        run.end();
        let hit = run.world.home(Host::Dev1).pid(Part::Node) != Some(before);
        let broken = sessions.broken();
        // What counts is what the disk has.
        driver.crash(Host::Dev1, false);
        let found = collect::collect(run, listeners)?;
        found.into_iter().for_each(|line| run.write(line));
        let call = json!({"type": "KillByTags", "tags": [run.tag()], "grace_seconds": 0});
        let _ = run.client(Host::Dev2).call(&call, PATIENCE);
        drop(ends);
        Ok((hit, broken))
    })
}

/// It is attached when this returns.
fn attach(pid: Pid, words: &[String]) -> Running {
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &pid.as_raw_nonzero().to_string()]);
    let tracer = {
        command.args(words);
        Running::start(command, b"")
    };
    let _ = tracer.stderr.line("attached", PATIENCE);
    tracer
}

fn detach(mut tracer: Running) {
    let pid = i32::try_from(tracer.pid()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|_| tracer.runs()) {
        let _ = kill_process(pid, Signal::TERM);
        let _ = tracer.wait(PATIENCE);
    }
}

fn local(run: &Run<'_>) {
    let mut sender = Sender::new(run, Host::Dev1, 0);
    for number in 0..3 {
        let _ = sender.message_to((Host::Dev1, 1 + number % 2));
        let _ = sender.request_to((Host::Dev1, 1));
    }
    let _ = sender.broadcast_to(Host::Dev1);
    let _ = sender.message_to((Host::Dev1, 2));
}

fn away(run: &Run<'_>) {
    let mut sender = Sender::new(run, Host::Dev1, 0);
    let _ = sender.message_to((Host::Dev2, 1));
    if let Some(shim) = run.world.shim(Host::Dev2) {
        shim.cut();
    }
    for _ in 0..2 {
        let _ = sender.message_to((Host::Dev2, 0));
    }
    let _ = sender.request_to((Host::Dev2, 1));
    run.world.heal();
    let _ = sender.message_to((Host::Dev2, 0));
}

/// What is acknowledged of sessions.
struct Sessions<'a> {
    run: &'a Run<'a>,
    client: Client,
    /// By number: name and whether it runs, as was acknowledged; none when nobody knows.
    known: BTreeMap<u64, (Option<String>, Option<bool>)>,
}

impl<'a> Sessions<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            client: run.client(Host::Dev1),
            known: BTreeMap::new(),
        }
    }

    fn ask(&mut self, call: &Value) -> Option<Value> {
        match self.client.call(call, Duration::from_secs(60)) {
            End::Answer(answer) => Some(answer),
            End::Refused(..) | End::Lost(_) => None,
        }
    }

    fn play(&mut self) {
        let mut ids = Vec::new();
        for number in 0..3 {
            let name = format!("{}-x{number}", self.run.tag());
            let command = json!(["sh", "-c", "echo hello; sleep 1000"]);
            let call = json!({"type": "Launch", "name": name, "command": command});
            let launched = self.ask(&call).and_then(|answer| answer["id"].as_u64());
            if let Some(id) = launched {
                let _ = self.known.insert(id, (Some(name), Some(true)));
                ids.push(id);
            }
        }
        for (number, id) in ids.iter().enumerate() {
            let name = format!("{}-y{number}", self.run.tag());
            let call = json!({"type": "Rename", "id": id, "new_name": name});
            let renamed = self.ask(&call).is_some();
            if let Some(known) = self.known.get_mut(id) {
                known.0 = renamed.then_some(name);
            }
        }
        for id in ids.iter().take(2) {
            let call = json!({"type": "Kill", "id": id, "grace_seconds": 0});
            let killed = self.ask(&call).is_some();
            if let Some(known) = self.known.get_mut(id) {
                known.1 = killed.then_some(false);
            }
        }
        let mut sender = Sender::new(self.run, Host::Dev1, 0);
        let _ = sender.message_to((Host::Dev1, 1));
    }

    /// What is not as it was acknowledged.
    fn broken(&mut self) -> Vec<String> {
        let list = self
            .ask(&json!({"type": "ListSessions"}))
            .unwrap_or_default();
        let all = list["sessions"].as_array().cloned().unwrap_or_default();
        let mut broken = Vec::new();
        for (id, (name, runs)) in &self.known {
            let found = all.iter().find(|one| one["id"] == *id);
            let is = found.map(|one| (text(&one["name"]), one["status"] == "running"));
            let right = is.as_ref().is_some_and(|is| {
                name.as_ref().is_none_or(|name| *name == is.0)
                    && runs.is_none_or(|runs| runs == is.1)
            });
            if !right {
                broken.push(format!(
                    "session {id} should be {name:?}, {runs:?}; it is {is:?}"
                ));
            }
        }
        broken
    }
}
