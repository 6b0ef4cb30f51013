//! What a machine does to a node: it hangs, the disk is full, files are gone, there are no more
//! descriptors, a session multiplies. Each is told in clear words, no other session is touched,
//! and everything goes on when it is over.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::case::or_skip;
use e2e::home::Part;
use e2e::pty::Terminal;
use e2e::running::Running;
use e2e::steps::{self, ECHO, SLEEPER};
use e2e::{Cw, Local, PATIENCE, case, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// What a file takes of a disk that is held in memory, bytes.
const PAGE: u64 = 4096;

/// A session answers.
#[track_caller]
fn answers(cw: &Cw, session: &str, word: &str) {
    let _ = cw.run(&["send", session, word]).ok();
    steps::wait_for_output(cw, session, &format!("got:{word}"));
}

/// Stops a process. Its threads may go on for a moment, and take what is typed then.
#[track_caller]
fn stand_still(process: Pid) {
    kill_process(process, Signal::STOP).expect("it lives");
    let tasks = format!("/proc/{}/task", process.as_raw_nonzero());
    wait_until("every thread stands still", PATIENCE, || {
        for task in std::fs::read_dir(&tasks).map_err(|error| error.to_string())? {
            let path = task.map_err(|error| error.to_string())?.path().join("stat");
            let stat = std::fs::read_to_string(path).unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            // One that has gone meanwhile moves no more.
            if !stat.is_empty() && !state.starts_with('T') {
                return Err(stat);
            }
        }
        Ok(())
    });
}

#[test]
fn a_node_that_hangs_is_told_and_replaced() {
    case(&Local::new(CW), |local| {
        let (cw, home) = (local.cw(), local.home());
        steps::launch(cw, "coder", &ECHO);
        let mut terminal = Terminal::run(cw, &["attach", "coder"]);
        terminal.shows("attached to coder", PATIENCE);
        let stop = || stand_still(home.pid(Part::Node).expect("it runs"));
        stop();
        terminal.type_in("\u{2}d");
        let asked = [
            cw.start(&["list"]),
            cw.start(&["launch", "--", "true"]),
            cw.start(&["wait", "coder"]),
            cw.start(&["logs", "-f", "coder"]),
        ];
        for asked in asked {
            let told = asked.wait(PATIENCE * 2).fails("node_unresponsive");
            assert_eq!(told.hints("cw node restart").status, Some(5));
        }
        // The user has the terminal back; the node that hangs has it open as well.
        terminal.shows("detached from coder", PATIENCE);
        terminal.restored().expect("the terminal is as it was");
        let restarted = cw.start(&["node", "restart"]).wait(PATIENCE * 2).ok();
        assert!(restarted.stderr.contains("was replaced"), "{restarted}");
        assert_eq!(terminal.ends(PATIENCE), 0);
        answers(cw, "coder", "one");
        stop();
        let stopped = cw.start(&["stop", "--grace", "0"]).wait(PATIENCE * 3).ok();
        assert!(stopped.stderr.contains("1 session ended"), "{stopped}");
        assert_eq!(home.pid(Part::Keeper), None);
    });
}

#[test]
fn a_keeper_that_hangs_is_told_by_a_launch_and_the_rest_goes_on() {
    case(&Local::new(CW), |local| {
        let (cw, home) = (local.cw(), local.home());
        steps::launch(cw, "coder", &ECHO);
        let keeper = home.pid(Part::Keeper).expect("it runs");
        kill_process(keeper, Signal::STOP).expect("it lives");
        let asked = cw.start(&["launch", "late", "--", "sleep", "100000"]);
        let told = asked.wait(PATIENCE * 2).fails("keeper_unavailable");
        assert_eq!(told.hints("kill -CONT").status, Some(5));
        answers(cw, "coder", "one");
        kill_process(keeper, Signal::CONT).expect("it lives");
        steps::launch(cw, "later", &ECHO);
        answers(cw, "later", "two");
        let list = cw.run(&["list"]).ok();
        assert!(!list.stdout.contains("late "), "{list}");
    });
}

/// A small disk that only this test's processes see, and a ballast on it.
struct Disk {
    /// Holds the mount namespace; nobody has it any more when this is gone.
    holder: Running,
    dir: PathBuf,
}

impl Disk {
    fn mount(dir: &Path, size: &str) -> Result<Self, String> {
        let script = format!(
            "mount -t tmpfs -o size={size},mode=700 tmpfs {} && echo ready && exec sleep 100000",
            dir.display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]);
        let probe = Command::new("unshare").args(["-m", "true"]).output();
        let probe = probe.map_err(|error| format!("unshare: {error}"))?;
        if !probe.status.success() {
            return Err("only root has mount namespaces here".to_owned());
        }
        let holder = Running::start(command, b"");
        let _ = holder.stdout.line("ready", PATIENCE);
        let dir = dir.to_owned();
        Ok(Self { holder, dir })
    }

    /// The same, run where the disk is seen.
    fn on(&self, cw: &Cw) -> Cw {
        let pid = self.holder.pid().to_string();
        cw.clone().behind(&["nsenter", "-m", "-t", &pid])
    }

    /// A file on it, as it is seen from outside.
    fn path(&self, name: &str) -> PathBuf {
        let dir = self.dir.strip_prefix("/").expect("it is absolute");
        Path::new(&format!("/proc/{}/root", self.holder.pid()))
            .join(dir)
            .join(name)
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    case(&Local::new(CW), |local| {
        let Some(disk) = or_skip(Disk::mount(local.home().dir(), "8m")) else {
            return;
        };
        let cw = disk.on(local.cw());
        steps::launch(&cw, "other", &ECHO);
        answers(&cw, "other", "before");
        std::fs::write(disk.path("ballast"), vec![7; 5 << 20]).expect("there is room");
        steps::launch(&cw, "flood", &["sh", "-c", "seq 1 600000; exit 4"]);
        wait_until("the disk is full", PATIENCE * 3, || {
            let text = cw.ok(&["status", "flood"]);
            let list = cw.ok(&["list"]);
            let full = text.contains("disk is full") && list.lines().count() == 3;
            full.then_some(()).ok_or(text)
        });
        let refused = cw.run(&["launch", "--", "true"]).fails("disk_full");
        assert_eq!(refused.hints("free some space").status, Some(7));
        assert_eq!(steps::status(&cw, "other")["status"], "running");

        std::fs::remove_file(disk.path("ballast")).expect("it is there");
        let ended = cw.start(&["wait", "flood"]).wait(PATIENCE * 3);
        assert!(ended.stdout.contains("exit_code=4"), "{ended}");
        let log = cw.ok(&["logs", "flood"]);
        let numbers = log.lines().map(str::parse::<u32>);
        assert!(numbers.eq((1..=600_000).map(Ok)), "{} bytes", log.len());
        answers(&cw, "other", "after");
        steps::launch(&cw, "next", &ECHO);
        let log = std::fs::read_to_string(disk.path("node.log")).expect("a log");
        assert!(log.contains("output waits for the disk"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let _ = cw.run(&["stop", "--grace", "0"]).ok();
    });
}

/// Sends messages so that the journal of a session ends so many bytes into a page.
fn end_in_page(cw: &Cw, disk: &Disk, (id, name): (u32, &str), at: u64) {
    let len = || {
        let file = disk.path(&format!("sessions/{id}/events.jsonl"));
        std::fs::metadata(file).expect("a journal").len()
    };
    let send = |bytes: u64| {
        let body = "x".repeat(usize::try_from(bytes).expect("it is small"));
        let before = len();
        let _ = cw.run(&["msg", "--delivery", "inbox", name, &body]).ok();
        len() - before
    };
    // An event is so much longer than what it says.
    let more = send(10) - 10;
    let missing = (at + 2 * PAGE - len() % PAGE) % PAGE;
    let missing = if missing > more {
        missing
    } else {
        missing + PAGE
    };
    let _ = send(missing - more);
    assert_eq!(len() % PAGE, at);
}

#[test]
fn a_reply_that_a_full_disk_keeps_back_stays_before_what_is_said_later() {
    case(&Local::new(CW), |local| {
        let Some(disk) = or_skip(Disk::mount(local.home().dir(), "8m")) else {
            return;
        };
        let cw = disk.on(local.cw());
        steps::launch(&cw, "asker", &SLEEPER);
        steps::launch(&cw, "asked", &SLEEPER);
        let ask = [
            "request",
            "--async",
            "--delivery",
            "inbox",
            "-f",
            "asker",
            "asked",
            "?",
        ];
        let _ = cw.run(&ask).ok();
        let request = steps::wait_for_request(&cw, "asked");
        // There is room for the reply in the log of who gives it, and none in that of who asked.
        end_in_page(&cw, &disk, (1, "asker"), PAGE - 100);
        end_in_page(&cw, &disk, (2, "asked"), 100);
        let ballast = std::fs::File::create(disk.path("ballast"));
        let mut ballast = ballast.expect("there is room");
        while std::io::Write::write(&mut ballast, &[7; 4096]).is_ok() {}
        drop(ballast);
        let answer = "a".repeat(600);
        let _ = cw.run(&["reply", "-f", "asked", &request, &answer]).ok();
        let next = ["msg", "--delivery", "inbox", "-f", "asked", "asker", "next"];
        let _ = cw.run(&next).fails("disk_full");

        std::fs::remove_file(disk.path("ballast")).expect("it is there");
        let _ = cw.run(&next).ok();
        let inbox = steps::inbox(&cw, "asker");
        let said = inbox.iter().filter(|one| one["from_name"] == "asked");
        let said: Vec<_> = said.map(|one| one["body"].as_str().unwrap_or("")).collect();
        assert_eq!(said, [answer.as_str(), "next"], "{inbox:#?}");
        let journal = std::fs::read_to_string(disk.path("sessions/1/events.jsonl"));
        let journal = journal.expect("a journal");
        let numbers = journal.lines().map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("an event");
            event["seq"].as_u64().expect("a number")
        });
        assert!(numbers.is_sorted_by(|one, next| one < next), "{journal}");
        let _ = cw.run(&["stop", "--grace", "0"]).ok();
    });
}

#[test]
fn a_directory_that_is_gone_concerns_only_its_session() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        for name in ["other", "gone"] {
            steps::launch(cw, name, &ECHO);
            answers(cw, name, "one");
        }
        std::fs::remove_dir_all(local.home().dir().join("sessions/2")).expect("it is there");
        // What is open stays: the session runs on and its output is there.
        answers(cw, "gone", "two");
        answers(cw, "other", "two");
        let _ = cw.run(&["node", "restart"]).ok();
        answers(cw, "other", "three");
        assert_eq!(cw.ok(&["logs", "other"]).matches("got:").count(), 3);
        // It cannot be known any more what it was; that it runs is, and it can be ended.
        assert_eq!(steps::status(cw, "2")["status"], "running");
        let _ = cw.run(&["kill", "2"]).ok();
        steps::launch(cw, "next", &ECHO);
        answers(cw, "next", "one");
    });
}

#[test]
fn a_node_without_descriptors_says_so_and_goes_on() {
    case(&Local::new(CW), |local| {
        let limited = local.cw().clone().behind(&["prlimit", "--nofile=100:100"]);
        let Some(()) = or_skip(
            Command::new("prlimit")
                .arg("--version")
                .output()
                .map(drop)
                .map_err(|error| format!("prlimit: {error}")),
        ) else {
            return;
        };
        let cw = local.cw();
        let _ = limited.run(&["start"]).ok();
        steps::launch(cw, "coder", &ECHO);
        let refused = (0..100)
            .map(|_| cw.run(&["launch", "-t", "many", "--", "sleep", "1000"]))
            .find(|done| done.status != Some(0))
            .expect("a limit");
        let refused = refused.fails("too_many_files").hints("ulimit -n");
        assert_eq!(refused.status, Some(7));
        // What was refused does not run.
        wait_until("as many run as are listed", PATIENCE, || {
            let list = cw.ok(&["list", "--tag", "many", "--status", "running"]);
            let listed = list.lines().count() - 1;
            let sleepers = local.home().processes().into_iter().filter(|pid| {
                let words = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
                words.is_ok_and(|words| words == b"sleep\x001000\0")
            });
            let running = sleepers.count();
            (running == listed)
                .then_some(())
                .ok_or_else(|| format!("{running} run, listed:\n{list}"))
        });
        answers(cw, "coder", "one");
        // Many callers at once are served one after the other.
        let callers: Vec<Running> = (0..30).map(|_| cw.start(&["list"])).collect();
        for caller in callers {
            let _ = caller.wait(PATIENCE * 2).ok();
        }
        let _ = cw.run(&["kill", "--tag", "many", "--grace", "0"]).ok();
        steps::launch(cw, "next", &ECHO);
        answers(cw, "coder", "two");
    });
}

/// A control group in which there may be only so many processes. What is in it at the end is
/// killed.
struct Bounded(PathBuf);

impl Bounded {
    fn new(most: u32) -> Result<Self, String> {
        let root = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
            .map(Path::new)
            .into_iter()
            .find(|root| root.join("cgroup.procs").exists())
            .ok_or("no control groups")?;
        let dir = root.join(format!("cw-e2e-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
        let group = Self(dir);
        group
            .write("pids.max", &most.to_string())
            .map_err(|error| format!("pids.max: {error}"))?;
        Ok(group)
    }

    fn write(&self, file: &str, text: &str) -> std::io::Result<()> {
        std::fs::write(self.0.join(file), text)
    }

    fn processes(&self) -> Vec<Pid> {
        let text = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            .collect()
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        let _ = self.write("pids.max", "0");
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
        // Fails while one of them is not collected yet; the next boot removes it.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Each process starts others without end, in sessions of their own, and hears no polite signal.
const BOMB: &str = "echo $$ > \"$1/cgroup.procs\"\n\
    trap '' TERM HUP\n\
    while :; do setsid sh \"$0\" \"$1\" & sleep 0.05; done\n";

#[test]
fn a_session_that_multiplies_can_be_killed() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let Some(group) = or_skip(Bounded::new(150)) else {
            return;
        };
        steps::launch(cw, "coder", &ECHO);
        let script = local.home().dir().join("bomb.sh");
        std::fs::write(&script, BOMB).expect("a file");
        let (script, place) = (script.display().to_string(), group.0.display().to_string());
        // Its leader is none of those that multiply: when there is no room they end.
        let leads = "sh \"$0\" \"$1\" & exec sleep 1000";
        steps::launch(cw, "bomb", &["sh", "-c", leads, &script, &place]);
        wait_until("there are as many as there may be", PATIENCE * 2, || {
            let count = group.processes().len();
            (count >= 140)
                .then_some(())
                .ok_or_else(|| format!("{count}"))
        });
        answers(cw, "coder", "one");
        let killed = cw.start(&["kill", "bomb", "--grace", "1"]);
        let _ = killed.wait(PATIENCE * 3).ok();
        wait_until("none is left", PATIENCE, || {
            let count = group.processes().len();
            (count == 0).then_some(()).ok_or_else(|| format!("{count}"))
        });
        assert_eq!(steps::status(cw, "bomb")["status"], "killed");
        answers(cw, "coder", "two");
    });
}

#[test]
#[ignore = "a thousand processes; a recorded run"]
fn a_thousand_sessions_at_once() {
    sessions_at_once(1000);
}

#[test]
fn many_sessions_at_once() {
    sessions_at_once(60);
}

fn sessions_at_once(count: usize) {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &ECHO);
        let socket = local.home().socket();
        let mut wire = e2e::wire::Wire::connect(&socket);
        let mut command = SLEEPER.to_vec();
        command[2] = "read -r x; echo \"got:$x\"; exit 3";
        for _ in 0..count {
            let call = serde_json::json!({
                "type": "Launch", "command": command, "working_dir": "/", "tags": ["many"],
            });
            let _ = wire.ask(&call, "Launched");
        }
        let list = wire.ask(
            &serde_json::json!({"type": "ListSessions", "status": "running"}),
            "SessionList",
        );
        assert_eq!(list["sessions"].as_array().map(Vec::len), Some(count + 1));
        answers(cw, "coder", "one");
        let before = local.home().kill(Part::Node);
        let _ = local.home().wait_for(Part::Node, Some(before));
        answers(cw, "coder", "two");
        // Each of them still hears and ends by itself.
        let waiting = cw.start(&["wait", "--tag", "many"]);
        let mut wire = e2e::wire::Wire::connect(&socket);
        for id in 2..=count + 1 {
            let call = serde_json::json!({"type": "SendInput", "id": id, "data": "Z28K"});
            let _ = wire.ask(&call, "InputSent");
        }
        let done = waiting.wait(PATIENCE * 10);
        assert_eq!(done.status, Some(8), "{}", done.stderr);
        assert_eq!(done.stdout.matches("exit_code=3").count(), count);
        assert_eq!(done.stdout.matches("got:go").count(), count);
        answers(cw, "coder", "three");
    });
}
