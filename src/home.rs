//! Where a node keeps its files.
//!
//! One directory holds one node: `$CODEWIRE_HOME` when set, else `$HOME/.codewire`. It is 0700
//! and everything in it 0600. There is no fallback in a shared place such as `/tmp`: without a
//! home the program says so and ends.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The longest path that a Unix socket may have on every system we run on, in bytes
/// (`sun_path` is 104 on macOS, 108 on Linux, with a terminating zero).
const SOCKET_PATH_MAX: usize = 103;

/// What to do about a key that was revoked: the relay takes it in no more, under any name.
pub(crate) const NEW_IDENTITY: &str = "a revoked key stays out, so the node needs a new one: move \
     the file seed out of its directory ($CODEWIRE_HOME, else ~/.codewire), run 'cw node restart', \
     and join with a new invite";

/// What to do about a directory that the node cannot use.
pub(crate) const ANOTHER_HOME: &str = "set CODEWIRE_HOME to a directory that you may write to";

/// The directory of one node.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// Finds the directory from the environment. Creates nothing.
    ///
    /// # Errors
    ///
    /// `config_invalid` when neither variable is set, or the path is too long for a socket.
    pub fn from_env() -> Result<Self> {
        let dir = match std::env::var_os("CODEWIRE_HOME").filter(|dir| !dir.is_empty()) {
            Some(dir) => std::path::absolute(PathBuf::from(dir))?,
            None => std::env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .map(|home| PathBuf::from(home).join(".codewire"))
                .ok_or_else(|| {
                    Error::new("config_invalid", "neither HOME nor CODEWIRE_HOME is set")
                        .hint("set one of them to a directory of yours")
                })?,
        };
        Self::at(dir)
    }

    /// Uses `dir`.
    ///
    /// # Errors
    ///
    /// `config_invalid` when the socket in it would have too long a path.
    pub fn at(dir: PathBuf) -> Result<Self> {
        let home = Self { dir };
        let length = home.socket().as_os_str().len();
        if length > SOCKET_PATH_MAX {
            return Err(Error::new(
                "config_invalid",
                format!(
                    "{} is too long for a socket ({length} bytes, at most {SOCKET_PATH_MAX})",
                    home.socket().display()
                ),
            )
            .hint("set CODEWIRE_HOME to a shorter path"));
        }
        Ok(home)
    }

    /// Creates the directory with mode 0700, and tightens it if it is there already.
    ///
    /// # Errors
    ///
    /// `config_invalid` when it is no directory for this user to write to, `disk_full`.
    pub fn create(&self) -> Result<()> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir);
        let private = std::fs::Permissions::from_mode(0o700);
        made.and_then(|()| std::fs::set_permissions(&self.dir, private))
            .map_err(|error| self.unusable(error))
    }

    fn unusable(&self, error: io::Error) -> Error {
        let is_full = error.kind() == io::ErrorKind::StorageFull;
        if is_full || crate::error::is_out_of_files(&error) {
            return error.into();
        }
        let what = format!("{} cannot be used: {error}", self.dir.display());
        Error::new("config_invalid", what).hint(ANOTHER_HOME)
    }

    /// SSH: this node's host key.
    #[must_use]
    pub fn ssh_host_key(&self) -> PathBuf {
        self.dir.join("ssh_host_ed25519")
    }

    /// SSH: whose keys may come in, in OpenSSH's format.
    #[must_use]
    pub fn authorized_keys(&self) -> PathBuf {
        self.dir.join("authorized_keys")
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The Unix socket of the node.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("codewire.sock")
    }

    /// The process number of the keeper, decimal.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("codewire.pid")
    }

    /// What a node that was started in the background says.
    #[must_use]
    pub fn node_log(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// The configuration, optional.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Variables for every session, a flat JSON object of strings; optional.
    #[must_use]
    pub fn environment(&self) -> PathBuf {
        self.dir.join("environment.json")
    }

    /// The SSH agent of whoever came last, at a path that does not change: sessions outlive the
    /// login that started them, and its agent.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    /// Makes [`Self::agent`] lead to the agent of a caller. What is no socket is no agent.
    pub fn offer_agent(&self, socket: &Path) {
        use std::os::unix::fs::FileTypeExt;
        let link = self.agent();
        let is_socket = std::fs::metadata(socket).is_ok_and(|found| found.file_type().is_socket());
        if !is_socket || !socket.is_absolute() || socket == link {
            return;
        }
        let temporary = link.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let offered = std::os::unix::fs::symlink(socket, &temporary)
            .and_then(|()| std::fs::rename(&temporary, &link));
        if let Err(error) = offered {
            tracing::warn!(%error, "sessions do not see the SSH agent");
        }
    }

    /// The secret that lets WebSocket clients in.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Nodes that are spoken to directly, and their tokens.
    #[must_use]
    pub fn servers(&self) -> PathBuf {
        self.dir.join("servers.toml")
    }

    /// The relays at which the user is logged in, and the tokens for them.
    #[must_use]
    pub fn logins(&self) -> PathBuf {
        self.dir.join("logins.json")
    }

    /// The 32 bytes from which the node's keys come.
    #[must_use]
    pub fn seed(&self) -> PathBuf {
        self.dir.join("seed")
    }

    /// The network that this node has joined.
    #[must_use]
    pub fn membership(&self) -> PathBuf {
        self.dir.join("membership.json")
    }

    /// The hand-overs of the network's issuer, as heard since it was joined.
    #[must_use]
    pub fn issuers(&self) -> PathBuf {
        self.dir.join("issuers.json")
    }

    /// Messages to other nodes.
    #[must_use]
    pub fn outbox(&self) -> PathBuf {
        self.dir.join("outbox.jsonl")
    }

    /// The grants that were accepted here.
    #[must_use]
    pub fn accepted_grants(&self) -> PathBuf {
        self.dir.join("accepted_access_grants.json")
    }

    /// How far their revocations have been heard.
    #[must_use]
    pub fn accepted_grants_state(&self) -> PathBuf {
        self.dir.join("accepted_access_grants_state.json")
    }

    /// The last known signed records of the network.
    #[must_use]
    pub fn netmap(&self) -> PathBuf {
        self.dir.join("netmap.json")
    }
}

/// Writes a small file whole or not at all: a temporary file of mode 0600 beside it, flushed to
/// the disk, then renamed over it.
///
/// # Errors
///
/// What the file system says; the old file is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // Best effort: the error that matters is the one of the write.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_long_path_is_refused() {
        let error = Home::at(PathBuf::from("/".to_owned() + &"x".repeat(120))).unwrap_err();
        assert_eq!(error.code, "config_invalid");
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for dir in [file.clone(), file.join("home")] {
            let home = Home::at(dir.clone()).unwrap();
            let unknown = crate::config::unknown(&home).unwrap();
            assert!(unknown.is_empty(), "the configuration is not at fault");
            let error = home.create().unwrap_err();
            assert_eq!(error.code, "config_invalid");
            assert!(error.message.contains(dir.to_str().unwrap()), "{error}");
            assert!(error.hint.unwrap().contains("CODEWIRE_HOME"));
        }
    }

    #[test]
    fn the_directory_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("a/b")).unwrap();
        home.create().unwrap();
        let mode = std::fs::metadata(home.dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
