//! `cw ssh-key add|list|rm`: whose keys open the SSH front door of the relay, or this machine.

use std::io::Read as _;

use clap::{Args, Subcommand};

use super::network::Access;
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::home::write_private;
use crate::show;
use crate::ssh;

/// The longest file of keys that is read or written, bytes.
const MAX_FILE: usize = 256 * 1024;

/// Your keys for SSH.
#[derive(Subcommand, Clone, Debug)]
pub enum SshKey {
    /// Let who has this key in: through the relay's front door, to your nodes.
    Add(Add),
    /// List the keys.
    #[command(visible_alias = "ls")]
    List(List),
    /// Take a key away; who is in stays in.
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Add a key.
#[derive(Args, Clone, Debug)]
pub struct Add {
    /// The file of the public key, such as ~/.ssh/id_ed25519.pub; - reads it from standard input.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub place: Place,
}

/// List keys.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub place: Place,
}

/// Take a key away.
#[derive(Args, Clone, Debug)]
pub struct Rm {
    /// As the list shows it: SHA256:…
    pub fingerprint: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub place: Place,
}

/// Which door.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The keys that this machine itself takes, end to end: ssh -J relay this-node.
    #[arg(long)]
    pub here: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

impl SshKey {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match self {
            Self::Add(call) => call.run(cli).await,
            Self::List(call) => call.run(cli).await,
            Self::Rm(call) => call.run(cli).await,
        }
    }
}

impl Add {
    async fn run(self, cli: &Cli) -> Result<()> {
        let text = read(&self.file)?;
        let key = ssh::public_key(&text)?;
        let fingerprint = ssh::fingerprint(&key);
        let line = key.to_openssh().map_err(Error::internal)?;
        if self.place.here {
            let mut lines = lines(cli)?;
            if !lines.iter().any(|line| is(line, &fingerprint)) {
                lines.push(line);
                write(cli, &lines)?;
            }
            cli.note(&format!("Key {fingerprint} may come in here, by ssh -J"));
        } else {
            self.place.access.api(cli)?.add_ssh_key(&line).await?;
            cli.note(&format!("Key {fingerprint} may come in through the relay"));
        }
        Ok(())
    }
}

impl List {
    async fn run(self, cli: &Cli) -> Result<()> {
        let keys: Vec<(String, String, Option<String>)> = if self.place.here {
            let lines = lines(cli)?;
            let keys = lines.iter().filter_map(|line| ssh::public_key(line).ok());
            keys.map(|key| (ssh::fingerprint(&key), key.comment().to_string(), None))
                .collect()
        } else {
            let keys = self.place.access.api(cli)?.ssh_keys().await?;
            let keys = keys.into_iter().map(|key| {
                let comment = ssh::public_key(&key.key).map(|key| key.comment().to_string());
                (
                    key.fingerprint,
                    comment.unwrap_or_default(),
                    Some(key.created_at),
                )
            });
            keys.collect()
        };
        if self.json {
            let keys: Vec<_> = keys
                .iter()
                .map(|(fingerprint, comment, created)| {
                    serde_json::json!({
                        "fingerprint": fingerprint, "comment": comment, "created_at": created,
                    })
                })
                .collect();
            return cli.print_json(&keys);
        }
        let mut out = format!("{:<52} {:<22} COMMENT\n", "FINGERPRINT", "ADDED");
        for (fingerprint, comment, created) in keys {
            out.push_str(&format!(
                "{:<52} {:<22} {}\n",
                show::clean(&fingerprint),
                created.as_deref().map_or_else(|| "-".into(), show::clean),
                show::clean(&comment)
            ));
        }
        cli.print(&out)
    }
}

impl Rm {
    async fn run(self, cli: &Cli) -> Result<()> {
        if self.place.here {
            let mut lines = lines(cli)?;
            let before = lines.len();
            lines.retain(|line| !is(line, &self.fingerprint));
            if lines.len() == before {
                return Err(Error::new("not_found", "there is no such key here")
                    .hint("'cw ssh-key list --here' shows those that there are"));
            }
            write(cli, &lines)?;
        } else {
            let api = self.place.access.api(cli)?;
            api.delete_ssh_key(&self.fingerprint).await?;
        }
        cli.note(&format!("Key {} is out", self.fingerprint));
        Ok(())
    }
}

fn read(file: &str) -> Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    let done = if file == "-" {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(file);
        file.and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    done.map_err(|error| Error::new("not_found", format!("cannot read {file}: {error}")))?;
    Ok(text)
}

/// The lines of this node's `authorized_keys`; those that are no keys are kept.
fn lines(cli: &Cli) -> Result<Vec<String>> {
    match std::fs::read_to_string(cli.home.authorized_keys()) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn write(cli: &Cli, lines: &[String]) -> Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if text.len() > MAX_FILE {
        return Err(Error::new(
            "limit_reached",
            "authorized_keys would be too long",
        ));
    }
    cli.home.create()?;
    Ok(write_private(&cli.home.authorized_keys(), text.as_bytes())?)
}

fn is(line: &str, fingerprint: &str) -> bool {
    ssh::public_key(line).is_ok_and(|key| ssh::fingerprint(&key) == fingerprint)
}
