//! The command line: what the words mean, and what a command has at hand while it runs.

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};
use crate::home::Home;
use crate::rpc::Channel;
use crate::verb::{self, Call, Reply};

/// Terminals for AI agents, on every machine you own.
#[derive(Parser, Debug)]
#[command(
    name = "cw",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Start a command in a new session.
    #[command(visible_alias = "run")]
    Launch(verb::launch::Launch),
    /// List the sessions, here or on another node.
    #[command(visible_alias = "ls")]
    List(verb::list::List),
    /// Take a session over with your terminal; Ctrl+B d lets it go.
    Attach(verb::attach::Attach),
    /// Show what a session has printed, also after its end.
    Logs(verb::logs::Logs),
    /// Type text into a session.
    Send(verb::send::Send),
    /// End a session and everything it started.
    Kill(verb::kill::Kill),
    /// Show the state of a session.
    Status(verb::status::Status),
    /// Send a message to a session.
    Msg(verb::msg::Msg),
    /// Show the messages of a session.
    Inbox(verb::inbox::Inbox),
    /// Send a request to a session and wait for its reply.
    Request(verb::request::Request),
    /// Answer a request.
    Reply(verb::reply::Reply),
    /// Follow messages.
    Listen(verb::listen::Listen),
    /// Start the node in the background; other commands do it by themselves.
    Start,
    /// Stop the node and end its sessions.
    Stop(verb::process::Stop),
    /// The node of this machine and the others of the network.
    Node {
        #[command(subcommand)]
        verb: Option<Node>,
    },
    /// Networks: which machines belong together.
    Network {
        #[command(subcommand)]
        verb: verb::network::Network,
    },
    /// The relay that introduces nodes to each other.
    Relay {
        #[command(subcommand)]
        verb: verb::relay::Relay,
    },
    /// Say by the exit status whether the node, or a relay, answers; for health checks.
    Health(verb::health::Health),
    /// Print a completion script for your shell.
    Completion(verb::completion::Completion),
    /// Holds the terminals of a node.
    #[command(hide = true)]
    Keeper {
        /// As the node gives them.
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

#[derive(Subcommand, Debug)]
enum Node {
    /// Run the node in the foreground; this is what `cw node` alone does.
    Run,
    /// List the nodes of the network, and how each is reached.
    List(verb::node::List),
    /// Measure the way to a node.
    Ping(verb::node::Ping),
    /// Stop the node and end its sessions.
    Stop(verb::process::Stop),
    /// The node itself, as the keeper starts it.
    #[command(hide = true)]
    Serve,
}

/// What a command has at hand.
pub struct Cli {
    /// Where the node lives.
    pub home: Home,
}

/// Runs the command line of this process and says how it ended.
pub fn run() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version are errors to clap, and go to stdout with status 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match line.run() {
        Ok(code) => code,
        Err(error) if error.code == "output_closed" => ExitCode::from(141),
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_status())
        }
    }
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

impl CommandLine {
    fn run(self) -> Result<ExitCode> {
        let cli = Cli {
            home: Home::from_env()?,
        };
        match self.verb {
            // These two fork; no thread may have been started before.
            Verb::Keeper { arguments } => verb::process::keeper(&cli.home, &arguments),
            Verb::Node {
                verb: None | Some(Node::Run),
            } => verb::process::keeper(&cli.home, &[]),
            Verb::Node {
                verb: Some(Node::Serve),
            } => crate::node::serve_until_stopped(cli.home),
            Verb::Relay { verb } => threads()?.block_on(verb.run()).map(|()| ExitCode::SUCCESS),
            verb => {
                let runtime = one_thread()?;
                let done = runtime.block_on(client(verb, &cli));
                // A read of the keyboard cannot be called off; the next key must not be waited for.
                runtime.shutdown_background();
                done.map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

async fn client(verb: Verb, cli: &Cli) -> Result<()> {
    match verb {
        Verb::Launch(verb) => verb.run(cli).await,
        Verb::List(verb) => verb.run(cli).await,
        Verb::Attach(verb) => verb.run(cli).await,
        Verb::Logs(verb) => verb.run(cli).await,
        Verb::Send(verb) => verb.run(cli).await,
        Verb::Kill(verb) => verb.run(cli).await,
        Verb::Status(verb) => verb.run(cli).await,
        Verb::Msg(verb) => verb.run(cli).await,
        Verb::Inbox(verb) => verb.run(cli).await,
        Verb::Request(verb) => verb.run(cli).await,
        Verb::Reply(verb) => verb.run(cli).await,
        Verb::Listen(verb) => verb.run(cli).await,
        Verb::Start => verb::process::start(cli).await,
        Verb::Stop(verb)
        | Verb::Node {
            verb: Some(Node::Stop(verb)),
        } => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::List(verb)),
        } => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::Ping(verb)),
        } => verb.run(cli).await,
        Verb::Network { verb } => verb.run(cli).await,
        Verb::Health(verb) => verb.run(cli).await,
        Verb::Completion(verb) => verb.run(cli),
        Verb::Keeper { .. } | Verb::Relay { .. } | Verb::Node { .. } => {
            Err(Error::internal("not a client's verb"))
        }
    }
}

/// A command is one short conversation: more threads would only make it slower to start.
fn one_thread() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

pub(crate) fn threads() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

impl Cli {
    /// A channel to the node, which is started if there is none.
    ///
    /// # Errors
    ///
    /// `node_start_failed`, `version`.
    pub async fn open(&self) -> Result<Channel> {
        crate::client::connect_or_start(&self.home).await
    }

    /// One question, one answer.
    ///
    /// # Errors
    ///
    /// The node's, or `connection_lost`.
    pub async fn ask(&self, call: Call) -> Result<Reply> {
        match self.open().await?.call(&call).await? {
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
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::BrokenPipe => {
                    Error::new("output_closed", "nobody reads the output")
                }
                _ => error.into(),
            })
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
            ));
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_the_readme_shows_is_understood() {
        for line in [
            "cw launch planner -- bash",
            "cw launch dev-2 --name coder -- bash -c 'a b'",
            "cw list dev-2 --json",
            "cw msg -f planner dev-2:coder start",
            "cw request -f planner dev-2:coder ready? --timeout 5",
            "cw reply req_x yes -f coder",
            "cw listen --session dev-2:coder",
            "cw kill --tag worker",
            "cw kill --all",
            "cw logs 1 --tail 100 -f",
            "cw send 1 --file x --no-newline",
            "cw network join --relay-url http://x CW-INV-y",
            "cw network create alpha --use",
            "cw node",
            "cw node list",
        ] {
            let words = line.split(' ');
            assert!(CommandLine::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "cw",
            "cw kill",
            "cw msg a",
            "cw attach",
            "cw kill a --all",
            "cw list --status odd",
            "cw nonsense",
        ] {
            assert!(
                CommandLine::try_parse_from(line.split(' ')).is_err(),
                "{line}"
            );
        }
    }
}
