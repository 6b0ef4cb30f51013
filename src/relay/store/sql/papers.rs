//! Groups and grants: documents that are read, changed and written in one transaction.

use mesh::NetworkId;
use sqlx::Row as _;

use super::row::{number, signed, unsigned};
use super::{Database, Error, Row, Tx, engine};
use crate::paper::{Matter, Paper, PaperName};
use crate::relay::papers::{GRANTS_KEPT, MAX_GRANTS, MAX_GROUPS, PaperEdit};
use crate::relay::store::Refusal;
use crate::relay::store::cluster::Note;

impl Database {
    pub(super) async fn change_paper(&self, edit: PaperEdit) -> Result<Option<Paper>, Error> {
        let PaperEdit {
            network,
            edit,
            now_ms,
        } = edit;
        let mut tx = self.write(network.as_str()).await?;
        let name = edit.about();
        let body: Option<String> =
            sqlx::query_scalar("SELECT body FROM papers WHERE network = $1 AND name = $2")
                .bind(network.as_str())
                .bind(name.text())
                .fetch_optional(&mut *tx)
                .await?;
        let before = body.map(|body| parse(&body)).transpose()?;
        let is_new = before.is_none();
        let Some(matter) = edit.apply(before, now_ms / 1000)? else {
            return Ok(None);
        };
        let (kind, limit) = match name {
            PaperName::Group(_) => ("group", MAX_GROUPS),
            PaperName::Grant(_) => ("grant", MAX_GRANTS),
        };
        if is_new && count(&mut tx, &network, kind).await? >= limit {
            return Err(Refusal::TooManyPapers.into());
        }
        let serial = next_serial(&mut tx, &network, now_ms).await?;
        let until = match &matter {
            Matter::Grant(grant) => Some(signed(grant.expires.saturating_add(GRANTS_KEPT))?),
            Matter::Group(_) => None,
        };
        let body = serde_json::to_string(&matter).map_err(|_| Error::Damaged("a paper"))?;
        sqlx::query(
            "INSERT INTO papers (network, name, kind, serial, body, until)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (network, name) DO UPDATE
             SET serial = excluded.serial, body = excluded.body, until = excluded.until",
        )
        .bind(network.as_str())
        .bind(name.text())
        .bind(kind)
        .bind(signed(serial)?)
        .bind(body)
        .bind(until)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(Paper {
            network,
            serial,
            matter,
        }))
    }
}

/// The serial of the next paper of a network: later than all before, and no earlier than now.
pub(super) async fn next_serial(
    tx: &mut Tx,
    network: &NetworkId,
    now_ms: u64,
) -> Result<u64, Error> {
    let serial: Option<i64> = sqlx::query_scalar(
        "UPDATE networks SET serial = CASE WHEN serial < $1 THEN $1 ELSE serial + 1 END
         WHERE id = $2 RETURNING serial",
    )
    .bind(signed(now_ms)?)
    .bind(network.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    engine::note(tx, &Note::Network(network.clone())).await?;
    unsigned(serial.ok_or(Error::Damaged("papers of no network"))?)
}

/// The papers of a network after a serial, in the order of their serials.
pub(super) async fn load(
    tx: &mut Tx,
    network: &NetworkId,
    after: u64,
) -> Result<Vec<Paper>, Error> {
    let rows = sqlx::query(
        "SELECT serial, body FROM papers WHERE network = $1 AND serial > $2 ORDER BY serial",
    )
    .bind(network.as_str())
    .bind(signed(after)?)
    .fetch_all(&mut **tx)
    .await?;
    let paper = |row: &Row| {
        let body: String = row.try_get("body")?;
        Ok(Paper {
            network: network.clone(),
            serial: number(row, "serial")?,
            matter: parse(&body)?,
        })
    };
    rows.iter().map(paper).collect()
}

fn parse(body: &str) -> Result<Matter, Error> {
    serde_json::from_str(body).map_err(|_| Error::Damaged("a paper"))
}

async fn count(tx: &mut Tx, network: &NetworkId, kind: &str) -> Result<u64, Error> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM papers WHERE network = $1 AND kind = $2")
            .bind(network.as_str())
            .bind(kind)
            .fetch_one(&mut **tx)
            .await?;
    unsigned(count)
}
