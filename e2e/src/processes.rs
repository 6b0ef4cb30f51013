//! Substrate: relay and nodes are processes of this machine, each in a directory of its own.

use std::path::Path;

use tempfile::TempDir;

use crate::authority::Authority;
use crate::cw::Cw;
use crate::home::Home;
use crate::local::temporary;
use crate::relay::{Certificate, Relay};
use crate::substrate::{Host, Substrate, Way};

/// The substrate.
pub struct Processes {
    way: Way,
    relay: Relay,
    homes: [Home; 2],
    dirs: Vec<TempDir>,
}

impl Processes {
    /// A relay on the loopback interface and two nodes that may reach each other, or may not:
    /// then they are told not to try. `program` is `cw`.
    #[must_use]
    pub fn new(program: &str, way: Way) -> Self {
        let direct = match way {
            Way::Direct => "1",
            Way::Relayed => "0",
        };
        Self::build(program, way, "127.0.0.1:0", |_, cw| {
            cw.env("CODEWIRE_DIRECT", direct)
        })
    }

    /// The same with a relay behind TLS, by which every packet goes.
    #[must_use]
    pub fn with_tls(program: &str) -> Self {
        let dir = temporary();
        let certificate = Certificate::make(dir.path());
        let trusted = certificate.chain().to_owned();
        let mut processes = Self::build(program, Way::Relayed, "127.0.0.1:0", |_, cw| {
            cw.env("CODEWIRE_DIRECT", "0")
                .env("SSL_CERT_FILE", &trusted)
        });
        processes.relay.set_tls(certificate);
        processes.dirs.push(dir);
        processes
    }

    /// The same with a relay that gets its certificate by itself, for these names, the first of
    /// which it is known by.
    #[must_use]
    pub fn with_authority(program: &str, authority: &Authority, names: &[&str]) -> Self {
        let mut processes = Self::build(program, Way::Relayed, "127.0.0.1:0", |_, cw| {
            cw.env("CODEWIRE_DIRECT", "0")
                .env("SSL_CERT_FILE", authority.root())
        });
        let (directory, ca) = (authority.directory(), authority.ca().display().to_string());
        let domains = names.join(",");
        let words = ["--acme-domain", &domains, "--acme-email", "root@relay.test"];
        let more = ["--acme-directory", &directory, "--acme-ca", &ca];
        let url = format!("https://{}", names[0]);
        processes.relay.set_called(&url, &[words, more].concat());
        processes
    }

    /// The same, and everybody logs whatever there is to log.
    #[must_use]
    pub fn traced(program: &str) -> Self {
        Self::build(program, Way::Direct, "127.0.0.1:0", |_, cw| {
            cw.env("CODEWIRE_LOG", "trace")
        })
    }

    /// The same, started by somebody whose files are for everybody unless a program cares.
    #[must_use]
    pub fn unmasked(program: &str) -> Self {
        Self::build(program, Way::Direct, "127.0.0.1:0", |_, cw| {
            cw.behind(&["/bin/sh", "-c", "umask 000; exec \"$@\"", "sh"])
        })
    }

    /// The same with a relay at some address, and every command changed by `place`; the host is
    /// none for the relay.
    pub(crate) fn build(
        program: &str,
        way: Way,
        listen: &str,
        place: impl Fn(Option<Host>, Cw) -> Cw,
    ) -> Self {
        let dir = temporary();
        let program = Path::new(program);
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("a directory of our own can be written");
            path
        };
        let relay_home = make("r");
        let relay = place(None, Cw::new(program, &relay_home));
        let homes = [(Host::Dev1, "1"), (Host::Dev2, "2")].map(|(host, short)| {
            let path = make(short);
            let cw = Cw::new(program, &path).env("CODEWIRE_NODE_NAME", host.name());
            Home::new(&path, place(Some(host), cw))
        });
        Self {
            way,
            relay: Relay::new(relay, &relay_home.join("data"), listen),
            homes,
            dirs: vec![dir],
        }
    }

    /// The directories of the nodes and of the relay.
    #[must_use]
    pub fn dirs(&self) -> Vec<&Path> {
        let homes = self.homes.iter().map(Home::dir);
        homes.chain([self.relay.data()]).collect()
    }

    /// The relay.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// A node's directory.
    #[must_use]
    pub fn home(&self, host: Host) -> &Home {
        let [first, second] = &self.homes;
        match host {
            Host::Dev1 => first,
            Host::Dev2 => second,
        }
    }
}

impl Substrate for Processes {
    fn label(&self) -> &'static str {
        "processes"
    }

    fn way(&self) -> Way {
        self.way
    }

    fn cw(&self, host: Host) -> Cw {
        self.home(host).cw().clone()
    }

    fn start_relay(&self) {
        self.relay.start();
    }

    fn stop_relay(&self) {
        self.relay.stop();
    }

    fn kill_relay(&self) {
        self.relay.kill();
    }

    fn relay_url(&self) -> String {
        self.relay.url()
    }

    fn relay_log(&self) -> String {
        self.relay.log()
    }

    fn kill_node(&self, host: Host) {
        self.home(host).kill_both();
    }

    fn node_log(&self, host: Host) -> String {
        self.home(host).log()
    }

    fn tear_down(&self) {
        for home in &self.homes {
            home.tear_down();
        }
        self.relay.kill();
    }

    fn remains(&self) -> Vec<String> {
        let homes = self.homes.iter().flat_map(Home::processes);
        homes.map(|pid| format!("{pid:?}")).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        Substrate::tear_down(self);
    }
}
