//! SSH keys and passwords.

use sqlx::Row as _;

use super::row::{number, signed, text};
use super::{Database, Error, Row};
use crate::relay::store::doors::{MAX_SSH_KEYS, MAX_SSH_PASSWORDS, SshKey, SshPassword};
use crate::relay::store::{Refusal, Subject};

/// Where those stand in line who add keys.
const KEYS: &str = "ssh/keys";

/// And those who add passwords.
const PASSWORDS: &str = "ssh/passwords";

impl Database {
    pub(super) async fn put_ssh_key(&self, key: SshKey) -> Result<bool, Error> {
        let mut tx = self.write(KEYS).await?;
        let owner = sqlx::query("SELECT subject FROM ssh_keys WHERE fingerprint = $1")
            .bind(&key.fingerprint)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(owner) = owner {
            let owner: String = owner.try_get("subject")?;
            if owner == key.subject.as_str() {
                return Ok(false);
            }
            return Err(Refusal::KeyTaken.into());
        }
        let row = sqlx::query("SELECT count(*) AS many FROM ssh_keys WHERE subject = $1")
            .bind(key.subject.as_str())
            .fetch_one(&mut *tx)
            .await?;
        if number(&row, "many")? >= u64::from(MAX_SSH_KEYS) {
            return Err(Refusal::TooManyKeys.into());
        }
        sqlx::query(
            "INSERT INTO ssh_keys (fingerprint, subject, key, created) VALUES ($1, $2, $3, $4)",
        )
        .bind(&key.fingerprint)
        .bind(key.subject.as_str())
        .bind(&key.key)
        .bind(signed(key.created)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(super) async fn list_ssh_keys(&self, subject: Subject) -> Result<Vec<SshKey>, Error> {
        let rows = sqlx::query(
            "SELECT fingerprint, subject, key, created FROM ssh_keys
             WHERE subject = $1 ORDER BY created, fingerprint",
        )
        .bind(subject.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(key).collect()
    }

    pub(super) async fn delete_ssh_key(
        &self,
        subject: Subject,
        fingerprint: String,
    ) -> Result<bool, Error> {
        let done = sqlx::query("DELETE FROM ssh_keys WHERE subject = $1 AND fingerprint = $2")
            .bind(subject.as_str())
            .bind(fingerprint)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    pub(super) async fn find_ssh_key(&self, fingerprint: String) -> Result<Option<SshKey>, Error> {
        let row = sqlx::query(
            "SELECT fingerprint, subject, key, created FROM ssh_keys WHERE fingerprint = $1",
        )
        .bind(fingerprint)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(key).transpose()
    }

    pub(super) async fn put_ssh_password(
        &self,
        password: SshPassword,
        now: u64,
    ) -> Result<(), Error> {
        let mut tx = self.write(PASSWORDS).await?;
        sqlx::query("DELETE FROM ssh_passwords WHERE expires <= $1")
            .bind(signed(now)?)
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query("SELECT count(*) AS many FROM ssh_passwords WHERE subject = $1")
            .bind(password.subject.as_str())
            .fetch_one(&mut *tx)
            .await?;
        if number(&row, "many")? >= u64::from(MAX_SSH_PASSWORDS) {
            return Err(Refusal::TooManyKeys.into());
        }
        sqlx::query(
            "INSERT INTO ssh_passwords (hash, subject, network, node, expires)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&password.hash[..])
        .bind(password.subject.as_str())
        .bind(password.network.as_str())
        .bind(password.node.as_str())
        .bind(signed(password.expires)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn use_ssh_password(
        &self,
        hash: [u8; 32],
        now: u64,
    ) -> Result<Option<SshPassword>, Error> {
        // One statement: of many that try it at once, one gets the row.
        let row = sqlx::query(
            "DELETE FROM ssh_passwords WHERE hash = $1
             RETURNING subject, network, node, expires",
        )
        .bind(&hash[..])
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let password = SshPassword {
            hash,
            subject: Subject::named(row.try_get::<String, _>("subject")?),
            network: text(&row, "network")?,
            node: text(&row, "node")?,
            expires: number(&row, "expires")?,
        };
        Ok((password.expires > now).then_some(password))
    }
}

fn key(row: &Row) -> Result<SshKey, Error> {
    Ok(SshKey {
        fingerprint: row.try_get("fingerprint")?,
        subject: Subject::named(row.try_get::<String, _>("subject")?),
        key: row.try_get("key")?,
        created: number(row, "created")?,
    })
}
