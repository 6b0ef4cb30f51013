//! `cw logout`: this machine is logged in no longer, at once and at the relay.

use clap::Args;

use super::network::Access;
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::logins;
use crate::show;
use crate::uplink::api::Api;

/// Log out of a relay.
#[derive(Args, Clone, Debug)]
pub struct Logout {
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,
    /// End your logins on all other machines, too.
    #[arg(short, long)]
    pub all: bool,
}

impl Logout {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let access = Access {
            relay_url: self.relay_url,
            token_file: None,
        };
        let url = access.url(cli)?;
        let shown = show::clean(&url);
        let Some(login) = logins::forget(&cli.home, &url)? else {
            let text = format!("you are not logged in to {shown} on this machine");
            return Err(Error::new("not_found", text)
                .hint("'cw login list' shows where you are, 'cw login revoke ID' ends it there"));
        };
        let Some(token) = login.token else {
            cli.note(&format!("Logged out of {shown}, which asks for nothing"));
            return Ok(());
        };
        let api = Api::new(&url, &token)?;
        let ended = if self.all {
            api.end_logins().await
        } else {
            api.end_login("current").await.map(|()| 1)
        };
        match ended {
            Ok(count) if self.all => {
                cli.note(&format!("Logged out of {shown}, {count} login(s) ended"));
            }
            Ok(_) => cli.note(&format!("Logged out of {shown}")),
            // It was over before.
            Err(error) if error.code == "unauthorized" => {
                cli.note(&format!("Logged out of {shown}"));
            }
            Err(error) => {
                let text = format!(
                    "logged out here, but the relay has not heard of it: {}",
                    error.message
                );
                let hint = "'cw login revoke ID' from another machine ends it there, too";
                return Err(Error::new(&error.code, text).hint(hint));
            }
        }
        Ok(())
    }
}
