//! Keys: the host's own, and those that may come in.

use std::fs;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::home::write_private;

/// The longest `authorized_keys` that is read, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// The longest public key in text that is taken, bytes: an ECDSA P-521 key is below 300.
pub(crate) const MAX_KEY: usize = 4096;

/// The Ed25519 host key in `path`, made on first use; OpenSSH's format, for its owner alone.
///
/// # Errors
///
/// `corrupt` when the file is something else, or what the file system says.
pub(crate) fn host_key(path: &Path) -> Result<PrivateKey> {
    if !path.exists() {
        let key = PrivateKey::new(
            russh::keys::ssh_key::private::KeypairData::Ed25519(
                russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&crate::random()),
            ),
            "cw",
        );
        let text = key.and_then(|key| key.to_openssh(LineEnding::LF));
        write_private(path, text.map_err(Error::internal)?.as_bytes())?;
    }
    PrivateKey::read_openssh_file(path).map_err(|error| {
        Error::new(
            "corrupt",
            format!("{} is no SSH host key: {error}", path.display()),
        )
        .hint("take it away to have a new one made; clients will then ask about it")
    })
}

/// A public key as `ssh-keygen` writes it: one line, `type base64 comment`.
///
/// # Errors
///
/// `usage`, with what is wrong with it.
pub(crate) fn public_key(text: &str) -> Result<PublicKey> {
    let bad = |why: &str| {
        Error::new("usage", format!("this is no SSH public key: {why}"))
            .hint("give the .pub file, one line such as: ssh-ed25519 AAAA… you@laptop")
    };
    let text = text.trim();
    if text.len() > MAX_KEY || text.lines().count() != 1 {
        return Err(bad("it is not one line"));
    }
    if text.contains("PRIVATE KEY") {
        return Err(bad("it is a private one; keep it to yourself"));
    }
    let key = PublicKey::from_openssh(text).map_err(|error| bad(&error.to_string()))?;
    match key.algorithm() {
        Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => Ok(key),
        other => Err(bad(&format!("keys of type {other} are not taken"))
            .hint("make one of type ed25519: ssh-keygen -t ed25519")),
    }
}

/// The keys in an `authorized_keys` file.
#[derive(Debug, Default, Clone)]
pub(crate) struct Authorized(Vec<PublicKey>);

impl Authorized {
    /// Reads the file anew: a key that was taken out is out at once. A file that is not there, not
    /// readable or too long lets nobody in. Lines with options (`command="…"`) are passed over,
    /// since what they restrict would not be restricted here.
    pub(crate) fn read(path: &Path) -> Self {
        let small = fs::metadata(path).is_ok_and(|file| file.len() <= MAX_FILE);
        let text = if small {
            fs::read_to_string(path).unwrap_or_default()
        } else {
            String::new()
        };
        Self(
            text.lines()
                .filter_map(|line| public_key(line).ok())
                .collect(),
        )
    }

    /// Whether `key` is among them.
    pub(crate) fn has(&self, key: &PublicKey) -> bool {
        self.0
            .iter()
            .any(|known| known.key_data() == key.key_data())
    }
}

/// What OpenSSH shows of a key: `SHA256:…`.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A password out of random bytes: 20 letters and digits that are not mistaken for each other,
/// 5 bits each, in groups of five.
pub(crate) fn password(random: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = random.iter().map(|byte| LETTERS[usize::from(byte % 32)]);
    let letters: Vec<_> = letters.take(20).map(char::from).collect();
    let groups: Vec<String> = letters
        .chunks(5)
        .map(|group| group.iter().collect())
        .collect();
    groups.join("-")
}

/// What is kept of a password: SHA-256 with a prefix of its own. It has 100 random bits, so nothing
/// slower is needed.
pub(crate) fn password_hash(text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"codewire ssh password v1\0");
    hash.update(text.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTHsMMC1QwAwG9fMVmDnDGvzxE5Tm5i0fzSbgnd1xZB someone@somewhere";

    #[test]
    fn a_host_key_is_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host");
        let made = host_key(&path).unwrap();
        assert_eq!(made.public_key(), host_key(&path).unwrap().public_key());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "garbage").unwrap();
        assert_eq!(host_key(&path).unwrap_err().code, "corrupt");
    }

    #[test]
    fn only_public_keys_are_taken() {
        assert_eq!(
            public_key(KEY).unwrap().comment().to_string(),
            "someone@somewhere"
        );
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== x",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            &format!("{KEY}\n{KEY}"),
            &"x".repeat(5000),
        ] {
            assert_eq!(public_key(bad).unwrap_err().code, "usage", "{bad}");
        }
    }

    #[test]
    fn who_is_authorized_is_read_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authorized_keys");
        let key = public_key(KEY).unwrap();
        assert!(!Authorized::read(&path).has(&key));
        fs::write(&path, format!("# mine\n\n\u{0}garbage\n{KEY}\n")).unwrap();
        assert!(Authorized::read(&path).has(&key));
        fs::write(&path, format!("command=\"date\" {KEY}\n")).unwrap();
        assert!(!Authorized::read(&path).has(&key));
        fs::write(&path, "#".repeat(300_000) + "\n" + KEY).unwrap();
        assert!(!Authorized::read(&path).has(&key));
    }
}
