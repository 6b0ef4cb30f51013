//! `cw access …`: a look into one session, for somebody else, for a while.
//!
//! Whoever owns a session's node gives a grant; the relay writes it down and tells that node, and
//! whoever it is for shows its token there. A grant that was accepted is kept on this machine and
//! shown by itself.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::network::At;
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::grants::{self, Accepted};
use crate::paper::{GrantToken, Verb};
use crate::show;
use crate::uplink::api::{Api, Grant, NewGrant};

mod watch;

/// Grants.
#[derive(Subcommand, Clone, Debug)]
pub enum Access {
    /// Let somebody look at a session of yours for a while; prints the token.
    Grant(Give),
    /// List the grants that you gave; with --mine those that you got.
    #[command(visible_alias = "ls")]
    List(List),
    /// Keep a grant that you got, so that it is shown by itself.
    Accept {
        /// The token, or - to read it from standard input.
        token: String,
        #[command(flatten)]
        #[expect(missing_docs, reason = "clap would print it as help")]
        at: At,
    },
    /// Show a grant.
    Inspect(One),
    /// Forget a grant that was accepted here.
    Drop {
        /// Its id: gr_…
        id: String,
    },
    /// Forget the accepted grants that have ended.
    Prune(At),
    /// Revoke a grant; who uses it now is cut off.
    Revoke(One),
    /// Forget accepted grants as soon as they are revoked, until you stop it.
    Watch(watch::Watch),
}

/// A new grant.
#[derive(Args, Clone, Debug)]
pub struct Give {
    /// The session: its name or number, or node:session.
    #[arg(add = super::complete::sessions())]
    pub session: Locator,
    /// For whom: a node, or an owner of nodes, as 'cw node list' shows them.
    #[arg(long, value_name = "NODE|OWNER", add = super::complete::nodes())]
    pub to: String,
    /// How long: 90s, 10m, 1h; at most 24h.
    #[arg(long = "for", value_name = "TIME", default_value = "10m")]
    pub ttl: String,
    /// They may read its messages.
    #[arg(long)]
    pub read: bool,
    /// They may follow its messages.
    #[arg(long)]
    pub listen: bool,
    /// They may see what it prints: watch, logs, screen, status, attach --read-only.
    #[arg(long)]
    pub watch: bool,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: At,
}

/// Which grants.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Only those for this node or owner.
    #[arg(long, value_name = "NODE|OWNER")]
    pub to: Option<String>,
    /// Only those for sessions of this node.
    #[arg(long, value_name = "NODE", add = super::complete::nodes())]
    pub node: Option<String>,
    /// Only those that hold now.
    #[arg(long)]
    pub active: bool,
    /// Those that you got.
    #[arg(long, conflicts_with = "accepted")]
    pub mine: bool,
    /// Those that were accepted on this machine.
    #[arg(long)]
    pub accepted: bool,
    /// Only those for this session; with --accepted.
    #[arg(long, value_name = "SESSION", requires = "accepted")]
    pub session: Option<String>,
    /// Only those that allow this; with --accepted.
    #[arg(long, value_enum, requires = "accepted")]
    pub verb: Option<Verb>,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: At,
}

/// A grant.
#[derive(Args, Clone, Debug)]
pub struct One {
    /// Its id: gr_…
    #[arg(add = super::complete::grants())]
    pub id: String,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: At,
}

impl Access {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match self {
            Self::Grant(call) => call.run(cli).await,
            Self::List(call) => call.run(cli).await,
            Self::Accept { token, at } => accept(cli, token, &at).await,
            Self::Inspect(call) => call.inspect(cli).await,
            Self::Drop { id } => {
                if !forget(cli, |grant| grant.grant_id == id)? {
                    return Err(Error::new(
                        "grant_unknown",
                        format!("no grant {id} was accepted here"),
                    )
                    .hint("'cw access list --accepted' shows those that were"));
                }
                cli.note(&format!("Dropped grant {id}"));
                Ok(())
            }
            Self::Prune(at) => {
                let pruned = prune(cli, Some(&at)).await?;
                cli.note(&pruned.line());
                Ok(())
            }
            Self::Revoke(call) => {
                let (api, network) = call.at.open(cli).await?;
                api.revoke_grant(&network, &call.id).await?;
                if call.json {
                    return cli.print_json(&serde_json::json!({ "revoked": call.id }));
                }
                cli.note(&format!("Revoked grant {}", call.id));
                Ok(())
            }
            Self::Watch(call) => call.run(cli).await,
        }
    }
}

impl Give {
    async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let found = super::group::find(cli, &self.session).await?;
        let wanted = [
            (self.read, Verb::Read),
            (self.listen, Verb::Listen),
            (self.watch, Verb::Watch),
        ];
        let verbs = wanted.into_iter().filter(|(wanted, _)| *wanted);
        let new = NewGrant {
            network,
            node: found.node.to_string(),
            session: found.id,
            label: found.name,
            audience: self.to.clone(),
            verbs: verbs.map(|(_, verb)| verb).collect(),
            ttl: self.ttl.clone(),
        };
        let grant = api.create_grant(&new).await?;
        if self.json {
            return cli.print_json(&grant);
        }
        let token = grant
            .token
            .as_deref()
            .ok_or_else(|| Error::internal("the relay made a grant and did not show it"))?;
        // The token alone on stdout, so that a script can take it.
        cli.print(&format!("{token}\n"))?;
        cli.note(&format!(
            "Granted {} on {} to {} for {}.",
            verbs_text(&grant),
            self.session,
            self.to,
            self.ttl
        ));
        cli.note(&format!("Grant ID: {}", grant.grant_id));
        cli.note(&format!("Expires: {}", grant.expires_at));
        Ok(())
    }
}

impl List {
    async fn run(self, cli: &Cli) -> Result<()> {
        if self.accepted {
            return self.accepted(cli).await;
        }
        let (api, network) = self.at.open(cli).await?;
        let mut filter = Vec::new();
        filter.extend(self.node.as_deref().map(|node| ("target_node", node)));
        filter.extend(self.to.as_deref().map(|to| ("audience", to)));
        filter.extend(self.active.then_some(("active", "true")));
        filter.extend(self.mine.then_some(("mine", "true")));
        let grants = api.grants(&network, &filter).await?;
        if self.json {
            return cli.print_json(&grants);
        }
        if grants.is_empty() {
            return cli.print("No grants\n");
        }
        let mut out = row(["ID", "TARGET", "VERBS", "AUDIENCE", "STATUS"]);
        for grant in &grants {
            let target = target(&grant.target_node, grant.session_id, &grant.session_name);
            let (verbs, audience) = (verbs_text(grant), show::clean(&grant.audience_display));
            out.push_str(&row([
                &grant.grant_id,
                &target,
                &verbs,
                &audience,
                &grant.status,
            ]));
        }
        cli.print(&out)
    }

    async fn accepted(self, cli: &Cli) -> Result<()> {
        // Without the relay, what is kept is what is known.
        let _ = prune(cli, Some(&self.at)).await?;
        let session = self.session.as_deref();
        let fits = |grant: &Accepted| {
            let named =
                |word: &str| grant.session_name == word || grant.session_id.to_string() == word;
            self.node
                .as_ref()
                .is_none_or(|node| grant.target_node == *node)
                && session.is_none_or(named)
                && self.verb.is_none_or(|verb| grant.verbs.contains(&verb))
        };
        let mut grants = grants::load(&cli.home)?;
        grants.retain(fits);
        if self.json {
            let shown: Vec<_> = grants.iter().map(Shown::from).collect();
            return cli.print_json(&shown);
        }
        if grants.is_empty() {
            return cli.print("No grants\n");
        }
        let mut out = row(["ID", "TARGET", "VERBS", "EXPIRES", ""]);
        for grant in &grants {
            let target = target(&grant.target_node, grant.session_id, &grant.session_name);
            let verbs: Vec<_> = grant.verbs.iter().map(ToString::to_string).collect();
            let verbs = verbs.join(",");
            out.push_str(&row([
                &grant.grant_id,
                &target,
                &verbs,
                &grant.expires_at,
                "",
            ]));
        }
        cli.print(&out)
    }
}

impl One {
    async fn inspect(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let grant = match api.grant(&network, &self.id).await {
            Ok(grant) => grant,
            Err(error) => {
                if error.code == "grant_unknown" {
                    forget(cli, |grant| grant.grant_id == self.id)?;
                }
                return Err(error);
            }
        };
        if grant.status != "active" {
            forget(cli, |known| known.grant_id == self.id)?;
        }
        if self.json {
            return cli.print_json(&grant);
        }
        let mut out = format!("Grant {}\n", show::clean(&grant.grant_id));
        for (name, value) in [
            (
                "Target",
                target(&grant.target_node, grant.session_id, &grant.session_name),
            ),
            ("Verbs", verbs_text(&grant)),
            ("Audience", show::clean(&grant.audience_display)),
            ("Granted By", show::clean(&grant.granted_by)),
            ("Status", grant.status.clone()),
            ("Created", grant.created_at.clone()),
            ("Expires", grant.expires_at.clone()),
            (
                "Revoked",
                grant.revoked_at.clone().unwrap_or_else(|| "-".to_owned()),
            ),
        ] {
            out.push_str(&format!("  {:<12}{value}\n", format!("{name}:")));
        }
        cli.print(&out)
    }
}

/// What is shown of an accepted grant: all but the secret.
#[derive(Serialize)]
struct Shown<'a> {
    grant_id: &'a str,
    network_id: &'a str,
    target_node: &'a str,
    session_id: u32,
    session_name: &'a str,
    verbs: &'a [Verb],
    expires_at: &'a str,
}

impl<'a> From<&'a Accepted> for Shown<'a> {
    fn from(grant: &'a Accepted) -> Self {
        Self {
            grant_id: &grant.grant_id,
            network_id: &grant.network_id,
            target_node: &grant.target_node,
            session_id: grant.session_id,
            session_name: &grant.session_name,
            verbs: &grant.verbs,
            expires_at: &grant.expires_at,
        }
    }
}

async fn accept(cli: &Cli, token: String, at: &At) -> Result<()> {
    let text = cli.body(token)?;
    let token: GrantToken = text
        .parse()
        .map_err(|error: crate::coord::Malformed| Error::new("grant_invalid", error.to_string()))?;
    let (api, network) = at.open(cli).await?;
    let grant = api.grant(&network, &token.id).await?;
    if grant.status != "active" {
        let error = Error::new("grant_invalid", format!("this grant is {}", grant.status));
        return Err(error.hint("ask for a new one"));
    }
    let mut grants = grants::load(&cli.home)?;
    grants.retain(|known| known.grant_id != grant.grant_id);
    let line = format!(
        "Accepted grant {}: {} on {} until {}",
        grant.grant_id,
        verbs_text(&grant),
        target(&grant.target_node, grant.session_id, &grant.session_name),
        grant.expires_at
    );
    grants.push(Accepted {
        token: token.to_string(),
        grant_id: grant.grant_id,
        network_id: grant.network_id.to_string(),
        target_node: grant.target_node,
        session_id: grant.session_id,
        session_name: grant.session_name,
        verbs: grant.verbs.into_iter().collect(),
        expires_at: grant.expires_at,
    });
    grants::store(&cli.home, &grants)?;
    cli.note(&line);
    Ok(())
}

/// Forgets accepted grants; whether there were some.
fn forget(cli: &Cli, which: impl Fn(&Accepted) -> bool) -> Result<bool> {
    let mut grants = grants::load(&cli.home)?;
    let before = grants.len();
    grants.retain(|grant| !which(grant));
    let forgot = grants.len() < before;
    if forgot {
        grants::store(&cli.home, &grants)?;
    }
    Ok(forgot)
}

/// What was forgotten.
#[derive(Default)]
struct Pruned {
    expired: usize,
    revoked: usize,
    missing: usize,
    remaining: usize,
    asked: bool,
}

impl Pruned {
    fn line(&self) -> String {
        format!(
            "Pruned accepted grants: expired={} revoked={} missing={} remaining={}\nRelay validation: {}",
            self.expired,
            self.revoked,
            self.missing,
            self.remaining,
            if self.asked { "enabled" } else { "skipped" }
        )
    }
}

/// Forgets the accepted grants that have ended, by the clock and, if it can be asked, the relay.
async fn prune(cli: &Cli, at: Option<&At>) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    let now = show::rfc3339(show::now_ms());
    let mut kept = Vec::new();
    let opened = match at {
        Some(at) => at.open(cli).await.ok(),
        None => None,
    };
    let all = grants::load(&cli.home)?;
    let before = all.len();
    for grant in all {
        if grant.expires_at <= now {
            pruned.expired += 1;
            continue;
        }
        let status = match &opened {
            Some((api, network)) if network.as_str() == grant.network_id => {
                state(api, &grant).await
            }
            _ => None,
        };
        pruned.asked |= status.is_some();
        match status.as_deref() {
            Some("revoked") => pruned.revoked += 1,
            Some("expired") => pruned.expired += 1,
            Some("missing") => pruned.missing += 1,
            _ => kept.push(grant),
        }
    }
    pruned.remaining = kept.len();
    if kept.len() < before {
        grants::store(&cli.home, &kept)?;
    }
    Ok(pruned)
}

/// What the relay says of a grant, if it says something.
async fn state(api: &Api, grant: &Accepted) -> Option<String> {
    let network = grant.network_id.parse().ok()?;
    match api.grant(&network, &grant.grant_id).await {
        Ok(grant) => Some(grant.status),
        Err(error) if error.code == "grant_unknown" => Some("missing".to_owned()),
        Err(_) => None,
    }
}

fn target(node: &str, id: u32, name: &str) -> String {
    let session = if name.is_empty() {
        id.to_string()
    } else {
        name.to_owned()
    };
    show::clean(&format!("{node}:{session}"))
}

fn verbs_text(grant: &Grant) -> String {
    let verbs: Vec<_> = grant.verbs.iter().map(ToString::to_string).collect();
    verbs.join(",")
}

fn row(cells: [&str; 5]) -> String {
    let [id, target, verbs, audience, status] = cells;
    let line = format!("{id:<20} {target:<28} {verbs:<18} {audience:<24} {status}");
    format!("{}\n", line.trim_end())
}
