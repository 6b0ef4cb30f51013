//! Connections that peers dial, and the streams that come in on any connection.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Incoming;
use super::entry::Entry;
use super::inside::Inside;
use super::links::{Side, code};
use super::tls;

/// Handshakes in progress; further ones are refused, and tried again by their
/// diallers.
const MAX_HANDSHAKES: usize = 128;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

impl Inside {
    /// Accepts connections until the endpoint is closed.
    pub(super) async fn run_accept(self: Arc<Self>) {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        while let Some(incoming) = self.endpoint.accept().await {
            let entry = self.node.by_inner(&incoming.remote_address());
            let permit = Arc::clone(&handshakes).try_acquire_owned();
            let (Some(entry), Ok(permit)) = (entry, permit) else {
                incoming.refuse();
                continue;
            };
            let inside = Arc::clone(&self);
            self.spawn(async move {
                let accepted = timeout(HANDSHAKE_WITHIN, inside.accept(&entry, incoming)).await;
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
    ) -> Result<(), quinn::ConnectionError> {
        let connection = incoming.await?;
        if !tls::is_held_by(&connection, &entry.sign_key) {
            tracing::info!(peer = ?entry.key, "refused: its key is not the one in its record");
            connection.close(code::IDENTITY, b"not the key in the record");
            return Ok(());
        }
        let boot = tls::dialler_boot(&connection);
        let added = entry
            .links
            .lock()
            .add(Side::Accepted, connection.clone(), boot);
        entry.changed.notify_waiters();
        if added {
            self.serve(entry, connection);
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
