//! A connection between nodes that is lost while the tunnel is up. The next call resumes it: one that
//! only reads goes out with the first packet (0-RTT), any other waits for the end of the handshake.

use codewire::verb::deliver::{Deliver, Delivered, Outcome};
use codewire::verb::list::SessionList;
use codewire::verb::{Call, Reply};
use e2e::cw::Cw;
use e2e::member::Member;
use e2e::processes::Processes;
use e2e::steps;
use e2e::substrate::{Host, Substrate};
use e2e::{PATIENCE, case, wait_until};
use mesh::NodeRecord;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// What the node says when it knows that a connection has ended, and when a call is made again.
const OVER: &str = "a connection is over";
const AGAIN: &str = "it is made again";

/// A node, and a member of its network that answers what the test likes.
struct Pair<'a> {
    substrate: &'a dyn Substrate,
    near: Cw,
    member: Member,
    node: NodeRecord,
}

impl<'a> Pair<'a> {
    fn new(substrate: &'a dyn Substrate) -> Self {
        steps::network(substrate);
        let mine = steps::invite(substrate, &["--mine"]);
        let _ = steps::join(substrate, Host::Dev1, &mine).ok();
        let near = substrate.cw(Host::Dev1);
        let invite = steps::invite(substrate, &["--mine"]);
        let member = Member::join(&substrate.relay_url(), &invite, "far");
        let node = member.peer("dev-1");
        steps::wait_for_node(&near, "far", "online", |node| node["online"] == true);
        Self {
            substrate,
            near,
            member,
            node,
        }
    }

    fn said(&self, what: &str) -> usize {
        self.substrate.node_log(Host::Dev1).matches(what).count()
    }

    /// Asks which sessions there are, and says whether the question came early. It is the next that
    /// the member hears.
    fn list(&self) -> bool {
        let list = self.near.start(&["list", "far", "--json"]);
        let (call, early) = self.member.serve_and_tell(|_| {
            let sessions = Vec::new();
            Reply::SessionList(SessionList { sessions })
        });
        assert!(matches!(call, Call::ListSessions(_)), "{call:?}");
        assert_eq!(list.wait(PATIENCE).ok().stdout.trim(), "[]");
        early
    }

    /// Sends a message, and says whether it came early.
    fn msg(&self, body: &str) -> bool {
        let msg = self.near.start(&["msg", "far:7", body]);
        let delivered = Outcome {
            state: "delivered".to_owned(),
            got_by: Some((7, None)),
            ..Outcome::default()
        };
        let (call, early) = self.member.serve_and_tell(|_| {
            let outcomes = vec![delivered];
            Reply::MsgDelivered(Delivered { outcomes })
        });
        let Call::MsgDeliver(Deliver { parcels }) = call else {
            panic!("{call:?}");
        };
        assert!(parcels.len() == 1 && parcels[0].body == body, "{parcels:?}");
        let _ = msg.wait(PATIENCE).ok();
        early
    }

    /// Ends the connection, until the node knows.
    fn lose(&self) {
        let before = self.said(OVER);
        wait_until("the connection is over", PATIENCE, || {
            // One that is used already may only be about to be counted among them.
            self.member.drop_connections(&self.node);
            (self.said(OVER) > before)
                .then_some(())
                .ok_or(String::new())
        });
    }
}

#[test]
fn what_only_reads_goes_out_with_the_first_packet() {
    case(&Processes::traced(CW) as &dyn Substrate, |substrate| {
        let pair = Pair::new(substrate);
        assert!(!pair.list(), "there is nothing to resume");
        // Whether it is early depends on who is faster, the call or the handshake.
        wait_until("an early call", PATIENCE, || {
            pair.lose();
            pair.list().then_some(()).ok_or(String::new())
        });
    });
}

#[test]
fn a_message_is_not_early_and_comes_once() {
    case(&Processes::traced(CW) as &dyn Substrate, |substrate| {
        let pair = Pair::new(substrate);
        for round in 0..5 {
            // Leaves a ticket; and nothing of the message before comes once more.
            let _ = pair.list();
            pair.lose();
            assert!(!pair.msg(&format!("message {round}")));
        }
        let _ = pair.list();
        assert_eq!(pair.said(AGAIN), 0);
    });
}

#[test]
fn an_early_call_that_is_refused_is_made_again() {
    case(&Processes::traced(CW) as &dyn Substrate, |substrate| {
        let pair = Pair::new(substrate);
        wait_until("a call that is made again", PATIENCE, || {
            let _ = pair.list();
            pair.lose();
            pair.member.forget_tickets();
            assert!(!pair.list());
            (pair.said(AGAIN) > 0).then_some(()).ok_or(String::new())
        });
    });
}
