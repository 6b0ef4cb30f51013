//! `config.toml` and the environment, read once into one [`Config`].
//!
//! The environment beats the file, the file beats the default. `relay_url` is accepted at the top
//! level and under `[node]`. Editing keeps what it does not know.

use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::home::{Home, write_private};
use crate::ssh::Doors;

/// What the program is told by its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name that this node has, or asks for when it joins a network.
    pub node_name: String,
    /// The relay.
    pub relay_url: Option<String>,
    /// The selected network.
    pub network: Option<String>,
    /// Whether packets may go directly between nodes; without it everything goes by the relay.
    pub direct: bool,
    /// Whether the gateway is asked for a port, where there is a NAT.
    pub port_mapping: bool,
    /// The UDP port of the mesh; 0 takes any.
    pub udp_port: u16,
    /// Whether an acknowledgement waits for the disk.
    pub sync_always: bool,
    /// Output that is kept of each session, in MiB; none for the usual.
    pub log_mib: Option<u64>,
    /// Finished sessions that are kept; none for the usual.
    pub keep_finished: Option<u64>,
    /// How many days they are kept; none for the usual.
    pub keep_days: Option<u64>,
    /// What the node takes over SSH.
    pub ssh: Doors,
    /// Whether who comes in over SSH may reach ports of this machine's loopback.
    pub ssh_forward: bool,
    /// Whether who comes in over SSH may have files of this machine (`sftp`, `scp`).
    pub ssh_sftp: bool,
    /// What the relay is told for its page.
    pub tells: Tells,
    /// Where WebSocket clients may connect, host:port.
    pub listen: Option<String>,
    /// Where they find it from outside, for `cw server add`.
    pub external_url: Option<String>,
}

/// What a node tells its relay of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Nothing but that it is there.
    Nothing,
    /// Its ways to others.
    Paths,
    /// And its sessions: number, name and whether they run.
    Sessions,
}

/// A setting: its name for people, the variable that sets it, and where the file may have it.
struct Key {
    name: &'static str,
    variable: &'static str,
    places: &'static [&'static str],
    kind: Kind,
}

/// What a value has to be in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    Number,
}

const NODE_NAME: Key = Key::text("node.name", "CODEWIRE_NODE_NAME", &["node.name"]);
const LISTEN: Key = Key::text("node.listen", "CODEWIRE_LISTEN", &["node.listen"]);
const EXTERNAL_URL: Key = Key::text(
    "node.external_url",
    "CODEWIRE_EXTERNAL_URL",
    &["node.external_url"],
);
const RELAY_URL: Key = Key::text(
    "relay_url",
    "CODEWIRE_RELAY_URL",
    &["relay_url", "node.relay_url"],
);
const NETWORK: Key = Key::text(
    "relay_selected_network",
    "CODEWIRE_RELAY_NETWORK",
    &["relay_selected_network", "node.relay_selected_network"],
);
const SYNC: Key = Key::text("node.sync", "CODEWIRE_SYNC", &["node.sync"]);
const DIRECT: Key = Key {
    name: "node.direct",
    variable: "CODEWIRE_DIRECT",
    places: &["node.direct"],
    kind: Kind::Flag,
};
const PORT_MAPPING: Key = Key {
    name: "node.port_mapping",
    variable: "CODEWIRE_PORT_MAPPING",
    places: &["node.port_mapping"],
    kind: Kind::Flag,
};
const UDP_PORT: Key = Key::number("node.udp_port", "CODEWIRE_UDP_PORT", &["node.udp_port"]);

const LOG_MIB: Key = Key::number("node.log_mib", "CODEWIRE_LOG_MIB", &["node.log_mib"]);
const KEEP_FINISHED: Key = Key::number(
    "node.keep_finished",
    "CODEWIRE_KEEP_FINISHED",
    &["node.keep_finished"],
);
const KEEP_DAYS: Key = Key::number(
    "node.keep_finished_days",
    "CODEWIRE_KEEP_FINISHED_DAYS",
    &["node.keep_finished_days"],
);

const SSH: Key = Key::text("node.ssh", "CODEWIRE_SSH", &["node.ssh"]);
const REPORT: Key = Key::text("node.report", "CODEWIRE_REPORT", &["node.report"]);
const SSH_FORWARD: Key = Key {
    name: "node.ssh_forward",
    variable: "CODEWIRE_SSH_FORWARD",
    places: &["node.ssh_forward"],
    kind: Kind::Flag,
};

const SSH_SFTP: Key = Key {
    name: "node.ssh_sftp",
    variable: "CODEWIRE_SSH_SFTP",
    places: &["node.ssh_sftp"],
    kind: Kind::Flag,
};

/// All of them, as `cw doctor` shows them.
const KEYS: [Key; 16] = [
    SSH,
    REPORT,
    SSH_FORWARD,
    SSH_SFTP,
    NODE_NAME,
    LISTEN,
    EXTERNAL_URL,
    RELAY_URL,
    NETWORK,
    DIRECT,
    PORT_MAPPING,
    UDP_PORT,
    SYNC,
    LOG_MIB,
    KEEP_FINISHED,
    KEEP_DAYS,
];

/// What a setting is, and who set it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// As it was written; none for the default.
    pub value: Option<String>,
    /// A variable, a place in the file, or `default`.
    pub source: String,
}

/// Every setting of a node, with where it comes from.
///
/// # Errors
///
/// `config_invalid`.
pub fn settings(home: &Home) -> Result<Vec<Setting>> {
    let table = table(home)?;
    let variable = |name: &str| std::env::var(name).ok();
    KEYS.iter().map(|key| key.look(&table, variable)).collect()
}

/// What stands in the file and is no setting, mostly a slip of the pen.
///
/// # Errors
///
/// `config_invalid`.
pub fn unknown(home: &Home) -> Result<Vec<String>> {
    let known = |place: &str| KEYS.iter().any(|key| key.places.contains(&place));
    let mut strangers = Vec::new();
    for (key, value) in table(home)? {
        match value {
            Value::Table(section) if key == "node" => {
                let places = section.keys().map(|name| format!("node.{name}"));
                strangers.extend(places.filter(|place| !known(place)));
            }
            _ if known(&key) => {}
            _ => strangers.push(key),
        }
    }
    Ok(strangers)
}

impl Key {
    const fn text(
        name: &'static str,
        variable: &'static str,
        places: &'static [&'static str],
    ) -> Self {
        let kind = Kind::Text;
        Self {
            name,
            variable,
            places,
            kind,
        }
    }

    const fn number(
        name: &'static str,
        variable: &'static str,
        places: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            variable,
            places,
            kind: Kind::Number,
        }
    }

    fn look(&self, table: &Table, variable: impl Fn(&str) -> Option<String>) -> Result<Setting> {
        let key = self.name;
        if let Some(value) = variable(self.variable).filter(|value| !value.is_empty()) {
            let source = self.variable.to_owned();
            return Ok(Setting {
                key,
                value: Some(value),
                source,
            });
        }
        for place in self.places {
            let value = match place.split_once('.') {
                Some((section, key)) => match table.get(section) {
                    Some(Value::Table(section)) => section.get(key),
                    Some(_) => return Err(invalid(format!("[{section}] is not a table"))),
                    None => None,
                },
                None => table.get(*place),
            };
            let value = match (value, self.kind) {
                (None, _) => continue,
                (Some(Value::String(text)), Kind::Text) if text.is_empty() => continue,
                (Some(Value::String(text)), Kind::Text) => text.clone(),
                (Some(Value::Boolean(flag)), Kind::Flag) => flag.to_string(),
                (Some(Value::Integer(number)), Kind::Number) => number.to_string(),
                (Some(_), kind) => return Err(invalid(format!("{place} is not {}", kind.name()))),
            };
            let source = format!("config.toml: {place}");
            return Ok(Setting {
                key,
                value: Some(value),
                source,
            });
        }
        let source = "default".to_owned();
        Ok(Setting {
            key,
            value: None,
            source,
        })
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Flag => "true or false",
            Self::Number => "a number",
        }
    }
}

impl Config {
    /// Reads the file, if there is one, and the environment.
    ///
    /// # Errors
    ///
    /// `config_invalid` with the place in the file.
    pub fn load(home: &Home) -> Result<Self> {
        Self::from(&table(home)?, |name| std::env::var(name).ok())
    }

    pub(crate) fn from(table: &Table, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let look = |key: &Key| key.look(table, &variable);
        let name = look(&NODE_NAME)?;
        let node_name = match name.value {
            Some(text) => text
                .parse::<mesh::NodeName>()
                .map(|text| text.to_string())
                .map_err(|error| invalid(format!("{}: {error}", name.source)))?,
            None => host_name(),
        };
        let port = look(&UDP_PORT)?;
        let udp_port = port.value.as_deref().map_or(Ok(0), str::parse);
        let sync = look(&SYNC)?;
        let sync_always = match sync.value.as_deref() {
            Some("always") => true,
            None | Some("group") => false,
            Some(other) => {
                return Err(invalid(format!(
                    "{}: sync is {other:?}; it is \"group\" or \"always\"",
                    sync.source
                )));
            }
        };
        let ssh = look(&SSH)?;
        let doors = match ssh.value.as_deref() {
            None | Some("keys") => Doors::Keys,
            Some("relay") => Doors::Relay,
            Some("off") => Doors::Off,
            Some(other) => {
                return Err(invalid(format!(
                    "{}: ssh is {other:?}; it is \"keys\", \"relay\" or \"off\"",
                    ssh.source
                )));
            }
        };
        let count = |key: &Key, range: std::ops::RangeInclusive<u64>| {
            let setting = look(key)?;
            let parsed = setting.value.as_deref().map(str::parse::<u64>).transpose();
            match parsed {
                Ok(None) => Ok(None),
                Ok(Some(count)) if range.contains(&count) => Ok(Some(count)),
                _ => Err(invalid(format!(
                    "{}: a number from {} to {}",
                    setting.source,
                    range.start(),
                    range.end()
                ))),
            }
        };
        let off = |value: &str| ["0", "off", "false", "no"].contains(&value);
        Ok(Self {
            node_name,
            relay_url: look(&RELAY_URL)?.value,
            network: look(&NETWORK)?.value,
            direct: look(&DIRECT)?.value.is_none_or(|value| !off(&value)),
            port_mapping: look(&PORT_MAPPING)?.value.is_none_or(|value| !off(&value)),
            udp_port: udp_port.map_err(|_| invalid(format!("{}: not a port", port.source)))?,
            sync_always,
            log_mib: count(&LOG_MIB, 1..=1024 * 1024)?,
            keep_finished: count(&KEEP_FINISHED, 1..=1_000_000)?,
            keep_days: count(&KEEP_DAYS, 1..=36_500)?,
            ssh: doors,
            ssh_forward: look(&SSH_FORWARD)?.value.is_some_and(|value| !off(&value)),
            ssh_sftp: look(&SSH_SFTP)?.value.is_some_and(|value| !off(&value)),
            tells: tells(look(&REPORT)?)?,
            listen: look(&LISTEN)?.value,
            external_url: look(&EXTERNAL_URL)?.value,
        })
    }

    /// Changes the file, keeping what is not touched.
    ///
    /// # Errors
    ///
    /// `config_invalid` when the file cannot be read as TOML: it is then left as it is.
    pub fn edit(home: &Home, change: impl FnOnce(&mut Edit)) -> Result<()> {
        let mut edit = Edit {
            table: table(home)?,
        };
        change(&mut edit);
        home.create()?;
        let text = toml::to_string(&edit.table).map_err(Error::internal)?;
        Ok(write_private(&home.config(), text.as_bytes())?)
    }
}

/// The file while it is changed.
pub struct Edit {
    table: Table,
}

impl Edit {
    /// Selects a network.
    pub fn set_network(&mut self, name: &str) {
        self.table.insert(
            "relay_selected_network".to_owned(),
            Value::String(name.to_owned()),
        );
    }

    /// Selects no network.
    pub fn clear_network(&mut self) {
        self.table.remove("relay_selected_network");
        if let Some(Value::Table(node)) = self.table.get_mut("node") {
            node.remove("relay_selected_network");
        }
    }

    /// Remembers the relay.
    pub fn set_relay_url(&mut self, url: &str) {
        self.table
            .insert("relay_url".to_owned(), Value::String(url.to_owned()));
    }
}

fn table(home: &Home) -> Result<Table> {
    match std::fs::read_to_string(home.config()) {
        Ok(text) => text
            .parse()
            .map_err(|error| invalid(format!("{}: {error}", home.config().display()))),
        Err(error) if is_missing(&error) => Ok(Table::new()),
        Err(error) => Err(invalid(format!("{}: {error}", home.config().display()))),
    }
}

/// In what is no directory there is no file either; who needs the directory says what is wrong.
fn is_missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn tells(report: Setting) -> Result<Tells> {
    match report.value.as_deref() {
        None | Some("paths") => Ok(Tells::Paths),
        Some("sessions") => Ok(Tells::Sessions),
        Some("off") => Ok(Tells::Nothing),
        Some(other) => Err(invalid(format!(
            "{}: report is {other:?}; it is \"paths\", \"sessions\" or \"off\"",
            report.source
        ))),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new("config_invalid", message)
}

/// The host's name with what a node's name may not have replaced, else `codewire`.
fn host_name() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let short = host.split('.').next().unwrap_or_default();
    let name: String = short
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    let name = name.trim_start_matches(['-', '_']).to_owned();
    if name.parse::<mesh::NodeName>().is_ok() {
        name
    } else {
        "codewire".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str, variables: &[(&str, &str)]) -> Result<Config> {
        Config::from(&text.parse().unwrap(), |name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_beats_the_file() {
        let file = "relay_url = \"http://file\"\n[node]\nname = \"file\"\n";
        assert_eq!(config(file, &[]).unwrap().node_name, "file");
        let both = config(
            file,
            &[
                ("CODEWIRE_NODE_NAME", "env"),
                ("CODEWIRE_RELAY_URL", "http://env"),
            ],
        )
        .unwrap();
        assert_eq!(
            (both.node_name.as_str(), both.relay_url.as_deref()),
            ("env", Some("http://env"))
        );
    }

    #[test]
    fn the_relay_may_stand_in_either_place() {
        let config = config("[node]\nrelay_url = \"http://x\"\n", &[]).unwrap();
        assert_eq!(config.relay_url.as_deref(), Some("http://x"));
    }

    #[test]
    fn nonsense_is_told() {
        for text in [
            "node = 3",
            "[node]\nname = \"a b\"",
            "[node]\nsync = \"maybe\"",
            "[node]\nudp_port = 70000",
            "relay_url = 1",
            "[node]\nlog_mib = 0",
            "[node]\nkeep_finished = \"many\"",
        ] {
            assert!(config(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_setting_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_path_buf()).unwrap();
        assert_eq!(unknown(&home).unwrap(), [""; 0]);
        let text = "relay_url = \"x\"\nrelay_ulr = \"x\"\n[node]\nname = \"a\"\nnmae = \"b\"\n";
        std::fs::write(home.config(), text).unwrap();
        assert_eq!(unknown(&home).unwrap(), ["node.nmae", "relay_ulr"]);
        let error = config("[node]\nname = \"a b\"", &[]).unwrap_err();
        assert!(
            error.message.starts_with("config.toml: node.name: "),
            "{error}"
        );
    }

    #[test]
    fn an_edit_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_path_buf()).unwrap();
        std::fs::write(home.config(), "future = 1\n").unwrap();
        Config::edit(&home, |edit| edit.set_network("alpha")).unwrap();
        assert!(
            std::fs::read_to_string(home.config())
                .unwrap()
                .contains("future = 1")
        );
        std::fs::write(home.config(), "broken = = 1\n").unwrap();
        assert_eq!(
            Config::edit(&home, |edit| edit.set_network("beta"))
                .unwrap_err()
                .code,
            "config_invalid"
        );
        assert_eq!(
            std::fs::read_to_string(home.config()).unwrap(),
            "broken = = 1\n"
        );
    }
}
