//! `logins.json`: the relays at which the user of this machine is logged in, and the token for each.
//!
//! The file is 0600 and written whole. A token is found by the relay that gave it and goes to no
//! other.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::home::{Home, write_private};
use crate::uplink::RelayUrl;

/// The longest file that is read, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A login at a relay.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    /// None where the relay asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// What the relay calls the user.
    pub(crate) subject: String,
    /// RFC 3339; none if it does not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
}

type Logins = BTreeMap<String, Login>;

/// The login at a relay. A session speaks for itself: in one there is none.
///
/// # Errors
///
/// `config_invalid` when the file is damaged or the URL is none.
pub(crate) fn find(home: &Home, relay: &str) -> Result<Option<Login>> {
    if std::env::var_os("CW_SESSION_ID").is_some() {
        return Ok(None);
    }
    Ok(load(home)?.remove(&key(relay)?))
}

/// Keeps a login; the one that was there before.
///
/// # Errors
///
/// As [`find`], or what the file system says.
pub(crate) fn keep(home: &Home, relay: &str, login: Login) -> Result<Option<Login>> {
    let mut logins = load(home)?;
    let before = logins.insert(key(relay)?, login);
    save(home, &logins)?;
    Ok(before)
}

/// Forgets a login; the one that was there.
///
/// # Errors
///
/// As [`keep`].
pub(crate) fn forget(home: &Home, relay: &str) -> Result<Option<Login>> {
    let mut logins = load(home)?;
    let before = logins.remove(&key(relay)?);
    if before.is_some() {
        save(home, &logins)?;
    }
    Ok(before)
}

/// One spelling of a relay's URL.
fn key(relay: &str) -> Result<String> {
    Ok(relay.parse::<RelayUrl>()?.to_string().to_lowercase())
}

fn load(home: &Home) -> Result<Logins> {
    let path = home.logins();
    let mut text = String::new();
    match std::fs::File::open(&path) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Logins::new()),
        Err(error) => return Err(error.into()),
    };
    serde_json::from_str(&text).map_err(|error| {
        let text = format!("{} is damaged: {error}", path.display());
        Error::new("config_invalid", text).hint("remove it, and log in again")
    })
}

fn save(home: &Home, logins: &Logins) -> Result<()> {
    home.create()?;
    let text = serde_json::to_vec_pretty(logins).map_err(Error::internal)?;
    Ok(write_private(&home.logins(), &text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_the_relay_that_gave_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_path_buf()).unwrap();
        let login = |token: &str| Login {
            token: Some(token.to_owned()),
            subject: "admin".to_owned(),
            expires_at: None,
        };
        let (one, other) = ("https://relay.example", "https://relay.example:8443");
        assert!(keep(&home, one, login("a")).unwrap().is_none());
        assert!(keep(&home, other, login("b")).unwrap().is_none());
        for same in [
            "https://relay.example/",
            "https://RELAY.example:443",
            " https://relay.example ",
        ] {
            assert!(load(&home).unwrap().get(&key(same).unwrap()) == Some(&login("a")));
        }
        assert!(key("http://relay.example").unwrap() != key(one).unwrap());
        assert!(forget(&home, one).unwrap() == Some(login("a")));
        assert!(forget(&home, one).unwrap().is_none());
        assert_eq!(load(&home).unwrap().len(), 1);
        std::fs::write(home.logins(), "{").unwrap();
        assert_eq!(load(&home).err().unwrap().code, "config_invalid");
    }
}
