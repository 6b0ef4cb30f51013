//! The database of a relay: a file in its directory, or one in PostgreSQL; and what relays over
//! one database have in common that each would otherwise make for itself.

use std::sync::Arc;

use derp::handshake::MeshKey;
use russh::keys::PrivateKey;

use super::app::{TokenHash, random};
use super::backup::{DATABASE, of_database};
use super::config::{Checked, DataDir};
use super::store::{Address, Postgres, Sqlite, Store};
use crate::error::{Error, Result};

/// Opens the store.
///
/// # Errors
///
/// `store_unavailable`, `database_invalid`.
pub(crate) async fn open(checked: &Checked) -> Result<Arc<dyn Store>> {
    let file = checked.data.path(DATABASE);
    let Some(address) = &checked.database else {
        let store = Sqlite::open(&file).await.map_err(Error::internal)?;
        return Ok(Arc::new(store));
    };
    if file.exists() {
        let file = file.display();
        tracing::warn!(%file, %address, "this database is left alone: the relay has another one");
    }
    Ok(Arc::new(connect(address).await?))
}

async fn connect(address: &Address) -> Result<Postgres> {
    Postgres::open(address).await.map_err(|error| {
        let error = of_database(error);
        let message = format!("the database {address}: {}", error.message);
        Error { message, ..error }
    })
}

/// The relay's token, and whether it is another than this relay has made: a token that was made is
/// that of the relay which used the database first.
///
/// # Errors
///
/// What the database says.
pub(crate) async fn token(checked: &Checked, store: &dyn Store) -> Result<(TokenHash, bool)> {
    let own = &checked.token;
    let (Some(cluster), true) = (store.cluster(), checked.token_made.is_some()) else {
        return Ok((own.clone(), false));
    };
    let first = cluster.keep("auth-token-hash", own.bytes().to_vec()).await;
    let first = TokenHash::from_bytes(&first.map_err(of_database)?)
        .ok_or_else(|| Error::internal("the database has no token"))?;
    let is_another = first.bytes() != own.bytes();
    Ok((first, is_another))
}

/// The key of the SSH front door: that of the relay which used the database first, so that nobody
/// is warned who comes to another one.
///
/// # Errors
///
/// What the database or the file system says.
pub(crate) async fn host_key(data: &DataDir, store: &dyn Store) -> Result<PrivateKey> {
    let path = data.path("ssh_host_ed25519");
    let own = crate::ssh::host_key(&path)?;
    let Some(cluster) = store.cluster() else {
        return Ok(own);
    };
    let first = cluster.keep("ssh-host-key", std::fs::read(&path)?).await;
    PrivateKey::from_openssh(first.map_err(of_database)?).map_err(Error::internal)
}

/// What relays of one database prove to each other that they are, so that they forward packets for
/// each other's nodes. `None` if there is nothing that others could use too.
///
/// # Errors
///
/// What the database says.
pub(crate) async fn mesh_key(store: &dyn Store) -> Result<Option<MeshKey>> {
    let Some(cluster) = store.cluster() else {
        return Ok(None);
    };
    let first = cluster.keep("derp-mesh-key", random::<32>().to_vec()).await;
    let first = MeshKey::from_hex(&hex::encode(first.map_err(of_database)?));
    let first = first.ok_or_else(|| Error::internal("the database has no mesh key"))?;
    Ok(Some(first))
}
