//! Shared values in SQLite.

use mesh::NetworkId;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{number, optional, signed, unsigned};
use super::{Error, Sqlite, Tx};
use crate::relay::store::Refusal;
use crate::relay::store::shared::{
    Changes, Condition, DELETIONS_KEPT, Entry, MAX_BYTES, MAX_KEYS, PREVIEW, Place, Put, Query,
    Removal,
};

/// What [`entry`] reads, with as much of the value as there is room for.
const COLUMNS: &str = "key, substr(value, 1, ?1) AS value, value IS NULL AS gone, \
     coalesce(length(value), 0) AS size, revision, expires, changed, changed_by";

/// The value is there and its time is not over; `?2` is now.
const LIVE: &str = "value IS NOT NULL AND (expires IS NULL OR expires > ?2)";

/// The sums of a network.
struct Sums {
    revision: u64,
    floor: u64,
    keys: u64,
    bytes: u64,
}

/// What a key is before a change.
struct Before {
    /// Of a live value.
    revision: Option<u64>,
    /// What the row counts for in the sums.
    keys: u64,
    bytes: u64,
}

impl Sqlite {
    pub(super) async fn put_value(&self, put: Put) -> Result<u64, Error> {
        let mut tx = self.write().await?;
        let mut sums = sums(&mut tx, &put.place.network).await?;
        let before = before(&mut tx, &put.place, put.now).await?;
        before.meets(put.condition)?;
        sums.keys = sums.keys.saturating_sub(before.keys) + 1;
        sums.bytes = sums.bytes.saturating_sub(before.bytes) + weight(&put.place, put.value.len());
        if sums.keys > MAX_KEYS || sums.bytes > MAX_BYTES {
            return Err(Refusal::SharedFull.into());
        }
        sums.revision += 1;
        sqlx::query(
            "INSERT OR REPLACE INTO shared
               (network, space, key, value, revision, expires, changed, changed_by)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(put.place.network.as_str())
        .bind(put.place.space.as_str())
        .bind(put.place.key.as_str())
        .bind(&put.value)
        .bind(signed(sums.revision)?)
        .bind(put.expires.map(signed).transpose()?)
        .bind(signed(put.now)?)
        .bind(&put.by)
        .execute(&mut *tx)
        .await?;
        keep(&mut tx, &put.place.network, &sums).await?;
        tx.commit().await?;
        Ok(sums.revision)
    }

    pub(super) async fn remove_value(&self, removal: Removal) -> Result<Option<u64>, Error> {
        let mut tx = self.write().await?;
        let place = &removal.place;
        let before = before(&mut tx, place, removal.now).await?;
        before.meets(removal.condition)?;
        if before.revision.is_none() {
            return Ok(None);
        }
        let mut sums = sums(&mut tx, &place.network).await?;
        sums.revision += 1;
        sums.keys = sums.keys.saturating_sub(before.keys);
        sums.bytes = sums.bytes.saturating_sub(before.bytes);
        sqlx::query(
            "UPDATE shared SET value = NULL, expires = NULL, revision = ?, changed = ?, changed_by = ?
             WHERE network = ? AND space = ? AND key = ?",
        )
        .bind(signed(sums.revision)?)
        .bind(signed(removal.now)?)
        .bind(&removal.by)
        .bind(place.network.as_str())
        .bind(place.space.as_str())
        .bind(place.key.as_str())
        .execute(&mut *tx)
        .await?;
        keep(&mut tx, &place.network, &sums).await?;
        tx.commit().await?;
        Ok(Some(sums.revision))
    }

    pub(super) async fn get_value(&self, place: Place, now: u64) -> Result<Option<Entry>, Error> {
        let query = format!(
            "SELECT {COLUMNS} FROM shared WHERE {LIVE} AND network = ?3 AND space = ?4 AND key = ?5"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(i64::MAX)
            .bind(signed(now)?)
            .bind(place.network.as_str())
            .bind(place.space.as_str())
            .bind(place.key.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(entry).transpose()
    }

    pub(super) async fn list_values(
        &self,
        query: Query,
        after: Option<String>,
    ) -> Result<Vec<Entry>, Error> {
        let text = format!(
            "SELECT {COLUMNS} FROM shared
             WHERE {LIVE} AND network = ?3 AND space = ?4
               AND key >= ?5 AND substr(key, 1, length(?5)) = ?5 AND (?6 IS NULL OR key > ?6)
             ORDER BY key LIMIT ?7"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(i64::try_from(PREVIEW).unwrap_or(i64::MAX))
            .bind(signed(query.now)?)
            .bind(query.network.as_str())
            .bind(query.space.as_str())
            .bind(&query.prefix)
            .bind(after)
            .bind(i64::from(query.limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(entry).collect()
    }

    pub(super) async fn values_since(
        &self,
        query: Query,
        since: Option<u64>,
    ) -> Result<Changes, Error> {
        let mut tx = self.pool.begin().await?;
        let sums = sums(&mut tx, &query.network).await?;
        let Some(since) = since else {
            return Ok(Changes {
                entries: Vec::new(),
                upto: sums.revision,
                gap: false,
            });
        };
        let text = format!(
            "SELECT {COLUMNS} FROM shared
             WHERE network = ?3 AND space = ?4 AND revision > ?2
               AND substr(key, 1, length(?5)) = ?5
             ORDER BY revision LIMIT ?6"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(i64::try_from(PREVIEW).unwrap_or(i64::MAX))
            .bind(signed(since)?)
            .bind(query.network.as_str())
            .bind(query.space.as_str())
            .bind(&query.prefix)
            .bind(i64::from(query.limit))
            .fetch_all(&mut *tx)
            .await?;
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let is_all = u32::try_from(entries.len()).is_ok_and(|count| count < query.limit);
        let last = entries.last().map(|entry| entry.revision);
        Ok(Changes {
            upto: last.filter(|_| !is_all).unwrap_or(sums.revision),
            entries,
            // A revision from the future is another database's.
            gap: since < sums.floor || since > sums.revision,
        })
    }

    /// Takes out what has expired; the networks in which something has.
    pub(super) async fn expire_values(&self, now: u64) -> Result<Vec<NetworkId>, Error> {
        let due = "SELECT DISTINCT network FROM shared WHERE expires <= ?";
        let networks: Vec<String> = sqlx::query_scalar(due)
            .bind(signed(now)?)
            .fetch_all(&self.pool)
            .await?;
        let mut changed = Vec::new();
        for network in networks {
            let network: NetworkId = network.parse().map_err(|_| Error::Damaged("a name"))?;
            self.expire_in(&network, now).await?;
            changed.push(network);
        }
        Ok(changed)
    }

    async fn expire_in(&self, network: &NetworkId, now: u64) -> Result<(), Error> {
        let mut tx = self.write().await?;
        let mut sums = sums(&mut tx, network).await?;
        let due = "SELECT space, key, length(value) AS size FROM shared
             WHERE network = ? AND expires <= ? ORDER BY expires";
        let rows = sqlx::query(due)
            .bind(network.as_str())
            .bind(signed(now)?)
            .fetch_all(&mut *tx)
            .await?;
        for row in rows {
            let (space, key): (String, String) = (row.try_get("space")?, row.try_get("key")?);
            sums.revision += 1;
            sums.keys = sums.keys.saturating_sub(1);
            let size = number(&row, "size")? + (space.len() + key.len()) as u64;
            sums.bytes = sums.bytes.saturating_sub(size);
            sqlx::query(
                "UPDATE shared SET value = NULL, expires = NULL, revision = ?, changed = ?
                 WHERE network = ? AND space = ? AND key = ?",
            )
            .bind(signed(sums.revision)?)
            .bind(signed(now)?)
            .bind(network.as_str())
            .bind(space)
            .bind(key)
            .execute(&mut *tx)
            .await?;
        }
        keep(&mut tx, network, &sums).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Forgets old deletions.
    pub(super) async fn forget_deletions(&self, now: u64) -> Result<(), Error> {
        let before = signed(now.saturating_sub(DELETIONS_KEPT))?;
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE shared_sums SET floor = max(floor, coalesce(
               (SELECT max(revision) FROM shared
                WHERE network = shared_sums.network AND value IS NULL AND changed < ?), 0))",
        )
        .bind(before)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM shared WHERE value IS NULL AND changed < ?")
            .bind(before)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Before {
    fn meets(&self, condition: Condition) -> Result<(), Refusal> {
        let is_met = match condition {
            Condition::Always => true,
            Condition::Absent => self.revision.is_none(),
            Condition::Is(revision) => self.revision == Some(revision),
        };
        is_met.then_some(()).ok_or(Refusal::SharedChanged)
    }
}

/// What a value counts for in the sums, bytes.
fn weight(place: &Place, value: usize) -> u64 {
    (place.space.as_str().len() + place.key.as_str().len() + value) as u64
}

async fn before(tx: &mut Tx, place: &Place, now: u64) -> Result<Before, Error> {
    let row = sqlx::query(
        "SELECT revision, expires, length(value) AS size FROM shared
         WHERE network = ? AND space = ? AND key = ? AND value IS NOT NULL",
    )
    .bind(place.network.as_str())
    .bind(place.space.as_str())
    .bind(place.key.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else {
        return Ok(Before {
            revision: None,
            keys: 0,
            bytes: 0,
        });
    };
    let is_over = optional(&row, "expires")?.is_some_and(|expires| expires <= now);
    let size = usize::try_from(number(&row, "size")?).unwrap_or(usize::MAX);
    Ok(Before {
        revision: Some(number(&row, "revision")?).filter(|_| !is_over),
        // What has expired counts until it is swept out or replaced.
        keys: 1,
        bytes: weight(place, size),
    })
}

async fn sums(tx: &mut Tx, network: &NetworkId) -> Result<Sums, Error> {
    let row = sqlx::query("SELECT revision, floor, keys, bytes FROM shared_sums WHERE network = ?")
        .bind(network.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else {
        return Ok(Sums {
            revision: 0,
            floor: 0,
            keys: 0,
            bytes: 0,
        });
    };
    Ok(Sums {
        revision: number(&row, "revision")?,
        floor: number(&row, "floor")?,
        keys: number(&row, "keys")?,
        bytes: number(&row, "bytes")?,
    })
}

async fn keep(tx: &mut Tx, network: &NetworkId, sums: &Sums) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO shared_sums VALUES (?, ?, ?, ?, ?)")
        .bind(network.as_str())
        .bind(signed(sums.revision)?)
        .bind(signed(sums.floor)?)
        .bind(signed(sums.keys)?)
        .bind(signed(sums.bytes)?)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn entry(row: &SqliteRow) -> Result<Entry, Error> {
    let gone: bool = row.try_get("gone")?;
    let value: Option<Vec<u8>> = row.try_get("value")?;
    Ok(Entry {
        key: row.try_get("key")?,
        // SQLite's part of an empty value is none.
        value: (!gone).then(|| value.unwrap_or_default()),
        size: unsigned(row.try_get("size")?)?,
        revision: number(row, "revision")?,
        expires: optional(row, "expires")?,
        changed: number(row, "changed")?,
        by: row.try_get("changed_by")?,
    })
}
