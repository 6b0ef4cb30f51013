//! Several relays over one PostgreSQL database.
//!
//! That there is something to look at goes by `NOTIFY` with the transaction that it is about. Who may
//! connect hears that and may say it, too, so what one relay has another do is in a table
//! ([`Errand`]). Seats are written one transaction after another, so that their places become
//! visible in order; and all times are the database's, whose clock is one.
//!
//! Who listens has a connection beside those of the pool. When it is dead without a word, sqlx would
//! wait for it long before it took another one in its place.

use std::time::Duration;

use derp::NodeKey;
use futures_util::FutureExt as _;
use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions, PgRow};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::sql::row::{fixed, number, text};
use super::{ACQUIRE_LIMIT, CHANNEL, Postgres, limited, note, too_slow};
use crate::coord::Nonce;
use crate::relay::store::cluster::{
    Beat, Cluster, DEAD_AFTER, Errand, Fellow, Heard, Note, RelayId, Seat, Seating,
};
use crate::relay::store::{Answer, Error};
use crate::relay::visits::COME_LIMIT;

/// Where those stand in line who write seats.
const SEATS: &str = "seats";

/// Relays say that they are there more often than this; who hears nothing for so long has a
/// connection that is none.
const SILENCE: Duration = Duration::from_secs(30);

/// Errands that wait for one relay, at most; some more when many are sent at once. Nobody waits for
/// what comes of one for longer than [`COME_LIMIT`].
pub(super) const MAX_ERRANDS: i64 = 1024;

impl Postgres {
    async fn note_beat(&self, relay: Fellow) -> Result<Beat, Error> {
        let mut was_known = true;
        for (query, is_first) in [
            (
                "UPDATE relays SET beat = clock_timestamp(), url = $2, derp_key = $3, base_url = $4
                 WHERE id = $1",
                false,
            ),
            (
                "INSERT INTO relays (id, url, derp_key, base_url, beat)
                 VALUES ($1, $2, $3, $4, clock_timestamp())",
                true,
            ),
        ] {
            let noted = sqlx::query(query)
                .bind(relay.id.0)
                .bind(&relay.url)
                .bind(relay.key.as_bytes().as_slice())
                .bind(&relay.base_url)
                .execute(&self.pool)
                .await?;
            was_known = !is_first;
            if noted.rows_affected() > 0 {
                break;
            }
        }
        // The last run of a relay that has started again comes last.
        let rows = sqlx::query(
            "SELECT id, url, derp_key, base_url, beat > clock_timestamp() - make_interval(secs => $1) AS runs
             FROM relays ORDER BY beat",
        )
        .bind(DEAD_AFTER.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        let (mut fellows, mut somebody_is_dead) = (Vec::new(), false);
        for row in rows {
            if !row.try_get("runs")? {
                somebody_is_dead = true;
                continue;
            }
            // An older program has not said it.
            let Some(key) = row.try_get::<Option<Vec<u8>>, _>("derp_key")? else {
                continue;
            };
            fellows.push(Fellow {
                id: RelayId(row.try_get("id")?),
                url: row.try_get("url")?,
                base_url: row.try_get("base_url")?,
                key: NodeKey::from_bytes(fixed(key)?),
            });
        }
        Ok(Beat {
            was_known,
            somebody_is_dead,
            fellows,
        })
    }

    /// Takes off the books one relay, or else all that are silent, with their seats.
    async fn take_off(&self, relay: Option<RelayId>) -> Result<(), Error> {
        let mut tx = self.write(SEATS).await?;
        sqlx::query(
            "DELETE FROM relays WHERE id = $1
               OR ($1 IS NULL AND beat <= clock_timestamp() - make_interval(secs => $2))",
        )
        .bind(relay.map(|relay| relay.0))
        .bind(DEAD_AFTER.as_secs_f64())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE seats SET relay = NULL, place = here.place
             FROM (SELECT nextval('places') AS place) AS here
             WHERE relay IS NOT NULL AND relay NOT IN (SELECT id FROM relays)",
        )
        .execute(&mut *tx)
        .await?;
        note(&mut tx, &Note::Seats).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn write_seats(
        &self,
        relay: RelayId,
        seatings: Vec<Seating>,
    ) -> Result<Option<u64>, Error> {
        let mut tx = self.write(SEATS).await?;
        let place: Option<i64> =
            sqlx::query_scalar("SELECT nextval('places') FROM relays WHERE id = $1")
                .bind(relay.0)
                .fetch_optional(&mut *tx)
                .await?;
        let Some(place) = place else { return Ok(None) };
        for (is_here, query) in [
            (
                true,
                "INSERT INTO seats (network, key, relay, place)
                 SELECT came.network, came.key, $3, $4 FROM unnest($1, $2) AS came (network, key)
                 ON CONFLICT (network, key) DO UPDATE
                 SET relay = excluded.relay, place = excluded.place",
            ),
            (
                false,
                "UPDATE seats SET relay = NULL, place = $4
                 FROM unnest($1, $2) AS gone (network, key)
                 WHERE seats.network = gone.network AND seats.key = gone.key
                   AND seats.relay = $3",
            ),
        ] {
            let these = seatings.iter().filter(|seating| seating.is_here == is_here);
            let (networks, keys): (Vec<String>, Vec<Vec<u8>>) = these
                .map(|seating| (seating.network.to_string(), seating.key.as_bytes().to_vec()))
                .unzip();
            if networks.is_empty() {
                continue;
            }
            sqlx::query(query)
                .bind(networks)
                .bind(keys)
                .bind(relay.0)
                .bind(place)
                .execute(&mut *tx)
                .await?;
        }
        note(&mut tx, &Note::Seats).await?;
        tx.commit().await?;
        super::sql::row::unsigned(place).map(Some)
    }

    async fn read_seats(&self, after: u64) -> Result<Vec<Seat>, Error> {
        let rows = sqlx::query(
            "SELECT network, key, relay, place FROM seats WHERE place > $1 ORDER BY place",
        )
        .bind(super::sql::row::signed(after)?)
        .fetch_all(&self.pool)
        .await?;
        let seat = |row: &PgRow| {
            let relay: Option<i64> = row.try_get("relay")?;
            Ok(Seat {
                network: text(row, "network")?,
                key: NodeKey::from_bytes(fixed(row.try_get("key")?)?),
                relay: relay.map(RelayId),
                place: number(row, "place")?,
            })
        };
        rows.iter().map(seat).collect()
    }

    async fn tell_all(&self, told: Note) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        note(&mut tx, &told).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn write_errand(&self, to: RelayId, errand: Errand) -> Result<bool, Error> {
        let body = serde_json::to_string(&errand).map_err(|_| Error::Damaged("an errand"))?;
        let mut tx = self.pool.begin().await?;
        let sent = sqlx::query(
            "INSERT INTO errands (to_relay, body) SELECT $1, $2
             WHERE (SELECT count(*) FROM errands WHERE to_relay = $1) < $3",
        )
        .bind(to.0)
        .bind(body)
        .bind(MAX_ERRANDS)
        .execute(&mut *tx)
        .await?;
        note(&mut tx, &Note::Errands(to)).await?;
        tx.commit().await?;
        Ok(sent.rows_affected() > 0)
    }

    async fn take_errands(&self, relay: RelayId) -> Result<Vec<Errand>, Error> {
        let bodies: Vec<Option<String>> = sqlx::query_scalar(
            "DELETE FROM errands WHERE to_relay = $1
             RETURNING CASE WHEN sent > clock_timestamp() - make_interval(secs => $2)
               THEN body END",
        )
        .bind(relay.0)
        .bind(COME_LIMIT.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        let errand = |body: String| serde_json::from_str(&body).ok();
        // A later version may have others do more.
        Ok(bodies.into_iter().flatten().filter_map(errand).collect())
    }

    async fn hear_all(&self, to: mpsc::Sender<Heard>) -> Result<(), Error> {
        let apart = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(ACQUIRE_LIMIT)
            .connect_lazy_with((*self.pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&apart).await?;
        listener.eager_reconnect(false);
        let listening = timeout(ACQUIRE_LIMIT, listener.listen(CHANNEL)).await;
        listening.map_err(|_| too_slow())??;
        if to.send(Heard::Listening).await.is_err() {
            return Ok(());
        }
        loop {
            let Ok(heard) = timeout(SILENCE, listener.try_recv()).await else {
                return Ok(());
            };
            let Some(heard) = heard? else { return Ok(()) };
            // A later version may tell more.
            let Ok(note) = serde_json::from_str(heard.payload()) else {
                continue;
            };
            if to.send(Heard::Note(note)).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn use_nonce(&self, nonce: Nonce) -> Result<bool, Error> {
        let taken = sqlx::query("INSERT INTO nonces (nonce) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(nonce.0.as_slice())
            .execute(&self.pool)
            .await?;
        Ok(taken.rows_affected() > 0)
    }

    async fn drop_nonces(&self, age: Duration) -> Result<(), Error> {
        sqlx::query(
            "DELETE FROM nonces WHERE taken < clock_timestamp() - make_interval(secs => $1)",
        )
        .bind(age.as_secs_f64())
        .execute(&self.pool)
        .await?;
        sqlx::query(
            "DELETE FROM seats WHERE relay IS NULL
               AND NOT EXISTS (SELECT 1 FROM networks WHERE id = seats.network)",
        )
        .execute(&self.pool)
        .await?;
        sqlx::query(
            "DELETE FROM errands WHERE sent < clock_timestamp() - make_interval(secs => $1)",
        )
        .bind(COME_LIMIT.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn keep_first(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, Error> {
        sqlx::query("INSERT INTO kept (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(value)
            .execute(&self.pool)
            .await?;
        Ok(sqlx::query_scalar("SELECT value FROM kept WHERE name = $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await?)
    }
}

impl Cluster for Postgres {
    fn beat(&self, relay: Fellow) -> Answer<'_, Beat> {
        limited(self.note_beat(relay))
    }

    fn bury(&self) -> Answer<'_, ()> {
        limited(self.take_off(None))
    }

    fn leave(&self, relay: RelayId) -> Answer<'_, ()> {
        limited(self.take_off(Some(relay)))
    }

    fn seat(&self, relay: RelayId, seatings: Vec<Seating>) -> Answer<'_, Option<u64>> {
        limited(self.write_seats(relay, seatings))
    }

    fn seats(&self, after: u64) -> Answer<'_, Vec<Seat>> {
        limited(self.read_seats(after))
    }

    fn tell(&self, note: Note) -> Answer<'_, ()> {
        limited(self.tell_all(note))
    }

    fn send(&self, to: RelayId, errand: Errand) -> Answer<'_, bool> {
        limited(self.write_errand(to, errand))
    }

    fn take(&self, relay: RelayId) -> Answer<'_, Vec<Errand>> {
        limited(self.take_errands(relay))
    }

    fn hear(&self, to: mpsc::Sender<Heard>) -> Answer<'_, ()> {
        self.hear_all(to).boxed()
    }

    fn take_nonce(&self, nonce: Nonce) -> Answer<'_, bool> {
        limited(self.use_nonce(nonce))
    }

    fn tidy(&self, age: Duration) -> Answer<'_, ()> {
        limited(self.drop_nonces(age))
    }

    fn keep(&self, name: &'static str, value: Vec<u8>) -> Answer<'_, Vec<u8>> {
        limited(self.keep_first(name, value))
    }
}
