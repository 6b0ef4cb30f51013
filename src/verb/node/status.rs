//! `cw node status`: how this node looks from outside, and the way to each of the others: by which
//! path, how long, how much is lost, and why it is not direct.
//!
//! The nodes that are online are pinged first, so that what is shown is of now; where a direct path
//! is just being looked for, it is waited for, but not for long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use mesh::io::{Mesh, Nat, Path, PeerStatus};
use mesh::{Mapping, NodeName, Obstacle};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::{LIST_WAIT, milliseconds};
use crate::cli::Cli;
use crate::error::Result;
use crate::node::{Context, Network, no_relay};
use crate::show;
use crate::uplink::PeerView;
use crate::verb::{Call, Reply};

/// How long a search for a direct path is waited for.
const SEARCH_WAIT: Duration = Duration::from_secs(4);
/// How often it is looked whether it is over.
const SEARCH_LOOK: Duration = Duration::from_millis(250);

/// Show how this node reaches the relay and the other nodes, and why not directly.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Status {
    /// Show the way to this node alone.
    #[arg(value_parser = crate::locator::node_name, add = crate::verb::complete::nodes())]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Standing {
    /// The node's name.
    pub name: String,
    /// The release of its program.
    pub release: String,
    /// Its process number.
    pub pid: u32,
    /// Sessions that run.
    pub sessions: u64,
    /// Its network; none if it is in none.
    pub network: Option<InNetwork>,
}

/// What there is in a network.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct InNetwork {
    /// The network.
    pub name: String,
    /// The way to the relay.
    pub relay: RelayWay,
    /// How the node looks from outside.
    pub udp: UdpWay,
    /// The ways to the other nodes, by name.
    pub peers: Vec<PeerWay>,
}

/// The way to the relay.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct RelayWay {
    /// Its URL.
    pub url: String,
    /// Whether it says who there is, at the moment.
    pub connected: bool,
    /// Whether it forwards packets, at the moment.
    pub forwards: bool,
    /// The round trip by the connection for packets, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why it is not connected.
    pub reason: Option<String>,
    /// The relay that says who there is, if it is not the one where the node joined.
    pub instead: Option<String>,
    /// The relay that stands by, if there are several.
    pub standby: Option<StandbyWay>,
}

/// The way to the relay that stands by.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct StandbyWay {
    /// Its URL.
    pub url: String,
    /// Whether it forwards packets, at the moment.
    pub forwards: bool,
}

/// How the node looks from outside.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct UdpWay {
    /// The bound ports: IPv4, IPv6.
    pub ports: Vec<u16>,
    /// The addresses that other nodes are told.
    pub addresses: Vec<String>,
    /// Where the relay's STUN server sees the node.
    pub outside: Option<String>,
    /// The address of a port that the gateway lends, and by which protocol.
    pub mapped: Option<MappedPort>,
    /// `none`, `easy` (one address for all), `hard` (another one for each), `unknown`, `blocked` (the
    /// STUN server does not answer) or `off`.
    pub nat: String,
}

/// A port that the gateway lends to the node.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct MappedPort {
    /// The address that others reach it by.
    pub address: String,
    /// `PCP`, `NAT-PMP` or `UPnP`.
    pub by: String,
}

/// The way to a node.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct PeerWay {
    /// The node.
    pub name: String,
    /// Whether the relay sees it.
    pub online: bool,
    /// `direct`, `relayed` or `none`.
    pub path: String,
    /// Where packets go, if directly.
    pub address: Option<String>,
    /// The round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Which part of the packets was lost since the connection was made, 0 to 1.
    pub loss: Option<f64>,
    /// The size of IP packets that the direct path is known to carry, bytes.
    pub mtu: Option<u64>,
    /// The other node's NAT, as far as it says: `easy`, `hard` or `unknown`.
    pub nat: String,
    /// Seconds since something came from it.
    pub heard_s: Option<f64>,
    /// Why the path is not direct.
    pub why: Option<Why>,
}

/// Why a path is not direct.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Why {
    /// Stable: `offline`, `cut_off`, `udp_off`, `udp_blocked`, `unused`, `no_address`, `searching`,
    /// `both_nats_hard`, `no_answer`.
    pub code: String,
    /// In words.
    pub text: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl Status {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        let standing = match cli.ask(Call::NodeStatus(self)).await? {
            Reply::NodeStanding(standing) => standing,
            other => return Err(other.unexpected()),
        };
        if json {
            return cli.print_json(&standing);
        }
        cli.print(&text(&standing))
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let host = &context.host;
        let network = match host.network() {
            Ok(network) => Some(in_network(&network, self.node.as_deref()).await?),
            Err(error) if error.code == "no_network" && self.node.is_none() => None,
            Err(error) => return Err(error),
        };
        let running = |info: &session::Info| info.status.is_running();
        Ok(Reply::NodeStanding(Box::new(Standing {
            name: host.name(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            sessions: host.sessions.list().iter().filter(|i| running(i)).count() as u64,
            network,
        })))
    }
}

async fn in_network(network: &Network, only: Option<&str>) -> Result<InNetwork> {
    network.exists()?;
    let wanted = only.map(|name| network.peer(name)).transpose()?;
    let view = network.view();
    let peers: BTreeMap<NodeName, PeerView> = match wanted {
        Some(peer) => [(peer.record.name.clone(), peer)].into(),
        None => view.peers.clone(),
    };
    let mut looking = tokio::task::JoinSet::new();
    for (name, peer) in peers {
        looking.spawn(look(network.mesh.clone(), name, peer, network.cut_off()));
    }
    let mut peers = looking.join_all().await;
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let mesh = &network.mesh;
    let (v4, v6) = mesh.udp_ports();
    let nat = mesh.nat();
    // Otherwise it is that of the relay that stands by.
    let rtt = mesh.relay_rtt().filter(|_| mesh.first_connected());
    Ok(InNetwork {
        name: view.network.to_string(),
        relay: RelayWay {
            url: network.relay_url().to_owned(),
            connected: view.connected,
            forwards: mesh.first_connected(),
            rtt_ms: rtt.map(milliseconds),
            reason: view.last_error.clone(),
            instead: network.instead(),
            standby: network.standby().map(|url| StandbyWay {
                url,
                forwards: mesh.standby_connected(),
            }),
        },
        udp: UdpWay {
            ports: v4.into_iter().chain(v6).collect(),
            addresses: mesh.endpoints().iter().map(ToString::to_string).collect(),
            outside: nat.outside.map(|address| address.to_string()),
            mapped: nat.mapped.map(|mapped| MappedPort {
                address: mapped.outside.to_string(),
                by: mapped.by.to_string(),
            }),
            nat: nat_word(&nat).to_owned(),
        },
        peers,
    })
}

/// Pings a node, if it is there, and says how that went.
async fn look(mesh: Mesh, name: NodeName, peer: PeerView, cut_off: Option<String>) -> PeerWay {
    let key = peer.record.key;
    let mut rtt = None;
    if peer.online {
        let until = Instant::now() + SEARCH_WAIT;
        while let Ok(Ok(pong)) = timeout(LIST_WAIT, mesh.ping(&key)).await {
            rtt = Some(pong.rtt);
            let status = mesh.status(&key);
            let searches = status.is_some_and(|s| s.obstacle == Some(Obstacle::Searching));
            if !searches || Instant::now() >= until {
                break;
            }
            sleep(SEARCH_LOOK).await;
        }
    }
    let status = mesh.status(&key);
    let (path, address) = path(status.map(|status| status.path), peer.online);
    // Who answers by a relay that forwards still is reached.
    let cut_off = cut_off.filter(|_| rtt.is_none());
    let rtt = rtt.or_else(|| status?.rtt);
    PeerWay {
        name: name.to_string(),
        online: peer.online,
        path: path.to_owned(),
        address,
        rtt_ms: rtt.map(milliseconds),
        loss: status.and_then(|status| status.loss),
        mtu: status.and_then(|status| status.mtu).map(|mtu| mtu as u64),
        nat: mapping_word(status.map_or(Mapping::Unknown, |status| status.nat)).to_owned(),
        heard_s: status
            .and_then(|status| status.last_heard)
            .map(|at| at.elapsed().as_secs_f64()),
        why: why(status.as_ref(), peer.online, cut_off, &mesh.nat()),
    }
}

/// The relay is the way to those alone that it sees.
fn path(path: Option<Path>, online: bool) -> (&'static str, Option<String>) {
    match path {
        Some(Path::Direct(address)) => ("direct", Some(address.to_string())),
        Some(Path::Relayed) if online => ("relayed", None),
        Some(Path::Relayed | Path::None) | None => ("none", None),
    }
}

fn why(
    status: Option<&PeerStatus>,
    online: bool,
    cut_off: Option<String>,
    nat: &Nat,
) -> Option<Why> {
    let obstacle = status.map_or(Some(Obstacle::Unused), |status| status.obstacle)?;
    if let (Some(cause), true) = (cut_off, obstacle != Obstacle::Off) {
        return Some(Why {
            code: "cut_off".to_owned(),
            hint: Some(remedy(&cause).to_owned()),
            text: no_relay(&cause),
        });
    }
    let (code, text, hint) = match obstacle {
        Obstacle::Off => (
            "udp_off",
            "UDP is switched off on this node",
            Some("set [node] direct = true in config.toml, then: cw node restart"),
        ),
        _ if !online => ("offline", "the relay does not see it", None),
        Obstacle::NoAnswer | Obstacle::Searching if nat.unanswered => (
            "udp_blocked",
            "UDP does not get out of this network: the relay's STUN server does not answer",
            Some("let UDP out and its answers in; everything goes by the relay until then"),
        ),
        Obstacle::Unused => ("unused", "nothing was sent to it lately", None),
        Obstacle::NoAddress => (
            "no_address",
            "it has named no address of its own",
            Some("UDP may be switched off there: 'cw node status' on that machine says so"),
        ),
        Obstacle::Searching => ("searching", "a direct path is being looked for", None),
        Obstacle::BothVary => (
            "both_nats_hard",
            "both nodes are behind NATs that give them another address for each peer",
            Some("forward a UDP port to one of them, and set it as [node] udp_port there"),
        ),
        Obstacle::NoAnswer => (
            "no_answer",
            "no address of it answers a packet of full size",
            Some("a firewall lets no UDP in there, or packets of 1340 bytes do not fit"),
        ),
    };
    Some(Why {
        code: code.to_owned(),
        text: text.to_owned(),
        hint: hint.map(str::to_owned),
    })
}

/// What can be done when the relay is not reached, for this reason.
pub(crate) fn remedy(reason: &str) -> &'static str {
    // The relay's own words, as it sends them to whom it puts out.
    if reason.contains("was revoked") {
        crate::home::NEW_IDENTITY
    } else if reason.contains("was deleted") {
        "join another one with 'cw network join --relay-url <url> <invite>'"
    } else {
        "check the relay's URL and that it is running"
    }
}

pub(super) fn nat_word(nat: &Nat) -> &'static str {
    match nat.mapping {
        _ if !nat.enabled => "off",
        _ if nat.unanswered => "blocked",
        Mapping::Varies => "hard",
        _ if nat.open => "none",
        mapping => mapping_word(mapping),
    }
}

fn mapping_word(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::Unknown => "unknown",
        Mapping::Same => "easy",
        Mapping::Varies => "hard",
    }
}

/// What each word about a NAT means.
fn nat_text(word: &str) -> &'static str {
    match word {
        "none" => "none: the address seen from outside is this machine's own",
        "easy" => "easy: one address for all, so others reach it once it has written to them",
        "hard" => "hard: another address for each peer, so others have to guess its port",
        "blocked" => "unknown: the relay's STUN server does not answer, UDP may be blocked",
        "off" => "unknown: UDP is switched off",
        _ => "unknown: nobody has said yet",
    }
}

fn text(standing: &Standing) -> String {
    let clean = show::clean;
    let mut out = format!(
        "node      {}, release {}, pid {}, {} running\n",
        clean(&standing.name),
        clean(&standing.release),
        standing.pid,
        match standing.sessions {
            1 => "1 session".to_owned(),
            count => format!("{count} sessions"),
        },
    );
    let Some(network) = &standing.network else {
        out += "network   none was joined\n";
        return out;
    };
    let online = network.peers.iter().filter(|peer| peer.online).count();
    out += &format!(
        "network   {}, {online} of {} other nodes online\n",
        clean(&network.name),
        network.peers.len()
    );
    out += &format!(
        "relay     {}, {}\n",
        clean(&network.relay.url),
        relay_text(&network.relay)
    );
    if let Some(standby) = &network.relay.standby {
        let state = match standby.forwards {
            true => "connected",
            false => "not connected",
        };
        out += &format!("standby   {}, {state}\n", clean(&standby.url));
    }
    let ports: Vec<_> = network.udp.ports.iter().map(ToString::to_string).collect();
    out += &match (&network.udp.outside, ports.is_empty()) {
        (_, true) => "udp       off\n".to_owned(),
        (Some(outside), _) => {
            format!(
                "udp       port {}, seen as {}\n",
                ports.join(" and "),
                clean(outside)
            )
        }
        (None, _) => format!("udp       port {}\n", ports.join(" and ")),
    };
    out += &format!("nat       {}\n", nat_text(&network.udp.nat));
    if let Some(MappedPort { address, by }) = &network.udp.mapped {
        out += &format!(
            "mapped    {}, lent by the gateway ({})\n",
            clean(address),
            clean(by)
        );
    }
    if !network.peers.is_empty() {
        out += &format!(
            "\n{:<20} {:<8} {:<30} {:<10} {:<7} {:<5} {:<8} HEARD\n",
            "NAME", "STATUS", "PATH", "RTT", "LOSS", "MTU", "NAT"
        );
    }
    for peer in &network.peers {
        out += &peer_text(peer);
    }
    out
}

fn relay_text(relay: &RelayWay) -> String {
    let rtt = relay.rtt_ms.map(|ms| format!(", round trip {ms:.1} ms"));
    if let Some(instead) = relay.instead.as_deref().filter(|_| relay.connected) {
        return format!("left for {}", show::clean(instead));
    }
    match (relay.connected, relay.forwards) {
        (true, true) => format!("connected{}", rtt.unwrap_or_default()),
        (true, false) => "connected, but it forwards no packets".to_owned(),
        (false, _) => {
            let why = relay.reason.as_deref().map(show::clean);
            format!("not connected: {}", why.as_deref().unwrap_or("not yet"))
        }
    }
}

fn peer_text(peer: &PeerWay) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let path = match &peer.address {
        Some(address) => format!("direct {}", show::clean(address)),
        None if peer.path == "none" => "-".to_owned(),
        None => show::clean(&peer.path),
    };
    let mut out = format!(
        "{:<20} {:<8} {path:<30} {:<10} {:<7} {:<5} {:<8} {}\n",
        show::clean(&peer.name),
        if peer.online { "online" } else { "offline" },
        or_dash(peer.rtt_ms.map(|ms| format!("{ms:.1} ms"))),
        or_dash(peer.loss.map(|loss| format!("{:.1} %", loss * 100.0))),
        or_dash(peer.mtu.map(|mtu| mtu.to_string())),
        show::clean(&peer.nat),
        or_dash(peer.heard_s.map(|seconds| format!("{seconds:.0}s ago"))),
    );
    if let Some(why) = &peer.why {
        out += &format!(
            "    not direct: {} [{}]\n",
            show::clean(&why.text),
            show::clean(&why.code)
        );
        if let Some(hint) = &why.hint {
            out += &format!("    {}\n", show::clean(hint));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAT: Nat = Nat {
        enabled: true,
        outside: None,
        unanswered: false,
        mapping: Mapping::Unknown,
        open: false,
        mapped: None,
    };

    fn status(obstacle: Option<Obstacle>) -> PeerStatus {
        PeerStatus {
            path: Path::Relayed,
            rtt: None,
            last_heard: None,
            loss: None,
            mtu: None,
            nat: Mapping::Unknown,
            obstacle,
        }
    }

    #[test]
    fn each_obstacle_has_its_code() {
        let code = |obstacle, online, nat: &Nat| {
            why(Some(&status(obstacle)), online, None, nat).map(|why| why.code)
        };
        let blocked = Nat {
            unanswered: true,
            ..NAT
        };
        for (obstacle, online, nat, expected) in [
            (Obstacle::Off, false, &NAT, "udp_off"),
            (Obstacle::NoAnswer, false, &NAT, "offline"),
            (Obstacle::NoAnswer, true, &NAT, "no_answer"),
            (Obstacle::NoAnswer, true, &blocked, "udp_blocked"),
            (Obstacle::Unused, true, &blocked, "unused"),
            (Obstacle::NoAddress, true, &NAT, "no_address"),
            (Obstacle::Searching, true, &NAT, "searching"),
            (Obstacle::BothVary, true, &NAT, "both_nats_hard"),
        ] {
            assert_eq!(code(Some(obstacle), online, nat).as_deref(), Some(expected));
        }
        assert_eq!(code(None, true, &NAT), None);
    }

    #[test]
    fn a_node_that_was_put_out_looks_for_no_path() {
        let why = |obstacle| {
            let revoked = Some("this node was revoked".to_owned());
            why(Some(&status(Some(obstacle))), true, revoked, &NAT).unwrap()
        };
        assert_eq!(why(Obstacle::Off).code, "udp_off");
        let why = why(Obstacle::Searching);
        assert_eq!(why.code, "cut_off");
        assert!(why.text.contains("was revoked"), "{}", why.text);
        assert!(why.hint.unwrap().contains("seed"));
    }

    #[test]
    fn what_to_do_follows_the_reason() {
        for (reason, hint) in [
            ("this node was revoked", "seed"),
            ("this network was deleted", "network join"),
            ("the relay is silent", "URL"),
        ] {
            assert!(remedy(reason).contains(hint), "{reason}");
        }
    }

    #[test]
    fn the_relay_is_no_path_to_whom_it_does_not_see() {
        let direct = Path::Direct("192.0.2.1:1".parse().unwrap());
        for (seen, online, expected) in [
            (Some(Path::Relayed), true, "relayed"),
            (Some(Path::Relayed), false, "none"),
            (Some(direct), false, "direct"),
            (None, true, "none"),
        ] {
            assert_eq!(path(seen, online).0, expected, "{seen:?} {online}");
        }
    }

    #[test]
    fn a_nat_is_what_was_seen_of_it() {
        let word = |mapping, open, unanswered| {
            nat_word(&Nat {
                mapping,
                open,
                unanswered,
                ..NAT
            })
        };
        assert_eq!(word(Mapping::Unknown, false, false), "unknown");
        assert_eq!(word(Mapping::Same, false, false), "easy");
        assert_eq!(word(Mapping::Same, true, false), "none");
        assert_eq!(word(Mapping::Varies, true, false), "hard");
        assert_eq!(word(Mapping::Same, false, true), "blocked");
        let off = Nat {
            enabled: false,
            ..NAT
        };
        assert_eq!(nat_word(&off), "off");
    }
}
