//! `cw config-ssh`: a block in `~/.ssh/config`, so that `ssh dev-1.cw` reaches a node end to end.
//!
//! The block is between two lines of its own and is replaced whole; what is around it is not
//! touched. Names in it are those of nodes and networks, whose letters cannot mean anything else
//! there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::network::{Access, At};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::home::write_private;

const BEGIN: &str = "# >>> cw >>>";
const END: &str = "# <<< cw <<<";

/// Write a block into ~/.ssh/config with which 'ssh NODE.cw' reaches your nodes.
#[derive(Args, Clone, Debug)]
pub struct ConfigSsh {
    /// Another file than ~/.ssh/config.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Only print the block.
    #[arg(long)]
    pub print: bool,
    /// Take the block out again.
    #[arg(long, conflicts_with = "print")]
    pub remove: bool,
    /// The network; the selected one if left out, else the one that this machine has joined.
    #[arg(long, add = super::complete::networks())]
    pub network: Option<mesh::NetworkId>,
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,
}

impl ConfigSsh {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => std::env::home_dir()
                .ok_or_else(|| Error::new("config_invalid", "there is no home directory"))?
                .join(".ssh/config"),
        };
        if self.remove {
            let before = read(&file)?;
            let after = without(&before);
            // A file that is not there, or has no block, is left as it is.
            if after != before {
                write(&file, &after)?;
            }
            cli.note(&format!("{} has no block of cw's any more", file.display()));
            return Ok(());
        }
        let block = self.block(cli).await?;
        if self.print {
            return cli.print(&block);
        }
        let rest = without(&read(&file)?);
        // First come first served: what stands further up in the file would win.
        write(&file, &format!("{block}{rest}"))?;
        cli.note(&format!(
            "{} is written; try: ssh <node>.cw",
            file.display()
        ));
        Ok(())
    }

    async fn block(&self, cli: &Cli) -> Result<String> {
        // The option for a token file is one of all verbs.
        let at = At {
            network: self.network.clone(),
            access: Access {
                relay_url: self.relay_url.clone(),
                token_file: cli.token_file.clone(),
            },
        };
        let (api, network) = at.open(cli).await?;
        let relay = at.relay(cli)?;
        let port = api.about().await?.ssh_port.ok_or_else(no_door)?;
        let host = host_of(&relay)?;
        let mut block = format!(
            "{BEGIN}\n# Made by 'cw config-ssh'; run it again when nodes have come or gone.\n\
             Host cw-relay\n    HostName {host}\n    Port {port}\n"
        );
        for node in api.nodes(&network).await? {
            let name = &node.name;
            // Writing to a string does not fail.
            let _ = write!(
                block,
                "Host {name}.cw\n    HostName {name}\n    Port 22\n    ProxyJump cw-relay\n    \
                 HostKeyAlias cw-{network}-{name}\n"
            );
        }
        block.push_str(END);
        block.push('\n');
        Ok(block)
    }
}

/// The relay has no front door.
pub(super) fn no_door() -> Error {
    Error::new("not_found", "this relay has no SSH front door")
        .hint("start it with --ssh-listen :2222")
}

/// The host of a relay's URL, as SSH takes it.
pub(super) fn host_of(relay: &str) -> Result<String> {
    let url: crate::uplink::RelayUrl = relay.parse()?;
    Ok(url.host)
}

fn read(file: &Path) -> Result<String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(dir) = file.parent() {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    // A link into somebody's dotfiles stays one.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    Ok(write_private(&file, text.as_bytes())?)
}

/// The text without the block; a block that does not end is left alone.
fn without(text: &str) -> String {
    let Some((before, rest)) = text.split_once(&format!("{BEGIN}\n")) else {
        return text.to_owned();
    };
    match rest.split_once(&format!("{END}\n")) {
        Some((_, after)) => format!("{before}{after}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_is_replaced() {
        let block = format!("{BEGIN}\nHost x\n{END}\n");
        let around = format!("Host a\n{block}Host b\n");
        assert_eq!(without(&around), "Host a\nHost b\n");
        assert_eq!(without("Host a\n"), "Host a\n");
        assert_eq!(without(""), "");
        let open = format!("{BEGIN}\nHost x\n");
        assert_eq!(without(&open), open);
    }
}
