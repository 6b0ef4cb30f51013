//! `cw server add|remove|list`, and `--server`: nodes that are spoken to directly.
//!
//! They are kept in `servers.toml`, `[servers.<name>] url, token`, 0600. A token comes from
//! standard input, a file or the environment; `--token` is there because scripts use it, but a
//! command line can be read by others.

use std::io::Read;

use clap::Subcommand;
use toml::{Table, Value};

use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::home::{Home, write_private};
use crate::rpc::Channel;
use crate::show;
use crate::uplink::RelayUrl;

/// The variable that holds the token of a URL given to `--server`.
const TOKEN_VARIABLE: &str = "CODEWIRE_SERVER_TOKEN";
/// The longest token, in bytes; ours have 32.
const TOKEN_MAX: u64 = 4096;

/// Nodes on other machines that are spoken to directly.
#[derive(Subcommand, Clone, Debug)]
pub enum Manage {
    /// Save a server under a name.
    Add {
        /// The name.
        name: String,
        /// Where it is: ws://host:port, wss://host, wss://host:port or host:port.
        url: String,
        /// Its token; others can read a command line, so rather use --token-file or standard input.
        #[arg(long, conflicts_with = "token_file")]
        token: Option<String>,
    },
    /// Forget a server.
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name.
        name: String,
    },
    /// List the saved servers; tokens are not shown.
    #[command(visible_alias = "ls")]
    List {
        /// Print JSON.
        #[arg(short, long)]
        json: bool,
    },
}

/// A node on another machine.
#[derive(Clone)]
pub struct Server {
    url: RelayUrl,
    token: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the token.
        write!(f, "Server({})", self.url)
    }
}

impl Server {
    /// Connects and says hello.
    ///
    /// # Errors
    ///
    /// `node_unreachable`, `unauthorized`, `tls`, `version`.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        let channel = crate::ws::connect(&self.url, &self.token).await?;
        crate::client::hello(channel)
            .await
            .map(|(channel, _)| channel)
    }
}

/// What `--server` means: a saved name, else an address whose token is in a file or a variable.
///
/// # Errors
///
/// `usage` without a token, `config_invalid` for a file that cannot be read.
pub(crate) fn choose(
    home: &Home,
    server: Option<&str>,
    token_file: Option<&str>,
) -> Result<Option<Server>> {
    let Some(server) = server.filter(|server| !server.is_empty()) else {
        return Ok(None);
    };
    let given = match token_file {
        Some(path) => Some(from_file(path)?),
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    let table = load(home)?;
    if let Some(saved) = table.get(server).and_then(Value::as_table) {
        let text = |key: &str| saved.get(key).and_then(Value::as_str).unwrap_or_default();
        return Ok(Some(Server {
            url: crate::ws::address(text("url"))?,
            token: given.unwrap_or_else(|| text("token").to_owned()),
        }));
    }
    if !server.contains([':', '.', '/']) {
        return Err(
            Error::new("not_found", format!("no saved server {server:?}"))
                .hint("'cw server list' shows them; an address is ws://host:port"),
        );
    }
    let url = crate::ws::address(server)?;
    let token = given.ok_or_else(|| {
        Error::new("usage", "a server that is not saved needs a token")
            .hint(format!("give --token-file, or set {TOKEN_VARIABLE}"))
    })?;
    Ok(Some(Server { url, token }))
}

impl Manage {
    pub(crate) fn run(self, cli: &Cli, token_file: Option<&str>) -> Result<()> {
        match self {
            Self::Add { name, url, token } => {
                if name.is_empty()
                    || !name
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
                {
                    return Err(Error::new(
                        "usage",
                        format!("{name:?} is not a name for a server"),
                    )
                    .hint("letters, digits, - and _"));
                }
                crate::ws::address(&url)?;
                let token = match (token, token_file) {
                    (Some(token), _) => token,
                    (None, Some(path)) => from_file(path)?,
                    (None, None) => match std::env::var(TOKEN_VARIABLE) {
                        Ok(token) => token,
                        Err(_) => from_input()?,
                    },
                };
                let mut table = load(&cli.home)?;
                let mut entry = Table::new();
                entry.insert("url".to_owned(), Value::String(url));
                entry.insert("token".to_owned(), Value::String(token.trim().to_owned()));
                table.insert(name.clone(), Value::Table(entry));
                save(&cli.home, table)?;
                cli.note(&format!("Server {name:?} added"));
                Ok(())
            }
            Self::Remove { name } => {
                let mut table = load(&cli.home)?;
                if table.remove(&name).is_none() {
                    return Err(Error::new("not_found", format!("no saved server {name:?}"))
                        .hint("'cw server list' shows them"));
                }
                save(&cli.home, table)?;
                cli.note(&format!("Server {name:?} removed"));
                Ok(())
            }
            Self::List { json } => list(cli, json),
        }
    }
}

fn list(cli: &Cli, json: bool) -> Result<()> {
    let table = load(&cli.home)?;
    let url = |entry: &Value| {
        entry
            .get("url")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let rows: Vec<_> = table
        .iter()
        .map(|(name, entry)| (name, url(entry)))
        .collect();
    if json {
        let rows = rows
            .iter()
            .map(|(name, url)| serde_json::json!({"name": name, "url": url}));
        return cli.print_json(&rows.collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return cli.print("No saved servers\n");
    }
    let mut out = format!("{:<20} URL\n", "NAME");
    for (name, url) in rows {
        out += &format!("{:<20} {}\n", show::clean(name), show::clean(&url));
    }
    cli.print(&out)
}

fn from_file(path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map(|token| token.trim().to_owned())
        .map_err(|error| Error::new("not_found", format!("cannot read {path}: {error}")))
}

fn from_input() -> Result<String> {
    let mut token = String::new();
    std::io::stdin()
        .take(TOKEN_MAX)
        .read_to_string(&mut token)?;
    if token.trim().is_empty() {
        return Err(Error::new("usage", "no token")
            .hint("give it on standard input, with --token-file or --token"));
    }
    Ok(token)
}

fn load(home: &Home) -> Result<Table> {
    let path = home.servers();
    let invalid = |why: String| Error::new("config_invalid", format!("{}: {why}", path.display()));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(error) => return Err(invalid(error.to_string())),
    };
    saved(&text).map_err(invalid)
}

/// The table `servers` of the file; what is wrong with it, if it has none.
pub(crate) fn saved(text: &str) -> Result<Table, String> {
    let mut file: Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    match file.remove("servers") {
        None => Ok(Table::new()),
        Some(Value::Table(servers)) => Ok(servers),
        Some(_) => Err("[servers] is not a table".to_owned()),
    }
}

fn save(home: &Home, servers: Table) -> Result<()> {
    home.create()?;
    let mut file = Table::new();
    file.insert("servers".to_owned(), Value::Table(servers));
    let text = toml::to_string(&file).map_err(Error::internal)?;
    Ok(write_private(&home.servers(), text.as_bytes())?)
}
