//! Groups and grants: documents that are read, changed and written in one transaction.

use mesh::NetworkId;
use sqlx::Row as _;

use super::row::{number, signed};
use super::{Error, Sqlite, Tx};
use crate::paper::{Matter, Paper, PaperName};
use crate::relay::papers::{GRANTS_KEPT, MAX_GRANTS, MAX_GROUPS, PaperEdit};
use crate::relay::store::Refusal;

impl Sqlite {
    pub(super) async fn change_paper(&self, edit: PaperEdit) -> Result<Option<Paper>, Error> {
        let PaperEdit {
            network,
            edit,
            now_ms,
        } = edit;
        let mut tx = self.write().await?;
        let name = edit.about();
        let body: Option<String> =
            sqlx::query_scalar("SELECT body FROM papers WHERE network = ? AND name = ?")
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
        let serial: i64 = sqlx::query_scalar(
            "UPDATE networks SET serial = max(serial + 1, ?) WHERE id = ? RETURNING serial",
        )
        .bind(signed(now_ms)?)
        .bind(network.as_str())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Error::Damaged("papers of no network"))?;
        let until = match &matter {
            Matter::Grant(grant) => Some(signed(grant.expires.saturating_add(GRANTS_KEPT))?),
            Matter::Group(_) => None,
        };
        let body = serde_json::to_string(&matter).map_err(|_| Error::Damaged("a paper"))?;
        sqlx::query(
            "INSERT INTO papers (network, name, kind, serial, body, until)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (network, name) DO UPDATE
             SET serial = excluded.serial, body = excluded.body, until = excluded.until",
        )
        .bind(network.as_str())
        .bind(name.text())
        .bind(kind)
        .bind(serial)
        .bind(body)
        .bind(until)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(Paper {
            network,
            serial: super::row::unsigned(serial)?,
            matter,
        }))
    }
}

/// All papers of a network, in the order of their serials.
pub(super) async fn load(tx: &mut Tx, network: &NetworkId) -> Result<Vec<Paper>, Error> {
    let rows = sqlx::query("SELECT serial, body FROM papers WHERE network = ? ORDER BY serial")
        .bind(network.as_str())
        .fetch_all(&mut **tx)
        .await?;
    let paper = |row| {
        let body: String = sqlx::sqlite::SqliteRow::try_get(row, "body")?;
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
        sqlx::query_scalar("SELECT count(*) FROM papers WHERE network = ? AND kind = ?")
            .bind(network.as_str())
            .bind(kind)
            .fetch_one(&mut **tx)
            .await?;
    super::row::unsigned(count)
}
