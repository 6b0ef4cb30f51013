//! The store in SQL.
//!
//! These files are compiled once for each engine, as a module of `sqlite` and as one of
//! `postgres`: every rule is written once, and what both engines understand is all that is used.
//! What they do differently is in `engine`, the module around this one: how a transaction begins,
//! how long a call may take, and how other relays are told of what it has changed.
//!
//! A transaction that writes stands in a *line*: of those with the same line one runs at a time,
//! so what it read still holds when it writes. Nearly always the line is the network. A
//! transaction stands in one line only, so that two never wait for each other.

mod doors;
mod invites;
mod issuers;
mod logins;
mod networks;
mod nodes;
mod papers;
mod progress;
pub(super) mod row;
mod shared;

use derp::NodeKey;
use mesh::{NetworkId, SignKey};
use sqlx::{Pool, Transaction};

use self::row::signed;
use super::{self as engine, Engine, Row};
use crate::paper::Paper;
use crate::relay::papers::PaperEdit;
use crate::relay::store::cluster::{Cluster, Head, Progress, Since};
use crate::relay::store::doors::{SshKey, SshPassword};
use crate::relay::store::shared::{Changes, Entry, Place, Put, Query, Removal};
use crate::relay::store::{
    Answer, Change, Creation, Death, EXPIRED_INVITES_KEPT, Error, InviteInfo, Join, Joined,
    MAX_CHANGES, MemberInfo, Mourner, NetworkInfo, NetworkState, NewInvite, NewNetwork,
    OBITUARIES_KEPT, Renewal, Revocation, Role, Rotated, Rotation, Sighting, Store, Subject,
};

/// A transaction under way.
pub(super) type Tx = Transaction<'static, Engine>;

/// See the module.
pub(crate) struct Database {
    pub(super) pool: Pool<Engine>,
}

impl Database {
    /// Begins a transaction that writes; see the module for the line.
    pub(super) async fn write(&self, line: &str) -> Result<Tx, Error> {
        engine::write(&self.pool, line).await
    }

    /// Begins a transaction whose queries all see the same.
    async fn read(&self) -> Result<Tx, Error> {
        engine::read(&self.pool).await
    }

    async fn drop_old(&self, now: u64) -> Result<(), Error> {
        let mut tx = self.write("purge").await?;
        sqlx::query("DELETE FROM invites WHERE expires < $1")
            .bind(signed(now.saturating_sub(EXPIRED_INVITES_KEPT))?)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM obituaries WHERE deleted < $1")
            .bind(signed(now.saturating_sub(OBITUARIES_KEPT))?)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM papers WHERE until < $1")
            .bind(signed(now)?)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM changes WHERE revision + $1 <
               (SELECT revision FROM networks WHERE id = changes.network)",
        )
        .bind(signed(MAX_CHANGES)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Store for Database {
    fn ready(&self) -> Answer<'_, ()> {
        engine::limited(async {
            sqlx::query("SELECT 1").execute(&self.pool).await?;
            Ok(())
        })
    }

    fn load(&self) -> Answer<'_, Vec<NetworkState>> {
        engine::patient(self.load_all())
    }

    fn networks(&self, subject: Option<Subject>, now: u64) -> Answer<'_, Vec<NetworkInfo>> {
        engine::limited(self.list_networks(subject, now))
    }

    fn create_network(&self, new: NewNetwork) -> Answer<'_, Creation> {
        engine::limited(self.add_network(new))
    }

    fn role(&self, network: NetworkId, subject: Subject) -> Answer<'_, Option<Role>> {
        engine::limited(self.find_role(network, subject))
    }

    fn create_invite(&self, invite: NewInvite) -> Answer<'_, ()> {
        engine::limited(self.add_invite(invite))
    }

    fn invites(&self, network: NetworkId, now: u64) -> Answer<'_, Vec<InviteInfo>> {
        engine::limited(self.list_invites(network, now))
    }

    fn delete_invite(&self, network: NetworkId, id: String) -> Answer<'_, bool> {
        engine::limited(self.remove_invite(network, id))
    }

    fn join(&self, join: Join) -> Answer<'_, Joined> {
        engine::limited(self.redeem(join))
    }

    fn renew(&self, renewal: Renewal) -> Answer<'_, Option<Change>> {
        engine::limited(self.renew_record(renewal))
    }

    fn revoke(&self, revocation: Revocation) -> Answer<'_, Option<Change>> {
        engine::limited(self.revoke_node(revocation))
    }

    fn edit_paper(&self, edit: PaperEdit) -> Answer<'_, Option<Paper>> {
        engine::limited(self.change_paper(edit))
    }

    fn members(&self, network: NetworkId) -> Answer<'_, Vec<MemberInfo>> {
        engine::limited(self.list_members(network))
    }

    fn set_role(
        &self,
        network: NetworkId,
        subject: Subject,
        role: Option<Role>,
    ) -> Answer<'_, bool> {
        engine::limited(self.change_role(network, subject, role))
    }

    fn delete_network(&self, network: NetworkId, now: u64) -> Answer<'_, Option<Death>> {
        engine::limited(self.drop_network(network, now))
    }

    fn deaths(&self, network: NetworkId, key: NodeKey) -> Answer<'_, Vec<Mourner>> {
        engine::limited(self.find_deaths(network, key))
    }

    fn rotate(&self, rotation: Rotation) -> Answer<'_, Option<Rotated>> {
        engine::limited(self.hand_over(rotation))
    }

    fn death(&self, network: NetworkId, root: SignKey) -> Answer<'_, Option<Death>> {
        engine::limited(self.find_death(network, root))
    }

    fn heads(&self, only: Option<NetworkId>) -> Answer<'_, Vec<Head>> {
        engine::limited(self.list_heads(only))
    }

    fn progress(&self, network: NetworkId, since: Option<Since>) -> Answer<'_, Option<Progress>> {
        engine::limited(self.find_progress(network, since))
    }

    fn cluster(&self) -> Option<&dyn Cluster> {
        engine::cluster(self)
    }

    fn seen(&self, sightings: Vec<Sighting>) -> Answer<'_, ()> {
        engine::patient(self.note_seen(sightings))
    }

    fn purge(&self, now: u64) -> Answer<'_, ()> {
        engine::patient(self.drop_old(now))
    }

    fn put_shared(&self, put: Put) -> Answer<'_, u64> {
        engine::limited(self.put_value(put))
    }

    fn remove_shared(&self, removal: Removal) -> Answer<'_, Option<u64>> {
        engine::limited(self.remove_value(removal))
    }

    fn get_shared(&self, place: Place, now: u64) -> Answer<'_, Option<Entry>> {
        engine::limited(self.get_value(place, now))
    }

    fn list_shared(&self, query: Query, after: Option<String>) -> Answer<'_, Vec<Entry>> {
        engine::limited(self.list_values(query, after))
    }

    fn shared_changes(&self, query: Query, since: Option<u64>) -> Answer<'_, Changes> {
        engine::limited(self.values_since(query, since))
    }

    fn expire_shared(&self, now: u64) -> Answer<'_, Vec<NetworkId>> {
        engine::patient(self.expire_values(now))
    }

    fn forget_shared(&self, now: u64) -> Answer<'_, ()> {
        engine::patient(self.forget_deletions(now))
    }

    fn add_ssh_key(&self, key: SshKey) -> Answer<'_, bool> {
        engine::limited(self.put_ssh_key(key))
    }

    fn ssh_keys(&self, subject: Subject) -> Answer<'_, Vec<SshKey>> {
        engine::limited(self.list_ssh_keys(subject))
    }

    fn remove_ssh_key(&self, subject: Subject, fingerprint: String) -> Answer<'_, bool> {
        engine::limited(self.delete_ssh_key(subject, fingerprint))
    }

    fn ssh_key(&self, fingerprint: String) -> Answer<'_, Option<SshKey>> {
        engine::limited(self.find_ssh_key(fingerprint))
    }

    fn add_ssh_password(&self, password: SshPassword, now: u64) -> Answer<'_, ()> {
        engine::limited(self.put_ssh_password(password, now))
    }

    fn take_ssh_password(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<SshPassword>> {
        engine::limited(self.use_ssh_password(hash, now))
    }
}
