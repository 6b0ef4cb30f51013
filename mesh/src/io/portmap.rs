//! Asks the gateway for a port, as `crate::portmap` decides: by PCP or NAT-PMP
//! where it is known which gateway that is, else by UPnP, which finds one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{GatewayIpVersion, PortMappingProtocol, SearchOptions};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::node::Node;
use super::platform;
use super::timers::sleep_until;
use super::udp::Family;
use crate::portmap::{Action, Keeper, LEASE, Mapped, Protocol};

/// What a gateway's list of ports says of ours.
const NAME: &str = "cw";
/// A gateway that has not answered a datagram by then has lost it, or is none.
const ANSWER: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_millis(500)),
};
/// How long a search by UPnP may take.
const SEARCH: Duration = Duration::from_secs(3);
/// How long UPnP may take in all: some requests by HTTP.
const UPNP_WITHIN: Duration = Duration::from_secs(10);
/// How long giving a port back may take.
const GIVE_BACK_WITHIN: Duration = Duration::from_millis(500);

/// The port, and who has lent it.
#[derive(Default)]
pub(super) struct Mapper {
    keeper: Mutex<Keeper>,
    lender: tokio::sync::Mutex<Option<Lender>>,
    changed: Notify,
}

enum Lender {
    /// PCP or NAT-PMP.
    Datagrams(PortMapping),
    Upnp(Box<Gateway<Tokio>>, SocketAddr, u16),
}

impl Lender {
    /// Gives the port back; waits for a moment. What the gateway does not get back,
    /// it takes when the lease is over.
    async fn give_back(self) {
        let giving = async {
            match self {
                Self::Datagrams(mapping) => {
                    let dropped = mapping.try_drop().await;
                    dropped.map_err(|(error, _)| error.to_string())
                }
                Self::Upnp(gateway, _, port) => {
                    let removed = gateway.remove_port(PortMappingProtocol::UDP, port).await;
                    removed.map_err(|error| error.to_string())
                }
            }
        };
        if let Ok(Err(error)) = timeout(GIVE_BACK_WITHIN, giving).await {
            tracing::debug!(error, "the gateway keeps the port");
        }
    }
}

impl Mapper {
    /// Whether there is a NAT in front of us.
    pub(super) fn set_wanted(&self, wanted: bool) {
        if self.keeper.lock().set_wanted(wanted, Instant::now()) {
            self.changed.notify_one();
        }
    }

    /// The machine has other addresses now, or has slept.
    pub(super) fn handle_move(&self) {
        self.keeper.lock().handle_move(Instant::now());
        self.changed.notify_one();
    }

    /// What is lent to us.
    pub(super) fn mapped(&self) -> Option<Mapped> {
        self.keeper.lock().mapped()
    }

    /// Gives the port back, if there is one; waits for a moment.
    pub(super) async fn give_back(&self) {
        let giving = async {
            if let Some(lender) = self.lender.lock().await.take() {
                lender.give_back().await;
            }
        };
        let _ = timeout(GIVE_BACK_WITHIN, giving).await;
    }

    async fn act(&self, action: Action, port: NonZeroU16) {
        let mut lender = self.lender.lock().await;
        let granted = match (action, lender.take()) {
            (Action::Renew, Some(held)) => renew(held).await,
            (_, held) => {
                // A new question is for another port, as long as this one is lent.
                if let Some(held) = held {
                    held.give_back().await;
                }
                ask(port).await
            }
        };
        let now = Instant::now();
        let mut keeper = self.keeper.lock();
        match granted {
            Ok((mapped, lease, held)) => {
                if keeper.mapped() != Some(mapped) {
                    tracing::info!(outside = %mapped.outside, by = %mapped.by, "the gateway lends a port");
                }
                *lender = Some(held);
                keeper.handle_granted(mapped, lease, now);
            }
            Err((why, held)) => {
                tracing::debug!(why, "no port of a gateway");
                *lender = held;
                keeper.handle_refused(now);
            }
        }
    }
}

impl Node {
    /// Keeps a port of the gateway, until the task is aborted.
    pub(super) async fn run_portmap(self: Arc<Self>) {
        let port = self.udp.as_ref().and_then(|udp| udp.port(Family::V4));
        let Some(port) = port.and_then(NonZeroU16::new) else {
            return;
        };
        loop {
            let action = self.mapper.keeper.lock().handle_timeout(Instant::now());
            if let Some(action) = action {
                self.mapper.act(action, port).await;
                self.refresh_endpoints();
                continue;
            }
            let due = self.mapper.keeper.lock().poll_timeout();
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.mapper.changed.notified() => self.refresh_endpoints(),
            }
        }
    }
}

type Granted = Result<(Mapped, Duration, Lender), (String, Option<Lender>)>;

async fn ask(port: NonZeroU16) -> Granted {
    let mut why = "no gateway is known".to_owned();
    if let Some(gateway) = platform::gateway()
        && let Some(local) = address_towards(gateway).await
    {
        match ask_by_datagrams(gateway, local, port).await {
            Ok(mapping) => return tell(mapping).await,
            Err(error) => why = error,
        }
    }
    match timeout(UPNP_WITHIN, ask_by_upnp(port)).await {
        Ok(Ok(granted)) => Ok(granted),
        Ok(Err(error)) => Err((format!("{why}; UPnP: {error}"), None)),
        Err(_) => Err((format!("{why}; UPnP is too slow"), None)),
    }
}

async fn ask_by_datagrams(
    gateway: Ipv4Addr,
    local: Ipv4Addr,
    port: NonZeroU16,
) -> Result<PortMapping, String> {
    let options = PortMappingOptions {
        // The same outside, if it is free: then it is easy to recognise.
        external_port: Some(port),
        lifetime_seconds: u32::try_from(LEASE.as_secs()).ok(),
        timeout_config: Some(ANSWER),
    };
    let (gateway, udp) = (GatewayAddress::from(gateway), InternetProtocol::Udp);
    let first = PortMapping::new(gateway, local.into(), udp, port, options).await;
    match first {
        Ok(mapping) => Ok(mapping),
        // One that knows no PCP may well not say so.
        Err(first) => {
            let second = natpmp::port_mapping(gateway, udp, port, options).await;
            second.map_err(|second| format!("{first}; {second}"))
        }
    }
}

/// Finds out what a port is to others.
async fn tell(mapping: PortMapping) -> Granted {
    let (by, ip) = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => (Protocol::Pcp, external_ip),
        PortMappingType::NatPmp => {
            match natpmp::external_address(mapping.gateway(), Some(ANSWER)).await {
                Ok(ip) => (Protocol::NatPmp, IpAddr::V4(ip)),
                Err(error) => {
                    return Err((error.to_string(), Some(Lender::Datagrams(mapping))));
                }
            }
        }
    };
    let port = mapping.external_port().get();
    // One that lends for ever may forget it when it starts again.
    let lease = Duration::from_secs(mapping.lifetime().into()).min(LEASE);
    let lender = Lender::Datagrams(mapping);
    match from_outside(ip) {
        Ok(ip) => Ok((
            Mapped {
                outside: SocketAddr::new(ip, port),
                by,
            },
            lease,
            lender,
        )),
        Err(why) => Err((why, Some(lender))),
    }
}

/// The address of a gateway, if others can reach it there. One behind another NAT
/// lends what leads nowhere.
fn from_outside(ip: IpAddr) -> Result<IpAddr, String> {
    let IpAddr::V4(v4) = ip.to_canonical() else {
        return Err(format!("a gateway at {ip}"));
    };
    // RFC 6598: what providers have behind their own NAT.
    let [first, second, ..] = v4.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    let is_inner = is_shared
        || v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_unspecified()
        || v4.is_broadcast()
        || v4.is_multicast();
    match is_inner {
        true => Err(format!("a gateway at {ip}, which others cannot reach")),
        false => Ok(v4.into()),
    }
}

async fn ask_by_upnp(port: NonZeroU16) -> Result<(Mapped, Duration, Lender), String> {
    let mut options = SearchOptions::default();
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    options.gateway_ip_version = GatewayIpVersion::V4;
    let gateway = search_gateway(options).await.map_err(|e| e.to_string())?;
    let IpAddr::V4(at) = gateway.addr.ip() else {
        return Err("a gateway without IPv4".to_owned());
    };
    let local = address_towards(at).await.ok_or("no address of our own")?;
    let local = SocketAddr::from((local, port.get()));
    let outside = lend_by_upnp(&gateway, local, None).await?;
    let lender = Lender::Upnp(Box::new(gateway), local, outside.port());
    let by = Protocol::Upnp;
    Ok((Mapped { outside, by }, LEASE, lender))
}

/// Asks for a port, the same as before or as inside, or any.
async fn lend_by_upnp(
    gateway: &Gateway<Tokio>,
    local: SocketAddr,
    before: Option<u16>,
) -> Result<SocketAddr, String> {
    let (udp, lease) = (PortMappingProtocol::UDP, LEASE.as_secs() as u32);
    let ip = gateway.get_external_ip().await;
    let ip = from_outside(ip.map_err(|error| error.to_string())?)?;
    let wanted = before.unwrap_or_else(|| local.port());
    if gateway
        .add_port(udp, wanted, local, lease, NAME)
        .await
        .is_ok()
    {
        return Ok(SocketAddr::new(ip, wanted));
    }
    let port = gateway.add_any_port(udp, local, lease, NAME).await;
    let port = port.map_err(|error| error.to_string())?;
    Ok(SocketAddr::new(ip, port))
}

async fn renew(held: Lender) -> Granted {
    match held {
        Lender::Datagrams(mut mapping) => match mapping.renew().await {
            Ok(()) => tell(mapping).await,
            Err(error) => Err((error.to_string(), Some(Lender::Datagrams(mapping)))),
        },
        Lender::Upnp(gateway, local, port) => {
            let lending = lend_by_upnp(&gateway, local, Some(port));
            let lent = timeout(UPNP_WITHIN, lending).await;
            match lent.unwrap_or_else(|_| Err("UPnP is too slow".to_owned())) {
                Ok(outside) => {
                    let by = Protocol::Upnp;
                    let lender = Lender::Upnp(gateway, local, outside.port());
                    Ok((Mapped { outside, by }, LEASE, lender))
                }
                Err(error) => Err((error, Some(Lender::Upnp(gateway, local, port)))),
            }
        }
    }
}

/// The address with which this machine talks to another.
async fn address_towards(other: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    // Nothing is sent by that.
    socket.connect((other, 9)).await.ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_behind_another_nat_lends_nothing() {
        let inner = [
            "10.0.0.1",
            "192.168.0.7",
            "172.16.9.9",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "fe80::1",
            "::ffff:10.0.0.1",
        ];
        for ip in inner {
            assert!(from_outside(ip.parse().unwrap()).is_err(), "{ip}");
        }
        for ip in ["11.77.0.1", "100.128.0.1", "::ffff:8.8.8.8"] {
            assert!(from_outside(ip.parse().unwrap()).is_ok(), "{ip}");
        }
    }
}
