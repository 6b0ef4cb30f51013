//! `cw whoami`: who the relay takes you for.

use clap::Args;

use super::network::Access;
use crate::cli::Cli;
use crate::error::Result;
use crate::show;

/// Say who you are to a relay.
#[derive(Args, Clone, Debug)]
pub struct Whoami {
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,
}

impl Whoami {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        // The option for a token file is one of all verbs.
        let access = Access {
            relay_url: self.relay_url,
            token_file: cli.token_file.clone(),
        };
        let me = access.api(cli)?.whoami().await?;
        if self.json {
            return cli.print_json(&me);
        }
        let subject = show::clean(&me.subject);
        let line = match (&me.name, &me.login) {
            (Some(name), Some(login)) => format!(
                "{} ({subject}), login {} until {}",
                show::cut(name, 60),
                show::clean(&login.id),
                show::clean(&login.expires_at)
            ),
            _ if me.auth_mode == "none" => {
                format!("{subject}, as is everybody who asks this relay")
            }
            _ => format!("{subject}, by the relay's token"),
        };
        cli.print(&format!("{line}\n"))
    }
}
