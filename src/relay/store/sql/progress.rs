//! How far networks have come, and what somebody does not know of one yet.

use ed25519_dalek::SigningKey;
use mesh::{NetworkId, SignKey};
use sqlx::Row as _;

use super::row::{NODE_COLUMNS, fixed, node, number, revision, signed, text};
use super::{Database, Error, Row, Tx, issuers, networks, papers};
use crate::coord::{Mark, Revision};
use crate::relay::store::Death;
use crate::relay::store::cluster::{Head, Part, Progress, Since};

impl Database {
    pub(super) async fn list_heads(&self, only: Option<NetworkId>) -> Result<Vec<Head>, Error> {
        let rows = sqlx::query(
            "SELECT n.id, n.revision, n.mark, coalesce(s.revision, 0) AS shared,
               coalesce((SELECT max(serial) FROM papers WHERE network = n.id), 0) AS serial
             FROM networks n LEFT JOIN shared_sums s ON s.network = n.id
             WHERE $1 IS NULL OR n.id = $1 ORDER BY n.id",
        )
        .bind(only.as_ref().map(NetworkId::as_str))
        .fetch_all(&self.pool)
        .await?;
        let head = |row: &Row| {
            Ok(Head {
                network: text(row, "id")?,
                revision: revision(row)?,
                serial: number(row, "serial")?,
                shared: number(row, "shared")?,
            })
        };
        rows.iter().map(head).collect()
    }

    pub(super) async fn find_progress(
        &self,
        network: NetworkId,
        since: Option<Since>,
    ) -> Result<Option<Progress>, Error> {
        let mut tx = self.read().await?;
        let row = sqlx::query(
            "SELECT n.id, n.revision, n.mark, i.seed
             FROM networks n JOIN issuers i ON i.network = n.id WHERE n.id = $1",
        )
        .bind(network.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let issuer = SigningKey::from_bytes(&fixed(row.try_get("seed")?)?);
        let issuers = issuers::load(&mut tx, &network, &issuer).await?;
        let since = since.filter(|since| since.root == *issuers.root());
        let Some(since) = since else {
            let state = networks::network_state(&mut tx, &row).await?;
            return Ok(Some(Progress::Other(state)));
        };
        let revision = revision(&row)?;
        let is_all = !knows(&mut tx, &network, revision, since.revision).await?;
        let (number, serial) = if is_all {
            (None, 0)
        } else {
            (Some(since.revision.number), since.serial)
        };
        let after = number.map_or(Ok(-1), signed)?;
        let query = format!(
            "SELECT {NODE_COLUMNS} FROM nodes WHERE network = $1 AND changed > $2 ORDER BY key"
        );
        let nodes = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(network.as_str())
            .bind(after)
            .fetch_all(&mut *tx)
            .await?;
        let papers = papers::load(&mut tx, &network, serial).await?;
        Ok(Some(Progress::Part(Part {
            issuer,
            issuers,
            revision,
            history: networks::history(&mut tx, &network, after).await?,
            nodes: nodes.iter().map(node).collect::<Result<_, _>>()?,
            papers,
            is_all,
        })))
    }

    pub(super) async fn find_death(
        &self,
        network: NetworkId,
        root: SignKey,
    ) -> Result<Option<Death>, Error> {
        let body: Option<String> = sqlx::query_scalar(
            "SELECT body FROM obituaries WHERE network = $1 AND root = $2 LIMIT 1",
        )
        .bind(network.as_str())
        .bind(root.as_bytes().as_slice())
        .fetch_optional(&self.pool)
        .await?;
        let parsed = body.map(|body| serde_json::from_str(&body));
        parsed
            .transpose()
            .map_err(|_| Error::Damaged("an obituary"))
    }
}

/// Whether a revision is one on the way to the present one. The very first has no mark that is
/// kept.
async fn knows(
    tx: &mut Tx,
    network: &NetworkId,
    present: Revision,
    known: Revision,
) -> Result<bool, Error> {
    if known == present || known.number == 0 {
        return Ok(true);
    }
    let mark: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT mark FROM changes WHERE network = $1 AND revision = $2")
            .bind(network.as_str())
            .bind(signed(known.number)?)
            .fetch_optional(&mut **tx)
            .await?;
    let mark = mark.map(fixed).transpose()?.map(Mark);
    Ok(known.number < present.number && mark == Some(known.mark))
}
