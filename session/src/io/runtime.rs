//! The thread that moves bytes.
//!
//! Logs are written on a thread of their own, with its own small runtime: a
//! slow disk delays output and nothing else.

use std::future::Future;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::Error;

/// A runtime on one thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Runtime {
    handle: Handle,
    /// Its end is the sign to stop.
    _stop: oneshot::Sender<()>,
}

impl Runtime {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self, Error> {
        let failed = |error| Error::io("start the runtime of sessions", error);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("sessions".into())
            .spawn(move || {
                // Either the sign or the end of its sender.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self {
            handle,
            _stop: stop,
        })
    }

    /// Runs a task on it.
    pub(super) fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// For what registers with it.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}
