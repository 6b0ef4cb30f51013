//! Three hosts, each a network namespace: the nodes and the relay, on a network with a delay
//! (`shim`), or two of them on a cable.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use crate::child::{Child, Where};
use crate::shim::{HOSTS, MOVED, Shim};

/// Where the relay is, on any port.
const RELAY: &str = "10.78.0.3:0";
/// The same where there is IPv6.
const RELAY_V6: &str = "[fd78::3]:0";

/// What the hosts have addresses of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
}

/// The hosts; gone when dropped.
pub struct Lab {
    names: [String; HOSTS],
    pub shim: Arc<Shim>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove(&self.names);
    }
}

fn remove(names: &[String]) {
    for name in names {
        // It may never have been there.
        let _ = run(&format!("ip netns del {name}"));
    }
}

impl Lab {
    /// Builds it; the error says what is missing.
    pub fn new() -> Result<Self> {
        may_build()?;
        let names = names(["near", "far", "relay"]);
        for name in &names {
            run(&format!("ip netns add {name}"))?;
        }
        let lab = Self {
            shim: Shim::start(&names).inspect_err(|_| remove(&names))?,
            names,
        };
        for name in &lab.names {
            run(&format!("ip -n {name} link set lo up"))?;
            run(&format!("ip -n {name} link set net up"))?;
        }
        lab.number(Ip::V4)?;
        Ok(lab)
    }

    /// The hosts have addresses of this kind, and no others.
    pub fn number(&self, ip: Ip) -> Result<()> {
        for (number, name) in (1..).zip(&self.names) {
            run(&format!("ip -n {name} addr flush dev net scope global"))?;
            let address = match ip {
                Ip::V4 => format!("10.78.0.{number}/24"),
                // Nobody else can have it.
                Ip::V6 => format!("fd78::{number}/64 nodad"),
            };
            run(&format!("ip -n {name} addr add {address} dev net"))?;
        }
        Ok(())
    }

    pub fn nodes(&self) -> Where<'_> {
        Where {
            near: Some(&self.names[0]),
            far: Some(&self.names[1]),
        }
    }

    /// Starts a relay that is reached by these addresses.
    pub fn relay_by(&self, ip: Ip) -> Result<Child> {
        let at = match ip {
            Ip::V4 => RELAY,
            Ip::V6 => RELAY_V6,
        };
        self.relay("ours", Some(at))
    }

    /// Starts a relay, at this address or any.
    pub fn relay(&self, whose: &str, at: Option<&str>) -> Result<Child> {
        let words = ["relay", whose, at.unwrap_or(RELAY)];
        Child::start(Some(&self.names[2]), &words)
    }

    /// The near node has another address, as on another network, or the first one again.
    pub fn renumber(&self, moved: bool) -> Result<()> {
        let (first, other) = (1, 1 + MOVED);
        let (old, new) = if moved {
            (first, other)
        } else {
            (other, first)
        };
        let name = &self.names[0];
        run(&format!("ip -n {name} addr del 10.78.0.{old}/24 dev net"))?;
        run(&format!("ip -n {name} addr add 10.78.0.{new}/24 dev net"))?;
        Ok(())
    }

    /// The nodes' devices carry packets of at most so many bytes.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        for name in &self.names[..2] {
            run(&format!("ip -n {name} link set net mtu {mtu}"))?;
        }
        Ok(())
    }
}

/// Whether there can be namespaces here.
pub fn may_build() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("namespaces need root");
    }
    run("ip -V").context("namespaces need iproute2")?;
    Ok(())
}

/// Names for namespaces; the tests remove those of processes that are no more.
pub fn names<const N: usize>(hosts: [&str; N]) -> [String; N] {
    hosts.map(|host| format!("cw-{}-{host}", std::process::id()))
}

/// Runs a command line, whose words are apart by spaces alone, and returns what it printed.
pub fn run(line: &str) -> Result<String> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let done = command.args(words).output();
    let done = done.with_context(|| line.to_owned())?;
    if !done.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
