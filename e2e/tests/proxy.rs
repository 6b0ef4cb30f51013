//! Where nobody gets out but by an HTTP proxy, which alone knows where the relay is: everything
//! works as elsewhere.

use e2e::case;
use e2e::cw::Cw;
use e2e::processes::Processes;
use e2e::proxy::Proxy;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// A name that means nothing here.
const URL: &str = "https://relay.test";

#[test]
fn nodes_get_out_by_a_proxy_alone() {
    let processes = Processes::with_tls(CW);
    case(&processes as &dyn Substrate, |substrate| {
        substrate.start_relay();
        let relay = substrate.relay_url();
        let relay = relay.trim_start_matches("https://").parse();
        let proxy = Proxy::start("relay.test:443", relay.expect("the relay is on loopback"));
        let by = |cw: Cw| cw.env("HTTPS_PROXY", proxy.url());
        let (admin, network) = (by(substrate.admin()), substrate.network());
        let _ = admin
            .run(&["network", "create", &network, "--relay-url", URL])
            .ok();
        for host in Host::ALL {
            let invite = admin.ok(&["network", "invite", "--mine", "--relay-url", URL]);
            let _ = by(substrate.cw(host))
                .run(&["network", "join", "--relay-url", URL, invite.trim()])
                .ok();
        }
        steps::wait_until_online(substrate);
        let here = substrate.cw(Host::Dev1);
        steps::launch(&here, "dev-2:coder", &SLEEPER);
        let _ = here.run(&["msg", "dev-2:coder", "out there"]).ok();
        assert_eq!(steps::inbox(&here, "dev-2:coder").len(), 1);
        // Each node has a connection for news and one for packets; the commands had theirs.
        assert!(proxy.tunnels() >= 8, "{} tunnels", proxy.tunnels());
    });
}

#[test]
fn a_proxy_that_makes_no_sense_is_said() {
    let processes = Processes::with_tls(CW);
    case(&processes as &dyn Substrate, |substrate| {
        let admin = substrate.admin().env("HTTPS_PROXY", "socks5://proxy.test");
        admin
            .run(&["network", "create", "alpha", "--relay-url", URL])
            .fails("config_invalid")
            .hints("HTTPS_PROXY");
        let admin = substrate.admin().env("HTTPS_PROXY", "http://127.0.0.1:9");
        admin
            .run(&["network", "create", "alpha", "--relay-url", URL])
            .fails("relay_unreachable");
    });
}
