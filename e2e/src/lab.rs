//! Substrate: a relay on an internet of its own, and two hosts behind routers with real NATs.
//! Needs root, iproute2 and nftables.
//!
//! The internet is a switch with the net 10.77.0.0/24 (fd77::/64). A host is on it itself, or behind
//! a router that masquerades and, like those at home, drops what comes in unasked:
//!
//! | NAT | what the kernel does |
//! |---|---|
//! | open | none: the host is on the internet |
//! | easy | `masquerade`: the port stays the same, for whomever; lets in whom was written to |
//! | hard | `masquerade fully-random`: another port for each destination |
//!
//! A router may lend ports to who asks for them ([`Lends`]); then its outside is 11.77.0.0/24, too,
//! because the program for that lends no private address.
//!
//! A router may also let no UDP pass, or nothing but TCP to port 443, where the relay is. Any host's
//! cable may have another MTU, and a host can be moved to another router while it runs.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::case::or_skip;
use crate::cw::Cw;
use crate::gateway::{self, Gateway, Lends};
use crate::namespaces::{inside, remove_leftovers};
use crate::processes::Processes;
use crate::substrate::{Host, Substrate, Way};
use crate::tool::must;

/// The port that the strictest networks let out.
const PORT: u16 = 443;

/// The NAT in front of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// None.
    Open,
    /// One port for all.
    Easy,
    /// Another port for each destination.
    Hard,
}

/// What the router lets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// Everything.
    All,
    /// No UDP.
    NoUdp,
    /// TCP to port 443 alone.
    Only443,
}

/// The internet's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4,
    /// IPv6; without routers.
    V6,
}

/// Where a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The NAT.
    pub nat: Nat,
    /// What it lets out; everything where there is none.
    pub out: Out,
    /// The MTU of the host's cable, bytes.
    pub mtu: u32,
    /// How the router lends ports, if it does.
    pub lends: Option<Lends>,
}

impl Place {
    /// Behind this NAT, and nothing else is unusual.
    #[must_use]
    pub fn behind(nat: Nat) -> Self {
        Self {
            nat,
            out: Out::All,
            mtu: 1500,
            lends: None,
        }
    }
}

/// The substrate.
pub struct Lab {
    net: Net,
    way: Way,
    processes: Processes,
}

/// The namespaces.
struct Net {
    /// Before every name.
    prefix: String,
    ip: Ip,
    gateways: Vec<Gateway>,
}

impl Lab {
    /// Builds it; `way` is the one that packets are expected to take. For a test that is skipped,
    /// and says so, where it cannot be done.
    ///
    /// # Panics
    ///
    /// When `ip` or `nft` refuses something that it should do.
    #[track_caller]
    #[must_use]
    pub fn or_skip(program: &str, places: [Place; 2], ip: Ip, way: Way) -> Option<Self> {
        let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
        or_skip(if !rustix::process::geteuid().is_root() {
            Err("namespaces need root".to_owned())
        } else if let Some(missing) = ["ip", "nft"].iter().find(|program| !has(program)) {
            Err(format!("{missing} is not here"))
        } else if places.iter().any(|place| place.lends.is_some()) && !Gateway::is_here() {
            Err("miniupnpd is not here".to_owned())
        } else {
            Ok(Self::new(program, places, ip, way))
        })
    }

    fn new(program: &str, places: [Place; 2], ip: Ip, way: Way) -> Self {
        remove_leftovers();
        let net = Net::build(places, ip);
        let listen = match ip {
            Ip::V4 => format!("10.77.0.1:{PORT}"),
            Ip::V6 => format!("[fd77::1]:{PORT}"),
        };
        let processes = Processes::build(program, way, &listen, |host, cw| {
            let name = net.name(host.map_or("relay", Host::name));
            cw.behind(&["ip", "netns", "exec", &name])
        });
        Self {
            net,
            way,
            processes,
        }
    }

    /// How many ports the router of `dev-1` has lent.
    ///
    /// # Panics
    ///
    /// When `nft` does not say.
    #[must_use]
    pub fn lent(&self) -> usize {
        gateway::lent(&self.net.name("router-1"))
    }

    /// Moves `dev-1` to another router, with an easy NAT, as a laptop goes from one wireless network
    /// to another: the new link comes up, the old one is gone.
    pub fn swap(&self) {
        self.net.router(3, Nat::Easy, Out::All);
        let host = self.net.name("dev-1");
        let router = self.net.name("router-3");
        let ends = format!("net2 type veth peer name inside netns {router}");
        must(&format!("ip -n {host} link add {ends}"));
        must(&format!("ip -n {router} addr add 10.81.3.1/24 dev inside"));
        must(&format!("ip -n {router} link set inside up"));
        must(&format!("ip -n {host} link del net"));
        must(&format!("ip -n {host} addr add 10.81.3.2/24 dev net2"));
        must(&format!("ip -n {host} link set net2 up"));
        must(&format!("ip -n {host} route add default via 10.81.3.1"));
    }
}

impl Net {
    fn build(places: [Place; 2], ip: Ip) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut net = Self {
            prefix: format!("cw-{}-lab{count}", std::process::id()),
            ip,
            gateways: Vec::new(),
        };
        net.add("switch");
        let switch = net.name("switch");
        must(&format!("ip -n {switch} link add lan type bridge"));
        must(&format!("ip -n {switch} link set lan up"));
        net.add("relay");
        net.plug("relay", "net", 1);
        for (number, (place, host)) in (1..).zip(places.into_iter().zip(Host::ALL)) {
            net.add(host.name());
            if place.nat == Nat::Open {
                net.plug(host.name(), "net", 10 + number);
            } else {
                net.router(number, place.nat, place.out);
                net.lan(number, host.name());
            }
            let name = net.name(host.name());
            must(&format!("ip -n {name} link set net mtu {}", place.mtu));
        }
        for (number, place) in (1..).zip(places) {
            if let Some(how) = place.lends {
                net.lend(number, how);
            }
        }
        net
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn add(&self, host: &str) {
        let name = self.name(host);
        must(&format!("ip netns add {name}"));
        must(&format!("ip -n {name} link set lo up"));
    }

    /// A cable to the internet, with an address there.
    fn plug(&self, host: &str, interface: &str, number: u32) {
        let (name, switch) = (self.name(host), self.name("switch"));
        must(&format!(
            "ip -n {switch} link add {host} type veth peer name {interface} netns {name}"
        ));
        must(&format!("ip -n {switch} link set {host} master lan"));
        must(&format!("ip -n {switch} link set {host} up"));
        let address = match self.ip {
            Ip::V4 => format!("10.77.0.{number}/24 dev {interface}"),
            Ip::V6 => format!("fd77::{number}/64 dev {interface} nodad"),
        };
        must(&format!("ip -n {name} addr add {address}"));
        must(&format!("ip -n {name} link set {interface} up"));
    }

    /// A router on the internet.
    fn router(&self, number: u32, nat: Nat, out: Out) {
        let host = format!("router-{number}");
        self.add(&host);
        self.plug(&host, "outside", 20 + number);
        let name = self.name(&host);
        let opened = inside(&name, || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
        });
        assert!(opened.is_ok(), "{host} forwards nothing: {opened:?}");
        let nft = |words: &str| {
            let _ = must(&format!("ip netns exec {name} nft add {words}"));
        };
        nft("table ip nat");
        nft("chain ip nat after { type nat hook postrouting priority 100 ; }");
        let how = match nat {
            Nat::Hard => "masquerade fully-random",
            Nat::Easy | Nat::Open => "masquerade",
        };
        nft(&format!("rule ip nat after oifname outside {how}"));
        // Else a packet that comes too early takes the place of the one that it was to meet.
        nft("chain ip nat in { type filter hook input priority 0 ; policy drop ; }");
        nft("chain ip nat through { type filter hook forward priority 0 ; }");
        match out {
            Out::All => {}
            Out::NoUdp => nft("rule ip nat through meta l4proto udp drop"),
            Out::Only443 => {
                nft("rule ip nat through ct state established,related accept");
                nft(&format!(
                    "rule ip nat through iifname inside tcp dport {PORT} accept"
                ));
                nft("rule ip nat through drop");
            }
        }
    }

    /// A router lends ports. All routers are on the second net then, or nobody could reach them.
    fn lend(&mut self, number: u32, how: Lends) {
        for router in self.there() {
            if let Some((_, number)) = router.rsplit_once("-router-") {
                let address = format!("11.77.0.2{number}/24 dev outside");
                // It may have it from the other one.
                let _ = crate::tool::run(&format!("ip -n {router} addr add {address}"));
            }
        }
        let router = self.name(&format!("router-{number}"));
        let outside = format!("11.77.0.2{number}");
        self.gateways.push(Gateway::start(&router, &outside, how));
    }

    /// A cable from a host to its router.
    fn lan(&self, number: u32, host: &str) {
        let (name, router) = (self.name(host), self.name(&format!("router-{number}")));
        must(&format!(
            "ip -n {router} link add inside type veth peer name net netns {name}"
        ));
        must(&format!(
            "ip -n {router} addr add 10.81.{number}.1/24 dev inside"
        ));
        must(&format!("ip -n {router} link set inside up"));
        must(&format!(
            "ip -n {name} addr add 10.81.{number}.2/24 dev net"
        ));
        must(&format!("ip -n {name} link set net up"));
        must(&format!(
            "ip -n {name} route add default via 10.81.{number}.1"
        ));
    }

    fn there(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let ours = format!("{}-", self.prefix);
        names.filter(|name| name.starts_with(&ours)).collect()
    }

    fn remove(&self) {
        for gateway in &self.gateways {
            gateway.stop();
        }
        for name in self.there() {
            let _ = crate::tool::run(&format!("ip netns del {name}"));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Substrate for Lab {
    fn label(&self) -> &'static str {
        "a lab of NATs"
    }

    fn way(&self) -> Way {
        self.way
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

    fn tear_down(&self) {
        Substrate::tear_down(&self.processes);
        self.net.remove();
    }

    fn remains(&self) -> Vec<String> {
        let mut remains = self.processes.remains();
        let there = self.net.there().into_iter();
        remains.extend(there.filter(|name| Path::new("/run/netns").join(name).exists()));
        remains
    }
}
