//! Rows of the database as values. What this program never writes is an
//! error and not a panic: files get damaged.

use derp::NodeKey;
use mesh::{NodeName, NodeRecord, SignKey};
use sqlx::Row as _;

use super::{Error, Row};
use crate::coord::{Mark, Revision};
use crate::relay::store::NodeRow;

/// What [`node`] reads.
pub(super) const NODE_COLUMNS: &str = "network, key, name, sign_key, owner, groups, issued, \
     expires, changed, seen, revoked";

pub(super) fn node(row: &Row) -> Result<NodeRow, Error> {
    let groups: String = row.try_get("groups")?;
    Ok(NodeRow {
        record: NodeRecord {
            network: text(row, "network")?,
            name: text::<NodeName>(row, "name")?,
            key: NodeKey::from_bytes(fixed(row.try_get("key")?)?),
            sign_key: SignKey::from_bytes(fixed(row.try_get("sign_key")?)?),
            owner: row.try_get("owner")?,
            groups: serde_json::from_str(&groups).map_err(|_| Error::Damaged("groups"))?,
            issued: number(row, "issued")?,
            expires: number(row, "expires")?,
        },
        changed: number(row, "changed")?,
        seen: optional(row, "seen")?,
        revoked: optional(row, "revoked")?,
    })
}

pub(super) fn revision(row: &Row) -> Result<Revision, Error> {
    Ok(Revision {
        number: number(row, "revision")?,
        mark: Mark(fixed(row.try_get("mark")?)?),
    })
}

pub(in crate::relay::store) fn text<T: std::str::FromStr>(
    row: &Row,
    column: &str,
) -> Result<T, Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| Error::Damaged("a name"))
}

pub(in crate::relay::store) fn number(row: &Row, column: &str) -> Result<u64, Error> {
    unsigned(row.try_get(column)?)
}

pub(super) fn optional(row: &Row, column: &str) -> Result<Option<u64>, Error> {
    let number: Option<i64> = row.try_get(column)?;
    number.map(unsigned).transpose()
}

pub(in crate::relay::store) fn fixed<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| Error::Damaged("a key"))
}

pub(in crate::relay::store) fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Damaged("a negative number"))
}

pub(in crate::relay::store) fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Damaged("a number beyond 63 bits"))
}
