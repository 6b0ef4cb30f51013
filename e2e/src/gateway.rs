//! A gateway as they are at home: Debian's `miniupnpd` on a router of the lab.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use crate::tool::must;
use crate::wait::wait_until;

/// How long it may take to start.
const STARTED: Duration = Duration::from_secs(30);

/// By which protocol a router lends ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lends {
    /// PCP (and NAT-PMP).
    Pcp,
    /// UPnP alone.
    Upnp,
}

/// One that runs; ended when dropped.
pub(crate) struct Gateway {
    child: Mutex<Child>,
    dir: TempDir,
}

impl Gateway {
    /// Whether the program is installed.
    pub(crate) fn is_here() -> bool {
        Command::new("miniupnpd").arg("--version").output().is_ok()
    }

    /// Starts it in the namespace of a router, whose cables are `inside` and `outside`.
    #[track_caller]
    pub(crate) fn start(router: &str, outside: &str, how: Lends) -> Self {
        let nft = |words: &str| {
            let _ = must(&format!("ip netns exec {router} nft add {words}"));
        };
        // Those who ask are let in, at last.
        nft("rule ip nat in iifname inside accept");
        nft("table inet upnp");
        nft("chain inet upnp lent");
        nft("chain inet upnp lent_nat");
        nft("chain inet upnp lent_back");
        nft("chain inet upnp through { type filter hook forward priority 0 ; }");
        nft("rule inet upnp through jump lent");
        nft("chain inet upnp before { type nat hook prerouting priority -100 ; }");
        nft("rule inet upnp before jump lent_nat");
        let dir = crate::local::temporary();
        let switched = |on: bool| if on { "yes" } else { "no" };
        let (pcp, upnp) = (switched(how == Lends::Pcp), switched(how == Lends::Upnp));
        let config = format!(
            "ext_ifname=outside\next_ip={outside}\nlistening_ip=inside\nport=0\n\
             enable_natpmp={pcp}\nenable_upnp={upnp}\n\
             uuid=89f04630-9ba9-4fcc-88b0-27b01f19beb3\n\
             upnp_table_name=upnp\nupnp_nat_table_name=upnp\nupnp_forward_chain=lent\n\
             upnp_nat_chain=lent_nat\nupnp_nat_postrouting_chain=lent_back\n\
             secure_mode=yes\nallow 1024-65535 10.81.0.0/16 1024-65535\n"
        );
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("conf"), config).expect("a directory of our own can be written");
        let log = File::create(file("log")).expect("a directory of our own can be written");
        let child = Command::new("ip")
            .args(["netns", "exec", router, "miniupnpd", "-d", "-f"])
            .arg(file("conf"))
            .arg("-P")
            .arg(file("pid"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ip is here");
        let gateway = Self {
            child: Mutex::new(child),
            dir,
        };
        let log = gateway.dir.path().join("log");
        wait_until("the gateway listens", STARTED, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            match text.contains("Listening for NAT-PMP") || text.contains("HTTP listening") {
                true => Ok(()),
                false => Err(text),
            }
        });
        gateway
    }

    /// Ends it.
    pub(crate) fn stop(&self) {
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        // It may have ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How many ports the gateway of a router has lent.
pub(crate) fn lent(router: &str) -> usize {
    let rules = must(&format!(
        "ip netns exec {router} nft list chain inet upnp lent_nat"
    ));
    rules.lines().filter(|line| line.contains(" dnat ")).count()
}
