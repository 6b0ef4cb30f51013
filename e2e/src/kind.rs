//! Substrate: the relay and the nodes are pods of a cluster that scripts/run-relay-kind-e2e.sh has
//! made, and in which it has installed the relay; its settings say where. The administrator is
//! outside, on this machine, and so is `dev-1` when it is asked for: both reach the relay by a
//! port-forward, and the nodes by the relay alone.
//!
//! What goes away is a pod that is deleted. One substrate at a time: the pods have the same names
//! in all of them.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::case::or_skip;
use crate::cluster::Cluster;
use crate::cw::Cw;
use crate::home::Home;
use crate::local::temporary;
use crate::substrate::{Host, Substrate, Way};
use crate::{PATIENCE, tool, wait_until};

/// The substrate.
pub struct Kind {
    cluster: Cluster,
    network: String,
    /// The relay's name in the cluster, and its URL outside.
    relay: (String, String),
    admin: Cw,
    /// `dev-1`, if it is not a pod.
    here: Option<Home>,
    _dir: TempDir,
}

impl Kind {
    /// Starts the nodes; none, with the reason, where no cluster is named. `program` is `cw`;
    /// `outside` has `dev-1` on this machine.
    ///
    /// # Errors
    ///
    /// A setting that is not made.
    ///
    /// # Panics
    ///
    /// When the pods do not start.
    #[track_caller]
    pub fn new(program: &str, outside: bool) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cluster = Cluster::new(
            &setting("CLUSTER_NAME")?,
            &setting("RELAY_NAMESPACE")?,
            &setting("RELAY_NAME")?,
            &setting("RELAY_RELEASE")?,
        );
        let url = format!("http://127.0.0.1:{}", setting("RELAY_PORT")?);
        let dir = temporary();
        let home = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("a directory of our own can be written");
            let cw = Cw::new(Path::new(program), &path).env("CODEWIRE_NODE_NAME", "dev-1");
            Home::new(&path, cw.env("CODEWIRE_DIRECT", "0"))
        };
        let token = setting("RELAY_TOKEN")?;
        let admin = home("a").cw().clone();
        let substrate = Self {
            network: format!(
                "e2e-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
            relay: (setting("RELAY_NAME")?, url),
            admin: admin.env("CODEWIRE_RELAY_AUTH_TOKEN", token),
            here: outside.then(|| home("1")),
            cluster,
            _dir: dir,
        };
        // Those of a run that was kept.
        tool::must("kind/nodes down");
        tool::must(&format!("kind/nodes up {}", substrate.pods().join(" ")));
        Ok(substrate)
    }

    /// The same for a test that is skipped, and says so, where it cannot be done.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[track_caller]
    #[must_use]
    pub fn or_skip(program: &str, outside: bool) -> Option<Self> {
        or_skip(Self::new(program, outside))
    }

    /// The nodes that are pods.
    fn pods(&self) -> &'static [&'static str] {
        match self.here {
            Some(_) => &["dev-2"],
            None => &["dev-1", "dev-2"],
        }
    }

    /// The directory of a host that is not a pod.
    fn home(&self, host: Host) -> Option<&Home> {
        self.here.as_ref().filter(|_| host == Host::Dev1)
    }
}

fn setting(name: &str) -> Result<String, String> {
    let made = std::env::var(name);
    made.map_err(|_| format!("scripts/run-relay-kind-e2e.sh has a cluster, and sets {name}"))
}

impl Substrate for Kind {
    fn label(&self) -> &'static str {
        match self.here {
            Some(_) => "a pod and this machine",
            None => "pods",
        }
    }

    fn way(&self) -> Way {
        match self.here {
            Some(_) => Way::Relayed,
            None => Way::Direct,
        }
    }

    fn cw(&self, host: Host) -> Cw {
        let Some(home) = self.home(host) else {
            let pod = self.cluster.pod_name(host.name());
            let line = self.cluster.line(&format!("exec --stdin {pod} -- cw"));
            return Cw::carried(&line.split(' ').collect::<Vec<_>>());
        };
        home.cw().clone()
    }

    fn admin(&self) -> Cw {
        self.admin.clone()
    }

    fn network(&self) -> String {
        self.network.clone()
    }

    fn start_relay(&self) {
        let (relay, url) = &self.relay;
        self.cluster.start(relay);
        wait_until("the relay answers outside", PATIENCE, || {
            let asked = ["health", "--url", &format!("{url}/readyz")];
            let done = self.admin.run(&asked);
            (done.status == Some(0)).then_some(()).ok_or(done.stderr)
        });
    }

    fn stop_relay(&self) {
        self.cluster.end(&self.relay.0, false);
    }

    fn kill_relay(&self) {
        self.cluster.end(&self.relay.0, true);
    }

    fn restart_relay(&self) {
        self.cluster.delete(&self.relay.0);
    }

    fn relay_url(&self) -> String {
        self.relay.1.clone()
    }

    fn relay_url_on(&self, host: Host) -> String {
        let inside = format!("http://{}-http:8080", self.relay.0);
        self.home(host).map_or(inside, |_| self.relay_url())
    }

    fn relay_log(&self) -> String {
        self.cluster.log(&self.relay.0)
    }

    fn start_node(&self, host: Host) {
        match self.home(host) {
            Some(home) => drop(home.cw().run(&["start"]).ok()),
            None => self.cluster.start(host.name()),
        }
    }

    fn kill_node(&self, host: Host) {
        match self.home(host) {
            Some(home) => home.kill_both(),
            None => self.cluster.end(host.name(), true),
        }
    }

    fn restart_node(&self, host: Host) {
        if self.home(host).is_none() {
            return self.cluster.delete(host.name());
        }
        self.kill_node(host);
        self.start_node(host);
    }

    fn node_log(&self, host: Host) -> String {
        let home = self.home(host);
        home.map_or_else(|| self.cluster.log(host.name()), Home::log)
    }

    fn cut(&self, host: Host) -> bool {
        let pod = self.home(host).is_none();
        if pod {
            self.cluster.cut(host.name());
        }
        pod
    }

    fn heal(&self, _: Host) {
        self.cluster.open();
    }

    fn cut_direct(&self) -> bool {
        let pods = self.here.is_none();
        if pods {
            let [one, other] = Host::ALL.map(Host::name);
            self.cluster.cut_datagrams(one, other);
        }
        pods
    }

    fn heal_direct(&self) {
        self.cluster.open();
    }

    fn tear_down(&self) {
        self.cluster.open();
        if let Some(home) = &self.here {
            home.tear_down();
        }
        let all = [&[self.relay.0.as_str()], self.pods()].concat();
        if self.cluster.leave(&all) && std::env::var("KEEP").as_deref() != Ok("1") {
            let _ = tool::run("kind/nodes down");
        }
    }

    fn remains(&self) -> Vec<String> {
        let kinds = "deployments,pods,persistentvolumeclaims";
        let ours = "--selector app.kubernetes.io/name=cw-node --output name";
        let listed = tool::must(&self.cluster.line(&format!("get {kinds} {ours}")));
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        Substrate::tear_down(self);
    }
}
