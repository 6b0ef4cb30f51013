//! Shared values.

use mesh::NetworkId;
use sqlx::Row as _;

use super::row::{number, optional, signed, unsigned};
use super::{Database, Error, Row, Tx, engine};
use crate::relay::store::Refusal;
use crate::relay::store::cluster::Note;
use crate::relay::store::shared::{
    Changes, Condition, DELETIONS_KEPT, Entry, MAX_BYTES, MAX_KEYS, PREVIEW, Place, Put, Query,
    Removal,
};

/// What [`entry`] reads, with as much of the value as there is room for.
const COLUMNS: &str = "key, substr(value, 1, CAST($1 AS INTEGER)) AS value, \
     value IS NULL AS gone, CAST(coalesce(length(value), 0) AS BIGINT) AS size, revision, expires, \
     changed, changed_by";

/// The value is there and its time is not over; `?2` is now.
const LIVE: &str = "value IS NOT NULL AND (expires IS NULL OR expires > $2)";

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

impl Database {
    pub(super) async fn put_value(&self, put: Put) -> Result<u64, Error> {
        let mut tx = self.write(put.place.network.as_str()).await?;
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
            "INSERT INTO shared
               (network, space, key, value, revision, expires, changed, changed_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (network, space, key) DO UPDATE
             SET value = excluded.value, revision = excluded.revision, expires = excluded.expires,
               changed = excluded.changed, changed_by = excluded.changed_by",
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
        let place = &removal.place;
        let mut tx = self.write(place.network.as_str()).await?;
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
            "UPDATE shared SET value = NULL, expires = NULL, revision = $1, changed = $2, changed_by = $3
             WHERE network = $4 AND space = $5 AND key = $6",
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
            "SELECT {COLUMNS} FROM shared WHERE {LIVE} AND network = $3 AND space = $4 AND key = $5"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(i64::from(i32::MAX))
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
             WHERE {LIVE} AND network = $3 AND space = $4
               AND key >= $5 AND substr(key, 1, length($5)) = $5 AND ($6 IS NULL OR key > $6)
             ORDER BY key LIMIT $7"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(i64::try_from(PREVIEW).unwrap_or_default())
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
        let mut tx = self.read().await?;
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
             WHERE network = $3 AND space = $4 AND revision > $2
               AND substr(key, 1, length($5)) = $5
             ORDER BY revision LIMIT $6"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(i64::try_from(PREVIEW).unwrap_or_default())
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
        let due = "SELECT DISTINCT network FROM shared WHERE expires <= $1";
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
        let mut tx = self.write(network.as_str()).await?;
        let mut sums = sums(&mut tx, network).await?;
        let due = "SELECT space, key, CAST(length(value) AS BIGINT) AS size FROM shared
             WHERE network = $1 AND expires <= $2 ORDER BY expires";
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
                "UPDATE shared SET value = NULL, expires = NULL, revision = $1, changed = $2
                 WHERE network = $3 AND space = $4 AND key = $5",
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
        let networks: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT network FROM shared WHERE value IS NULL AND changed < $1",
        )
        .bind(before)
        .fetch_all(&self.pool)
        .await?;
        for network in networks {
            let network: NetworkId = network.parse().map_err(|_| Error::Damaged("a name"))?;
            let mut tx = self.write(network.as_str()).await?;
            let last: Option<i64> = sqlx::query_scalar(
                "SELECT max(revision) FROM shared
                 WHERE network = $1 AND value IS NULL AND changed < $2",
            )
            .bind(network.as_str())
            .bind(before)
            .fetch_one(&mut *tx)
            .await?;
            let mut sums = sums(&mut tx, &network).await?;
            sums.floor = sums.floor.max(last.map_or(Ok(0), unsigned)?);
            keep(&mut tx, &network, &sums).await?;
            sqlx::query("DELETE FROM shared WHERE network = $1 AND value IS NULL AND changed < $2")
                .bind(network.as_str())
                .bind(before)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
        }
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
        "SELECT revision, expires, CAST(length(value) AS BIGINT) AS size FROM shared
         WHERE network = $1 AND space = $2 AND key = $3 AND value IS NOT NULL",
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
    let row =
        sqlx::query("SELECT revision, floor, keys, bytes FROM shared_sums WHERE network = $1")
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

/// Every change ends with it, so it is also what tells other relays.
async fn keep(tx: &mut Tx, network: &NetworkId, sums: &Sums) -> Result<(), Error> {
    engine::note(tx, &Note::Shared(network.clone())).await?;
    sqlx::query(
        "INSERT INTO shared_sums (network, revision, floor, keys, bytes)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (network) DO UPDATE
         SET revision = excluded.revision, floor = excluded.floor, keys = excluded.keys,
           bytes = excluded.bytes",
    )
    .bind(network.as_str())
    .bind(signed(sums.revision)?)
    .bind(signed(sums.floor)?)
    .bind(signed(sums.keys)?)
    .bind(signed(sums.bytes)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn entry(row: &Row) -> Result<Entry, Error> {
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
