//! One session channel on a node: what the client asks for first (terminal, variables), then one
//! program, or files, then its end. What it asks for has been answered when it comes here, see
//! [`super::asked`].
//!
//! The order of the end is that of the spine: the last byte, then how it ended, then the close.

use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use bytes::Bytes;
use portable_pty::PtySize;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, Sig};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::program::{Account, Ended, Order, Output, Program, Terminal};
use super::{asked, sftp};

/// The longest command, bytes: what one argument may be on Linux.
const MAX_COMMAND: usize = 128 * 1024;

/// How long a channel may take to say what it wants.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long the output of a program that has ended is waited for, when what it left behind keeps it
/// open.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Rows and columns, at most: what a terminal's size field holds.
const MAX_SIDE: u32 = 1000;

/// The code of standard error in extended data (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// The status of what was not started, as OpenSSH's client has it.
const NOT_STARTED: u32 = 255;

/// What a client is told that asks for files where there are none.
const NO_FILES: &str = "cw: this node gives no files over SSH; \
    on it, set [node] ssh_sftp = true, then: cw node restart\r\n";

/// Serves a channel to its end; `files` says whether it may be files.
pub(super) async fn serve(channel: Channel<Msg>, handle: Handle, account: Account, files: bool) {
    let id = channel.id();
    let (mut requests, answers) = channel.split();
    let started = timeout(START_LIMIT, start(&mut requests, &account)).await;
    let ended = match started {
        Ok(Some(Started::Program(mut program))) => {
            let (to_program, input) = mpsc::channel(16);
            // What the client says is heard even while it does not take what the program says.
            tokio::select! {
                ended = answer(&mut program, input, id, &handle) => Some(ended),
                () = hear(&mut requests, to_program) => None,
            }
        }
        Ok(Some(Started::Files)) if files => {
            match sftp::serve(&mut requests, id, &handle, account.directory()).await {
                sftp::Ended::Well => Some(Ended::Status(0)),
                sftp::Ended::Badly => Some(Ended::Status(1)),
                sftp::Ended::Gone => None,
            }
        }
        Ok(Some(Started::Files)) => {
            let _ = handle.extended_data(id, STDERR, NO_FILES).await;
            Some(Ended::Status(1))
        }
        Ok(Some(Started::Nothing(why))) => {
            let why = format!("cw: {why}\r\n");
            let _ = handle.extended_data(id, STDERR, why).await;
            Some(Ended::Status(NOT_STARTED))
        }
        Ok(None) | Err(_) => None,
    };
    if let Some(ended) = ended {
        say_end(ended, id, &handle).await;
    }
    // It may be gone.
    let _ = answers.close().await;
}

/// What a channel has become.
enum Started {
    Program(Program),
    Files,
    /// And why.
    Nothing(String),
}

/// What the client may do while its program runs.
enum Word {
    Input(Bytes),
    Signal(Signal),
    Resize(PtySize),
}

/// Waits for what the channel is to be, and starts it. None if it was closed before.
async fn start(requests: &mut ChannelReadHalf, account: &Account) -> Option<Started> {
    let mut order = Order::default();
    loop {
        match requests.wait().await? {
            ChannelMsg::RequestPty {
                term,
                col_width,
                row_height,
                ..
            } => order.terminal = Some(terminal(term, size(col_width, row_height))),
            ChannelMsg::SetEnv {
                variable_name,
                variable_value,
                ..
            } => set(&mut order, variable_name, variable_value),
            ChannelMsg::WindowChange {
                col_width,
                row_height,
                ..
            } => {
                if let Some(terminal) = &mut order.terminal {
                    terminal.size = size(col_width, row_height);
                }
            }
            ChannelMsg::RequestShell { .. } => return Some(begin(order, account)),
            ChannelMsg::Exec { command, .. } => {
                let why = match &command {
                    command if command.len() > MAX_COMMAND => "the command is too long",
                    command if command.contains(&0) => "the command has a NUL byte",
                    _ => {
                        order.command = Some(command_line(command, account));
                        return Some(begin(order, account));
                    }
                };
                return Some(Started::Nothing(why.to_owned()));
            }
            ChannelMsg::Eof | ChannelMsg::Close => return None,
            ChannelMsg::RequestSubsystem { name, .. } if name == sftp::NAME => {
                return Some(Started::Files);
            }
            // Refused.
            _ => {}
        }
    }
}

/// A terminal of this name, if it is one.
fn terminal(name: String, size: PtySize) -> Terminal {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(plain);
    let usual = || "xterm-256color".to_owned();
    Terminal {
        name: if is_name { name } else { usual() },
        size,
    }
}

fn begin(order: Order, account: &Account) -> Started {
    Program::start(order, account).map_or_else(
        |error| {
            tracing::warn!(%error, "a program for SSH cannot be started");
            Started::Nothing(format!("the program cannot be started: {error}"))
        },
        Started::Program,
    )
}

/// A command as the shell gets it: behind this program's own path if it begins with one of its
/// verbs.
fn command_line(command: Vec<u8>, account: &Account) -> std::ffi::OsString {
    let text = String::from_utf8_lossy(&command);
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    if !crate::cli::is_verb(first) {
        return std::ffi::OsString::from_vec(command);
    }
    let quoted = account.cw.display().to_string().replace('\'', r"'\''");
    let mut line = format!("exec '{quoted}' ").into_bytes();
    line.extend_from_slice(&command);
    std::ffi::OsString::from_vec(line)
}

/// Takes a variable, if it is one of those that are passed on.
fn set(order: &mut Order, name: String, value: String) {
    if asked::is_passed_on(order.env.len(), &name, &value) {
        order.env.push((name, value));
    }
}

/// Hears the client; returns when it closes the channel or goes away.
async fn hear(requests: &mut ChannelReadHalf, to_program: mpsc::Sender<Word>) {
    while let Some(message) = requests.wait().await {
        let word = match message {
            ChannelMsg::Data { data } if data.is_empty() => continue,
            ChannelMsg::Data { data } => Word::Input(data),
            ChannelMsg::Eof => Word::Input(Bytes::new()),
            ChannelMsg::Signal { signal } => match number(&signal) {
                Some(signal) => Word::Signal(signal),
                None => continue,
            },
            ChannelMsg::WindowChange {
                col_width,
                row_height,
                ..
            } => Word::Resize(size(col_width, row_height)),
            ChannelMsg::Close => return,
            _ => continue,
        };
        if to_program.send(word).await.is_err() {
            // The program takes nothing more; that it ends is told elsewhere.
            std::future::pending::<()>().await;
        }
    }
}

/// Runs the program to its end; all it said has been sent then.
async fn answer(
    program: &mut Program,
    mut words: mpsc::Receiver<Word>,
    id: ChannelId,
    handle: &Handle,
) -> Ended {
    let mut ended = None;
    let mut typing: Option<Bytes> = None;
    loop {
        let drained = async {
            if ended.is_some() {
                tokio::time::sleep(DRAIN_LIMIT).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            output = program.output.recv() => match output {
                Some(Output::Stdout(bytes)) => {
                    if handle.data(id, bytes).await.is_err() {
                        return ended.unwrap_or(Ended::Status(255));
                    }
                }
                Some(Output::Stderr(bytes)) => {
                    if handle.extended_data(id, STDERR, bytes).await.is_err() {
                        return ended.unwrap_or(Ended::Status(255));
                    }
                }
                None => {
                    return match ended {
                        Some(ended) => ended,
                        None => (&mut program.ended).await.unwrap_or(Ended::Status(255)),
                    };
                }
            },
            how = &mut program.ended, if ended.is_none() => {
                ended = Some(how.unwrap_or(Ended::Status(255)));
            }
            () = drained => return ended.unwrap_or(Ended::Status(255)),
            place = program.input.reserve(), if typing.is_some() => {
                if let (Ok(place), Some(bytes)) = (place, typing.take()) {
                    place.send(bytes);
                }
            }
            Some(word) = words.recv(), if typing.is_none() => match word {
                Word::Input(bytes) => typing = Some(bytes),
                Word::Signal(signal) => program.signal(signal),
                Word::Resize(size) => program.resize(size),
            },
        }
    }
}

async fn say_end(ended: Ended, id: ChannelId, handle: &Handle) {
    // The client may have gone meanwhile.
    let _ = handle.eof(id).await;
    let _ = match ended {
        Ended::Status(status) => handle.exit_status_request(id, status).await,
        Ended::Signal(signal) => {
            let what = format!("ended by signal {signal}");
            handle
                .exit_signal_request(id, name(signal), false, what, String::new())
                .await
        }
    };
}

/// See [`super::hear_anything`].
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn hear_anything(text: &str, (cols, rows): (u32, u32)) {
    let mut order = Order::default();
    for line in text.lines() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        set(&mut order, name.to_owned(), value.to_owned());
    }
    assert!(order.env.len() <= asked::MAX_VARIABLES);
    let claims = |name: &String| name.starts_with("CW_SESSION");
    assert!(!order.env.iter().any(|(name, _)| claims(name)));
    let size = size(cols, rows);
    assert!(size.cols > 0 && size.rows > 0);
    assert!(u32::from(size.cols.max(size.rows)) <= MAX_SIDE);
}

fn size(cols: u32, rows: u32) -> PtySize {
    let side = |side: u32, usual: u16| match side {
        // Clients without a terminal of their own say so.
        0 => usual,
        side => u16::try_from(side.min(MAX_SIDE)).unwrap_or(usual),
    };
    PtySize {
        rows: side(rows, 24),
        cols: side(cols, 80),
        pixel_width: 0,
        pixel_height: 0,
    }
}

/// Signals by their names (RFC 4254, 6.10).
const SIGNALS: [(Sig, Signal); 11] = [
    (Sig::ABRT, Signal::ABORT),
    (Sig::ALRM, Signal::ALARM),
    (Sig::FPE, Signal::FPE),
    (Sig::HUP, Signal::HUP),
    (Sig::ILL, Signal::ILL),
    (Sig::INT, Signal::INT),
    (Sig::KILL, Signal::KILL),
    (Sig::PIPE, Signal::PIPE),
    (Sig::QUIT, Signal::QUIT),
    (Sig::SEGV, Signal::SEGV),
    (Sig::TERM, Signal::TERM),
];

fn number(signal: &Sig) -> Option<Signal> {
    let same = |name: &Sig| std::mem::discriminant(name) == std::mem::discriminant(signal);
    let known = SIGNALS.iter().find(|(name, _)| same(name));
    known.map(|(_, number)| *number)
}

fn name(signal: i32) -> Sig {
    let known = SIGNALS.iter().find(|(_, number)| number.as_raw() == signal);
    known.map_or_else(|| Sig::Custom(signal.to_string()), |(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_make_sense() {
        assert_eq!((size(0, 0).cols, size(0, 0).rows), (80, 24));
        assert_eq!((size(132, 50).cols, size(132, 50).rows), (132, 50));
        assert_eq!(size(u32::MAX, 1).cols, 1000);
    }
}
