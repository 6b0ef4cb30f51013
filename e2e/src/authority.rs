//! An authority that gives certificates by ACME: Pebble, which is Let's Encrypt's own for tests, and
//! its DNS server, to which every name is this machine. Both are processes on the loopback interface
//! that end with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::https::Https;
use crate::local::temporary;
use crate::running::Running;
use crate::{PATIENCE, wait_until};

/// A domain that it gives no certificate for.
pub const BLOCKED: &str = "blocked.test";

/// See the module.
pub struct Authority {
    dir: TempDir,
    /// Where it is asked, where it is looked after, and the same of its DNS server.
    ports: [u16; 4],
    running: Mutex<Vec<Running>>,
}

impl Authority {
    /// One that does not run yet.
    ///
    /// # Errors
    ///
    /// When it is not here.
    pub fn new() -> Result<Self, String> {
        for program in ["pebble", "pebble-challtestsrv"] {
            let found = std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
            });
            if !found {
                return Err(format!("{program} is not here"));
            }
        }
        let authority = Self {
            dir: temporary(),
            ports: ports(),
            running: Mutex::default(),
        };
        authority.make_certificate();
        Ok(authority)
    }

    /// Its directory's URL.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.ports[0])
    }

    /// The file with who vouches for the directory itself.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The file with who vouches for what it gives, once it runs. Each time that it starts, that is
    /// somebody else.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path("root.pem")
    }

    /// Starts it: it looks for who has a domain at `port`, and gives certificates that are good for
    /// so many seconds.
    ///
    /// # Panics
    ///
    /// When it does not answer within [`PATIENCE`].
    #[track_caller]
    pub fn start(&self, port: u16, seconds: u32) {
        let [listen, manage, dns, dns_manage] = self.ports;
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{manage}"),
            "certificate": self.path("cert.pem"),
            "privateKey": self.path("key.pem"),
            "httpPort": 1,
            "tlsPort": port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "domainBlocklist": [BLOCKED],
            "certificateValidityPeriod": seconds,
        }});
        std::fs::write(self.path("config.json"), config.to_string()).expect("it can be written");
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-defaultIPv6", ""]);
        names.args(["-management", &format!("127.0.0.1:{dns_manage}")]);
        for door in ["-http01", "-https01", "-tlsalpn01"] {
            names.args([door, ""]);
        }
        let mut pebble = Command::new("pebble");
        pebble
            .arg("-config")
            .arg(self.path("config.json"))
            .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_VA_ALWAYS_VALID", "0");
        let running = [names, pebble].map(|command| Running::start(command, b""));
        let manager = Https::trusting(&self.ca());
        let root = wait_until("the authority runs", PATIENCE, || {
            let answer = manager.get(&format!("127.0.0.1:{manage}"), "127.0.0.1", "/roots/0");
            let answer = answer.map_err(|error| {
                let said = running
                    .iter()
                    .map(|it| it.stdout.text() + &it.stderr.text());
                format!("{error}: {}", said.collect::<String>())
            })?;
            match answer.body.contains("BEGIN CERTIFICATE") {
                true => Ok(answer.body),
                false => Err(answer.body),
            }
        });
        std::fs::write(self.root(), root).expect("it can be written");
        self.lock().extend(running);
    }

    /// Ends it, and what it knew with it.
    pub fn stop(&self) {
        self.lock().clear();
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        let running = self.lock();
        running.iter().map(|it| it.stdout.text()).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the authority's own address, and who vouches for it.
    fn make_certificate(&self) {
        let made = || {
            let mut params = CertificateParams::new(Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate()?;
            let root = params.self_signed(&key)?;
            let issuer = Issuer::new(params, key);
            let key = KeyPair::generate()?;
            let params = CertificateParams::new(["127.0.0.1".to_owned()])?;
            let own = params.signed_by(&key, &issuer)?;
            Ok::<_, rcgen::Error>([root.pem(), own.pem(), key.serialize_pem()])
        };
        let [root, own, key] = made().expect("a certificate can be made");
        for (path, text) in [
            (self.ca(), root),
            (self.path("cert.pem"), own),
            (self.path("key.pem"), key),
        ] {
            write(&path, &text);
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a directory of our own can be written");
}

/// Ports that were free a moment ago, all at once so that they differ.
fn ports() -> [u16; 4] {
    let held = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").expect("there are ports left"));
    held.map(|it| it.local_addr().expect("it is bound").port())
}
