//! `cw access watch`: hears from the relay, as server-sent events, that grants were revoked, and
//! forgets those that were accepted here. Where it was is kept in a file, so that it goes on from
//! there; if that is too long ago, every grant is looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use mesh::NetworkId;

use super::{forget, prune};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::home::write_private;
use crate::show;
use crate::uplink::events::{Heard, Stream};
use crate::verb::network::At;

/// The first pause after the connection was lost, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Watch for revocations.
#[derive(Args, Clone, Debug)]
pub struct Watch {
    /// Print one JSON object a line.
    #[arg(short, long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

impl Watch {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let (_, network) = self.at.open(cli).await?;
        cli.note(&format!(
            "Watching access invalidation events for {network}"
        ));
        let mut pause = PAUSES.0;
        loop {
            match self.follow(cli, &network, &mut pause).await {
                // It will not be better by waiting.
                Err(error) if ["unauthorized", "forbidden"].contains(&error.code.as_str()) => {
                    return Err(error);
                }
                Err(error) if error.code == "output_closed" => return Err(error),
                Ok(()) | Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn follow(&self, cli: &Cli, network: &NetworkId, pause: &mut Duration) -> Result<()> {
        let path = format!("/api/v1/access/cache/events?network_id={network}");
        let header = self.at.authorization(cli, &path).await?;
        let url = self.at.relay(cli)?;
        let cursor = cursors(cli)?.get(network.as_str()).copied();
        let mut stream = Stream::open(&url, &path, &header, cursor).await?;
        *pause = PAUSES.0;
        if cursor.is_none() {
            // What was revoked before is not told.
            prune(cli, Some(&self.at)).await?;
        }
        while let Some(heard) = stream.next().await? {
            self.take(cli, network, &heard).await?;
            let mut cursors = cursors(cli)?;
            cursors.insert(network.to_string(), heard.id);
            let bytes = serde_json::to_vec(&cursors).map_err(Error::internal)?;
            write_private(&cli.home.accepted_grants_state(), &bytes)?;
        }
        Ok(())
    }

    async fn take(&self, cli: &Cli, network: &NetworkId, heard: &Heard) -> Result<()> {
        if self.json {
            cli.print(&format!("{}\n", heard.data))?;
        }
        match heard.kind.as_str() {
            "access.grant.revoked" => {
                let id = heard.data["grant_id"].as_str().unwrap_or_default();
                let is = |network_id: &str| network_id == network.as_str();
                let known = forget(cli, |grant| grant.grant_id == id && is(&grant.network_id))?;
                if known {
                    cli.note(&show::clean(&format!(
                        "Removed accepted grant {id} after relay revocation"
                    )));
                }
            }
            "stream.reset" => {
                let pruned = prune(cli, Some(&self.at)).await?;
                cli.note(&pruned.line());
            }
            _ => {}
        }
        Ok(())
    }
}

/// How far each network's events were heard.
fn cursors(cli: &Cli) -> Result<BTreeMap<String, u64>> {
    match std::fs::read(cli.home.accepted_grants_state()) {
        // One that cannot be read is as none: everything is looked at again.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}
