//! The directory of a relay, saved and brought back.
//!
//! A backup is a directory (0700) with the database, copied as it was at one moment while the relay
//! goes on, and the files that make the relay the one that its nodes know: the DERP key, the key of
//! the SSH front door, the token that it made for itself. Not in it are the nonces of the last
//! minutes: those that stay where they are refuse more. It is written beside its place and then
//! renamed, so that there is a whole one or none.
//!
//! A relay whose database is in PostgreSQL has nothing here to be copied: that is said, and what to
//! do instead.
//!
//! What was changed since is not in it. In particular who was revoked since is not revoked for the
//! relay: nodes that know better keep to it, those that were away are told nothing of it. Logins are
//! not brought back at all, or those that were ended since would be good again.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::config::{DataDir, database_elsewhere};
use super::store::{self, Address, Contents};
use crate::error::{Error, Result};

/// The database in the directory of a relay.
pub(crate) const DATABASE: &str = "relay.db";

/// What SQLite keeps beside it while it is in use.
const BESIDE: [&str; 2] = ["relay.db-wal", "relay.db-shm"];

/// The files that a relay makes once and that have to stay the same.
const KEYS: [&str; 3] = ["derp-key", "ssh_host_ed25519", "auth-token"];

/// Saves a relay's directory into the directory `to`, which must not be there. The relay may run.
///
/// # Errors
///
/// `not_found` without a database; `conflict` when there is something at `to`; `disk_full`,
/// `permission`, or what the database says. Nothing is left behind.
pub(crate) async fn backup(dir: &Path, to: &Path) -> Result<Contents> {
    not_elsewhere(dir)?;
    let database = dir.join(DATABASE);
    if !database.is_file() {
        return Err(no_database(dir));
    }
    if to.symlink_metadata().is_ok() {
        return Err(
            Error::new("conflict", format!("{} is there already", to.display()))
                .hint("choose a directory that does not exist yet"),
        );
    }
    let partial = beside(to, "partial");
    let saved = save(dir, &database, &partial).await;
    let saved = saved.and_then(|contents| {
        fs::rename(&partial, to).map_err(|error| failed(to, &error))?;
        Ok(contents)
    });
    if saved.is_err() {
        // Half a backup is none.
        let _ = fs::remove_dir_all(&partial);
    }
    saved
}

async fn save(dir: &Path, database: &Path, partial: &Path) -> Result<Contents> {
    // One that was not finished.
    let _ = fs::remove_dir_all(partial);
    let made = fs::DirBuilder::new().mode(0o700).create(partial);
    made.map_err(|error| failed(partial, &error))?;
    let copy = partial.join(DATABASE);
    store::copy(database, &copy).await.map_err(of_database)?;
    for name in KEYS {
        copy_file(&dir.join(name), &partial.join(name))?;
    }
    let contents = store::check(&copy).await.map_err(of_database)?;
    sync(partial)?;
    Ok(contents)
}

/// Reads all of the database in a relay's directory. The relay may run.
///
/// # Errors
///
/// `not_found`, `database_invalid`.
pub(crate) async fn check(dir: &Path) -> Result<Contents> {
    not_elsewhere(dir)?;
    let database = dir.join(DATABASE);
    if !database.is_file() {
        return Err(no_database(dir));
    }
    store::check(&database).await.map_err(of_database)
}

/// Asks a PostgreSQL database what is in it, and which relays use it now.
///
/// # Errors
///
/// `store_unavailable`, `database_invalid`.
pub(crate) async fn check_at(address: &Address) -> Result<(Contents, Vec<String>)> {
    store::look(address).await.map_err(of_database)
}

/// Brings a backup back into the directory of a relay that does not run. What is there now, if it
/// may be replaced, is kept beside it; returns where.
///
/// # Errors
///
/// `not_found` when `from` is no backup, `database_invalid` when it cannot be used; `locked` while
/// a relay uses the directory; `conflict` when it has a database and that is not to be replaced.
pub(crate) async fn restore(
    from: &Path,
    dir: Option<PathBuf>,
    replace: bool,
) -> Result<(Contents, Option<PathBuf>)> {
    let saved = from.join(DATABASE);
    if !saved.is_file() {
        return Err(no_database(from));
    }
    let data = DataDir::open(dir)?;
    not_elsewhere(&data.path(""))?;
    let database = data.path(DATABASE);
    if database.exists() && !replace {
        let dir = data.path("");
        let message = format!("{} has a database already", dir.display());
        return Err(Error::new("conflict", message)
            .hint("with --replace what is there is put aside, and kept"));
    }
    let fresh = data.path("relay.db.restored");
    discard(&fresh);
    copy_file(&saved, &fresh)?;
    let contents = match store::check(&fresh).await {
        Ok(contents) => contents,
        Err(error) => {
            discard(&fresh);
            return Err(of_database(error));
        }
    };
    if let Err(error) = store::end_logins(&fresh).await {
        discard(&fresh);
        return Err(of_database(error));
    }
    let aside = if database.exists() {
        Some(put_aside(&data).await?)
    } else {
        None
    };
    for name in KEYS {
        let (saved, place) = (from.join(name), data.path(name));
        if saved.exists() {
            let fresh = beside(&place, "restored");
            let _ = fs::remove_file(&fresh);
            copy_file(&saved, &fresh)?;
            fs::rename(&fresh, &place).map_err(|error| failed(&place, &error))?;
        }
    }
    // Of another database now: SQLite would believe them.
    for name in BESIDE {
        let _ = fs::remove_file(data.path(name));
    }
    // At last: until here the relay has its old database, whole.
    fs::rename(&fresh, &database).map_err(|error| failed(&database, &error))?;
    sync(&data.path(""))?;
    Ok((contents, aside))
}

/// Removes a database that is not to be, with what SQLite may have put beside it.
fn discard(database: &Path) {
    for ending in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(ending);
        let _ = fs::remove_file(path);
    }
}

/// Copies what a restored backup replaces.
async fn put_aside(data: &DataDir) -> Result<PathBuf> {
    let database = data.path(DATABASE);
    // One that is damaged is kept as it is, with what is beside it.
    if let Err(error) = store::settle(&database).await {
        tracing::warn!(%error, "the present database is kept as it is");
    }
    let aside = make_aside(data)?;
    for name in [DATABASE].iter().chain(&BESIDE).chain(&KEYS) {
        copy_file(&data.path(name), &aside.join(name))?;
    }
    sync(&aside)?;
    Ok(aside)
}

/// A new directory, named by the time.
fn make_aside(data: &DataDir) -> Result<PathBuf> {
    let now = super::clock::unix_now();
    let mut failure = None;
    // Two within a second are told apart.
    for number in 1..=100 {
        let name = match number {
            1 => format!("before-restore-{now}"),
            number => format!("before-restore-{now}-{number}"),
        };
        let aside = data.path(&name);
        match fs::DirBuilder::new().mode(0o700).create(&aside) {
            Ok(()) => return Ok(aside),
            Err(error) => failure = Some(failed(&aside, &error)),
        }
    }
    Err(failure.unwrap_or_else(|| Error::internal("no directory was tried")))
}

/// Copies a file, if it is there, into a new one of mode 0600, down to the disk. Root gives it to
/// who owns the directory: that is who the relay runs as.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = match fs::File::open(from) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(from, &error)),
    };
    let copied = (|| {
        let mut target = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(to)?;
        io::copy(&mut source, &mut target)?;
        target.flush()?;
        if let Some(dir) = to.parent().filter(|_| rustix::process::geteuid().is_root()) {
            let dir = dir.metadata()?;
            std::os::unix::fs::fchown(&target, Some(dir.uid()), Some(dir.gid()))?;
        }
        target.sync_all()
    })();
    copied.map_err(|error| failed(to, &error))
}

/// Brings the names in a directory to the disk.
fn sync(dir: &Path) -> Result<()> {
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed(dir, &error))
}

/// The same path with another ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// An error when the relay has its database in PostgreSQL, which has its own tools.
fn not_elsewhere(dir: &Path) -> Result<()> {
    let Some(place) = database_elsewhere(dir) else {
        return Ok(());
    };
    let message = format!("the relay of {} has its database in {place}", dir.display());
    Err(Error::new("database_elsewhere", message).hint(
        "save it with 'pg_dump --format=custom' and bring it back with 'pg_restore'; \
         save the other files of the directory with it",
    ))
}

fn no_database(dir: &Path) -> Error {
    let path = dir.join(DATABASE);
    Error::new("not_found", format!("there is no {}", path.display()))
        .hint("name the directory that 'cw relay serve' has as --data-dir, or one of its backups")
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => "disk_full",
        io::ErrorKind::PermissionDenied => "permission",
        io::ErrorKind::NotFound => "not_found",
        _ => "internal",
    };
    Error::new(code, format!("{}: {error}", path.display()))
}

pub(crate) fn of_database(error: store::Error) -> Error {
    let (code, hint) = if error.is_away() {
        (
            "store_unavailable",
            "is its server there, and does it let this user in?",
        )
    } else {
        (
            "database_invalid",
            "is it the database of a relay that is no newer than this program?",
        )
    };
    Error::new(code, error.to_string()).hint(hint)
}
