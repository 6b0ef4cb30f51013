//! What somebody on the wire sees of a message and of a terminal: nothing. With a check that the
//! one who listens is not deaf.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use e2e::capture::Capture;
use e2e::namespaces::inside;
use e2e::netns::Netns;
use e2e::steps::{self, ECHO};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Nothing else on any wire looks like these.
const BODY: &str = "marked-body-5c1f7e";
const TYPED: &str = "marked-typed-a93b20";
const PLAIN: &str = "marked-plain-70de44";

#[test]
fn netns_direct_shows_nothing() {
    shows_nothing(Way::Direct);
}

#[test]
fn netns_relayed_shows_nothing() {
    shows_nothing(Way::Relayed);
}

fn shows_nothing(way: Way) {
    let Some(substrate) = Netns::or_skip(CW, way) else {
        return;
    };
    let namespaces = substrate.namespaces();
    case(&substrate as &dyn Substrate, |substrate| {
        // From before the first packet: invites and keys go by the same wires.
        let captures = namespaces
            .each_ref()
            .map(|namespace| Capture::start(namespace));
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        let here = substrate.cw(Host::Dev1);
        steps::launch(&here, "dev-2:coder", &ECHO);
        wait_until("packets take their way", PATIENCE, || {
            let pong = here.run(&["node", "ping", "dev-2"]);
            if pong.stdout.contains(way.word()) {
                Ok(())
            } else {
                Err(pong.to_string())
            }
        });
        let before = captures.each_ref().map(Capture::len);
        let _ = here.run(&["msg", "dev-2:coder", BODY]).ok();
        let _ = here.run(&["send", "dev-2:coder", TYPED]).ok();
        steps::wait_for_output(&here, "dev-2:coder", &format!("got:{TYPED}"));
        assert_eq!(steps::inbox(&here, "dev-2:coder")[0]["body"], BODY);

        // A plain connection from one node to the relay, on the same wire, is heard by both.
        say_in_the_clear(&namespaces[0], &namespaces[1], substrate);
        let [relay, first, second] = &captures;
        for capture in [relay, first] {
            wait_until("the capture hears", PATIENCE, || {
                if capture.has(PLAIN.as_bytes()) {
                    Ok(())
                } else {
                    Err(format!("{} bytes", capture.len()))
                }
            });
        }
        for (capture, before) in captures.iter().zip(before) {
            for mark in [BODY, TYPED] {
                assert!(!capture.has(mark.as_bytes()), "{mark} was on the wire");
            }
            assert!(capture.len() > before, "nothing was on the wire");
        }
        assert!(!second.has(PLAIN.as_bytes()), "the wires are not apart");
    });
}

/// Sends a mark over plain TCP from `client` to `server`, two namespaces.
#[track_caller]
fn say_in_the_clear(server: &str, client: &str, substrate: &dyn Substrate) {
    let url = substrate.relay_url();
    let host = url
        .trim_start_matches("http://")
        .split(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let listener = inside(server, || TcpListener::bind((host.as_str(), 0)));
    let listener = listener.expect("a relay has an address");
    let address = listener.local_addr().expect("a listener has an address");
    let said = inside(client, || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.write_all(PLAIN.as_bytes())
    });
    assert!(said.is_ok(), "{said:?}");
    let (mut stream, _) = listener.accept().expect("it has connected");
    let mut heard = String::new();
    let read = stream.read_to_string(&mut heard);
    assert!(read.is_ok() && heard == PLAIN, "{read:?} {heard}");
}
