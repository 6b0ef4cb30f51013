//! `cw login`: who you are, for a relay; and where else you are logged in.
//!
//! The relay says how it wants to know: by its token, by a provider, or not at all. What comes out
//! is a login, a token of this machine's own, kept in `logins.json`. The relay's token is shown once
//! and not kept. A login that is replaced is ended.

mod browser;
mod device;

use clap::{Args, Subcommand};

use super::network::Access;
use crate::cli::Cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::logins;
use crate::show;
use crate::uplink::api::{Api, Granted};

/// Log in to a relay.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Login {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub verb: Option<Logins>,
    /// By a browser of this machine, instead of a code that you type in one anywhere.
    #[arg(long)]
    pub browser: bool,
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,
}

/// Your logins.
#[derive(Subcommand, Clone, Debug)]
pub enum Logins {
    /// List where you are logged in.
    #[command(visible_alias = "ls")]
    List(List),
    /// End a login, at once.
    #[command(visible_alias = "rm")]
    Revoke(Revoke),
}

/// List logins.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Those of everybody, for the relay's administrator.
    #[arg(short, long)]
    pub all: bool,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

/// End a login.
#[derive(Args, Clone, Debug)]
pub struct Revoke {
    /// As the list shows it: login_…
    pub id: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

impl Login {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match self.verb {
            Some(Logins::List(call)) => call.run(cli).await,
            Some(Logins::Revoke(call)) => call.run(cli).await,
            None => self.login(cli).await,
        }
    }

    async fn login(self, cli: &Cli) -> Result<()> {
        // The option for a token file is one of all verbs.
        let access = Access {
            relay_url: self.relay_url.clone(),
            token_file: cli.token_file.clone(),
        };
        let url = access.url(cli)?;
        let api = Api::nobody(&url)?;
        let mode = api.about().await?.auth_mode;
        let label = format!("cw on {}", Config::load(&cli.home)?.node_name);
        // In a relay with a provider the environment may have the token of its administrator, who
        // wants to be somebody else now; a file that is named is meant.
        let given = match mode.as_str() {
            "oidc" | "github" if access.token_file.is_none() => None,
            _ => access.given()?,
        };
        let granted = match (mode.as_str(), given) {
            ("none", _) => return self.open(cli, &url, &api).await,
            (_, Some(token)) => Api::new(&url, &token)?.make_login(&label).await?,
            ("token", None) => {
                return Err(
                    Error::new("unauthorized", "this relay knows who has its token").hint(
                        "pass it by --token-file FILE, or in CODEWIRE_RELAY_AUTH_TOKEN; it is not kept",
                    ),
                );
            }
            _ if self.browser => browser::login(cli, &api, &url, &label).await?,
            _ => device::login(cli, &api, &label).await?,
        };
        let Granted {
            token,
            subject,
            name,
            expires_at,
            ..
        } = granted;
        let login = logins::Login {
            token: Some(token),
            subject: subject.clone(),
            expires_at: Some(expires_at),
        };
        self.keep(cli, &url, login).await?;
        cli.note(&format!(
            "Logged in to {} as {} ({})",
            show::clean(&url),
            show::cut(&name, 60),
            show::clean(&subject)
        ));
        Ok(())
    }

    /// A relay that asks for nothing.
    async fn open(&self, cli: &Cli, url: &str, api: &Api) -> Result<()> {
        let subject = api.whoami().await?.subject;
        let login = logins::Login {
            token: None,
            subject: subject.clone(),
            expires_at: None,
        };
        self.keep(cli, url, login).await?;
        cli.note(&format!(
            "{} asks nobody who they are; you are {}, as is everybody who reaches it",
            show::clean(url),
            show::clean(&subject)
        ));
        Ok(())
    }

    async fn keep(&self, cli: &Cli, url: &str, login: logins::Login) -> Result<()> {
        let before = logins::keep(&cli.home, url, login)?;
        if self.relay_url.is_some() {
            Config::edit(&cli.home, |config| config.set_relay_url(url))?;
        }
        if let Some(token) = before.and_then(|before| before.token) {
            // It may be over already; if this fails it ends by itself.
            let _ = Api::new(url, &token)?.end_login("current").await;
        }
        Ok(())
    }
}

impl List {
    async fn run(self, cli: &Cli) -> Result<()> {
        let logins = self.access.api(cli)?.logins(self.all).await?;
        if self.json {
            return cli.print_json(&logins);
        }
        let mut out = format!(
            "{:<24} {:<22} {:<22} {:<28} WHO\n",
            "ID", "CREATED", "EXPIRES", "ON"
        );
        for login in logins {
            let mark = if login.current { " *" } else { "" };
            out.push_str(&format!(
                "{:<24} {:<22} {:<22} {:<28} {}\n",
                show::clean(&format!("{}{mark}", login.id)),
                show::clean(&login.created_at),
                show::clean(&login.expires_at),
                show::cut(&login.label, 28),
                show::cut(&format!("{} ({})", login.name, login.subject), 100),
            ));
        }
        cli.print(&out)
    }
}

impl Revoke {
    async fn run(self, cli: &Cli) -> Result<()> {
        self.access.api(cli)?.end_login(&self.id).await?;
        cli.note(&format!("Login {} is over", show::clean(&self.id)));
        Ok(())
    }
}
