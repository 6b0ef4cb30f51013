//! What is kept in the relay's directory: the certificate with its key, the account at the authority,
//! and how it stands, for `cw relay doctor`. Each is a file of its own, for its user alone, and whole
//! or not there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CertificateInfo};
use crate::error::{Error, Result};
use crate::relay::config::write_new;

const CERTIFICATE: &str = "acme-certificate.json";
pub(super) const ACCOUNT: &str = "acme-account.json";
const STATE: &str = "acme-state.json";

/// The longest of them, bytes.
const MAX_FILE: u64 = 1 << 20;

/// See the module.
#[derive(Clone)]
pub(super) struct Files {
    dir: PathBuf,
}

/// A certificate in PEM, and by whom it was given.
#[derive(Serialize, Deserialize)]
pub(super) struct IssuedCertificate {
    pub(super) directory: String,
    pub(super) chain: String,
    pub(super) key: String,
}

/// Who the relay is at an authority.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) directory: String,
    pub(super) email: Option<String>,
    pub(super) credentials: AccountCredentials,
}

/// How it stands.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) directory: String,
    pub(super) domains: Vec<String>,
    /// Since the last certificate.
    pub(super) last_failure: Option<LastFailure>,
}

/// Why there is no newer certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    pub(crate) why: String,
    /// When the authority is asked again, in seconds since 1970.
    pub(crate) next: u64,
}

/// How it stands with the certificate of a relay that gets one by itself.
pub(crate) struct Standing {
    pub(crate) directory: String,
    pub(crate) domains: Vec<String>,
    /// Of the certificate, if there is one.
    pub(crate) info: Option<CertificateInfo>,
    /// What went wrong since.
    pub(crate) last_failure: Option<LastFailure>,
}

/// How it stands in the directory of a relay; `None` if that relay does not get its certificate by
/// itself.
///
/// # Errors
///
/// When a file cannot be read.
pub(crate) fn standing(dir: &Path) -> Result<Option<Standing>> {
    let files = Files::of(dir.to_owned());
    let Some(state) = files.read::<State>(STATE)? else {
        return Ok(None);
    };
    let given = files.read::<IssuedCertificate>(CERTIFICATE)?;
    let given = given.filter(|given| given.directory == state.directory);
    let certificate = given.map(|given| Certificate::of(&given.chain, &given.key));
    let certificate = certificate.transpose().map_err(|why| {
        let path = files.path(CERTIFICATE);
        unusable(&path, &why)
    })?;
    // The domains may be others since.
    let info = certificate.map(|certificate| certificate.info);
    let info = info.filter(|info| info.is_for(&state.domains));
    Ok(Some(Standing {
        directory: state.directory,
        domains: state.domains,
        info,
        last_failure: state.last_failure,
    }))
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new("io", format!("{} is not usable: {why}", path.display()))
        .hint("remove it: a relay that starts without it makes it anew")
}

impl Files {
    /// Those in a directory.
    pub(super) const fn of(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The certificate of an authority that is kept, if it is for these domains and good `now`.
    ///
    /// # Errors
    ///
    /// Why what is there is of no use.
    pub(super) fn certificate(
        &self,
        directory: &str,
        domains: &[String],
        now: u64,
    ) -> Result<Option<Certificate>, String> {
        let given = self.read::<IssuedCertificate>(CERTIFICATE);
        let Some(given) = given.map_err(|error| error.message)? else {
            return Ok(None);
        };
        if given.directory != directory {
            return Err(format!("it is from {}", given.directory));
        }
        let certificate = Certificate::of(&given.chain, &given.key)?;
        certificate.check(domains, now).map(Some)
    }

    pub(super) async fn keep_certificate(&self, given: &IssuedCertificate) -> Result<()> {
        self.write(CERTIFICATE, given).await
    }

    /// The account at an authority; one that cannot be read is none.
    pub(super) fn account(&self, directory: &str) -> Option<Account> {
        let account = self.read::<Account>(ACCOUNT);
        let account =
            account.inspect_err(|error| tracing::warn!(%error, "an ACME account is lost"));
        let account = account.ok().flatten();
        account.filter(|account| account.directory == directory)
    }

    pub(super) async fn keep_account(&self, account: &Account) -> Result<()> {
        self.write(ACCOUNT, account).await
    }

    /// The authority does not know it.
    pub(super) fn forget_account(&self) {
        self.remove(ACCOUNT);
    }

    pub(super) async fn keep_state(&self, state: &State) -> Result<()> {
        self.write(STATE, state).await
    }

    /// The relay does not get its certificate by itself.
    pub(super) fn forget_state(&self) {
        self.remove(STATE);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn remove(&self, name: &str) {
        // It may never have been there.
        let _ = fs::remove_file(self.path(name));
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path(name);
        let unusable = |why: &dyn std::fmt::Display| unusable(&path, why);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&error)),
            Ok(metadata) if metadata.len() > MAX_FILE => return Err(unusable(&"it is too long")),
            Ok(_) => {}
        }
        let bytes = fs::read(&path).map_err(|error| unusable(&error))?;
        let value = serde_json::from_slice(&bytes).map_err(|error| unusable(&error))?;
        Ok(Some(value))
    }

    /// Away from those who serve: a disk may be slow.
    async fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.path(name);
        let bytes = serde_json::to_vec(value).map_err(Error::internal)?;
        let write = tokio::task::spawn_blocking(move || write_new(&path, &bytes));
        write.await.map_err(Error::internal)?
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CERT: &str = include_str!("../tests/localhost.cert.pem");
    const KEY: &str = include_str!("../tests/localhost.key.pem");
    const DIRECTORY: &str = "https://ca.example/dir";

    fn given() -> IssuedCertificate {
        IssuedCertificate {
            directory: DIRECTORY.to_owned(),
            chain: CERT.to_owned(),
            key: KEY.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_certificate_is_kept_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(dir.path().to_owned());
        let names = ["localhost".to_owned()];
        assert!(files.certificate(DIRECTORY, &names, 0).unwrap().is_none());
        files.keep_certificate(&given()).await.unwrap();
        let info = Certificate::of(CERT, KEY).unwrap().info;
        let kept = files.certificate(DIRECTORY, &names, info.from).unwrap();
        assert_eq!(kept.unwrap().info, info);
        let mode = dir.path().join(CERTIFICATE).metadata().unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        for (directory, name, now) in [
            ("https://other.example/dir", "localhost", info.from),
            (DIRECTORY, "another", info.from),
            (DIRECTORY, "localhost", info.until),
        ] {
            let names = [name.to_owned()];
            assert!(files.certificate(directory, &names, now).is_err());
        }
        for content in [&b""[..], b"{}", b"[1", &[0xff; 9], &[b' '; 2 << 20]] {
            fs::write(dir.path().join(CERTIFICATE), content).unwrap();
            assert!(files.certificate(DIRECTORY, &names, info.from).is_err());
        }
    }

    #[tokio::test]
    async fn the_doctor_sees_how_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(dir.path().to_owned());
        files.keep_certificate(&given()).await.unwrap();
        assert!(standing(dir.path()).unwrap().is_none(), "it is not in use");
        let last_failure = LastFailure {
            why: "away".to_owned(),
            next: 9,
        };
        let state = |directory: &str| State {
            directory: directory.to_owned(),
            domains: vec!["localhost".to_owned()],
            last_failure: Some(last_failure.clone()),
        };
        files.keep_state(&state(DIRECTORY)).await.unwrap();
        let stands = standing(dir.path()).unwrap().unwrap();
        assert!(stands.info.is_some());
        assert_eq!(stands.last_failure, Some(last_failure.clone()));
        files
            .keep_state(&state("https://other.example"))
            .await
            .unwrap();
        let stands = standing(dir.path()).unwrap().unwrap();
        assert!(stands.info.is_none(), "it is from somebody else");
        let mut other = state(DIRECTORY);
        other.domains.push("new.example".to_owned());
        files.keep_state(&other).await.unwrap();
        let stands = standing(dir.path()).unwrap().unwrap();
        assert!(stands.info.is_none(), "it is for other domains");
        files.forget_state();
        assert!(standing(dir.path()).unwrap().is_none());
    }
}
