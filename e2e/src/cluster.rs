//! What the pods of a cluster go through: scaled away, deleted, cut off by the packet filter of the
//! cluster's node, which in kind is a container of the same name.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{tool, wait_until};

/// How long a pod may take to be another, or none.
const POD: Duration = Duration::from_secs(40);

/// The columns of a pod's address and of the cluster's node it is on.
const PLACE: &str = "IP:.status.podIP,NODE:.spec.nodeName";

/// A namespace.
pub(crate) struct Cluster {
    /// `kubectl` with what leads it there.
    kubectl: String,
    /// The deployment of the relay and the Helm release it is from; others have their own name on
    /// their pods.
    relay: (String, String),
    /// What stands between pods: commands on the cluster's node, with `@` for what to do.
    rules: Mutex<Vec<String>>,
    /// What those pods had printed that are no more.
    logs: Mutex<Vec<(String, String)>>,
    /// Nothing is asked of it any more.
    left: AtomicBool,
}

impl Cluster {
    pub(crate) fn new(cluster: &str, namespace: &str, relay: &str, release: &str) -> Self {
        Self {
            relay: (relay.to_owned(), release.to_owned()),
            kubectl: format!("kubectl --context kind-{cluster} --namespace {namespace}"),
            rules: Mutex::default(),
            logs: Mutex::default(),
            left: AtomicBool::new(false),
        }
    }

    /// A command line of `kubectl`.
    pub(crate) fn line(&self, words: &str) -> String {
        format!("{} {words}", self.kubectl)
    }

    /// Scales a deployment up to one pod, and waits until that is ready.
    #[track_caller]
    pub(crate) fn start(&self, name: &str) {
        tool::must(&self.line(&format!("scale deployment/{name} --replicas=1")));
        let limit = "--timeout=60s";
        tool::must(&self.line(&format!("rollout status deployment/{name} {limit}")));
    }

    /// Scales a deployment down to none, and waits until its pod runs no more: it is told to end,
    /// or killed soon.
    #[track_caller]
    pub(crate) fn end(&self, name: &str, soon: bool) {
        let pod = self.pod_name(name);
        self.keep_log(name);
        tool::must(&self.line(&format!("scale deployment/{name} --replicas=0")));
        if soon {
            tool::must(&self.line(&format!("delete pod {pod} --now --ignore-not-found")));
        }
        wait_until(&format!("{name} is gone"), POD, || {
            let pods = self.pods(name, "NAME:.metadata.name")?;
            pods.is_empty()
                .then_some(())
                .ok_or_else(|| format!("{pods:?}"))
        });
    }

    /// Deletes the pod of a deployment; when this returns there is another, which starts.
    #[track_caller]
    pub(crate) fn delete(&self, name: &str) {
        let before = self.pod_name(name);
        self.keep_log(name);
        tool::must(&self.line(&format!("delete pod {before} --wait=false")));
        wait_until(&format!("another pod of {name}"), POD, || {
            let now = self.pod_name(name);
            (now != before).then_some(()).ok_or(now)
        });
    }

    /// The name of that pod of a deployment that is there to stay.
    #[track_caller]
    pub(crate) fn pod_name(&self, name: &str) -> String {
        self.pod(name, "NAME:.metadata.name").swap_remove(0)
    }

    /// Lets nothing pass to or from a pod.
    #[track_caller]
    pub(crate) fn cut(&self, name: &str) {
        let place = self.pod(name, PLACE);
        let rules = ["-s", "-d"].map(|way| rule(&place[1], &format!("{way} {}", place[0])));
        self.close(&rules);
    }

    /// Lets no datagram pass from the one pod to the other, or back.
    #[track_caller]
    pub(crate) fn cut_datagrams(&self, one: &str, other: &str) {
        let (one, other) = (self.pod(one, PLACE), self.pod(other, PLACE));
        let between = |from: &str, to: &str| rule(&one[1], &format!("-p udp -s {from} -d {to}"));
        self.close(&[between(&one[0], &other[0]), between(&other[0], &one[0])]);
    }

    /// Lets everything pass again. Never panics.
    pub(crate) fn open(&self) {
        let rules = std::mem::take(&mut *lock(&self.rules));
        for rule in rules {
            // One that is gone is what is wanted.
            let _ = tool::run(&rule.replace('@', "-D"));
        }
    }

    #[track_caller]
    fn close(&self, rules: &[String]) {
        for rule in rules {
            lock(&self.rules).push(rule.clone());
            tool::must(&rule.replace('@', "-I"));
        }
    }

    /// What the pods of a deployment have printed, from the first to the one that is there.
    pub(crate) fn log(&self, name: &str) -> String {
        self.keep_log(name);
        let mut logs = lock(&self.logs);
        let ours = logs.iter().filter(|(of, _)| of == name);
        let all = ours.map(|(_, log)| format!("{log}\n")).collect();
        // It would be there twice.
        if !self.left.load(Ordering::Relaxed) {
            logs.pop_if(|(of, _)| of == name);
        }
        all
    }

    /// Keeps what some deployments have printed, for when they are no more.
    pub(crate) fn leave(&self, names: &[&str]) -> bool {
        if self.left.load(Ordering::Relaxed) {
            return false;
        }
        for name in names {
            self.keep_log(name);
        }
        !self.left.swap(true, Ordering::Relaxed)
    }

    fn keep_log(&self, name: &str) {
        if !self.left.load(Ordering::Relaxed) {
            let pods = self.pods(name, "NAME:.metadata.name").unwrap_or_default();
            let stays = pods.iter().find(|pod| pod.ends_with(" <none>"));
            let pod = stays
                .or_else(|| pods.first())
                .map(|pod| pod.split(' ').next());
            let Some(Some(pod)) = pod else { return };
            let log = tool::both(&self.line(&format!("logs {pod}")));
            lock(&self.logs).push((name.to_owned(), log));
        }
    }

    /// Those columns of that pod of a deployment that is there to stay.
    #[track_caller]
    fn pod(&self, name: &str, columns: &str) -> Vec<String> {
        wait_until(&format!("{name} has a pod"), POD, || {
            let pods = self.pods(name, columns)?;
            let stays = pods.iter().find(|pod| pod.ends_with(" <none>"));
            let words = stays.map(|pod| pod.split_whitespace().map(str::to_owned));
            words
                .map(Iterator::collect)
                .ok_or_else(|| format!("{pods:?}"))
        })
    }

    /// Those columns of all its pods, one line each; at its end when the pod was deleted.
    fn pods(&self, name: &str, columns: &str) -> Result<Vec<String>, String> {
        let (relay, release) = &self.relay;
        let instance = if name == relay { release } else { name };
        // Not those of `helm test`.
        let selector =
            format!("--selector app.kubernetes.io/instance={instance},pod-template-hash");
        let end = "END:.metadata.deletionTimestamp";
        let output = format!("--no-headers --output custom-columns={columns},{end}");
        let listed = tool::run(&self.line(&format!("get pods {selector} {output}")))?;
        Ok(listed.lines().map(str::to_owned).collect())
    }
}

/// A rule of the packet filter of a node of the cluster.
fn rule(node: &str, what: &str) -> String {
    // By its comment kind/nodes finds what was left.
    let comment = "-m comment --comment codewire-e2e";
    format!("docker exec {node} iptables @ FORWARD {what} {comment} -j DROP")
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
