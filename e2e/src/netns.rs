//! Substrate: the relay, `dev-1` and `dev-2` are three hosts, each a network namespace with links
//! of its own. Needs root and iproute2.
//!
//! | topology | links |
//! |---|---|
//! | direct | a fourth namespace is a switch; all three are on one LAN, 10.77.0.0/24 |
//! | relayed | each node has a link to the relay alone, which forwards nothing: what one node sends to the other's address is lost in silence |
//!
//! Every link is made inside the namespaces, so this machine's own network never sees any of it.
//! The names have the process number of the test in them; what a test that was killed has left
//! behind is removed by the next.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::case::or_skip;
use crate::cw::Cw;
use crate::processes::Processes;
use crate::substrate::{Host, Substrate, Way};

/// The relay's address on the LAN, and, in the relayed topology, on its loopback interface.
const RELAY: &str = "10.77.0.1";
const PORT: u16 = 8080;

/// The substrate.
pub struct Netns {
    net: Net,
    processes: Processes,
}

/// The namespaces.
struct Net {
    /// Before every name.
    prefix: String,
    way: Way,
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

    /// The namespaces of relay and nodes.
    #[must_use]
    pub fn namespaces(&self) -> [String; 3] {
        ["relay", "dev-1", "dev-2"].map(|host| self.net.name(host))
    }
}

/// Runs `work` in a network namespace, on a thread of its own.
///
/// # Panics
///
/// When there is no such namespace, or `work` panics.
#[track_caller]
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = Path::new("/run/netns").join(namespace);
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            use std::os::fd::AsFd;
            let moved = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
            assert!(moved.is_ok(), "{}: {moved:?}", path.display());
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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

impl Net {
    #[track_caller]
    fn build(way: Way) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let net = Self {
            prefix: format!(
                "cw-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
            way,
        };
        for host in net.hosts() {
            ip(&["netns", "add", &net.name(host)]);
            ip(&["-n", &net.name(host), "link", "set", "lo", "up"]);
        }
        match way {
            Way::Direct => net.lan(),
            Way::Relayed => net.apart(),
        }
        net
    }

    fn hosts(&self) -> &'static [&'static str] {
        match self.way {
            Way::Direct => &["relay", "dev-1", "dev-2", "switch"],
            Way::Relayed => &["relay", "dev-1", "dev-2"],
        }
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// All on one LAN.
    fn lan(&self) {
        let switch = self.name("switch");
        ip(&["-n", &switch, "link", "add", "lan", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "lan", "up"]);
        for (host, address) in [
            ("relay", RELAY),
            ("dev-1", "10.77.0.11"),
            ("dev-2", "10.77.0.12"),
        ] {
            self.link(host, "switch");
            ip(&["-n", &switch, "link", "set", host, "master", "lan"]);
            let address = format!("{address}/24");
            ip(&[
                "-n",
                &self.name(host),
                "addr",
                "add",
                &address,
                "dev",
                "net",
            ]);
        }
    }

    /// Each node on a link to the relay; it believes that the relay leads everywhere.
    fn apart(&self) {
        let relay = self.name("relay");
        ip(&[
            "-n",
            &relay,
            "addr",
            "add",
            &format!("{RELAY}/32"),
            "dev",
            "lo",
        ]);
        let closed = inside(&relay, || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")
        });
        assert!(closed.is_ok(), "the relay forwards: {closed:?}");
        for (host, net) in [("dev-1", "10.78.1"), ("dev-2", "10.78.2")] {
            self.link(host, "relay");
            let (near, far) = (format!("{net}.2/24"), format!("{net}.1"));
            ip(&[
                "-n",
                &relay,
                "addr",
                "add",
                &format!("{far}/24"),
                "dev",
                host,
            ]);
            ip(&["-n", &self.name(host), "addr", "add", &near, "dev", "net"]);
            ip(&[
                "-n",
                &self.name(host),
                "route",
                "add",
                "default",
                "via",
                &far,
            ]);
        }
    }

    /// A cable: `net` on the host, an interface with the host's name on the other end.
    fn link(&self, host: &str, other: &str) {
        let (near, far) = (self.name(host), self.name(other));
        ip(&[
            "-n", &far, "link", "add", host, "type", "veth", "peer", "name", "net", "netns", &near,
        ]);
        ip(&["-n", &far, "link", "set", host, "up"]);
        ip(&["-n", &near, "link", "set", "net", "up"]);
    }

    /// Sets the far end of a host's cable up or down.
    fn port(&self, host: Host, state: &str) {
        let far = match self.way {
            Way::Direct => "switch",
            Way::Relayed => "relay",
        };
        ip(&["-n", &self.name(far), "link", "set", host.name(), state]);
    }

    /// Whether the nodes' ports of the switch speak with the relay's alone; false where there is
    /// no switch.
    fn isolate(&self, state: &str) -> bool {
        let switched = self.way == Way::Direct;
        for host in Host::ALL.into_iter().filter(|_| switched) {
            let port = ["link", "set", host.name(), "type", "bridge_slave"];
            let switch = self.name("switch");
            ip(&[&["-n", &switch], &port[..], &["isolated", state]].concat());
        }
        switched
    }

    fn remove(&self) {
        for host in self.hosts() {
            delete(&self.name(host));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.remove();
    }
}

fn delete(namespace: &str) {
    // It may be gone already.
    let _ = Command::new("ip")
        .args(["netns", "del", namespace])
        .output();
}

/// Removes the namespaces of tests that are no more.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix("cw-")
            .and_then(|rest| rest.split('-').next());
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            delete(&name);
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output();
    let failed = match &done {
        Ok(done) if done.status.success() => return,
        Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!("ip {}: {failed}", arguments.join(" "));
}
