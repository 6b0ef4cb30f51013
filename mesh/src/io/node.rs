//! What all tasks of a node share, and how a peer's state machine meets them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use derp::NodeKey;
use parking_lot::{Mutex, MutexGuard, RwLock};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::entry::{Entry, State};
use super::gate::Gate;
use super::portmap::Mapper;
use super::reflect::Reflection;
use super::relay::Relays;
use super::table::Table;
use super::timers::Timers;
use super::udp::{Family, Udp};
use super::{Config, Peer, platform};
use crate::path::{Around, Via};
use crate::peer::{Core, Event, Setup, Transmit};
use crate::wg::demux::Demux;
use crate::{Error, Identity};

/// When [`hurry_again`] does, each after the one before: within what a way back takes.
const HURRY_AFTER: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(600),
];

/// A node, as its tasks see it.
pub(super) struct Node {
    pub(super) identity: Arc<Identity>,
    /// This run of the program.
    pub(super) boot: u64,
    pub(super) demux: Demux,
    pub(super) table: RwLock<Table>,
    pub(super) relays: Relays,
    pub(super) udp: Option<Udp>,
    pub(super) timers: Timers,
    pub(super) gate: Gate,
    /// Peers whose outbox wants to be flushed soon.
    pub(super) flush: Mutex<Vec<Arc<Entry>>>,
    pub(super) flush_soon: Notify,
    /// Some peer has got, or lost, a direct path.
    pub(super) rerouted: Notify,
    place: Mutex<Place>,
    pub(super) reflection: Reflection,
    pub(super) mapper: Mapper,
    /// Whether the gateway may be asked for a port.
    may_map: bool,
    events: Mutex<Vec<(Arc<Entry>, Event)>>,
    event_came: Notify,
    numbers: Numbers,
    next_echo: AtomicU64,
    /// For tests: this node has been torn from the network.
    pub(super) silenced: AtomicBool,
}

/// Where the node is, as its peers' state machines are told.
#[derive(Clone, Default)]
struct Place {
    endpoints: Arc<[SocketAddr]>,
    around: Arc<Around>,
}

impl Place {
    fn tell(&self, core: &mut Core) {
        core.set_endpoints(Arc::clone(&self.endpoints));
        core.set_around(&self.around);
    }
}

impl Node {
    pub(super) async fn new(config: &Config) -> Result<Self, Error> {
        let udp = match config.direct {
            true => Some(Udp::bind(config.udp_port).await?),
            false => None,
        };
        let numbers = Numbers::new()?;
        let node = Self {
            identity: Arc::clone(&config.identity),
            boot: numbers.draw(),
            numbers,
            demux: Demux::new(config.identity.secret()),
            table: RwLock::default(),
            relays: Relays::default(),
            udp,
            timers: Timers::default(),
            gate: Gate::default(),
            flush: Mutex::default(),
            flush_soon: Notify::new(),
            rerouted: Notify::new(),
            place: Mutex::default(),
            reflection: Reflection::default(),
            mapper: Mapper::default(),
            may_map: config.port_mapping,
            events: Mutex::default(),
            event_came: Notify::new(),
            // 0 is taken by the state machine's own questions.
            next_echo: AtomicU64::new(1),
            silenced: AtomicBool::new(false),
        };
        node.refresh_endpoints();
        Ok(node)
    }

    /// Looks up the node's addresses, and tells the peers' state machines if
    /// they have changed.
    pub(super) fn refresh_endpoints(&self) {
        let Some(udp) = &self.udp else {
            return;
        };
        let own = platform::endpoints(udp.port(Family::V4), udp.port(Family::V6));
        let natted = |found: SocketAddr| !own.iter().any(|addr| addr.ip() == found.ip());
        let found = self.reflection.found();
        self.mapper
            .set_wanted(self.may_map && found.is_some_and(natted));
        let mapped = self.mapper.mapped().map(|mapped| mapped.outside);
        let endpoints: Arc<[SocketAddr]> = self.reflection.endpoints(mapped, &own).into();
        let outside = self.reflection.outside();
        let found = {
            let mut place = self.place.lock();
            if place.endpoints == endpoints && place.around.outside == outside {
                return;
            }
            let attempts = Arc::clone(&place.around.attempts);
            let around = Arc::new(Around { outside, attempts });
            *place = Place { endpoints, around };
            place.clone()
        };
        let entries: Vec<_> = self.table.read().iter().cloned().collect();
        for entry in entries {
            found.tell(&mut entry.state.lock().core);
        }
    }

    /// The node's addresses, as peers are told them.
    pub(super) fn endpoints(&self) -> Vec<SocketAddr> {
        self.place.lock().endpoints.to_vec()
    }

    /// Lets a peer in, unless it is in with the same signing key. Returns the
    /// entry that it replaces.
    pub(super) fn upsert(&self, peer: &Peer) -> Option<Arc<Entry>> {
        let known = |table: &Table| {
            let same = |old: &Arc<Entry>| old.sign_key == peer.sign_key;
            table.by_key(&peer.key).is_some_and(same) || peer.key == self.identity.key()
        };
        // Every change in a network says everything again: that must be cheap.
        if known(&self.table.read()) {
            return None;
        }
        let mut table = self.table.write();
        if known(&table) {
            return None;
        }
        let index = loop {
            let index = self.numbers.draw() as u32 & 0x00ff_ffff;
            if table.by_index(index).is_none() {
                break index;
            }
        };
        let mut core = Core::new(Setup {
            secret: self.identity.secret().clone(),
            local: self.identity.key(),
            remote: peer.key,
            index,
            limiter: Arc::clone(self.demux.limiter()),
            boot: self.boot,
            direct: self.udp.is_some(),
            first_id: self.numbers.draw(),
        });
        self.place.lock().tell(&mut core);
        let old = table.remove(&peer.key);
        table.insert(&Arc::new(Entry::new(peer.key, peer.sign_key, index, core)));
        old
    }

    pub(super) fn by_key(&self, key: &NodeKey) -> Option<Arc<Entry>> {
        self.table.read().by_key(key).cloned()
    }

    pub(super) fn by_inner(&self, address: &SocketAddr) -> Option<Arc<Entry>> {
        match address.ip() {
            IpAddr::V6(ip) => self.table.read().by_address(&ip).cloned(),
            IpAddr::V4(_) => None,
        }
    }

    /// An id for a question that only the one asked can answer.
    pub(super) fn random_id(&self) -> [u8; 12] {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.numbers.draw().to_le_bytes());
        id[8..].copy_from_slice(&self.numbers.draw().to_le_bytes()[..4]);
        id
    }

    pub(super) fn next_echo(&self) -> u64 {
        self.next_echo.fetch_add(1, Relaxed)
    }

    /// Carries out what a peer's state machine wants, after something was done
    /// with it: sends, reports, and sets its timer.
    pub(super) fn service(&self, entry: &Arc<Entry>) {
        let mut state = entry.state.lock();
        self.schedule(entry, &mut state);
        self.carry_out(entry, state);
    }

    /// The same after nothing but data has come in: that alone puts no deadline forward.
    pub(super) fn service_data(&self, entry: &Arc<Entry>) {
        let mut state = entry.state.lock();
        if state.scheduled.is_none() || state.core.has_output() {
            self.schedule(entry, &mut state);
        }
        self.carry_out(entry, state);
    }

    fn carry_out(&self, entry: &Arc<Entry>, mut state: MutexGuard<'_, State>) {
        let direct = state.core.has_direct();
        if std::mem::replace(&mut state.was_direct, direct) != direct {
            self.rerouted.notify_waiters();
        }
        // The common case on the way of data.
        if !state.core.has_output() {
            return;
        }
        let transmits = take(&mut state, Core::poll_transmit);
        let events = take(&mut state, Core::poll_event);
        drop(state);
        for Transmit { via, bytes } in transmits {
            self.transmit(entry, via, &bytes);
        }
        for event in events {
            self.report(entry, event);
        }
    }

    /// Sees to it that the state machine is woken when it wants to be.
    pub(super) fn schedule(&self, entry: &Arc<Entry>, state: &mut State) {
        let Some(due) = state.core.poll_timeout() else {
            return;
        };
        if state.scheduled.is_none_or(|at| due < at) {
            state.scheduled = Some(due);
            self.timers.push(due, entry);
        }
    }

    /// A timer has gone off.
    pub(super) fn wake(&self, entry: &Arc<Entry>, due: Instant, now: Instant) {
        {
            let mut state = entry.state.lock();
            if state.scheduled != Some(due) {
                // An earlier one has taken its place.
                return;
            }
            state.scheduled = None;
            state.core.handle_timeout(now);
            if !state.core.has_session() {
                drop(state);
                if let Some(mut outbox) = entry.outbox.try_lock() {
                    outbox.rest(self.udp.as_ref());
                }
            }
        }
        self.service(entry);
    }

    fn transmit(&self, entry: &Entry, via: Via, bytes: &[u8]) {
        if self.silenced.load(Relaxed) {
            return;
        }
        match (via, &self.udp) {
            (Via::Direct(to), Some(udp)) => udp.send(to, bytes),
            (Via::Fan(to), Some(udp)) => udp.fan.spread(to, bytes),
            (Via::Direct(_) | Via::Fan(_), None) => {}
            // Without room this is lost; whoever wants it repeats it.
            (Via::Relay, _) => drop(self.relays.send(&entry.key, bytes)),
        }
    }

    /// Passes an event on. What concerns connections is left to a task of its
    /// own: we may be called from inside a connection, which is locked then.
    pub(super) fn report(&self, entry: &Arc<Entry>, event: Event) {
        if let Event::Seen(seen) = event {
            self.reflection.handle_seen(seen);
            return;
        }
        if let Event::Echoed { id, via } = event {
            if let Some(waiting) = entry.echoes.lock().remove(&id) {
                // Whoever asked may have lost patience.
                let _ = waiting.send(via);
            }
            return;
        }
        self.events.lock().push((Arc::clone(entry), event));
        self.event_came.notify_one();
    }

    /// Tells the peers' state machines that the relay is there (again), until
    /// the task is aborted.
    pub(super) async fn run_relay_news(self: Arc<Self>) {
        loop {
            self.relays.run_until_rerouted().await;
            self.tell_all(Core::handle_relay_up);
        }
    }

    /// The machine has other addresses now.
    pub(super) fn handle_move(&self) {
        self.relays.handle_move();
        self.reflection.handle_move();
        self.mapper.handle_move();
        if let Some(udp) = &self.udp {
            udp.forget_lanes();
        }
        self.refresh_endpoints();
        self.tell_all(Core::handle_move);
    }

    /// The machine has slept.
    pub(super) fn handle_sleep(&self, slept: Duration) {
        tracing::info!(?slept, "the machine has slept");
        self.relays.handle_move();
        self.reflection.handle_move();
        self.mapper.handle_move();
        if let Some(udp) = &self.udp {
            udp.forget_lanes();
        }
        self.refresh_endpoints();
        self.tell_all(|core, now| core.handle_sleep(slept, now));
    }

    fn tell_all(&self, what: impl Fn(&mut Core, Instant)) {
        let entries: Vec<_> = self.table.read().iter().cloned().collect();
        for entry in entries {
            what(&mut entry.state.lock().core, Instant::now());
            self.service(&entry);
        }
    }

    /// Tells peers' connections what has happened, until the task is aborted.
    pub(super) async fn run_events(self: Arc<Self>) {
        let mut hurrying = JoinSet::new();
        loop {
            self.event_came.notified().await;
            while hurrying.try_join_next().is_some() {}
            let events = std::mem::take(&mut *self.events.lock());
            for (entry, event) in events {
                match event {
                    Event::Hello { boot } => entry.handle_hello(boot),
                    Event::Revived => {
                        let mut links = entry.links.lock();
                        links.hurry();
                        if !std::mem::replace(&mut links.hurrying, true) {
                            drop(links);
                            hurrying.spawn(hurry_again(entry));
                        }
                    }
                    Event::Departed => entry.handle_departure(),
                    Event::Echoed { .. } | Event::Seen(_) => {}
                }
            }
        }
    }
}

/// A peer that has slept may be heard before there is a way to it: its connection to
/// the relay is new, and its addresses are being probed. So what hurries QUIC is
/// repeated until there should be one.
async fn hurry_again(entry: Arc<Entry>) {
    for pause in HURRY_AFTER {
        sleep(pause).await;
        entry.links.lock().hurry();
    }
    entry.links.lock().hurrying = false;
}

/// Numbers that nobody can guess, from one draw of the system's randomness.
struct Numbers {
    seed: [u8; 32],
    drawn: AtomicU64,
}

impl Numbers {
    fn new() -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| std::io::Error::other(e.to_string()))?;
        let drawn = AtomicU64::new(0);
        Ok(Self { seed, drawn })
    }

    fn draw(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.drawn.fetch_add(1, Relaxed).to_le_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        hash.first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

fn take<T>(state: &mut State, next: fn(&mut Core) -> Option<T>) -> Vec<T> {
    std::iter::from_fn(|| next(&mut state.core)).collect()
}
