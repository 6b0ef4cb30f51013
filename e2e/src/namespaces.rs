//! Network namespaces for the three hosts of a scenario, and the links between them.
//!
//! Every link is made inside the namespaces, so this machine's own network never sees any of it.
//! The names have the process number of the test in them; what a test that was killed has left
//! behind is removed by the next.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::substrate::{Host, Way};
use crate::tool;

/// The relay's address on the LAN, and, in the relayed topology, on its loopback interface.
pub(crate) const RELAY: &str = "10.77.0.1";

/// The namespaces.
pub(crate) struct Net {
    /// Before every name.
    prefix: String,
    pub(crate) way: Way,
}

impl Net {
    #[track_caller]
    pub(crate) fn build(way: Way) -> Self {
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
            let name = net.name(host);
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        match way {
            Way::Direct => net.lan(),
            Way::Relayed => net.apart(),
        }
        net
    }

    pub(crate) fn hosts(&self) -> &'static [&'static str] {
        match self.way {
            Way::Direct => &["relay", "dev-1", "dev-2", "switch"],
            Way::Relayed => &["relay", "dev-1", "dev-2"],
        }
    }

    pub(crate) fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// All on one LAN.
    fn lan(&self) {
        let switch = self.name("switch");
        ip(&format!("-n {switch} link add lan type bridge"));
        ip(&format!("-n {switch} link set lan up"));
        for (host, address) in [
            ("relay", RELAY),
            ("dev-1", "10.77.0.11"),
            ("dev-2", "10.77.0.12"),
        ] {
            self.link(host, "switch");
            let name = self.name(host);
            ip(&format!("-n {switch} link set {host} master lan"));
            ip(&format!("-n {name} addr add {address}/24 dev net"));
        }
    }

    /// Each node on a link to the relay; it believes that the relay leads everywhere.
    fn apart(&self) {
        let relay = self.name("relay");
        ip(&format!("-n {relay} addr add {RELAY}/32 dev lo"));
        let closed = inside(&relay, || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")
        });
        assert!(closed.is_ok(), "the relay forwards: {closed:?}");
        for (host, net) in [("dev-1", "10.78.1"), ("dev-2", "10.78.2")] {
            self.link(host, "relay");
            let name = self.name(host);
            ip(&format!("-n {relay} addr add {net}.1/24 dev {host}"));
            ip(&format!("-n {name} addr add {net}.2/24 dev net"));
            ip(&format!("-n {name} route add default via {net}.1"));
        }
    }

    /// A cable: `net` on the host, an interface with the host's name on the other end.
    fn link(&self, host: &str, other: &str) {
        let (near, far) = (self.name(host), self.name(other));
        let ends = format!("{host} type veth peer name net netns {near}");
        ip(&format!("-n {far} link add {ends}"));
        ip(&format!("-n {far} link set {host} up"));
        ip(&format!("-n {near} link set net up"));
    }

    /// Sets the far end of a host's cable up or down.
    pub(crate) fn port(&self, host: Host, state: &str) {
        let far = match self.way {
            Way::Direct => "switch",
            Way::Relayed => "relay",
        };
        let (far, near) = (self.name(far), host.name());
        ip(&format!("-n {far} link set {near} {state}"));
    }

    /// Whether the nodes' ports of the switch speak with the relay's alone; false where there is
    /// no switch.
    pub(crate) fn isolate(&self, state: &str) -> bool {
        let switched = self.way == Way::Direct;
        let switch = self.name("switch");
        for host in Host::ALL.map(Host::name).iter().filter(|_| switched) {
            let port = format!("{host} type bridge_slave");
            ip(&format!("-n {switch} link set {port} isolated {state}"));
        }
        switched
    }

    pub(crate) fn remove(&self) {
        for host in self.hosts() {
            delete(&self.name(host));
        }
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

impl Drop for Net {
    fn drop(&mut self) {
        self.remove();
    }
}

fn delete(namespace: &str) {
    // It may be gone already.
    let _ = tool::run(&format!("ip netns del {namespace}"));
}

/// Removes the namespaces of tests that are no more.
pub(crate) fn remove_leftovers() {
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
fn ip(words: &str) {
    tool::must(&format!("ip {words}"));
}
