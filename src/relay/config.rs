//! The arguments of `cw relay serve`, checked.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use derp::NodeSecret;
use derp::handshake::MeshKey;
use derp::io::region::Neighbour;
use derp::io::server::Options;
use derp::pace::Rate;

use super::acme::Acme;
use super::app::{TokenHash, random};
use super::login::{Mode, Providers};
use super::store::Address;
use super::tls::{self, Tls};
use crate::error::{Error, Result};
use crate::home::Home;

/// Where the URL of a database may be: it has a password in it, and everybody can list the
/// arguments of a process.
const DATABASE_URL: &str = "CW_DATABASE_URL";

/// What says, in a data directory, that its relay has a database elsewhere.
const ELSEWHERE: &str = "database";

/// The token as the environment file of the service names it.
const SERVICE_TOKEN: &str = "CW_AUTH_TOKEN";

/// Runs the relay: introduces nodes to each other and forwards their sealed
/// packets.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The URL under which nodes reach this relay
    #[arg(long, value_name = "URL", env = "CW_BASE_URL")]
    pub base_url: String,

    /// Address of the HTTP server; `:8080` is port 8080 on every interface
    #[arg(long, value_name = "ADDRESS", default_value = ":8080")]
    pub listen: String,

    /// Address of the SSH front door, such as `:2222`; none if empty
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "",
        hide_default_value = true
    )]
    pub ssh_listen: String,

    /// Address of the STUN server (UDP), which answers at the next port, too; empty for none
    #[arg(long, value_name = "ADDRESS", default_value = ":3478")]
    pub stun_listen: String,

    /// Where the relay keeps its database and keys [default: relay/ in the home of cw]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// A file with the URL of a PostgreSQL database to use instead of one in the data directory:
    /// postgres://user:password@host/name. Or set CW_DATABASE_URL. Several relays may use one
    #[arg(long, value_name = "FILE", env = "CW_DATABASE_URL_FILE")]
    pub database_url_file: Option<PathBuf>,

    /// URL at which the other relays of the same database reach this one [default: the base URL]
    #[arg(long, value_name = "URL", env = "CW_PEER_URL")]
    pub peer_url: Option<String>,

    /// How many seconds to wait for another relay to leave the data directory
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=600))]
    pub lock_wait: u32,

    /// How users prove who they are: token, oidc, github; none asks nobody, on loopback alone
    #[arg(
        long,
        value_name = "MODE",
        default_value = "token",
        env = "CW_AUTH_MODE"
    )]
    pub auth_mode: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub providers: Providers,

    /// The token of the administrator; whoever lists processes can see it here
    #[arg(
        long,
        value_name = "TOKEN",
        env = "CODEWIRE_RELAY_AUTH_TOKEN",
        hide_env_values = true
    )]
    pub auth_token: Option<Token>,

    /// A file with the token; without any, one is made in the data directory
    #[arg(long, value_name = "FILE", conflicts_with = "auth_token")]
    pub auth_token_file: Option<PathBuf>,

    /// Certificate chain (PEM) to serve HTTPS with
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key (PEM) of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub acme: Acme,

    /// A file with 64 hex digits that the relays of one region share, who then forward packets for
    /// each other's nodes
    #[arg(long, value_name = "FILE")]
    pub mesh_psk_file: Option<PathBuf>,

    /// URL of another relay of the region; once for each
    #[arg(long, value_name = "URL", requires = "mesh_psk_file")]
    pub mesh_with: Vec<String>,

    /// Bytes a second that one node may send through the relay; more waits, nothing is dropped
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1_000..))]
    pub client_rate: Option<u64>,
}

/// A token in plain text, which does not print itself.
#[derive(Clone)]
pub struct Token(String);

impl std::str::FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// A configuration that makes sense.
pub(crate) struct Checked {
    pub(crate) base_url: String,
    /// Where the other relays of the database reach this one.
    pub(crate) peer_url: String,
    pub(crate) listen: SocketAddr,
    pub(crate) stun_listen: Option<SocketAddr>,
    pub(crate) ssh_listen: Option<SocketAddr>,
    pub(crate) data: DataDir,
    /// The database, if it is not in the data directory.
    pub(crate) database: Option<Address>,
    pub(crate) mode: Mode,
    pub(crate) token: TokenHash,
    /// Where the token is, if the relay made it.
    pub(crate) token_made: Option<PathBuf>,
    pub(crate) tls: Option<Tls>,
    pub(crate) derp: Options,
    /// The other relays of the region.
    pub(crate) neighbours: Vec<Neighbour>,
}

impl Config {
    /// Checks everything that needs no socket, and takes the data directory.
    ///
    /// # Errors
    ///
    /// `config_invalid`, `locked`, or what the file system says.
    pub(crate) fn check(&self) -> Result<Checked> {
        let mode = Mode::of(&self.auth_mode, &self.providers)?;
        let listen = address("--listen", &self.listen)?;
        let ssh_listen = match self.ssh_listen.as_str() {
            "" => None,
            listen => Some(address("--ssh-listen", listen)?),
        };
        if matches!(mode, Mode::None) {
            loopback("--listen", listen)?;
            // Who comes in over HTTP may let keys in over SSH.
            ssh_listen.map_or(Ok(()), |ssh| loopback("--ssh-listen", ssh))?;
        }
        let data = DataDir::open(self.data_dir.clone())?;
        let database = database_address(self.database_url_file.as_deref())?;
        data.remember(database.as_ref())?;
        let (token, token_made) = self.token(&data)?;
        let peer_url = self.peer_url.as_ref().filter(|url| !url.is_empty());
        Ok(Checked {
            base_url: url_of("--base-url", &self.base_url)?,
            peer_url: match peer_url {
                Some(url) => url_of("--peer-url", url)?,
                None => url_of("--base-url", &self.base_url)?,
            },
            listen,
            stun_listen: match self.stun_listen.as_str() {
                "" => None,
                listen => Some(address("--stun-listen", listen)?),
            },
            ssh_listen,
            tls: self.tls()?,
            mode,
            derp: Options {
                mesh_key: self.mesh_key()?,
                rate: self.client_rate.map(Rate::new),
                ..Options::default()
            },
            neighbours: self.neighbours()?,
            data,
            database,
            token,
            token_made,
        })
    }

    fn token(&self, data: &DataDir) -> Result<(TokenHash, Option<PathBuf>)> {
        let told = self.auth_token.clone().or_else(|| {
            let told = std::env::var(SERVICE_TOKEN).ok()?;
            (!told.is_empty() && self.auth_token_file.is_none()).then_some(Token(told))
        });
        let (token, made) = match (&told, &self.auth_token_file) {
            (Some(token), _) => (token.0.clone(), None),
            (None, Some(file)) => (read_text(file)?, None),
            (None, None) => {
                let path = data.path("auth-token");
                if !path.exists() {
                    let token = URL_SAFE_NO_PAD.encode(random::<24>());
                    write_new(&path, format!("{token}\n").as_bytes())?;
                }
                (read_text(&path)?, Some(path))
            }
        };
        let token = token.trim();
        if token.is_empty() {
            return Err(invalid("the auth token is empty".to_owned()));
        }
        Ok((TokenHash::of(token), made))
    }

    fn mesh_key(&self) -> Result<Option<MeshKey>> {
        let Some(file) = &self.mesh_psk_file else {
            return Ok(None);
        };
        let key = MeshKey::from_hex(read_text(file)?.trim());
        let none = || invalid(format!("{} is not 64 hex digits", file.display()));
        key.map(Some).ok_or_else(|| {
            none().hint("make one with: openssl rand -hex 32, for all relays of the region")
        })
    }

    fn neighbours(&self) -> Result<Vec<Neighbour>> {
        let mut tls = None;
        let mut neighbours = Vec::new();
        for url in &self.mesh_with {
            let url = url_of("--mesh-with", url)?;
            if url.starts_with("https://") && tls.is_none() {
                tls = Some(crate::uplink::tls::client_config()?);
            }
            let tls = tls.clone();
            let key = None;
            neighbours.push(Neighbour { url, tls, key });
        }
        Ok(neighbours)
    }

    fn tls(&self) -> Result<Option<Tls>> {
        let acme = self.acme.check(self.base_url.trim_end_matches('/'))?;
        match (&self.tls_cert, &self.tls_key, acme) {
            (None, None, acme) => Ok(acme.map(|settings| Tls::Acme(Box::new(settings)))),
            (Some(cert), Some(key), None) => tls::of_files(cert, key).map(Some),
            (_, _, None) => Err(invalid(
                "a certificate needs its key, and a key its certificate".to_owned(),
            )
            .hint("--tls-cert and --tls-key go together")),
            (_, _, Some(_)) => {
                let why = "the certificate is either in a file or asked for with --acme-domain";
                Err(invalid(why.to_owned())
                    .hint("leave out --tls-cert and --tls-key, or the others"))
            }
        }
    }
}

/// Where a relay keeps its files unless it is told.
///
/// # Errors
///
/// When there is no home of cw.
pub fn default_dir() -> Result<PathBuf> {
    Ok(Home::from_env()?.dir().join("relay"))
}

/// The database that is named in the environment or in a file, if there is one.
///
/// # Errors
///
/// `config_invalid` when it cannot be read or understood.
pub(crate) fn database_address(file: Option<&Path>) -> Result<Option<Address>> {
    let url = match file {
        Some(file) => read_text(file)?,
        None => std::env::var(DATABASE_URL).unwrap_or_default(),
    };
    let url = url.trim();
    if url.is_empty() && file.is_none() {
        return Ok(None);
    }
    let parsed = Address::parse(url);
    parsed.map(Some).map_err(|why| {
        let place = file.map_or_else(
            || DATABASE_URL.to_owned(),
            |file| file.display().to_string(),
        );
        invalid(format!("the database URL in {place} cannot be used: {why}"))
    })
}

/// Which PostgreSQL database the relay of a data directory has, in words; `None` if its database
/// is in the directory.
pub(crate) fn database_elsewhere(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join(ELSEWHERE)).ok()?;
    Some(text.trim().to_owned())
}

/// The directory of one relay; while this lives no other relay uses it.
pub(crate) struct DataDir {
    dir: PathBuf,
    _lock: fs::File,
}

impl DataDir {
    pub(crate) fn open(dir: Option<PathBuf>) -> Result<Self> {
        let dir = dir.map_or_else(default_dir, Ok)?;
        let failed = |error: io::Error| {
            invalid(format!(
                "the data directory {} is not usable: {error}",
                dir.display()
            ))
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed)?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(failed)?;
        let flags = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&lock, flags).map_err(|_| {
            Error::new("locked", format!("another relay uses {}", dir.display()))
                .hint("stop it, or give this one a --data-dir of its own")
        })?;
        Ok(Self { dir, _lock: lock })
    }

    /// A file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Notes which database is in use, for those who look at the directory. A relay that has
    /// forgotten its database must not begin anew with an empty one.
    fn remember(&self, database: Option<&Address>) -> Result<()> {
        let before = database_elsewhere(&self.dir);
        match (database, before) {
            (Some(database), before) => {
                let text = format!("PostgreSQL, {database}");
                if before.as_deref() != Some(&text) {
                    write_new(&self.path(ELSEWHERE), format!("{text}\n").as_bytes())?;
                }
                Ok(())
            }
            (None, Some(before)) => {
                let path = self.path(ELSEWHERE);
                let why = format!("the relay of this directory has its database in {before}");
                Err(invalid(why).hint(format!(
                    "set {DATABASE_URL} or pass --database-url-file; to begin anew without it, \
                     remove {}",
                    path.display()
                )))
            }
            (None, None) => Ok(()),
        }
    }

    /// The relay's DERP key, made on first use. Clients learn the public half
    /// in the handshake; it is kept so that they see the same relay again.
    pub(crate) fn derp_secret(&self) -> Result<NodeSecret> {
        let path = self.path("derp-key");
        if !path.exists() {
            let text = format!("{}\n", hex::encode(random::<32>()));
            write_new(&path, text.as_bytes())?;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(read_text(&path)?.trim(), &mut bytes)
            .map_err(|_| invalid(format!("{} is damaged", path.display())))?;
        Ok(NodeSecret::from_bytes(bytes))
    }
}

/// Whether a relay uses a directory now.
pub(crate) fn is_in_use(dir: &Path) -> bool {
    let Ok(lock) = fs::File::open(dir.join("lock")) else {
        return false;
    };
    let flags = rustix::fs::FlockOperation::NonBlockingLockShared;
    rustix::fs::flock(&lock, flags).is_err()
}

fn url_of(flag: &str, text: &str) -> Result<String> {
    let url = text.trim_end_matches('/');
    let parsed: Option<Uri> = url.parse().ok();
    let is_http = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if !is_http {
        return Err(invalid(format!("{flag} {text:?} is no http(s) URL")));
    }
    Ok(url.to_owned())
}

/// `:8080` is every interface, IPv6 and IPv4.
fn address(flag: &str, text: &str) -> Result<SocketAddr> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.to_owned(),
    };
    full.parse().map_err(|_| {
        invalid(format!(
            "{flag} {text:?} is no address such as :8080 or 127.0.0.1:8080"
        ))
    })
}

fn loopback(flag: &str, address: SocketAddr) -> Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let text = format!("--auth-mode none lets everybody in, and {flag} {address} is for everybody");
    let port = address.port();
    Err(invalid(text).hint(format!(
        "give it {flag} 127.0.0.1:{port}, or another --auth-mode"
    )))
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))
}

/// Writes a secret into a file: first beside it, so that a crash leaves no half
/// of one, and what was there stays until all of it is written.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let partial = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new("config_invalid", message)
}
