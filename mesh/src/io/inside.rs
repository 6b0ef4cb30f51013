//! A running node: its shared state, its endpoint, and its tasks.

use std::sync::Arc;

use parking_lot::Mutex;
use quinn::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::node::Node;
use super::tls::Tls;
use super::{Config, Incoming, endpoint};
use crate::Error;

/// Streams that peers have opened and nobody has accepted yet; then the peers'
/// connections wait.
const MAX_UNACCEPTED: usize = 256;

/// What the tasks of a node work with. They end when [`Inside::stop`] says so.
pub(super) struct Inside {
    pub(super) node: Arc<Node>,
    pub(super) endpoint: Endpoint,
    pub(super) tls: Tls,
    incoming: Mutex<Option<mpsc::Sender<Incoming>>>,
    stopped: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Inside {
    pub(super) async fn start(
        config: &Config,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Incoming>), Error> {
        let node = Arc::new(Node::new(config).await?);
        let tls = Tls::new(&config.identity)?;
        let endpoint = endpoint::open(&node, &tls)?;
        let (incoming, accepted) = mpsc::channel(MAX_UNACCEPTED);
        let inside = Arc::new(Self {
            node: Arc::clone(&node),
            endpoint,
            tls,
            incoming: Mutex::new(Some(incoming)),
            stopped: watch::Sender::default(),
            tasks: Mutex::default(),
        });
        inside.spawn(Arc::clone(&node).run_timers());
        inside.spawn(Arc::clone(&node).run_flush());
        inside.spawn(Arc::clone(&node).run_events());
        inside.spawn(Arc::clone(&node).run_reflection());
        inside.spawn(Arc::clone(&node).run_portmap());
        inside.spawn(Arc::clone(&node).run_relay_news());
        inside.spawn(Arc::clone(&node).run_fan());
        inside.spawn(Arc::clone(&node).run_addresses());
        inside.spawn(Arc::clone(&node).run_clocks());
        for link in [&node.relays.first, &node.relays.other] {
            inside.spawn(Arc::clone(link).run(config.identity.secret().clone()));
        }
        inside.spawn(Arc::clone(&inside).run_accept());
        Ok((inside, accepted))
    }

    /// Runs a task until it or the node ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        // Those that have ended keep their memory until they are asked for.
        while tasks.try_join_next().is_some() {}
        if !*self.stopped.borrow() {
            tasks.spawn(task);
        }
    }

    /// Where streams that peers open go; `None` when the node has ended.
    pub(super) fn incoming(&self) -> Option<mpsc::Sender<Incoming>> {
        self.incoming.lock().clone()
    }

    /// Ends all tasks, and with them the node.
    pub(super) fn stop(&self) {
        self.stopped.send_replace(true);
        self.tasks.lock().abort_all();
        // Whoever waits for a stream waits for the last sender.
        *self.incoming.lock() = None;
    }

    /// Resolves when the node has ended.
    pub(super) async fn stopped(&self) {
        // An error means that the node is gone, which is an end, too.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }
}
