//! Logins.

use sqlx::Row as _;

use super::row::{fixed, number, signed};
use super::{Answer, Database, Error, Row, engine};
use crate::relay::store::logins::{Attempt, Login, Logins, MAX_ATTEMPTS, MAX_LOGINS, Turn};
use crate::relay::store::{Refusal, Subject};

/// Where those stand in line who log in.
const LOGINS: &str = "logins";

/// And those who begin to.
const ATTEMPTS: &str = "logins/attempts";

impl Logins for Database {
    fn add_login(&self, login: Login, now: u64) -> Answer<'_, ()> {
        engine::limited(self.put_login(login, now))
    }

    fn login(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<Login>> {
        engine::limited(self.find_login(hash, now))
    }

    fn logins(&self, subject: Option<Subject>, now: u64) -> Answer<'_, Vec<Login>> {
        engine::limited(self.list_logins(subject, now))
    }

    fn end_logins(&self, subject: Option<Subject>, id: Option<String>) -> Answer<'_, u64> {
        engine::limited(self.delete_logins(subject, id))
    }

    fn add_attempt(&self, attempt: Attempt, now: u64) -> Answer<'_, ()> {
        engine::limited(self.put_attempt(attempt, now))
    }

    fn turn(&self, hash: [u8; 32], now: u64, next: u64) -> Answer<'_, Turn> {
        engine::limited(self.take_turn(hash, now, next))
    }

    fn change_attempt(&self, hash: [u8; 32], state: String, next: u64) -> Answer<'_, bool> {
        engine::limited(self.update_attempt(hash, state, next))
    }

    fn take_attempt(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<Attempt>> {
        engine::limited(self.delete_attempt(hash, now))
    }
}

impl Database {
    async fn put_login(&self, login: Login, now: u64) -> Result<(), Error> {
        let mut tx = self.write(LOGINS).await?;
        sqlx::query("DELETE FROM logins WHERE expires <= $1")
            .bind(signed(now)?)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO logins (hash, id, subject, name, via, label, created, expires)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (hash) DO NOTHING",
        )
        .bind(&login.hash[..])
        .bind(&login.id)
        .bind(login.subject.as_str())
        .bind(&login.name)
        .bind(&login.via)
        .bind(&login.label)
        .bind(signed(login.created)?)
        .bind(signed(login.expires)?)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM logins WHERE subject = $1 AND hash NOT IN
               (SELECT hash FROM logins WHERE subject = $1
                ORDER BY created DESC, id DESC LIMIT $2)",
        )
        .bind(login.subject.as_str())
        .bind(i64::from(MAX_LOGINS))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    async fn find_login(&self, hash: [u8; 32], now: u64) -> Result<Option<Login>, Error> {
        let row = sqlx::query(
            "SELECT hash, id, subject, name, via, label, created, expires FROM logins
             WHERE hash = $1 AND expires > $2",
        )
        .bind(&hash[..])
        .bind(signed(now)?)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(login).transpose()
    }

    async fn list_logins(&self, subject: Option<Subject>, now: u64) -> Result<Vec<Login>, Error> {
        let subject = subject.as_ref().map(Subject::as_str);
        let rows = sqlx::query(
            "SELECT hash, id, subject, name, via, label, created, expires FROM logins
             WHERE expires > $1 AND (CAST($2 AS TEXT) IS NULL OR subject = $2)
             ORDER BY created DESC, id DESC",
        )
        .bind(signed(now)?)
        .bind(subject)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(login).collect()
    }

    async fn delete_logins(
        &self,
        subject: Option<Subject>,
        id: Option<String>,
    ) -> Result<u64, Error> {
        let subject = subject.as_ref().map(Subject::as_str);
        let done = sqlx::query(
            "DELETE FROM logins
             WHERE (CAST($1 AS TEXT) IS NULL OR subject = $1)
               AND (CAST($2 AS TEXT) IS NULL OR id = $2)",
        )
        .bind(subject)
        .bind(id)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    async fn put_attempt(&self, attempt: Attempt, now: u64) -> Result<(), Error> {
        let mut tx = self.write(ATTEMPTS).await?;
        sqlx::query("DELETE FROM login_attempts WHERE expires <= $1")
            .bind(signed(now)?)
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query("SELECT count(*) AS many FROM login_attempts")
            .fetch_one(&mut *tx)
            .await?;
        if number(&row, "many")? >= u64::from(MAX_ATTEMPTS) {
            return Err(Refusal::TooManyAttempts.into());
        }
        sqlx::query(
            "INSERT INTO login_attempts (hash, state, not_before, expires)
             VALUES ($1, $2, 0, $3)",
        )
        .bind(&attempt.hash[..])
        .bind(&attempt.state)
        .bind(signed(attempt.expires)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    async fn take_turn(&self, hash: [u8; 32], now: u64, next: u64) -> Result<Turn, Error> {
        // One statement: of many that try it at once, one gets the turn.
        let due = sqlx::query(
            "UPDATE login_attempts SET not_before = $1
             WHERE hash = $2 AND not_before <= $3 AND expires > $3
             RETURNING hash, state, expires",
        )
        .bind(signed(next)?)
        .bind(&hash[..])
        .bind(signed(now)?)
        .fetch_optional(&self.pool)
        .await?;
        if let Some(row) = due {
            return Ok(Turn::Due(attempt(&row)?));
        }
        let there = sqlx::query("SELECT 1 FROM login_attempts WHERE hash = $1 AND expires > $2")
            .bind(&hash[..])
            .bind(signed(now)?)
            .fetch_optional(&self.pool)
            .await?;
        Ok(there.map_or(Turn::Gone, |_| Turn::Early))
    }

    async fn update_attempt(
        &self,
        hash: [u8; 32],
        state: String,
        next: u64,
    ) -> Result<bool, Error> {
        let done =
            sqlx::query("UPDATE login_attempts SET state = $1, not_before = $2 WHERE hash = $3")
                .bind(state)
                .bind(signed(next)?)
                .bind(&hash[..])
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn delete_attempt(&self, hash: [u8; 32], now: u64) -> Result<Option<Attempt>, Error> {
        let row = sqlx::query(
            "DELETE FROM login_attempts WHERE hash = $1 RETURNING hash, state, expires",
        )
        .bind(&hash[..])
        .fetch_optional(&self.pool)
        .await?;
        let attempt = row.as_ref().map(attempt).transpose()?;
        Ok(attempt.filter(|attempt| attempt.expires > now))
    }
}

fn login(row: &Row) -> Result<Login, Error> {
    Ok(Login {
        hash: fixed(row.try_get("hash")?)?,
        id: row.try_get("id")?,
        subject: Subject::named(row.try_get::<String, _>("subject")?),
        name: row.try_get("name")?,
        via: row.try_get("via")?,
        label: row.try_get("label")?,
        created: number(row, "created")?,
        expires: number(row, "expires")?,
    })
}

fn attempt(row: &Row) -> Result<Attempt, Error> {
    Ok(Attempt {
        hash: fixed(row.try_get("hash")?)?,
        state: row.try_get("state")?,
        expires: number(row, "expires")?,
    })
}
