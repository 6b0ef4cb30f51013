//! The store in one SQLite file.
//!
//! One connection does everything: transactions stand in line in memory
//! instead of colliding in the file, and reads are few since the directory
//! answers from memory. Writing transactions begin as such (`BEGIN
//! IMMEDIATE`), so what they read still holds when they write. The file and
//! its log are 0600.

mod copy;
#[expect(clippy::duplicate_mod, reason = "once for each engine, see there")]
#[path = "../sql/mod.rs"]
mod sql;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite as Engine, sqlite::SqliteRow as Row};

pub(crate) use self::copy::{Contents, check, copy, end_logins, settle};
pub(crate) use self::sql::Database as Sqlite;
use self::sql::Tx;
use super::cluster::{Cluster, Note};
use super::{Answer, Error, not_newer};

/// Each brings the schema one version further. Never edit one that was
/// released: add another.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_start.sql"),
    include_str!("../migrations/0002_shared.sql"),
    include_str!("../migrations/0003_papers.sql"),
    include_str!("../migrations/0004_handovers.sql"),
    include_str!("../migrations/0005_ssh.sql"),
    include_str!("../migrations/0006_logins.sql"),
];

/// How long to wait for another process (a backup, a shell) that holds the
/// file.
const BUSY: Duration = Duration::from_secs(5);

impl Sqlite {
    /// Opens the database, creates it if there is none, and brings it to the
    /// present version.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] when a newer program wrote it, or what the file
    /// system and the database say.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| Error::File {
                path: path.display().to_string(),
                source,
            })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            // The seed of an issuer that has handed over is overwritten, not only let go.
            .pragma("secure_delete", "ON");
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        let store = Self { pool };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), Error> {
        let mut tx = self.write("migrations").await?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *tx)
            .await?;
        let done = not_newer(found, MIGRATIONS)?;
        for migration in MIGRATIONS.iter().skip(done) {
            sqlx::raw_sql(*migration).execute(&mut *tx).await?;
        }
        // A pragma takes no parameters; this one is a number of ours.
        let version = format!("PRAGMA user_version = {}", MIGRATIONS.len());
        sqlx::raw_sql(sqlx::AssertSqlSafe(version))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn write(pool: &SqlitePool, _: &str) -> Result<Tx, Error> {
    Ok(pool.begin_with("BEGIN IMMEDIATE").await?)
}

async fn read(pool: &SqlitePool) -> Result<Tx, Error> {
    Ok(pool.begin().await?)
}

/// A file answers.
fn limited<'a, T: 'a>(work: impl Future<Output = Result<T, Error>> + Send + 'a) -> Answer<'a, T> {
    work.boxed()
}

fn patient<'a, T: 'a>(work: impl Future<Output = Result<T, Error>> + Send + 'a) -> Answer<'a, T> {
    work.boxed()
}

/// There is nobody else.
fn note(_: &mut Tx, _: &Note) -> std::future::Ready<Result<(), Error>> {
    std::future::ready(Ok(()))
}

const fn cluster(_: &Sqlite) -> Option<&dyn Cluster> {
    None
}

/// What was overwritten in the file must not lie in the log beside it either.
async fn forget_secrets(pool: &SqlitePool) -> Result<(), Error> {
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(pool)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::super::{Store as _, suite};
    use super::*;

    macro_rules! on_sqlite {
        ($name:ident) => {
            #[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let store = Sqlite::open(&dir.path().join("relay.db")).await.unwrap();
                suite::$name(Arc::new(store)).await;
            }
        };
    }

    suite::for_each_test!(on_sqlite);

    #[tokio::test]
    async fn u17_the_files_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("relay.db")).await.unwrap();
        suite::networks_have_owners(Arc::new(store)).await;
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
        }
    }

    #[tokio::test]
    async fn it_opens_again_unless_a_newer_program_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.db");
        suite::networks_have_owners(Arc::new(Sqlite::open(&path).await.unwrap())).await;
        let store = Sqlite::open(&path).await.unwrap();
        assert_eq!(store.load().await.unwrap().len(), 2);
        sqlx::raw_sql("PRAGMA user_version = 99")
            .execute(&store.pool)
            .await
            .unwrap();
        drop(store);
        let newer = Sqlite::open(&path).await.err();
        assert!(matches!(newer, Some(Error::Newer { found: 99, .. })));
    }

    #[tokio::test]
    async fn damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.db");
        std::fs::write(&path, b"this is no database, however long it may be").unwrap();
        assert!(Sqlite::open(&path).await.is_err());

        let path = dir.path().join("other.db");
        let store = Sqlite::open(&path).await.unwrap();
        let insert = "INSERT INTO networks VALUES ('a b', 0, 0, x'00', 0)";
        sqlx::raw_sql(insert).execute(&store.pool).await.unwrap();
        let insert = "INSERT INTO issuers VALUES ('a b', zeroblob(32), 0)";
        sqlx::raw_sql(insert).execute(&store.pool).await.unwrap();
        assert!(matches!(store.load().await, Err(Error::Damaged(_))));
    }
}
