//! A database copied while it is in use, and looked at before it is used.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::super::{Error, not_newer};
use super::{BUSY, MIGRATIONS};

/// The version of the schema that has the table of logins.
const LOGINS_SINCE: i64 = 6;

/// What is in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Contents {
    /// The version of its schema.
    pub(crate) version: i64,
    /// Networks.
    pub(crate) networks: i64,
    /// Nodes that were not revoked.
    pub(crate) nodes: i64,
}

/// Copies a database, as it is at one moment, into a new file of mode 0600. Whoever writes to it
/// meanwhile is not held up.
///
/// # Errors
///
/// When there is already something at `to`, or what the file system and the database say.
pub(crate) async fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let created = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(to);
    created.map_err(|source| Error::File {
        path: to.display().to_string(),
        source,
    })?;
    let mut database = open(from).await?;
    // It takes an empty file for none.
    sqlx::query("VACUUM INTO ?")
        .bind(to.display().to_string())
        .execute(&mut database)
        .await?;
    database.close().await?;
    let synced = std::fs::File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|source| Error::File {
        path: to.display().to_string(),
        source,
    })
}

/// Reads all of a database.
///
/// # Errors
///
/// [`Error::Damaged`] and [`Error::Newer`], or what the database says.
pub(crate) async fn check(path: &Path) -> Result<Contents, Error> {
    let mut database = open(path).await?;
    let found: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut database)
        .await?;
    if found != "ok" {
        tracing::error!(%found, "the database is damaged");
        return Err(Error::Damaged("its pages do not fit together"));
    }
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut database)
        .await?;
    if not_newer(version, MIGRATIONS)? < 1 {
        return Err(Error::Damaged("it is not one of a relay"));
    }
    let networks = sqlx::query_scalar("SELECT count(*) FROM networks")
        .fetch_one(&mut database)
        .await?;
    let nodes = sqlx::query_scalar("SELECT count(*) FROM nodes WHERE revoked IS NULL")
        .fetch_one(&mut database)
        .await?;
    database.close().await?;
    Ok(Contents {
        version,
        networks,
        nodes,
    })
}

/// Brings everything of a database that nobody uses into its one file.
///
/// # Errors
///
/// What the database says.
pub(crate) async fn settle(path: &Path) -> Result<(), Error> {
    let options = options(path).journal_mode(SqliteJournalMode::Delete);
    let database = options.connect().await?;
    Ok(database.close().await?)
}

/// Ends all logins in a database that nobody uses.
///
/// # Errors
///
/// What the database says.
pub(crate) async fn end_logins(path: &Path) -> Result<(), Error> {
    // Into the one file, which is then renamed.
    let options = options(path).journal_mode(SqliteJournalMode::Delete);
    let mut database = options.connect().await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut database)
        .await?;
    if version >= LOGINS_SINCE {
        sqlx::raw_sql("DELETE FROM logins; DELETE FROM login_attempts")
            .execute(&mut database)
            .await?;
    }
    Ok(database.close().await?)
}

async fn open(path: &Path) -> Result<SqliteConnection, Error> {
    Ok(options(path).connect().await?)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY)
}
