//! The command line: what the words mean, and which verb they run.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{Cli, one_thread, threads};
use crate::error::{Error, Result};
use crate::verb;

/// Terminals for AI agents, on every machine you own.
#[derive(Parser, Debug)]
#[command(
    name = "cw",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    /// Talk to a node on another machine directly: a name from 'cw server list', or its URL.
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME|URL",
        env = "CODEWIRE_SERVER",
        hide_env = true
    )]
    server: Option<String>,
    /// The file that holds the token of a server; the variable CODEWIRE_SERVER_TOKEN is another way.
    #[arg(long, global = true, value_name = "PATH")]
    token_file: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

/// The options of a verb are looked at only when it is the one.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
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
    /// Watch what sessions print, without attaching.
    Watch(verb::watch::Watch),
    /// Block until sessions end, fall silent or print something.
    Wait(verb::wait::Wait),
    /// Follow what happens to sessions.
    Subscribe(verb::subscribe::Subscribe),
    /// Show what a session shows now, as text.
    Screen(verb::screen::Screen),
    /// Give a session another name.
    Rename(verb::rename::Rename),
    /// Show or change the tags of a session.
    Tag(verb::tag::Tag),
    /// Send a message to a session.
    Msg(verb::msg::Msg),
    /// Show the messages of a session.
    Inbox(verb::inbox::Inbox),
    /// Show the messages to other nodes, and how far they have come.
    Outbox(verb::outbox::Outbox),
    /// Send a request to a session and wait for its reply.
    Request(verb::request::Command),
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
    /// Log in to a relay; list your logins, or end one.
    Login(verb::login::Login),
    /// Log out of a relay.
    Logout(verb::logout::Logout),
    /// Say who you are to a relay.
    Whoami(verb::whoami::Whoami),
    /// Your keys for SSH.
    SshKey {
        #[command(subcommand)]
        verb: verb::ssh_key::SshKey,
    },
    /// Write a block into ~/.ssh/config with which 'ssh NODE.cw' reaches your nodes.
    ConfigSsh(verb::config_ssh::ConfigSsh),
    /// Values that all machines of the network share.
    Kv {
        #[command(subcommand)]
        verb: verb::kv::Kv,
    },
    /// Groups: which sessions may write to each other.
    Group {
        #[command(subcommand)]
        verb: verb::group::Group,
    },
    /// Grants: a look into one session, for somebody else, for a while.
    Access {
        #[command(subcommand)]
        verb: verb::access::Access,
    },
    /// The relay that introduces nodes to each other.
    Relay {
        #[command(subcommand)]
        verb: verb::relay::Relay,
    },
    /// Nodes on other machines that are spoken to directly, without a relay.
    Server {
        #[command(subcommand)]
        verb: verb::server::Manage,
    },
    /// Offer the verbs as tools to an agent, by the Model Context Protocol on standard input and
    /// output.
    McpServer,
    /// Say what is set, by what, and what is wrong with it.
    Doctor(verb::doctor::Doctor),
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
    /// Make a password for one login to a node over SSH, and show it as a QR code.
    Qr(verb::node::Qr),
    /// Show how this node reaches the relay and the other nodes, and why not directly.
    Status(verb::node::status::Status),
    /// Print numbers of the node and of its ways, for monitoring (Prometheus' text format).
    Metrics(verb::node::metrics::Metrics),
    /// Measure the way to a node.
    Ping(verb::node::Ping),
    /// Stop the node and end its sessions.
    Stop(verb::process::Stop),
    /// Start the node again, onto the program that is installed now; sessions run on.
    Restart(verb::process::Restart),
    /// The node itself, as the keeper starts it.
    #[command(hide = true)]
    Serve,
}

impl CommandLine {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut cli = Cli::from_env()?;
        cli.token_file = self.token_file.clone();
        cli.server = verb::server::choose(
            &cli.home,
            self.server.as_deref(),
            self.token_file.as_deref(),
        )?;
        match self.verb {
            // These two fork; no thread may have been started before.
            Verb::Keeper { arguments } => verb::process::keeper(&cli.home, &arguments),
            Verb::Node {
                verb: None | Some(Node::Run),
            } => verb::process::keeper(&cli.home, &[]),
            Verb::Node {
                verb: Some(Node::Serve),
            } => crate::node::serve_until_stopped(cli.home),
            Verb::Relay { verb } => threads()?
                .block_on(verb.run(&cli))
                .map(|()| ExitCode::SUCCESS),
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

/// Verbs that act on this machine alone must not be taken for acting on another.
fn refuse_server(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Start
        | Verb::Stop(_)
        | Verb::Network { .. }
        | Verb::Group { .. }
        | Verb::Access { .. }
        | Verb::Login(_)
        | Verb::Logout(_)
        | Verb::Whoami(_)
        | Verb::SshKey { .. }
        | Verb::ConfigSsh(_)
        | Verb::Health(_)
        | Verb::Node {
            verb: Some(Node::Stop(_) | Node::Restart(_)),
        } => {
            Err(Error::new("usage", "this command acts on this machine").hint("leave out --server"))
        }
        _ => Ok(()),
    }
}

async fn client(verb: Verb, cli: &Cli) -> Result<()> {
    if cli.server.is_some() {
        refuse_server(&verb)?;
    }
    match verb {
        Verb::Launch(verb) => verb.run(cli).await,
        Verb::List(verb) => verb.run(cli).await,
        Verb::Attach(verb) => verb.run(cli).await,
        Verb::Logs(verb) => verb.run(cli).await,
        Verb::Send(verb) => verb.run(cli).await,
        Verb::Kill(verb) => verb.run(cli).await,
        Verb::Status(verb) => verb.run(cli).await,
        Verb::Watch(verb) => verb.run(cli).await,
        Verb::Wait(verb) => verb.run(cli).await,
        Verb::Subscribe(verb) => verb.run(cli).await,
        Verb::Screen(verb) => verb.run(cli).await,
        Verb::Rename(verb) => verb.run(cli).await,
        Verb::Tag(verb) => verb.run(cli).await,
        Verb::Server { verb } => verb.run(cli, cli.token_file.as_deref()),
        Verb::McpServer => crate::mcp::serve(cli).await,
        Verb::Doctor(verb) => verb.run(cli).await,
        Verb::Msg(verb) => verb.run(cli).await,
        Verb::Inbox(verb) => verb.run(cli).await,
        Verb::Outbox(verb) => verb.run(cli).await,
        Verb::Request(verb) => verb.run(cli).await,
        Verb::Reply(verb) => verb.run(cli).await,
        Verb::Listen(verb) => verb.run(cli).await,
        Verb::Start => verb::process::start(cli).await,
        Verb::Stop(verb)
        | Verb::Node {
            verb: Some(Node::Stop(verb)),
        } => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::Restart(verb)),
        } => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::List(verb)),
        } => verb.run(cli).await,
        Verb::Login(verb) => verb.run(cli).await,
        Verb::Logout(verb) => verb.run(cli).await,
        Verb::Whoami(verb) => verb.run(cli).await,
        Verb::SshKey { verb } => verb.run(cli).await,
        Verb::ConfigSsh(verb) => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::Qr(verb)),
        } => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::Ping(verb)),
        } => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::Status(verb)),
        } => verb.run(cli).await,
        Verb::Node {
            verb: Some(Node::Metrics(verb)),
        } => verb.run(cli).await,
        Verb::Network { verb } => verb.run(cli).await,
        Verb::Kv { verb } => verb.run(cli).await,
        Verb::Group { verb } => verb.run(cli).await,
        Verb::Access { verb } => verb.run(cli).await,
        Verb::Health(verb) => verb.run(cli).await,
        Verb::Completion(verb) => verb.run(cli),
        Verb::Keeper { .. } | Verb::Relay { .. } | Verb::Node { .. } => {
            Err(Error::internal("not a client's verb"))
        }
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

    /// What clap finds out only when the option is given, and then panics.
    #[test]
    fn options_of_a_name_that_is_for_all_have_its_type() {
        fn look(command: &clap::Command, all: &[clap::Arg]) {
            for arg in command.get_arguments() {
                let same = all.iter().find(|other| other.get_id() == arg.get_id());
                if let Some(other) = same {
                    let types = [arg, other].map(|arg| arg.get_value_parser().type_id());
                    assert_eq!(types[0], types[1], "{} {arg}", command.get_name());
                }
            }
            for verb in command.get_subcommands() {
                look(verb, all);
            }
        }
        let mut command = CommandLine::command();
        command.build();
        let all: Vec<_> = command.get_arguments().cloned().collect();
        look(&command, &all);
    }

    #[test]
    fn what_is_said_about_trust_is_understood() {
        for line in [
            "cw run --name agent-1 --group mesh -- claude",
            "cw group create mesh",
            "cw group members mesh",
            "cw group add mesh dev-1:agent-2",
            "cw group policy mesh --messages open --debug none --join members",
            "cw access grant dev-1:agent-2 --to alice --for 10m",
            "cw inbox dev-1:agent-2 --grant x",
            "cw listen --session dev-1:agent-2 --grant x",
            "cw attach dev-1:agent-2 --read-only --grant x",
            "cw access accept x",
            "cw access list --accepted --node dev-1 --session agent-2",
            "cw access inspect gr_1",
            "cw access drop gr_1",
            "cw access prune",
            "cw access watch",
            "cw node list --network alpha",
            "cw node list --all",
            "cw network invite --uses 2 --ttl 1h --qr",
            "cw network invite list",
            "cw network invite revoke inv_1",
            "cw network enroll create --node-name dev-3",
            "cw network members",
            "cw network promote guest:inv_1 --role member",
            "cw network remove guest:inv_1",
            "cw network delete alpha",
            "cw network clear",
            "cw login",
            "cw login --browser --relay-url https://relay.example.com",
            "cw login list --all --json",
            "cw login revoke login_1",
            "cw logout --all",
            "cw whoami --json",
        ] {
            let words = line.split(' ');
            assert!(CommandLine::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_the_readme_shows_is_understood() {
        for line in [
            "cw launch planner -- bash",
            "cw launch dev-2 --name coder -- bash -c 'a b'",
            "cw list dev-2 --json",
            "cw network create demo --token-file /data/relay/auth-token",
            "cw msg -f planner dev-2:coder start",
            "cw request -f planner dev-2:coder ready? --timeout 5",
            "cw reply req_x yes -f coder",
            "cw listen --session dev-2:coder",
            "cw msg @tag:worker hi --delivery both",
            "cw msg @group:mesh hi",
            "cw msg dev-2:@tag:worker hi --wait read --timeout 5",
            "cw request --resume req_x",
            "cw request coder ready? --async",
            "cw outbox planner --queued",
            "cw kill --tag worker",
            "cw kill --all",
            "cw logs 1 --tail 100 -f",
            "cw send 1 --file x --no-newline",
            "cw network join --relay-url http://x CW-INV-y",
            "cw network create alpha --use",
            "cw node",
            "cw node list",
            "cw node status",
            "cw node status dev-2 --json",
            "cw node ping dev-2 -c 3 --json",
            "cw node metrics",
            "cw attach",
            "cw attach dev-1:3 --read-only",
            "cw watch 1 --tail 50",
            "cw watch 1 --no-history --timeout 60",
            "cw wait --tag worker --condition any --timeout 60",
            "cw wait 3 --until output READY",
            "cw subscribe --tag worker --event session.status",
            "cw subscribe dev-1 --tag build",
            "cw subscribe --session 3",
            "cw rename 3 coder",
            "cw tag coder a b --remove c",
            "cw server add my-gpu ws://gpu-host:9100 --token x",
            "cw --server my-gpu attach 1",
            "cw send 1 --keys C-c Enter",
            "cw mcp-server",
            "cw start",
            "cw stop",
        ] {
            let words = line.split(' ');
            assert!(CommandLine::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "cw",
            "cw kill",
            "cw msg a",
            "cw request a",
            "cw watch a b",
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
