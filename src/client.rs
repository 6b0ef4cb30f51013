//! The way from a command to its node: the Unix socket, and starting the node when there is none.

use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use tokio::net::UnixStream;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::rpc::{Channel, Incoming};
use crate::verb::hello::{Hello, VERSION, Welcome};
use crate::verb::{Call, Reply};

/// The first word.
const HELLO: Call = Call::Hello(Hello { version: VERSION });
/// How long a node may take to start or to go, before that is an error.
const START: Duration = Duration::from_secs(10);
/// How long a node may take to greet before it counts as hung. One that is merely busy greets in
/// milliseconds; a machine that is busy throughout gets this much.
const GREETING: Duration = Duration::from_secs(10);
/// How much of the end of the log is looked through for the cause, in bytes.
const LAST_WORDS: usize = 4096;
/// The exit status of a keeper that found the directory taken.
const LOCKED: i32 = 6;
/// After this long without an answer, a keeper that found the directory taken is started again:
/// whoever had it may have ended since.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Connects to the node and says hello.
///
/// # Errors
///
/// `node_not_running` when nothing listens, `node_unresponsive` when what listens says nothing.
pub async fn connect(home: &Home) -> Result<Channel> {
    greet(home).await.map(|(channel, _)| channel)
}

/// Connects, and what the node says about itself.
async fn greet(home: &Home) -> Result<(Channel, Welcome)> {
    let (channel, pid) = reach(home).await?;
    match hello(channel).await {
        Err(error) if error.code == "node_unresponsive" => Err(hung(pid)),
        other => other,
    }
}

/// The socket, and who listens there; nothing is said yet.
async fn reach(home: &Home) -> Result<(Channel, Option<i32>)> {
    let stream = match UnixStream::connect(home.socket()).await {
        Ok(stream) => stream,
        // More callers wait than the system lets wait: nobody takes them.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(hung(None)),
        Err(error) => {
            return Err(Error::new(
                "node_not_running",
                format!("no node at {}: {error}", home.socket().display()),
            ));
        }
    };
    // Of the one that listens, whether it answers or not.
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    Ok((Channel::local(stream), pid))
}

fn hung(pid: Option<i32>) -> Error {
    let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    let seconds = GREETING.as_secs();
    Error::new(
        "node_unresponsive",
        format!("the node{pid} has not answered within {seconds} s"),
    )
    .hint("'cw node restart' replaces it; its sessions run on")
}

/// One question, one answer; the node is started if there is none. The question goes out together
/// with the greeting, which saves a round trip. A node that has not answered the greeting has not
/// begun with the question either.
///
/// # Errors
///
/// As [`connect_or_start`]; what the node answers that is an error; `connection_lost`.
pub async fn ask(home: &Home, call: &Call) -> Result<Reply> {
    let greeted = async {
        let (mut channel, pid) = reach(home).await?;
        channel.sender.put_off(&HELLO)?;
        channel.sender.send(call).await?;
        let welcome = tokio::time::timeout(GREETING, channel.receiver.next()).await;
        Ok((channel, welcome.map_err(|_| hung(pid))??))
    };
    let answer = match greeted.await {
        Ok((mut channel, Some(Incoming::Control(welcome)))) => {
            greeted_by(welcome)?;
            channel.answer().await?
        }
        Ok((_, Some(Incoming::Data(_)))) => {
            return Err(Error::bad_request("raw bytes for a greeting"));
        }
        Err(error) if !is_absent(&error) => return Err(error),
        Ok((_, None)) | Err(_) => {
            let mut channel = start(home).await?;
            channel.call(call).await?
        }
    };
    match answer {
        Reply::Error(failure) => Err(failure.into()),
        reply => Ok(reply),
    }
}

/// Says hello on a fresh channel.
///
/// # Errors
///
/// `version` when the node is too old to know the greeting, `node_unresponsive` when it says nothing.
pub async fn hello(mut channel: Channel) -> Result<(Channel, Welcome)> {
    let answer = tokio::time::timeout(GREETING, channel.call(&HELLO)).await;
    let answer = answer.map_err(|_| hung(None))?;
    Ok((channel, greeted_by(answer?)?))
}

fn greeted_by(answer: Reply) -> Result<Welcome> {
    let too_old = || {
        Error::new("version", "the node is too old for this cw")
            .hint("'cw stop' with the program that it runs, then 'cw start' with this one")
    };
    match answer {
        Reply::Hello(welcome) if welcome.version < VERSION => Err(too_old()),
        // A newer one goes on understanding what older ones say.
        Reply::Hello(welcome) => Ok(welcome),
        Reply::Error(failure) if failure.message.contains("unknown") => Err(too_old()),
        other => Err(other.unexpected()),
    }
}

/// Connects to a node that has to be there. One that hangs is killed, and its keeper, which has the
/// sessions, starts the next; the second value is the process that was killed.
///
/// # Errors
///
/// `node_not_running`, `version`; `node_unresponsive` when there is no keeper that would start
/// another.
pub async fn connect_or_replace(home: &Home) -> Result<(Channel, Option<u32>)> {
    let hung = match connect(home).await {
        Err(error) if error.code == "node_unresponsive" => error,
        other => return Ok((other?, None)),
    };
    let pid = process(home).filter(|pid| lives(*pid));
    let (Some(pid), true) = (pid, keeper(home).is_some_and(runs)) else {
        return Err(hung.hint("its keeper does not run either; end both by their process numbers"));
    };
    let target = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(target) = target {
        rustix::process::kill_process(target, rustix::process::Signal::KILL)
            .map_err(|error| Error::internal(format!("process {pid}: {error}")))?;
    }
    successor(home, Some(pid)).await?;
    Ok((connect(home).await?, Some(pid)))
}

/// Connects to the node, starting it if there is none.
///
/// # Errors
///
/// `node_start_failed` with the place of its log.
pub async fn connect_or_start(home: &Home) -> Result<Channel> {
    match connect(home).await {
        Err(error) if is_absent(&error) => start(home).await,
        other => other,
    }
}

/// Connects to a node that was there a moment ago: it may be between two lives, which its keeper
/// tells from one that was stopped.
///
/// # Errors
///
/// `connection_lost` while the keeper lives, else `node_not_running`.
pub async fn reconnect(home: &Home) -> Result<Channel> {
    let keeper = keeper(home);
    match connect(home).await {
        Err(error) if is_absent(&error) && keeper.is_some_and(lives) => {
            Err(Error::new("connection_lost", error.message))
        }
        other => other,
    }
}

fn lives(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok() && !is_zombie(pid))
}

/// Makes sure that a node runs; true if it had to be started.
///
/// # Errors
///
/// As [`connect_or_start`].
pub async fn ensure(home: &Home) -> Result<bool> {
    match connect(home).await {
        Ok(_) => Ok(false),
        Err(error) if is_absent(&error) => start(home).await.map(|_| true),
        Err(error) => Err(error),
    }
}

/// Whether a process lives and has not been stopped by a signal.
fn runs(pid: u32) -> bool {
    let stopped = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| matches!(state(pid), Some('T' | 't')));
    lives(pid) && !stopped
}

/// Whether there is nobody to talk to. A node that dies takes connections until its last thread
/// is gone; nothing but a greeting has been said by then.
fn is_absent(error: &Error) -> bool {
    error.code == "node_not_running" || error.code == "connection_lost"
}

/// What this command was started with, besides its standard streams, is not handed on: a lock or
/// a pipe that the keeper held would be held for as long as there is a node.
#[expect(
    unsafe_code,
    reason = "the descriptors are not ours, and known by number"
)]
fn keep_descriptors() {
    // Where it cannot be read they are handed on; nothing else depends on it.
    let Ok(listed) = std::fs::read_dir("/dev/fd") else {
        return;
    };
    let numbers = listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number: &RawFd| *number > 2) {
        // SAFETY: a number that has been closed meanwhile, as that of the list itself, is refused
        // by the system, and of one that means something else by now only a flag is set that
        // everything opened here has anyway.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
}

/// Starts a keeper in a process group and session of its own, and waits until its node answers.
/// When two commands race, the second keeper finds the directory locked and ends, and both
/// commands find the first one's node.
async fn start(home: &Home) -> Result<Channel> {
    // What the node would stumble over is told here, where it is read.
    crate::config::Config::load(home)?;
    home.create()?;
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(home.node_log())?;
    std::fs::set_permissions(
        home.node_log(),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("keeper")
        .env("CODEWIRE_HOME", home.dir())
        // The session that a command stands in is not the session of the node it starts.
        .env_remove("CW_SESSION_ID")
        .env_remove("CW_SESSION_NAME")
        .env_remove("CW_COHORT_TAG")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    keep_descriptors();
    let mut keeper = command
        .spawn()
        .map_err(|error| failed(home, &error.to_string()))?;
    let deadline = Instant::now() + START;
    let mut again = Instant::now() + AGAIN;
    loop {
        match connect(home).await {
            Err(error) if is_absent(&error) => {}
            other => return other,
        }
        // A keeper that lost the race for the directory ends with a status of its own.
        match keeper.try_wait() {
            Ok(Some(status)) if status.code() != Some(LOCKED) => {
                return Err(failed(home, &format!("it ended at once ({status})")));
            }
            Ok(Some(_)) if Instant::now() > again => {
                keeper = command
                    .spawn()
                    .map_err(|error| failed(home, &error.to_string()))?;
                again = Instant::now() + AGAIN;
            }
            _ => {}
        }
        if Instant::now() > deadline {
            return Err(failed(
                home,
                &format!("it does not answer after {} s", START.as_secs()),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The process of the node, as it wrote it down.
pub fn process(home: &Home) -> Option<u32> {
    std::fs::read_to_string(home.pid_file())
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Waits until another process than `before` is the node, and says which release it runs.
///
/// # Errors
///
/// `node_start_failed`.
pub async fn successor(home: &Home, before: Option<u32>) -> Result<String> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if let Ok((_, welcome)) = greet(home).await
            && Some(welcome.pid) != before
        {
            return Ok(welcome.release);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(failed(home, "it does not come back"))
}

/// Waits until the keeper of a stopped node has ended, and with it its hold on the directory.
///
/// # Errors
///
/// `timeout`.
pub async fn gone(keeper: Option<u32>) -> Result<()> {
    let Some(keeper) =
        keeper.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?))
    else {
        return Ok(());
    };
    let deadline = Instant::now() + START;
    while rustix::process::test_kill_process(keeper).is_ok() && !is_zombie(keeper) {
        if Instant::now() > deadline {
            return Err(Error::new(
                "timeout",
                "the node has stopped, its keeper has not",
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Whether a process has ended and only its parent has not asked yet, which may take a while
/// where the parent is some container's first process.
fn is_zombie(pid: rustix::process::Pid) -> bool {
    state(pid) == Some('Z')
}

/// The state of a process in the system's one-letter words, where the system has them.
fn state(pid: rustix::process::Pid) -> Option<char> {
    // It stands behind the name, which is in parentheses and may contain anything.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

/// The process that holds the directory, as it wrote into the lock.
pub fn keeper(home: &Home) -> Option<u32> {
    std::fs::read_to_string(home.dir().join("lock"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The last thing that the node said goes into the error: mostly that is the cause.
fn failed(home: &Home, why: &str) -> Error {
    let log = std::fs::read(home.node_log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_WORDS)..]).into_owned();
    let last = log
        .lines()
        .rfind(|line| line.starts_with("cw: "))
        .unwrap_or_default();
    Error::new(
        "node_start_failed",
        format!("the node did not start: {why} {last}"),
    )
    .hint(format!("see {}", home.node_log().display()))
}
