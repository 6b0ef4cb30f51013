//! A relay with an SSH front door, two nodes of one owner, and OpenSSH with a key of the owner's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::case::{case, or_skip};
use crate::cw::Done;
use crate::processes::Processes;
use crate::running::Running;
use crate::steps;
use crate::substrate::{Host, Substrate, Way};
use crate::wait::PATIENCE;

/// See the module. `dev-2` has the usual settings: it takes only keys of its own.
pub struct Front {
    /// The relay and the nodes.
    pub processes: Processes,
    /// Where the test may put its files.
    pub dir: PathBuf,
}

/// Whether there is such a program; else it is said that the test is skipped.
#[must_use]
pub fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        let _: Option<()> = or_skip(Err(format!("{program} is not here")));
    }
    found
}

impl Front {
    /// Nothing runs yet; `settings` is the configuration of `dev-1`. None where OpenSSH is missing.
    ///
    /// # Panics
    ///
    /// When the stage cannot be set.
    #[must_use]
    pub fn set(program: &str, settings: &str) -> Option<Self> {
        let tools = ["ssh", "ssh-keygen", "sftp", "scp"];
        if !tools.iter().all(|tool| is_here(tool)) {
            return None;
        }
        let processes = Processes::new(program, Way::Relayed);
        let dir = processes.dirs()[2].parent().expect("it has one").to_owned();
        let config = processes.home(Host::Dev1).dir().join("config.toml");
        std::fs::write(config, settings).expect("a directory of our own can be written");
        Some(Self { processes, dir })
    }

    /// Enrols both nodes, makes the key `id`, and runs the test.
    #[track_caller]
    pub fn play(self, test: impl FnOnce(&Self)) {
        case(&self.processes as &dyn Substrate, |substrate| {
            let _ = steps::network(substrate);
            for host in Host::ALL {
                let invite = steps::invite(substrate, &["--mine"]);
                let _ = steps::join(substrate, host, &invite).ok();
            }
            steps::wait_until_online(substrate);
            self.make_key("id");
            test(&self);
        });
    }

    /// A file of the test.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Makes a pair of keys in `name` and `name.pub`.
    #[track_caller]
    pub fn make_key(&self, name: &str) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "me@e2e", "-f"]);
        command.arg(self.dir.join(name));
        let _ = Running::start(command, b"").wait(PATIENCE).ok();
    }

    /// The file of a public key.
    #[must_use]
    pub fn public(&self, name: &str) -> String {
        self.file(&format!("{name}.pub"))
    }

    /// The key `id` may come in through the relay.
    #[track_caller]
    pub fn register(&self) {
        let user = self.processes.admin();
        let _ = user.run(&["ssh-key", "add", &self.public("id")]).ok();
    }

    /// The key `id` may come in at a node, end to end.
    #[track_caller]
    pub fn authorize(&self, host: Host) {
        let owner = self.processes.cw(host);
        let _ = owner
            .run(&["ssh-key", "add", "--here", &self.public("id")])
            .ok();
    }

    /// The port of the front door.
    ///
    /// # Panics
    ///
    /// When the relay was never started.
    #[must_use]
    pub fn port(&self) -> String {
        let ssh = self.processes.relay().ssh();
        ssh.rsplit_once(':').expect("it has a port").1.to_owned()
    }

    /// Settings for OpenSSH's programs with the key `key`, and nothing of this machine's; the path
    /// of the file. A jump host is started by `ssh` itself and reads only a file.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    #[must_use]
    pub fn settings(&self, key: &str) -> String {
        let settings = format!(
            "Host *\n  UserKnownHostsFile {}\n  StrictHostKeyChecking accept-new\n  \
             IdentitiesOnly yes\n  IdentityFile {}\n  IdentityAgent none\n  LogLevel ERROR\n  \
             BatchMode yes\n",
            self.file("known_hosts"),
            self.file(key),
        );
        let config = self.file(&format!("config-{key}"));
        std::fs::write(&config, settings).expect("a directory of our own can be written");
        config
    }

    /// Runs one of OpenSSH's programs with the key `key`.
    #[track_caller]
    #[must_use]
    pub fn tool(&self, program: &str, key: &str, arguments: &[&str], input: &[u8]) -> Done {
        let mut command = Command::new(program);
        command.args(["-F", &self.settings(key)]).args(arguments);
        command.current_dir(&self.dir);
        // Twenty megabytes take their time through a program that is not optimised.
        Running::start(command, input).wait(PATIENCE * 3)
    }

    /// Runs `ssh`.
    #[track_caller]
    #[must_use]
    pub fn ssh(&self, key: &str, arguments: &[&str], input: &[u8]) -> Done {
        self.tool("ssh", key, arguments, input)
    }

    /// Runs words at a node, through the relay, with the key `id`.
    #[track_caller]
    #[must_use]
    pub fn at(&self, node: &str, words: &[&str]) -> Done {
        let port = self.port();
        let target = format!("{node}@127.0.0.1");
        let arguments = [&["-p", port.as_str(), target.as_str()], words].concat();
        self.ssh("id", &arguments, b"")
    }

    /// Where a node keeps its files.
    #[must_use]
    pub fn home(&self, host: Host) -> &Path {
        self.processes.home(host).dir()
    }
}
