//! `config.toml` and the environment, read once into one [`Config`].
//!
//! The environment beats the file, the file beats the default. `relay_url` is accepted at the top
//! level and under `[node]`. Editing keeps what it does not know.

use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::home::{Home, write_private};

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
    /// The UDP port of the mesh; 0 takes any.
    pub udp_port: u16,
    /// Whether an acknowledgement waits for the disk.
    pub sync_always: bool,
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

    fn from(table: &Table, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let node = match table.get("node") {
            Some(Value::Table(node)) => node.clone(),
            Some(_) => return Err(invalid("[node] is not a table")),
            None => Table::new(),
        };
        let text = |table: &Table, key: &str| match table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(invalid(format!("{key} is not a string"))),
        };
        let environment = |name: &str| variable(name).filter(|value| !value.is_empty());
        let node_name = match environment("CODEWIRE_NODE_NAME").or(text(&node, "name")?) {
            Some(name) => name
                .parse::<mesh::NodeName>()
                .map(|name| name.to_string())?,
            None => host_name(),
        };
        let udp_port = match environment("CODEWIRE_UDP_PORT") {
            Some(port) => port
                .parse()
                .map_err(|_| invalid(format!("CODEWIRE_UDP_PORT {port:?} is not a port")))?,
            None => node
                .get("udp_port")
                .and_then(Value::as_integer)
                .map_or(Ok(0), u16::try_from)
                .map_err(|_| invalid("udp_port is not a port"))?,
        };
        let sync = match text(&node, "sync")?.as_deref() {
            Some("always") => true,
            None | Some("group") => false,
            Some(other) => {
                return Err(invalid(format!(
                    "sync = {other:?}; it is \"group\" or \"always\""
                )));
            }
        };
        Ok(Self {
            node_name,
            relay_url: environment("CODEWIRE_RELAY_URL")
                .or(text(table, "relay_url")?)
                .or(text(&node, "relay_url")?),
            network: environment("CODEWIRE_RELAY_NETWORK")
                .or(text(table, "relay_selected_network")?),
            direct: environment("CODEWIRE_DIRECT").map_or_else(
                || node.get("direct").and_then(Value::as_bool).unwrap_or(true),
                |value| !["0", "off", "false", "no"].contains(&value.as_str()),
            ),
            udp_port,
            sync_always: sync,
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Table::new()),
        Err(error) => Err(invalid(format!("{}: {error}", home.config().display()))),
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
        ] {
            assert!(config(text, &[]).is_err(), "{text}");
        }
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
