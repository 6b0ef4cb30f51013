//! Substrate: the relay, `dev-1` and `dev-2` are three hosts, each a network namespace with links
//! of its own. Needs root and iproute2.
//!
//! | topology | links |
//! |---|---|
//! | direct | a fourth namespace is a switch; all three are on one LAN, 10.77.0.0/24 |
//! | relayed | each node has a link to the relay alone, which forwards nothing: what one node sends to the other's address is lost in silence |
//!
//! How they are made is in [`crate::namespaces`].

use std::path::Path;
use std::process::Command;

use crate::case::or_skip;
use crate::cw::Cw;
use crate::namespaces::{Net, RELAY, remove_leftovers};
use crate::processes::Processes;
use crate::substrate::{Host, Substrate, Way};

const PORT: u16 = 8080;

/// The substrate.
pub struct Netns {
    net: Net,
    processes: Processes,
}

impl Netns {
    /// Builds the hosts; none, with the reason, where that cannot be done. `program` is `cw`.
    ///
    /// # Errors
    ///
    /// Not root, or no `ip`.
    ///
    /// # Panics
    ///
    /// When `ip` refuses something that it should do.
    #[track_caller]
    pub fn new(program: &str, way: Way) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("namespaces need root".to_owned());
        }
        if Command::new("ip").arg("-V").output().is_err() {
            return Err("namespaces need iproute2".to_owned());
        }
        remove_leftovers();
        let net = Net::build(way);
        let listen = format!("{RELAY}:{PORT}");
        let processes = Processes::build(program, way, &listen, |host, cw| {
            let name = net.name(host.map_or("relay", Host::name));
            cw.behind(&["ip", "netns", "exec", &name])
        });
        Ok(Self { net, processes })
    }

    /// The same for a test that is skipped, and says so, where it cannot be done.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[track_caller]
    #[must_use]
    pub fn or_skip(program: &str, way: Way) -> Option<Self> {
        or_skip(Self::new(program, way))
    }

    /// The programs in them.
    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The namespaces of relay and nodes.
    #[must_use]
    pub fn namespaces(&self) -> [String; 3] {
        ["relay", "dev-1", "dev-2"].map(|host| self.net.name(host))
    }
}

impl Substrate for Netns {
    fn label(&self) -> &'static str {
        match self.net.way {
            Way::Direct => "namespaces on one LAN",
            Way::Relayed => "namespaces that reach only the relay",
        }
    }

    fn way(&self) -> Way {
        self.net.way
    }

    fn cw(&self, host: Host) -> Cw {
        self.processes.cw(host)
    }

    fn start_relay(&self) {
        self.processes.start_relay();
    }

    fn stop_relay(&self) {
        self.processes.stop_relay();
    }

    fn kill_relay(&self) {
        self.processes.kill_relay();
    }

    fn relay_url(&self) -> String {
        self.processes.relay_url()
    }

    fn relay_log(&self) -> String {
        self.processes.relay_log()
    }

    fn kill_node(&self, host: Host) {
        self.processes.kill_node(host);
    }

    fn node_log(&self, host: Host) -> String {
        self.processes.node_log(host)
    }

    fn cut(&self, host: Host) -> bool {
        self.net.port(host, "down");
        true
    }

    fn heal(&self, host: Host) {
        self.net.port(host, "up");
    }

    fn cut_direct(&self) -> bool {
        self.net.isolate("on")
    }

    fn heal_direct(&self) {
        self.net.isolate("off");
    }

    fn tear_down(&self) {
        Substrate::tear_down(&self.processes);
        self.net.remove();
    }

    fn remains(&self) -> Vec<String> {
        let names = self.net.hosts().iter().map(|host| self.net.name(host));
        let there = |name: &String| Path::new("/run/netns").join(name).exists();
        let mut remains = self.processes.remains();
        remains.extend(names.filter(there));
        remains
    }
}
