//! `cw relay doctor`: what is wrong with a relay.
//!
//! On the relay's machine it looks at the relay's directory; from anywhere it asks the relay what
//! its nodes ask: HTTP, DERP, STUN, and what time it is there. It changes nothing. The exit status
//! is 1 when something is wrong.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueHint};
use mesh::stun;
use reqwest::Url;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::certificate;
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::relay::{check_at, database_address, database_elsewhere, default_dir};
use crate::show;
use crate::verb::doctor::{Check, conclude};
use crate::verb::health;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Questions to the STUN server, and how long each waits.
const STUN: (usize, Duration) = (4, Duration::from_millis(500));

/// Less room than this on the relay's disk is told, MiB.
const ROOM: u64 = 256;

/// How far two clocks may be apart.
const SKEW: Duration = Duration::from_secs(30);

/// Say what is wrong with a relay.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// Look at this directory [default: relay/ in the home of cw, if it is there]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// The file with the URL of its PostgreSQL database; or set CW_DATABASE_URL
    #[arg(long, value_name = "FILE", env = "CW_DATABASE_URL_FILE", value_hint = ValueHint::FilePath)]
    pub database_url_file: Option<PathBuf>,
    /// Ask the relay at this URL
    #[arg(long, value_name = "URL", env = "CODEWIRE_RELAY_URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,
    /// Its STUN port (UDP); 0 when it has none
    #[arg(long, value_name = "PORT", default_value_t = 3478)]
    pub stun_port: u16,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
}

impl Doctor {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let mut checks = Vec::new();
        let dir = match self.data_dir {
            Some(dir) => Some(dir),
            None => Some(default_dir()?).filter(|dir| dir.exists()),
        };
        if let Some(dir) = &dir {
            checks.extend(files(dir, self.database_url_file.as_deref()).await);
        }
        let url = self.url.filter(|url| !url.is_empty());
        if let Some(url) = &url {
            let url = health::health_url(url)?;
            checks.extend(answers(&url).await);
            if self.stun_port != 0 {
                checks.push(Check::of("stun", stun(&url, self.stun_port).await));
            }
        }
        if checks.is_empty() {
            return Err(Error::new("usage", "there is no relay here to look at")
                .hint("name its directory with --data-dir, or where it answers with --url"));
        }
        conclude(cli, self.json, Vec::new(), checks)
    }
}

/// What is wrong with a relay's directory.
async fn files(dir: &Path, url: Option<&Path>) -> Vec<Check> {
    let shown = dir.display().to_string();
    if !dir.is_dir() {
        let hint = "name the one that 'cw relay serve' has as --data-dir";
        return vec![Check::bad(
            "directory",
            format!("{shown} is not there"),
            hint,
        )];
    }
    let mut checks = vec![modes(dir)];
    checks.push(Check::of("database", database(dir, url).await));
    checks.push(room(dir));
    checks.extend(certificate::kept(dir, now()));
    let runs = crate::relay::is_in_use(dir);
    let found = if runs { "a relay" } else { "nobody" };
    checks.push(Check::ok("used by", found));
    checks
}

/// What is in the relay's database, wherever that is.
async fn database(dir: &Path, url: Option<&Path>) -> Result<String> {
    let elsewhere = database_elsewhere(dir);
    let (found, place) = match (database_address(url)?, elsewhere) {
        (Some(address), _) => {
            let (found, relays) = check_at(&address).await?;
            let relays = match &relays[..] {
                [] => "no relay uses it now".to_owned(),
                relays => format!("used by {}", relays.join(", ")),
            };
            (found, format!(" in PostgreSQL, {address}; {relays}"))
        }
        (None, Some(place)) => {
            let message = format!("it is in {place}, and could not be looked at");
            return Err(Error::new("database_elsewhere", message)
                .hint("set CW_DATABASE_URL or pass --database-url-file, as for the relay"));
        }
        (None, None) => (crate::relay::check(dir).await?, String::new()),
    };
    Ok(format!(
        "version {}, {} networks, {} nodes{place}",
        found.version, found.networks, found.nodes
    ))
}

/// Whether others can read it.
fn modes(dir: &Path) -> Check {
    let shown = dir.display().to_string();
    let mode = |path: &Path| {
        let metadata = path.metadata().ok()?;
        let mode = metadata.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| (path.display().to_string(), mode))
    };
    if let Some((_, mode)) = mode(dir) {
        let found = format!("{shown} has mode {mode:o}");
        return Check::bad("directory", found, format!("chmod 700 {shown}"));
    }
    let inside = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let open = inside.filter_map(|entry| mode(&entry.path())).next();
    match open {
        Some((path, mode)) => Check::bad(
            "directory",
            format!("{path} has mode {mode:o}"),
            format!("chmod go= {path}"),
        ),
        None => Check::ok("directory", shown),
    }
}

fn room(dir: &Path) -> Check {
    match rustix::fs::statvfs(dir) {
        Ok(disk) => {
            let mib = (disk.f_bavail * disk.f_frsize) >> 20;
            let found = format!("{mib} MiB free");
            if mib < ROOM {
                Check::bad("disk", found, "make room, or the relay will stop to serve")
            } else {
                Check::ok("disk", found)
            }
        }
        Err(error) => Check::bad("disk", error.to_string(), "is it still mounted?"),
    }
}

/// What a relay answers.
async fn answers(url: &Url) -> Vec<Check> {
    let ask = |path: &'static str| {
        let mut url = url.clone();
        url.set_path(path);
        async move {
            let limit = timeout(LIMIT, health::ask(&url, false)).await;
            limit.unwrap_or_else(|_| {
                let seconds = LIMIT.as_secs();
                let message = format!("no answer from {url} within {seconds} s");
                Err(Error::new("relay_unreachable", message))
            })
        }
    };
    let alive = ask("/healthz").await;
    let clock = alive.as_ref().ok().and_then(|alive| clock(&alive.headers));
    let shown = alive
        .as_ref()
        .ok()
        .and_then(|alive| alive.certificate.as_deref());
    let shown = shown.map(|der| certificate::shown(der, now()));
    let mut checks = vec![Check::of("relay", alive.map(|_| url.to_string()))];
    if checks.iter().any(|check| !check.is_ok()) {
        return checks;
    }
    checks.push(Check::of(
        "ready",
        ask("/readyz").await.map(|_| "it can serve".to_owned()),
    ));
    checks.push(Check::of(
        "derp",
        ask("/derp/probe").await.map(|_| "it answers".to_owned()),
    ));
    checks.extend(shown);
    checks.extend(clock);
    checks
}

/// In seconds since 1970.
fn now() -> u64 {
    show::now_ms() / 1000
}

/// How far the relay's clock is from ours: what it signs has a time.
fn clock(headers: &reqwest::header::HeaderMap) -> Option<Check> {
    let date = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    let there = httpdate::parse_http_date(date).ok()?;
    let here = SystemTime::now();
    let apart = here
        .duration_since(there)
        .unwrap_or_else(|ahead| ahead.duration());
    let found = format!("{} s apart", apart.as_secs());
    Some(if apart > SKEW {
        Check::bad("clock", found, "let both machines set their clocks by NTP")
    } else {
        Check::ok("clock", found)
    })
}

/// Asks a relay's STUN server where it sees us.
async fn stun(url: &Url, port: u16) -> Result<String> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut found = tokio::net::lookup_host((host, port)).await?;
    let server = found
        .next()
        .ok_or_else(|| Error::new("relay_unreachable", format!("{host} has no address")))?;
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(Error::internal)?;
    let mut answer = [0; 512];
    for _ in 0..STUN.0 {
        // What goes wrong here is that no answer comes.
        let _ = socket.send(&stun::request(&id)).await;
        let Ok(Ok(length)) = timeout(STUN.1, socket.recv(&mut answer)).await else {
            continue;
        };
        match stun::parse_response(&answer[..length]) {
            Some(told) if told.id == id => {
                return Ok(format!("{server} sees us as {}", told.addr));
            }
            _ => {}
        }
    }
    Err(
        Error::new("relay_unreachable", format!("no answer from {server}, UDP"))
            .hint("let UDP through to that port; without it nodes behind NAT talk over the relay"),
    )
}
