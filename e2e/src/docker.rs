//! Substrate: the relay, `dev-1` and `dev-2` are containers of the image that is shipped, the
//! nodes' with a shell in it for the sessions to run. Needs a container engine.
//!
//! | topology | networks |
//! |---|---|
//! | direct | each node shares one with the relay, and one with the other node |
//! | relayed | each node shares one with the relay |
//!
//! The engine lets nothing pass from network to network: what a node sends to the other's address
//! is lost where they share none. A host that is cut off sees its cable pulled.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::case::or_skip;
use crate::cw::Cw;
use crate::relay::TOKEN;
use crate::substrate::{Host, Substrate, Way};
use crate::{PATIENCE, tool, wait_until};

/// The relay, by its name in the networks.
const URL: &str = "http://relay:8080";

/// What the image has to do with.
const CONFINED: &str =
    "--read-only --tmpfs=/tmp --cap-drop=ALL --security-opt=no-new-privileges --volume=@:/data";

/// The substrate.
pub struct Docker {
    /// The name of the relay's image, and before every other name.
    prefix: String,
    way: Way,
    /// What the containers had printed when they were removed.
    logs: Mutex<Vec<(&'static str, String)>>,
}

impl Docker {
    /// Makes the containers; none, with the reason, where there is no engine.
    ///
    /// # Errors
    ///
    /// No engine.
    ///
    /// # Panics
    ///
    /// When the image cannot be built, or the engine refuses something that it should do.
    #[track_caller]
    pub fn new(way: Way) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        tool::run("docker version")?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let substrate = Self {
            prefix: format!("cw-e2e-{}-{count}", std::process::id()),
            way,
            logs: Mutex::default(),
        };
        substrate.build();
        Ok(substrate)
    }

    /// The same for a test that is skipped, and says so, where it cannot be done.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[track_caller]
    #[must_use]
    pub fn or_skip(way: Way) -> Option<Self> {
        or_skip(Self::new(way))
    }

    #[track_caller]
    fn build(&self) {
        // One at a time puts the program where images are made from.
        static ONE: Mutex<()> = Mutex::new(());
        let prefix = &self.prefix;
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        tool::must(&format!("kind/images {prefix} {prefix}-node"));
        drop(one);
        for network in ["1", "2", "lan"] {
            self.docker(&format!("network create @-{network}"));
        }
        let known = format!("--network-alias=relay --env=CODEWIRE_RELAY_AUTH_TOKEN={TOKEN}");
        let serve = format!("relay serve --base-url={URL} --listen=:8080 --stun-listen=:3478");
        let run = CONFINED.replace('@', "@-relay");
        self.docker(&format!(
            "create --name=@-relay --network=@-1 {known} {run} @ {serve} --data-dir=/data/relay"
        ));
        self.docker("network connect --alias=relay @-2 @-relay");
        for host in Host::ALL {
            let (name, near) = (host.name(), self.networks(host)[0]);
            let run = CONFINED.replace('@', &format!("@-{name}"));
            self.docker(&format!(
                "create --name=@-{name} --hostname={name} --network=@-{near} {run} @-node node"
            ));
            for other in &self.networks(host)[1..] {
                self.docker(&format!("network connect @-{other} @-{name}"));
            }
            self.start_node(host);
        }
    }

    /// The networks of a host: the first leads to the relay.
    fn networks(&self, host: Host) -> &'static [&'static str] {
        match (host, self.way) {
            (Host::Dev1, Way::Direct) => &["1", "lan"],
            (Host::Dev2, Way::Direct) => &["2", "lan"],
            (Host::Dev1, Way::Relayed) => &["1"],
            (Host::Dev2, Way::Relayed) => &["2"],
        }
    }

    /// Connects a host to its networks, or disconnects it.
    #[track_caller]
    fn plug(&self, word: &str, host: Host, networks: &[&str]) {
        for network in networks {
            self.docker(&format!("network {word} @-{network} @-{}", host.name()));
        }
    }

    /// The same with all hosts and the network that they share; false if they share none.
    #[track_caller]
    fn plug_lan(&self, word: &str) -> bool {
        let shared = self.way == Way::Direct;
        for host in Host::ALL.into_iter().filter(|_| shared) {
            self.plug(word, host, &["lan"]);
        }
        shared
    }

    /// Runs `docker`, in whose words `@` is the prefix.
    #[track_caller]
    fn docker(&self, words: &str) -> String {
        tool::must(&self.line(words))
    }

    fn line(&self, words: &str) -> String {
        format!("docker {}", words.replace('@', &self.prefix))
    }

    fn log(&self, name: &'static str) -> String {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = logs.iter().find(|(of, _)| *of == name);
        kept.map_or_else(
            || tool::both(&self.line(&format!("logs @-{name}"))),
            |(_, log)| log.clone(),
        )
    }
}

impl Substrate for Docker {
    fn label(&self) -> &'static str {
        "containers"
    }

    fn way(&self) -> Way {
        self.way
    }

    fn cw(&self, host: Host) -> Cw {
        let container = format!("{}-{}", self.prefix, host.name());
        let exec = "docker exec --interactive --env CODEWIRE_RELAY_AUTH_TOKEN";
        let words: Vec<&str> = exec.split(' ').chain([&*container, "cw"]).collect();
        Cw::carried(&words)
    }

    fn start_relay(&self) {
        self.docker("start @-relay");
        wait_until("the relay answers", PATIENCE, || {
            tool::run(&self.line("exec @-relay cw health --url http://127.0.0.1:8080/readyz"))
        });
    }

    fn stop_relay(&self) {
        self.docker("stop @-relay");
        let status = self.docker("inspect --format={{.State.ExitCode}} @-relay");
        assert_eq!(status, "0", "{}", self.relay_log());
    }

    fn kill_relay(&self) {
        self.docker("kill @-relay");
    }

    fn relay_url(&self) -> String {
        URL.to_owned()
    }

    fn relay_log(&self) -> String {
        self.log("relay")
    }

    fn start_node(&self, host: Host) {
        self.docker(&format!("start @-{}", host.name()));
        wait_until("the node answers", PATIENCE, || {
            tool::run(&self.line(&format!("exec @-{} cw health", host.name())))
        });
    }

    fn kill_node(&self, host: Host) {
        self.docker(&format!("kill @-{}", host.name()));
    }

    fn node_log(&self, host: Host) -> String {
        self.log(host.name())
    }

    fn cut(&self, host: Host) -> bool {
        self.plug("disconnect", host, self.networks(host));
        true
    }

    fn heal(&self, host: Host) {
        self.plug("connect", host, self.networks(host));
    }

    fn cut_direct(&self) -> bool {
        self.plug_lan("disconnect")
    }

    fn heal_direct(&self) {
        self.plug_lan("connect");
    }

    fn tear_down(&self) {
        let names = ["relay", "dev-1", "dev-2"];
        let logs = names.map(|name| (name, self.log(name)));
        let mut kept = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = logs.into();
        drop(kept);
        // What is gone already is what is wanted.
        let _ = tool::run(&self.line("rm --force @-relay @-dev-1 @-dev-2"));
        let _ = tool::run(&self.line("volume rm --force @-relay @-dev-1 @-dev-2"));
        for network in ["1", "2", "lan"] {
            let _ = tool::run(&self.line(&format!("network rm @-{network}")));
        }
        let _ = tool::run(&self.line("image rm --force @-node @"));
    }

    fn remains(&self) -> Vec<String> {
        let all = [
            self.docker("ps --all --format={{.Names}}"),
            self.docker("volume ls --format={{.Name}}"),
            self.docker("network ls --format={{.Name}}"),
            self.docker("image ls --format={{.Repository}}"),
        ];
        let names = all.iter().flat_map(|names| names.lines());
        let ours = names.filter(|name| name.starts_with(&self.prefix));
        ours.map(str::to_owned).collect()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        Substrate::tear_down(self);
    }
}
