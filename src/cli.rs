//! The command line, and what a command has at hand while it runs.

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use derp::io::server::EVENT_INTERVAL;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::rpc::Channel;
use crate::verb::server::Server;
use crate::verb::{self, Call, Reply};

mod line;

pub use line::CommandLine;

/// What a command has at hand.
#[derive(Clone)]
pub struct Cli {
    /// Where the node lives.
    pub home: Home,
    /// The node is on another machine, spoken to directly.
    pub server: Option<Server>,
    /// Where the token of a server is.
    pub(crate) token_file: Option<String>,
}

/// Runs the command line of this process and says how it ended.
pub fn run() -> ExitCode {
    // The shell asks for completions by a variable; it gets them and nothing else runs.
    clap_complete::CompleteEnv::with_factory(CommandLine::command).complete();
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            if error.kind() == ErrorKind::UnknownArgument && is_launch_without_command() {
                complain(&verb::launch::no_command());
                return ExitCode::from(2);
            }
            if error.use_stderr() {
                // It repeats what was typed, which may come from anywhere.
                let text = crate::show::clean(&error.render().to_string());
                let _ = std::io::stderr().write_all(text.as_bytes());
            } else {
                // Help and version are errors to clap, and go to stdout with status 0.
                let _ = error.print();
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match line.run() {
        Ok(code) => code,
        Err(error) if error.code == "output_closed" => ExitCode::from(141),
        // As the shell has it of a program that SIGINT ends.
        Err(error) if error.code == "interrupted" => ExitCode::from(130),
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_status())
        }
    }
}

/// Whether a command that begins with this word is one of this program's.
pub(crate) fn is_verb(word: &str) -> bool {
    let line = CommandLine::command();
    line.find_subcommand(word)
        .is_some_and(|verb| !verb.is_hide_set())
}

/// Whether this is `cw launch make test`, of which clap would only say that `test` was not expected.
fn is_launch_without_command() -> bool {
    let mut words = std::env::args_os().skip(1);
    let verb = words.next().unwrap_or_default();
    (verb == "launch" || verb == "run") && words.all(|word| word != "--")
}

/// Prints an error the way all of them are printed: what was wrong, its code, what to do.
fn complain(error: &Error) {
    let mut text = format!(
        "cw: {} [{}]\n",
        crate::show::clean(&error.message),
        error.code
    );
    if let Some(hint) = &error.hint {
        text.push_str(&format!("    {}\n", crate::show::clean(hint)));
    }
    // Nowhere left to say it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Why standard output takes no more: `output_closed` when nobody reads any more.
pub(crate) fn not_printed(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Error::new("output_closed", "nobody reads the output"),
        _ => error.into(),
    }
}

/// A command is one short conversation: more threads would only make it slower to start.
pub(crate) fn one_thread() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// For a node or a relay, which have to do for many at once.
pub(crate) fn threads() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build()?)
}

impl Cli {
    /// For the node of this machine.
    ///
    /// # Errors
    ///
    /// `config_invalid`.
    pub(crate) fn from_env() -> Result<Self> {
        Home::from_env().map(Self::at)
    }

    /// For the node of a directory.
    pub(crate) const fn at(home: Home) -> Self {
        Self {
            home,
            server: None,
            token_file: None,
        }
    }

    /// A channel to the node, which is started if there is none.
    ///
    /// # Errors
    ///
    /// `node_start_failed`, `version`.
    pub async fn open(&self) -> Result<Channel> {
        match &self.server {
            Some(server) => server.connect().await,
            None => crate::client::connect_or_start(&self.home).await,
        }
    }

    /// As [`Self::open`], but a node that does not run is not started.
    ///
    /// # Errors
    ///
    /// `node_not_running`; `connection_lost` while its keeper lives, which brings it back.
    pub async fn reopen(&self) -> Result<Channel> {
        match &self.server {
            Some(server) => server.connect().await,
            None => crate::client::reconnect(&self.home).await,
        }
    }

    /// One question, one answer.
    ///
    /// # Errors
    ///
    /// The node's, or `connection_lost`.
    pub async fn ask(&self, call: Call) -> Result<Reply> {
        let Some(server) = &self.server else {
            return crate::client::ask(&self.home, &call).await;
        };
        match server.connect().await?.call(&call).await? {
            Reply::Error(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    /// Prints data on standard output.
    ///
    /// # Errors
    ///
    /// `output_closed` when nobody reads any more, which ends the command in silence.
    pub fn print(&self, text: &str) -> Result<()> {
        self.print_bytes(text.as_bytes())
    }

    /// Prints bytes as they are on standard output.
    ///
    /// # Errors
    ///
    /// As [`Self::print`].
    pub fn print_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut out = std::io::stdout();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(not_printed)
    }

    /// Prints JSON, indented by two.
    ///
    /// # Errors
    ///
    /// As [`Self::print`].
    pub fn print_json<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(Error::internal)?;
        self.print(&format!("{text}\n"))
    }

    /// Prints a confirmation or progress on standard error.
    pub fn note(&self, text: &str) {
        // A confirmation that nobody can see is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// The text of a message: as given, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// `body_too_large` over 1 MiB, before it is sent; `bad_request` for what is not UTF-8.
    pub fn body(&self, body: String) -> Result<String> {
        let limit = session::MAX_BODY;
        let body = if body == "-" {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(limit as u64 + 1)
                .read_to_end(&mut bytes)?;
            String::from_utf8(bytes).map_err(|_| Error::bad_request("the message is not UTF-8"))?
        } else {
            body
        };
        if body.len() > limit {
            return Err(Error::new(
                "body_too_large",
                format!("the message is over the limit of {limit} bytes"),
            )
            .hint("put it in a file and send the path; the limit is 1 MiB"));
        }
        Ok(body)
    }
}
