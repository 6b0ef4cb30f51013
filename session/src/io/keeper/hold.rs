//! The sessions a keeper holds: descriptors, process ids, and how those that
//! are over ended, until the node has that on disk.

use std::collections::BTreeMap;

use rustix::process::{Pid, Rlimit};

use super::fds::Fds;
use super::proto::{Spawn, ToNode};
use super::upgrade;
use crate::io::{platform, pty};
use crate::{Error, Usage};

/// One session, as the keeper knows it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: u32,
    /// Whether its process is our child. After a change of keepers it is not.
    own: bool,
    exited: Option<(i32, Usage)>,
    pub(super) fds: Fds,
}

/// All sessions of a keeper.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    held: BTreeMap<u32, Held>,
}

impl Sessions {
    /// Starts a program. The answer to the node, with what it shall share.
    pub(super) fn spawn(&mut self, spawn: &Spawn, limit: Rlimit) -> (ToNode, Option<Fds>) {
        let id = spawn.id;
        let failed = |message: String| (ToNode::SpawnFailed { id, message }, None);
        if self.held.contains_key(&id) {
            return failed(format!("session {id} exists"));
        }
        match pty::spawn(spawn) {
            Ok((pid, fds)) => {
                if let Some(pid) = platform::pid(pid) {
                    platform::restore_file_limit(pid, limit);
                }
                let shared = fds.clone();
                self.insert(id, pid, true, fds);
                (ToNode::Spawned { id, pid }, Some(shared))
            }
            Err(message) => failed(message),
        }
    }

    /// Takes a session over from a keeper that is dead.
    pub(super) fn adopt(&mut self, id: u32, pid: u32, fds: Fds) {
        self.insert(id, pid, false, fds);
    }

    fn insert(&mut self, id: u32, pid: u32, own: bool, fds: Fds) {
        let exited = None;
        self.held.insert(
            id,
            Held {
                pid,
                own,
                exited,
                fds,
            },
        );
    }

    /// As it is left to a successor.
    pub(super) fn leave(&self) -> Vec<upgrade::Session> {
        let held = self.held.iter();
        held.map(|(&id, held)| upgrade::Session {
            id,
            pid: held.pid,
            own: held.own,
            exited: held.exited,
            fds: upgrade::numbers(&held.fds),
        })
        .collect()
    }

    /// As a predecessor has left it.
    pub(super) fn resume(&mut self, left: upgrade::Session) -> Result<(), Error> {
        let held = Held {
            pid: left.pid,
            own: left.own,
            exited: left.exited,
            fds: upgrade::take_all(&left.fds)?,
        };
        self.held.insert(left.id, held);
        Ok(())
    }

    /// Lets go of a session.
    pub(super) fn forget(&mut self, id: u32) {
        self.held.remove(&id);
    }

    /// What a new node is told about each session.
    pub(super) fn describe(&self) -> impl Iterator<Item = (ToNode, &Fds)> {
        self.held.iter().map(|(&id, held)| {
            let said = ToNode::Held {
                id,
                pid: held.pid,
                own: held.own,
                exited: held.exited.map(|(status, _)| status),
                usage: held.exited.map(|(_, usage)| usage),
            };
            (said, &held.fds)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Collects every child that has ended. Those that are sessions are noted
    /// and returned for the node; others go to `other`: the node itself, and
    /// orphans of programs in sessions.
    pub(super) fn reap(&mut self, mut other: impl FnMut(Pid, i32)) -> Vec<ToNode> {
        let mut ended = Vec::new();
        while let Some((pid, status, usage)) = platform::reap() {
            let number = pid.as_raw_nonzero().get().unsigned_abs();
            let mut running = self.held.iter_mut();
            let session =
                running.find(|(_, held)| held.own && held.pid == number && held.exited.is_none());
            match session {
                Some((&id, held)) => {
                    held.exited = Some((status, usage));
                    ended.push(ToNode::Exited {
                        id,
                        pid: number,
                        status,
                        usage: Some(usage),
                    });
                }
                None => other(pid, status),
            }
        }
        ended
    }
}
