//! Connections that peers dial, and the streams that come in on any connection.
//!
//! Streams are handed out once the peer is known to hold the key in its record: at
//! the end of the handshake, or from its beginning if it resumes an earlier one.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Incoming;
use super::entry::Entry;
use super::inside::Inside;
use super::links::{Side, Unconfirmed, code};
use super::tls;

/// Handshakes in progress; further ones are refused, and tried again by their
/// diallers.
const MAX_HANDSHAKES: usize = 128;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

impl Inside {
    /// Accepts connections until the endpoint is closed.
    pub(super) async fn run_accept(self: Arc<Self>) {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut came = 0;
        while let Some(incoming) = self.endpoint.accept().await {
            came += 1;
            let entry = self.node.by_inner(&incoming.remote_address());
            let permit = Arc::clone(&handshakes).try_acquire_owned();
            let (Some(entry), Ok(permit)) = (entry, permit) else {
                incoming.refuse();
                continue;
            };
            let inside = Arc::clone(&self);
            self.spawn(async move {
                let accepted =
                    timeout(HANDSHAKE_WITHIN, inside.accept(&entry, incoming, came)).await;
                drop(permit);
                if let Ok(Err(error)) = accepted {
                    tracing::debug!(peer = ?entry.key, %error, "a connection did not come about");
                }
            });
        }
    }

    async fn accept(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        incoming: quinn::Incoming,
        came: u64,
    ) -> Result<(), quinn::ConnectionError> {
        let mut connecting = incoming.accept()?;
        // The peer's first word, and with it a ticket, has been read by then.
        connecting.handshake_data().await?;
        let Ok((connection, handshake)) = connecting.into_0rtt() else {
            // Only who dials is told that.
            return Ok(());
        };
        let unconfirmed = Unconfirmed::new(entry, connection.clone());
        let resumed = tls::is_held_by(&connection, &entry.sign_key);
        if resumed {
            self.serve(entry, connection.clone());
        }
        tokio::select! {
            // Whether it has ended well is seen below.
            _ = handshake => {}
            () = removed(entry) => return Ok(()),
        }
        let connection = unconfirmed.confirm()?;
        if !resumed && !tls::is_held_by(&connection, &entry.sign_key) {
            tracing::info!(peer = ?entry.key, "refused: its key is not the one in its record");
            connection.close(code::IDENTITY, b"not the key in the record");
            return Ok(());
        }
        let boot = tls::dialler_boot(&connection);
        let added = entry
            .links
            .lock()
            .add(Side::Accepted(came), connection.clone(), boot);
        entry.changed.notify_waiters();
        if added && !resumed {
            self.serve(entry, connection);
        } else if connection.close_reason().is_some() {
            // Who serves it may have seen that before it was added.
            entry.links.lock().forget(&connection);
        }
        Ok(())
    }

    /// Hands out the streams of a connection until it is over.
    pub(super) fn serve(self: &Arc<Self>, entry: &Arc<Entry>, connection: Connection) {
        let Some(accepted) = self.incoming() else {
            return;
        };
        let entry = Arc::clone(entry);
        self.spawn(async move {
            let error = loop {
                match connection.accept_bi().await {
                    Ok((send, recv)) => {
                        let peer = entry.key;
                        let incoming = Incoming { peer, send, recv };
                        if accepted.send(incoming).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => break error,
                }
            };
            tracing::debug!(peer = ?entry.key, %error, "a connection is over");
            entry.links.lock().forget(&connection);
            entry.changed.notify_waiters();
        });
    }
}

/// Waits until the peer is removed.
async fn removed(entry: &Entry) {
    loop {
        let mut changed = std::pin::pin!(entry.changed.notified());
        changed.as_mut().enable();
        if entry.links.lock().removed {
            return;
        }
        changed.await;
    }
}
