//! The store in one SQLite file.
//!
//! One connection does everything: transactions stand in line in memory
//! instead of colliding in the file, and reads are few since the directory
//! answers from memory. Writing transactions begin as such (`BEGIN
//! IMMEDIATE`), so what they read still holds when they write. The file and
//! its log are 0600.

mod copy;
mod doors;
mod invites;
mod issuers;
mod logins;
mod networks;
mod nodes;
mod papers;
mod row;
mod shared;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use derp::NodeKey;
use futures_util::FutureExt as _;
use mesh::NetworkId;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite as Engine, Transaction};

pub(crate) use self::copy::{Contents, check, copy, end_logins, settle};
use self::row::signed;
use super::doors::{SshKey, SshPassword};
use super::{
    Answer, Change, Creation, Death, EXPIRED_INVITES_KEPT, Error, InviteInfo, Join, Joined,
    MAX_CHANGES, MemberInfo, Mourner, NetworkInfo, NetworkState, NewInvite, NewNetwork,
    OBITUARIES_KEPT, Renewal, Revocation, Role, Rotated, Rotation, Sighting, Store, Subject,
};
use crate::paper::Paper;
use crate::relay::papers::PaperEdit;
use crate::relay::store::shared::{Changes, Entry, Place, Put, Query, Removal};

/// Each brings the schema one version further. Never edit one that was
/// released: add another.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_start.sql"),
    include_str!("../migrations/0002_shared.sql"),
    include_str!("../migrations/0003_papers.sql"),
    include_str!("../migrations/0004_handovers.sql"),
    include_str!("../migrations/0005_ssh.sql"),
    include_str!("../migrations/0006_logins.sql"),
];

/// How long to wait for another process (a backup, a shell) that holds the
/// file.
const BUSY: Duration = Duration::from_secs(5);

/// A transaction under way.
type Tx = Transaction<'static, Engine>;

/// See the module.
pub(crate) struct Sqlite {
    pool: SqlitePool,
}

impl Sqlite {
    /// Opens the database, creates it if there is none, and brings it to the
    /// present version.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] when a newer program wrote it, or what the file
    /// system and the database say.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| Error::File {
                path: path.display().to_string(),
                source,
            })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            // The seed of an issuer that has handed over is overwritten, not only let go.
            .pragma("secure_delete", "ON");
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        let store = Self { pool };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), Error> {
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        let mut tx = self.write().await?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *tx)
            .await?;
        if found > known {
            return Err(Error::Newer { found, known });
        }
        let done = usize::try_from(found).map_err(|_| Error::Damaged("a negative version"))?;
        for migration in MIGRATIONS.iter().skip(done) {
            sqlx::raw_sql(*migration).execute(&mut *tx).await?;
        }
        // A pragma takes no parameters; this one is a number of ours.
        let version = format!("PRAGMA user_version = {known}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(version))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    async fn write(&self) -> Result<Tx, Error> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    async fn drop_old(&self, now: u64) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM invites WHERE expires < ?")
            .bind(signed(now.saturating_sub(EXPIRED_INVITES_KEPT))?)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM obituaries WHERE deleted < ?")
            .bind(signed(now.saturating_sub(OBITUARIES_KEPT))?)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM papers WHERE until < ?")
            .bind(signed(now)?)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM changes WHERE revision + ? <
               (SELECT revision FROM networks WHERE id = changes.network)",
        )
        .bind(signed(MAX_CHANGES)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Store for Sqlite {
    fn ready(&self) -> Answer<'_, ()> {
        async {
            sqlx::query("SELECT 1").execute(&self.pool).await?;
            Ok(())
        }
        .boxed()
    }

    fn load(&self) -> Answer<'_, Vec<NetworkState>> {
        self.load_all().boxed()
    }

    fn networks(&self, subject: Option<Subject>, now: u64) -> Answer<'_, Vec<NetworkInfo>> {
        self.list_networks(subject, now).boxed()
    }

    fn create_network(&self, new: NewNetwork) -> Answer<'_, Creation> {
        self.add_network(new).boxed()
    }

    fn role(&self, network: NetworkId, subject: Subject) -> Answer<'_, Option<Role>> {
        self.find_role(network, subject).boxed()
    }

    fn create_invite(&self, invite: NewInvite) -> Answer<'_, ()> {
        self.add_invite(invite).boxed()
    }

    fn invites(&self, network: NetworkId, now: u64) -> Answer<'_, Vec<InviteInfo>> {
        self.list_invites(network, now).boxed()
    }

    fn delete_invite(&self, network: NetworkId, id: String) -> Answer<'_, bool> {
        self.remove_invite(network, id).boxed()
    }

    fn join(&self, join: Join) -> Answer<'_, Joined> {
        self.redeem(join).boxed()
    }

    fn renew(&self, renewal: Renewal) -> Answer<'_, Option<Change>> {
        self.renew_record(renewal).boxed()
    }

    fn revoke(&self, revocation: Revocation) -> Answer<'_, Option<Change>> {
        self.revoke_node(revocation).boxed()
    }

    fn edit_paper(&self, edit: PaperEdit) -> Answer<'_, Option<Paper>> {
        self.change_paper(edit).boxed()
    }

    fn members(&self, network: NetworkId) -> Answer<'_, Vec<MemberInfo>> {
        self.list_members(network).boxed()
    }

    fn set_role(
        &self,
        network: NetworkId,
        subject: Subject,
        role: Option<Role>,
    ) -> Answer<'_, bool> {
        self.change_role(network, subject, role).boxed()
    }

    fn delete_network(&self, network: NetworkId, now: u64) -> Answer<'_, Option<Death>> {
        self.drop_network(network, now).boxed()
    }

    fn deaths(&self, network: NetworkId, key: NodeKey) -> Answer<'_, Vec<Mourner>> {
        self.find_deaths(network, key).boxed()
    }

    fn rotate(&self, rotation: Rotation) -> Answer<'_, Option<Rotated>> {
        self.hand_over(rotation).boxed()
    }

    fn seen(&self, sightings: Vec<Sighting>) -> Answer<'_, ()> {
        self.note_seen(sightings).boxed()
    }

    fn purge(&self, now: u64) -> Answer<'_, ()> {
        self.drop_old(now).boxed()
    }

    fn put_shared(&self, put: Put) -> Answer<'_, u64> {
        self.put_value(put).boxed()
    }

    fn remove_shared(&self, removal: Removal) -> Answer<'_, Option<u64>> {
        self.remove_value(removal).boxed()
    }

    fn get_shared(&self, place: Place, now: u64) -> Answer<'_, Option<Entry>> {
        self.get_value(place, now).boxed()
    }

    fn list_shared(&self, query: Query, after: Option<String>) -> Answer<'_, Vec<Entry>> {
        self.list_values(query, after).boxed()
    }

    fn shared_changes(&self, query: Query, since: Option<u64>) -> Answer<'_, Changes> {
        self.values_since(query, since).boxed()
    }

    fn expire_shared(&self, now: u64) -> Answer<'_, Vec<NetworkId>> {
        self.expire_values(now).boxed()
    }

    fn forget_shared(&self, now: u64) -> Answer<'_, ()> {
        self.forget_deletions(now).boxed()
    }

    fn add_ssh_key(&self, key: SshKey) -> Answer<'_, bool> {
        self.put_ssh_key(key).boxed()
    }

    fn ssh_keys(&self, subject: Subject) -> Answer<'_, Vec<SshKey>> {
        self.list_ssh_keys(subject).boxed()
    }

    fn remove_ssh_key(&self, subject: Subject, fingerprint: String) -> Answer<'_, bool> {
        self.delete_ssh_key(subject, fingerprint).boxed()
    }

    fn ssh_key(&self, fingerprint: String) -> Answer<'_, Option<SshKey>> {
        self.find_ssh_key(fingerprint).boxed()
    }

    fn add_ssh_password(&self, password: SshPassword, now: u64) -> Answer<'_, ()> {
        self.put_ssh_password(password, now).boxed()
    }

    fn take_ssh_password(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<SshPassword>> {
        self.use_ssh_password(hash, now).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::super::suite;
    use super::*;

    macro_rules! on_sqlite {
        ($name:ident) => {
            #[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let store = Sqlite::open(&dir.path().join("relay.db")).await.unwrap();
                suite::$name(Arc::new(store)).await;
            }
        };
    }

    suite::for_each_test!(on_sqlite);

    #[tokio::test]
    async fn u17_the_files_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("relay.db")).await.unwrap();
        suite::networks_have_owners(Arc::new(store)).await;
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
        }
    }

    #[tokio::test]
    async fn it_opens_again_unless_a_newer_program_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.db");
        suite::networks_have_owners(Arc::new(Sqlite::open(&path).await.unwrap())).await;
        let store = Sqlite::open(&path).await.unwrap();
        assert_eq!(store.load().await.unwrap().len(), 2);
        sqlx::raw_sql("PRAGMA user_version = 99")
            .execute(&store.pool)
            .await
            .unwrap();
        drop(store);
        let newer = Sqlite::open(&path).await.err();
        assert!(matches!(newer, Some(Error::Newer { found: 99, .. })));
    }

    #[tokio::test]
    async fn damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.db");
        std::fs::write(&path, b"this is no database, however long it may be").unwrap();
        assert!(Sqlite::open(&path).await.is_err());

        let path = dir.path().join("other.db");
        let store = Sqlite::open(&path).await.unwrap();
        let insert = "INSERT INTO networks VALUES ('a b', 0, 0, x'00', 0)";
        sqlx::raw_sql(insert).execute(&store.pool).await.unwrap();
        let insert = "INSERT INTO issuers VALUES ('a b', zeroblob(32), 0)";
        sqlx::raw_sql(insert).execute(&store.pool).await.unwrap();
        assert!(matches!(store.load().await, Err(Error::Damaged(_))));
    }
}
