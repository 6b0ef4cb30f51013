//! The store in a PostgreSQL database, which several relays may use at once.
//!
//! Transactions that write begin with an advisory lock on their line, see `sql`, and are READ
//! COMMITTED otherwise: behind the lock a query sees all that those before in the line have
//! committed, and nothing has to be tried again. Those that only read see one moment (REPEATABLE
//! READ). The server ends what takes too long, and what a relay that is gone has begun.
//!
//! A connection may be dead without a word, and the system notices that after a quarter of an hour.
//! So everything that is asked has a limit on this side, too ([`limited`]), and a connection that
//! does not answer at once when it is taken or given back is thrown away.
//!
//! The URL has a password in it: it is never printed, see [`Address`].

mod cluster;
#[expect(clippy::duplicate_mod, reason = "once for each engine, see there")]
#[path = "../sql/mod.rs"]
mod sql;

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, Postgres as Engine, postgres::PgRow as Row};
use tokio::time::timeout;

pub(crate) use self::sql::Database as Postgres;
use self::sql::Tx;
use super::cluster::{Cluster, DEAD_AFTER, Note};
use super::{Answer, Contents, Error, not_newer};

/// Each brings the schema one version further. Never edit one that was released: add another.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/postgres/0001_start.sql"),
    include_str!("../migrations/postgres/0002_relays.sql"),
    include_str!("../migrations/postgres/0003_logins.sql"),
    include_str!("../migrations/postgres/0004_links.sql"),
    include_str!("../migrations/postgres/0005_errands.sql"),
    include_str!("../migrations/postgres/0006_base_url.sql"),
];

/// The version of the schema that has the table of relays.
const RELAYS_SINCE: i64 = 2;

/// Where relays tell each other what they have changed.
const CHANNEL: &str = "codewire_relay";

/// Connections of one relay to the database, at most, beside the one over which it listens.
const MAX_CONNECTIONS: u32 = 16;

/// How long to wait for a connection: then the database is away.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection may take to answer when nothing is asked of it.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// How long one call of the store may take; longer than what the server ends by itself.
const CALL_LIMIT: Duration = Duration::from_secs(12);

/// And one that goes through all networks.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

/// What the server ends: a statement that takes long, one that waits for long in a line, and a
/// transaction whose relay has stopped to talk in the midst of it and holds up the others.
const LIMITS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '6s'; \
     SET idle_in_transaction_session_timeout = '10s'";

/// Where a database is, and how to get in.
#[derive(Clone)]
pub(crate) struct Address(PgConnectOptions);

impl Address {
    /// Of `postgres://user:password@host:port/database`, with what libpq knows as parameters.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that have nothing of it.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err("it does not begin with postgres://");
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| "it is not postgres://user:password@host:port/database")?;
        Ok(Self(options.application_name("codewire-relay")))
    }
}

/// Without the user and the password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.0;
        let database = options.get_database().unwrap_or("the user's database");
        match options.get_socket() {
            Some(socket) => write!(f, "{database} at {}", socket.display()),
            None => write!(
                f,
                "{database} at {}:{}",
                options.get_host(),
                options.get_port()
            ),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Postgres {
    /// Connects, and brings the database, which may be empty, to the present version.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] when a newer program wrote it, or what the database says.
    pub(crate) async fn open(address: &Address) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_LIMIT)
            // What sqlx does by itself when a connection is taken or given back has no limit, and
            // meanwhile the connection keeps its place in the pool.
            .test_before_acquire(false)
            .before_acquire(|connection, _| Box::pin(answers(connection)))
            .after_release(|connection, _| Box::pin(answers(connection)))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute(LIMITS).await?;
                    Ok(())
                })
            })
            .connect_with(address.0.clone())
            .await?;
        let store = Self { pool };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        // A large table takes its time, and relays may start together.
        tx.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            .await?;
        line_up(&mut tx, "migrations").await?;
        let done = not_newer(version(&mut tx).await?, MIGRATIONS)?;
        if done == MIGRATIONS.len() {
            return Ok(());
        }
        if done == 0 {
            tx.execute("CREATE TABLE relay_schema (version BIGINT NOT NULL)")
                .await?;
            tx.execute("INSERT INTO relay_schema VALUES (0)").await?;
        }
        for migration in MIGRATIONS.iter().skip(done) {
            sqlx::raw_sql(*migration).execute(&mut *tx).await?;
        }
        sqlx::query("UPDATE relay_schema SET version = $1")
            .bind(i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Whether a connection works.
async fn answers(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match timeout(PING_LIMIT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

fn too_slow() -> Error {
    Error::Database(sqlx::Error::PoolTimedOut)
}

/// A call of the store.
fn limited<'a, T: 'a>(work: impl Future<Output = Result<T, Error>> + Send + 'a) -> Answer<'a, T> {
    within(CALL_LIMIT, work).boxed()
}

/// One that goes through all networks.
fn patient<'a, T: 'a>(work: impl Future<Output = Result<T, Error>> + Send + 'a) -> Answer<'a, T> {
    within(ROUND_LIMIT, work).boxed()
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let done = timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(too_slow()))
}

/// What is in a database, and where the relays are that use it now; changes nothing.
///
/// # Errors
///
/// [`Error::Damaged`] when it is not one of a relay, [`Error::Newer`], or what the database says;
/// that it has not answered within [`CALL_LIMIT`].
pub(crate) async fn look(address: &Address) -> Result<(Contents, Vec<String>), Error> {
    within(CALL_LIMIT, look_at(address)).await
}

async fn look_at(address: &Address) -> Result<(Contents, Vec<String>), Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_LIMIT)
        .connect_with(address.0.clone())
        .await?;
    let mut tx = read(&pool).await?;
    let version = version(&mut tx).await?;
    if not_newer(version, MIGRATIONS)? < 1 {
        return Err(Error::Damaged("it is not one of a relay"));
    }
    let networks = sqlx::query_scalar("SELECT count(*) FROM networks")
        .fetch_one(&mut *tx)
        .await?;
    let nodes = sqlx::query_scalar("SELECT count(*) FROM nodes WHERE revoked IS NULL")
        .fetch_one(&mut *tx)
        .await?;
    let relays = if version < RELAYS_SINCE {
        Vec::new()
    } else {
        let urls = sqlx::query_scalar(
            "SELECT url FROM relays WHERE beat > clock_timestamp() - make_interval(secs => $1)
             ORDER BY url",
        );
        urls.bind(DEAD_AFTER.as_secs_f64())
            .fetch_all(&mut *tx)
            .await?
    };
    drop(tx);
    pool.close().await;
    let contents = Contents {
        version,
        networks,
        nodes,
    };
    Ok((contents, relays))
}

/// The version of the schema, 0 when there is none.
async fn version(tx: &mut Tx) -> Result<i64, Error> {
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('relay_schema') IS NOT NULL")
        .fetch_one(&mut **tx)
        .await?;
    if !is_there {
        return Ok(0);
    }
    Ok(sqlx::query_scalar("SELECT version FROM relay_schema")
        .fetch_one(&mut **tx)
        .await?)
}

async fn write(pool: &PgPool, line: &str) -> Result<Tx, Error> {
    let mut tx = pool.begin().await?;
    line_up(&mut tx, line).await?;
    Ok(tx)
}

/// Waits until a transaction is the first in a line; it stays so until it ends.
async fn line_up(tx: &mut Tx, line: &str) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(lock_of(line))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The number of a line among the advisory locks of the database.
fn lock_of(line: &str) -> i64 {
    let hash = Sha256::new()
        .chain_update("codewire-relay\0")
        .chain_update(line)
        .finalize();
    let (head, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    i64::from_be_bytes(*head)
}

async fn read(pool: &PgPool) -> Result<Tx, Error> {
    Ok(pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?)
}

/// Other relays hear it when the transaction is committed, and never otherwise.
async fn note(tx: &mut Tx, note: &Note) -> Result<(), Error> {
    let text = serde_json::to_string(note).map_err(|_| Error::Damaged("a note"))?;
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(text)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

const fn cluster(store: &Postgres) -> Option<&dyn Cluster> {
    Some(store)
}

/// What was overwritten is let go at once. PostgreSQL wipes nothing out: until the room is used
/// again it is in the file, and longer in the write-ahead log and in backups.
async fn forget_secrets(pool: &PgPool) -> Result<(), Error> {
    sqlx::raw_sql("VACUUM issuers").execute(pool).await?;
    Ok(())
}

#[cfg(test)]
#[expect(
    unreachable_pub,
    reason = "it is a module of the end-to-end tests, too"
)]
#[path = "../../../../e2e/src/postgres.rs"]
pub(crate) mod server;

#[cfg(test)]
mod tests;
