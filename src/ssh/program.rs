//! The process behind a session channel: with a terminal of its own, or with three pipes.
//!
//! Whatever the client asked for, the process is the user's shell: alone (a login shell), or with
//! `-c` and a command. Its environment is made anew, as at a login; what the shell that once
//! started the node had set is not in it.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use bytes::Bytes;
use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};

/// Messages on their way in one direction, at most; each is at most [`CHUNK`].
const QUEUE: usize = 4;

/// Read at once, bytes.
const CHUNK: usize = 16 * 1024;

/// Where programs are looked for when the node's own environment does not say.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// What to start.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    /// For the shell; a login shell without.
    pub(super) command: Option<OsString>,
    /// Beside what every login has.
    pub(super) env: Vec<(String, String)>,
    /// The terminal, if it is to have one.
    pub(super) terminal: Option<Terminal>,
}

/// A terminal as the client asked for it.
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    /// `TERM`.
    pub(super) name: String,
    pub(super) size: PtySize,
}

/// What comes out of a program.
pub(super) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Status(u32),
    /// By this signal's number.
    Signal(i32),
}

/// A program that runs. When it is dropped, its process group is hung up.
pub(super) struct Program {
    /// Ends when nothing more can come.
    pub(super) output: mpsc::Receiver<Output>,
    /// Resolves when the process has ended.
    pub(super) ended: oneshot::Receiver<Ended>,
    /// An empty message ends its input.
    pub(super) input: mpsc::Sender<Bytes>,
    master: Option<Box<dyn MasterPty + Send>>,
    group: Pid,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn start(order: Order, account: &Account) -> Result<Self> {
        match order.terminal.clone() {
            Some(terminal) => with_terminal(order, terminal, account),
            None => with_pipes(order, account),
        }
    }

    /// Sends its process group a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill_process_group(self.group, signal);
    }

    /// Gives its terminal another size, if it has one.
    pub(super) fn resize(&self, size: PtySize) {
        if let Some(master) = &self.master {
            let _ = master.resize(size);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::HUP);
        // One that is stopped hears nothing else.
        self.signal(Signal::CONT);
    }
}

/// Whose node this is, as far as a login needs it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    name: String,
    home: PathBuf,
    shell: PathBuf,
    path: String,
    /// This program, under the name that its users call it by.
    pub(super) cw: PathBuf,
    codewire_home: PathBuf,
}

impl Account {
    /// The user that the node runs as.
    ///
    /// # Errors
    ///
    /// When this program does not know where it is.
    pub(crate) fn of_this_process(codewire_home: PathBuf) -> Result<Self> {
        let uid = rustix::process::getuid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = passwd.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, id, _, _, home, shell, ..] = fields[..] else {
                return None;
            };
            (id.parse() == Ok(uid)).then(|| (name.to_owned(), home.to_owned(), shell.to_owned()))
        });
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (name, home, shell) = entry.unwrap_or_else(|| {
            let name = variable("USER").unwrap_or_else(|| uid.to_string());
            let home = variable("HOME").unwrap_or_else(|| "/".to_owned());
            (name, home, variable("SHELL").unwrap_or_default())
        });
        let shell = PathBuf::from(if shell.is_empty() { "/bin/sh" } else { &shell });
        Ok(Self {
            name,
            home: home.into(),
            shell,
            path: variable("PATH").unwrap_or_else(|| PATH.to_owned()),
            cw: std::env::current_exe()?,
            codewire_home,
        })
    }

    fn argv(&self, command: Option<OsString>) -> Vec<OsString> {
        let shell = self.shell.clone().into_os_string();
        match command {
            Some(command) => vec![shell, "-c".into(), command],
            None => vec![shell, "-l".into()],
        }
    }

    /// The variables of a login.
    fn env(&self, order: &Order) -> Vec<(OsString, OsString)> {
        // Where `cw` is, so that a command may call it.
        let beside = self.cw.parent().map(|dir| dir.display().to_string());
        let path = beside.map_or_else(|| self.path.clone(), |dir| format!("{}:{dir}", self.path));
        let mut env: Vec<(OsString, OsString)> = vec![
            ("HOME".into(), self.home.clone().into()),
            ("USER".into(), self.name.clone().into()),
            ("LOGNAME".into(), self.name.clone().into()),
            ("SHELL".into(), self.shell.clone().into()),
            ("PATH".into(), path.into()),
            ("CODEWIRE_HOME".into(), self.codewire_home.clone().into()),
        ];
        if let Some(terminal) = &order.terminal {
            env.push(("TERM".into(), terminal.name.clone().into()));
        }
        let more = order.env.iter();
        env.extend(more.map(|(name, value)| (name.into(), value.into())));
        env
    }

    /// Where a login begins: the home directory, if there is one.
    pub(super) fn directory(&self) -> PathBuf {
        if self.home.is_dir() {
            self.home.clone()
        } else {
            "/".into()
        }
    }
}

fn with_terminal(order: Order, terminal: Terminal, account: &Account) -> Result<Program> {
    let pair = native_pty_system().openpty(terminal.size);
    let pair = pair.map_err(Error::internal)?;
    let env = account.env(&order);
    let mut command = CommandBuilder::from_argv(account.argv(order.command));
    command.env_clear();
    for (name, value) in env {
        command.env(name, value);
    }
    command.cwd(account.directory());
    let child = pair.slave.spawn_command(command).map_err(Error::internal)?;
    drop(pair.slave);
    let group = child.process_id().and_then(pid);
    let group = group.ok_or_else(|| Error::internal("the process has no number"))?;
    let mut reader = pair.master.try_clone_reader().map_err(Error::internal)?;
    let mut writer = pair.master.take_writer().map_err(Error::internal)?;

    let (to_client, output) = mpsc::channel(QUEUE);
    let (input, mut from_client) = mpsc::channel::<Bytes>(QUEUE);
    let (tell, ended) = oneshot::channel();
    // A terminal's descriptors do not tell the runtime when they are ready on every system.
    thread::Builder::new()
        .name("ssh-read".into())
        .spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                let chunk = Bytes::copy_from_slice(&buffer[..len]);
                if to_client.blocking_send(Output::Stdout(chunk)).is_err() {
                    break;
                }
            }
        })?;
    thread::Builder::new()
        .name("ssh-write".into())
        .spawn(move || {
            while let Some(chunk) = from_client.blocking_recv() {
                // The end of the client's input is typed, as a person would.
                let bytes: &[u8] = if chunk.is_empty() { b"\x04" } else { &chunk };
                if writer
                    .write_all(bytes)
                    .and_then(|()| writer.flush())
                    .is_err()
                {
                    break;
                }
            }
        })?;
    thread::Builder::new()
        .name("ssh-wait".into())
        .spawn(move || {
            // Its last handle; the process is waited for by its number, which tells the signal.
            let _child = child;
            let status = waitpid(Some(group), WaitOptions::empty()).ok().flatten();
            let ended = status.map_or(Ended::Status(255), |(_, status)| {
                status.terminating_signal().map_or_else(
                    || Ended::Status(status.exit_status().unwrap_or(255).cast_unsigned()),
                    Ended::Signal,
                )
            });
            // Nobody may be waiting.
            let _ = tell.send(ended);
        })?;
    Ok(Program {
        output,
        ended,
        input,
        master: Some(pair.master),
        group,
    })
}

fn with_pipes(order: Order, account: &Account) -> Result<Program> {
    let env = account.env(&order);
    let argv = account.argv(order.command);
    let [program, arguments @ ..] = &argv[..] else {
        return Err(Error::internal("no program"));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .current_dir(account.directory())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = child.id().and_then(pid);
    let group = group.ok_or_else(|| Error::internal("the process has no number"))?;
    let (to_client, output) = mpsc::channel(QUEUE);
    let (input, mut from_client) = mpsc::channel::<Bytes>(QUEUE);
    let (tell, ended) = oneshot::channel();
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(copy(stdout, to_client.clone(), Output::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(copy(stderr, to_client, Output::Stderr));
    }
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move {
            while let Some(chunk) = from_client.recv().await {
                if chunk.is_empty() || stdin.write_all(&chunk).await.is_err() {
                    break;
                }
            }
        });
    }
    tokio::spawn(async move {
        let ended = child.wait().await.map_or(Ended::Status(255), |status| {
            let code = status
                .code()
                .map(|code| Ended::Status(code.cast_unsigned()));
            code.or_else(|| status.signal().map(Ended::Signal))
                .unwrap_or(Ended::Status(255))
        });
        let _ = tell.send(ended);
    });
    Ok(Program {
        output,
        ended,
        input,
        master: None,
        group,
    })
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<Output>,
    wrap: fn(Bytes) -> Output,
) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let chunk = Bytes::copy_from_slice(&buffer[..len]);
        if to.send(wrap(chunk)).await.is_err() {
            break;
        }
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}
