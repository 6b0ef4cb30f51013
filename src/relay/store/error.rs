//! What a store says when it has not done what it was asked to.

use super::refusal::Refusal;

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// By the rules.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The database failed; nothing was changed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The database holds what this program never writes.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// The database was written by a newer program.
    #[error("the database has version {found}, this program knows {known}")]
    Newer {
        /// In the file.
        found: i64,
        /// The last one known.
        known: i64,
    },
    /// A file could not be made.
    #[error("cannot open {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Passes if this program knows the version of a database: it has so many migrations. Returns how
/// many of them were done.
///
/// # Errors
///
/// [`Error::Newer`], [`Error::Damaged`].
pub(super) fn not_newer(found: i64, migrations: &[&str]) -> Result<usize, Error> {
    let done = usize::try_from(found).map_err(|_| Error::Damaged("a negative version"))?;
    if done > migrations.len() {
        let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
        return Err(Error::Newer { found, known });
    }
    Ok(done)
}

impl Error {
    /// Whether a text had a character that the database cannot store: NUL, in PostgreSQL.
    pub(crate) fn is_no_text(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return false;
        };
        error.code().is_some_and(|code| code == "22021")
    }

    /// Whether the database cannot be reached now, or has no time: what was
    /// asked may be asked again.
    pub(crate) fn is_away(&self) -> bool {
        let Self::Database(error) = self else {
            return false;
        };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // The classes of PostgreSQL: connection, resources, limits of ours, shutdown; and
            // transactions that were in each other's way.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "53", "55P03", "57", "25P03", "40001", "40P01"]
                    .iter()
                    .any(|class| code.starts_with(class))
            }),
            _ => false,
        }
    }
}
