//! Where runs take place: a relay and two nodes, with what is needed to do them harm.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::plan::Can;
use super::shim::Shim;
use crate::case::Setting;
use crate::cw::Cw;
use crate::home::{Home, Part};
use crate::local::temporary;
use crate::netns::Netns;
use crate::processes::Processes;
use crate::relay::Relay;
use crate::steps;
use crate::substrate::{Host, Substrate, Way};
use crate::tool;

/// The library that lies about the time, of the Debian package `faketime`.
const LIAR: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The disk of a node that is to be full some time, bytes.
const DISK: &str = "64m";

/// The programs that are needed.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `cw`.
    pub cw: String,
    /// Says one frame from where it is run.
    pub say_frame: String,
}

/// The kinds of worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything goes by the relay, and the line to it can be harmed.
    Relayed,
    /// The nodes reach each other, and their clocks may jump.
    Direct,
    /// As `Relayed`, and the second node's disk is small. Needs root.
    Disk,
    /// As `Relayed`, and the nodes have one thread for their tasks, for who counts system calls.
    Stepped,
    /// Network namespaces that lose datagrams. Needs root, iproute2 and nftables.
    Lossy,
}

/// See the module.
pub struct World {
    kind: Kind,
    base: Base,
    shims: Vec<Shim>,
    clocks: bool,
    mounted: Option<PathBuf>,
    /// The relay's files as they were at first.
    backup: TempDir,
    runs: AtomicU32,
    say_frame: String,
}

enum Base {
    Here(Box<Processes>),
    Apart(Box<Netns>),
}

impl Kind {
    /// Those in which everybody talks.
    pub const ALL: [Self; 4] = [Self::Relayed, Self::Direct, Self::Disk, Self::Lossy];
}

impl World {
    /// Builds it; both nodes are online when this returns.
    ///
    /// # Errors
    ///
    /// What it needs and is not there.
    ///
    /// # Panics
    ///
    /// When `cw` does not do what it should.
    pub fn new(programs: &Programs, kind: Kind) -> Result<Self, String> {
        let clocks = kind == Kind::Direct && Path::new(LIAR).exists();
        let root = rustix::process::geteuid().is_root();
        if kind == Kind::Disk && !root {
            return Err("a small disk needs root".to_owned());
        }
        let base = if kind == Kind::Lossy {
            tool::run("nft --version")?;
            Base::Apart(Box::new(Netns::new(&programs.cw, Way::Direct)?))
        } else {
            Base::Here(Box::new(processes(programs, kind, clocks)))
        };
        let mut world = Self {
            kind,
            base,
            shims: Vec::new(),
            clocks,
            mounted: None,
            backup: temporary(),
            runs: AtomicU32::new(0),
            say_frame: programs.say_frame.clone(),
        };
        if kind == Kind::Disk {
            let path = world.home(Host::Dev2).dir().to_owned();
            let what = format!("-t tmpfs -o size={DISK},mode=0700 tmpfs");
            tool::run(&format!("mount {what} {}", path.display()))?;
            world.mounted = Some(path);
        }
        for host in Host::ALL.into_iter().filter(|_| clocks) {
            world.set_clock(host, 0);
        }
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        let admin = steps::network(self.substrate());
        let url = self.substrate().relay_url();
        if self.kind != Kind::Lossy {
            let address = self.relay().address();
            self.shims = Host::ALL.iter().map(|_| Shim::new(&address)).collect();
        }
        for host in Host::ALL {
            let invite = ["network", "invite", "--mine", "--relay-url", &url];
            let invite = admin.ok(&invite);
            let url = self.shim(host).map_or_else(|| url.clone(), Shim::url);
            let join = ["network", "join", "--relay-url", &url, invite.trim()];
            let _ = self.cw(host).run(&join).ok();
        }
        steps::wait_until_online(self.substrate());
        self.relay().stop();
        copy(self.relay().data(), self.backup.path());
        self.relay().start();
    }

    pub(super) fn substrate(&self) -> &dyn Substrate {
        match &self.base {
            Base::Here(processes) => processes.as_ref(),
            Base::Apart(netns) => netns.as_ref(),
        }
    }

    fn processes(&self) -> &Processes {
        match &self.base {
            Base::Here(processes) => processes,
            Base::Apart(netns) => netns.processes(),
        }
    }

    pub(super) fn home(&self, host: Host) -> &Home {
        self.processes().home(host)
    }

    pub(super) fn cw(&self, host: Host) -> Cw {
        self.substrate().cw(host)
    }

    pub(super) fn relay(&self) -> &Relay {
        self.processes().relay()
    }

    pub(super) fn say_frame(&self) -> &str {
        &self.say_frame
    }

    /// The number of the next run, from 1.
    pub(super) fn next_run(&self) -> u32 {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn can(&self) -> Can {
        Can {
            hold: !self.shims.is_empty(),
            lose: self.kind == Kind::Lossy,
            clock: self.clocks,
            disk: self.kind == Kind::Disk,
        }
    }

    pub(super) fn shim(&self, host: Host) -> Option<&Shim> {
        self.shims.get(usize::from(host == Host::Dev2))
    }

    /// Lets a node's clock be so many seconds ahead of ours.
    pub(super) fn set_clock(&self, host: Host, ahead: i64) {
        let path = clock(self.home(host).dir());
        std::fs::write(path, format!("{ahead:+}\n")).expect("a file of our own can be written");
    }

    /// Brings the relay back with the files that it had at first.
    pub(super) fn roll_relay_back(&self) {
        self.relay().kill();
        let data = self.relay().data();
        for entry in std::fs::read_dir(data).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        copy(self.backup.path(), data);
        self.relay().start();
    }

    /// Lets so many of a hundred datagrams to a node be lost.
    pub(super) fn lose(&self, host: Host, percent: u8) {
        let Base::Apart(netns) = &self.base else {
            return;
        };
        let [_, first, second] = netns.namespaces();
        let name = if host == Host::Dev1 { first } else { second };
        let nft = format!("ip netns exec {name} nft");
        if percent == 0 {
            // There may be none.
            let _ = tool::run(&format!("{nft} delete table ip faults"));
            return;
        }
        tool::must(&format!("{nft} add table ip faults"));
        let hook = "{ type filter hook input priority 0 ; }";
        tool::must(&format!("{nft} add chain ip faults in {hook}"));
        let some = match percent {
            100 => "drop".to_owned(),
            some => format!("numgen random mod 100 < {some} drop"),
        };
        tool::must(&format!(
            "{nft} add rule ip faults in udp dport 1-65535 {some}"
        ));
    }

    /// Fills the disk of the second node, or makes room again.
    pub(super) fn fill_disk(&self, full: bool) {
        let path = self.home(Host::Dev2).dir().join("ballast");
        if !full {
            let _ = std::fs::remove_file(path);
            return;
        }
        let piece = vec![0; 64 * 1024];
        let Ok(mut file) = std::fs::File::create(path) else {
            return;
        };
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        while std::io::Write::write_all(&mut file, b"x").is_ok() {}
    }

    /// All that lasts is over. Whoever should run does.
    pub(super) fn heal(&self) {
        for host in Host::ALL {
            if let Some(shim) = self.shim(host) {
                shim.heal();
            }
            if self.kind == Kind::Lossy {
                self.lose(host, 0);
                self.substrate().heal(host);
            }
            if self.clocks {
                self.set_clock(host, 0);
            }
            for part in [Part::Node, Part::Keeper] {
                if let Some(pid) = self.home(host).pid(part) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
                }
            }
        }
        self.fill_disk(false);
    }
}

fn clock(home: &Path) -> PathBuf {
    home.join("clock")
}

fn processes(programs: &Programs, kind: Kind, clocks: bool) -> Processes {
    let (way, direct) = match kind {
        Kind::Direct => (Way::Direct, "1"),
        _ => (Way::Relayed, "0"),
    };
    Processes::build(&programs.cw, way, "127.0.0.1:0", |host, cw| {
        let mut cw = cw.env("CODEWIRE_DIRECT", direct);
        if kind == Kind::Stepped {
            cw = cw.env("TOKIO_WORKER_THREADS", "1");
        }
        if host.is_none() || !clocks {
            return cw;
        }
        let file = clock(cw.home());
        cw.env("LD_PRELOAD", LIAR)
            .env("FAKETIME_TIMESTAMP_FILE", file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
    })
}

/// Copies the files of a directory that has no others.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let copied = std::fs::copy(entry.path(), to.join(entry.file_name()));
        copied.expect("files of our own can be copied");
    }
}

impl Setting for World {
    fn logs(&self) -> Vec<(String, String)> {
        self.substrate().logs()
    }

    fn tear_down(&self) {
        self.heal();
        self.substrate().tear_down();
        if let Some(path) = &self.mounted {
            // The last who holds it ends it.
            let _ = tool::run(&format!("umount -l {}", path.display()));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        Setting::tear_down(self);
    }
}
