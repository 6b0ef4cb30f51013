//! Somebody who is in the network and does not keep to the program: its node claims to be others,
//! calls what is not its own, shows what was not given to it, and says everything twice.

use codewire::locator::Session;
use codewire::verb::deliver::{Deliver, Delivered, Outcome, Parcel};
use codewire::verb::{Call, Reply};
use e2e::cw::Cw;
use e2e::member::{Envelope, Member};
use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{PATIENCE, case, wait_until};
use mesh::NodeRecord;
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

fn processes() -> Processes {
    Processes::new(CW, Way::Relayed)
}

/// An owner's node with a session `planner`, and a member that is a guest.
fn owner_and_member(substrate: &dyn Substrate) -> (Cw, Member, NodeRecord) {
    steps::network(substrate);
    let mine = steps::invite(substrate, &["--mine"]);
    let _ = steps::join(substrate, Host::Dev1, &mine).ok();
    let owner = substrate.cw(Host::Dev1);
    steps::launch(&owner, "planner", &SLEEPER);
    let invite = steps::invite(substrate, &[]);
    let member = Member::join(&substrate.relay_url(), &invite, "mallory");
    let node = member.peer("dev-1");
    steps::wait_for_node(&owner, "mallory", "online", |node| node["online"] == true);
    (owner, member, node)
}

fn number(cw: &Cw, session: &str) -> u32 {
    let number = steps::status(cw, session)["id"].to_string();
    number.parse().expect("the number of a session")
}

fn call(call: Value) -> Call {
    let text = call.to_string();
    serde_json::from_value(call).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn plain(call: Call) -> Envelope {
    (None, None, call)
}

/// With whatever any of them needs.
fn about(kind: &str, session: u32) -> Call {
    call(json!({
        "type": kind.trim_end_matches('+'), "read_only": kind.ends_with('+'),
        "id": session, "to_id": session, "version": 1, "command": ["true"], "working_dir": "/",
        "cols": 80, "rows": 24, "data": "", "tags": ["x"], "body": "x", "new_name": "x",
        "message_id": "x", "request_id": "x", "grace": 0, "timeout_ms": 0, "parcels": [],
        "invite": "x", "method": "GET", "path": "/", "space": "x", "ns": "x", "key": "x",
        "value": "", "namespace": "x", "until_state": "x", "add": [], "remove": [], "to": "x",
        "name": null, "all": false, "queued": false, "tail": 1, "prefix": "", "node": null,
    }))
}

fn parcel(id: &str, from: Option<(u32, &str)>, to: u32, body: &str) -> Parcel {
    Parcel {
        id: id.to_owned(),
        from: from.map(|(id, name)| (id, Some(name.to_owned()))),
        to: Some(Session::Id(to)),
        body: body.to_owned(),
        delivery: "inbox".to_owned(),
        auto: false,
        request_id: None,
        deadline_ms: None,
        misdirected: false,
    }
}

/// `delivered`, or the code of the refusal.
fn deliver(member: &Member, node: &NodeRecord, parcel: Parcel) -> String {
    let parcels = vec![parcel];
    let reply = member.ask(node, &plain(Call::MsgDeliver(Deliver { parcels })));
    let Reply::MsgDelivered(Delivered { outcomes }) = reply else {
        panic!("{reply:?}");
    };
    let [outcome] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    let code = outcome.code.clone();
    code.unwrap_or_else(|| outcome.state.clone())
}

#[test]
fn b03_u01_s24_a_member_gets_at_no_session_of_others() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, member, node) = owner_and_member(substrate);
        let planner = number(&owner, "planner");
        let claims = [
            None,
            Some((7, None)),
            Some((planner, Some("planner".to_owned()))),
        ];
        for kind in [
            "Launch",
            "Attach",
            "Attach+",
            "Logs",
            "SendInput",
            "Kill",
            "KillAll",
            "KillByTags",
            "GetStatus",
            "WatchSession",
            "Wait",
            "Subscribe",
            "Screen",
            "Rename",
            "Tag",
            "MsgRead",
            "MsgListen",
            "KVSet",
            "KVGet",
            "KVDelete",
            "KVList",
            "KVWatch",
            "ListNodes",
            "JoinNetwork",
            "RunErrand",
            "StopNode",
            "RestartNode",
        ] {
            for claim in &claims {
                let envelope = (claim.clone(), None, about(kind, planner));
                assert_eq!(
                    member.refusal(&node, &envelope),
                    "denied",
                    "{kind} {claim:?}"
                );
            }
        }
        assert_eq!(steps::status(&owner, "planner")["status"], "running");
        let list: Value = serde_json::from_str(&owner.ok(&["list", "--json"])).unwrap();
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
        assert!(steps::inbox(&owner, "planner").is_empty());
        // Whoever looks after the node finds out.
        wait_until("it is in the log", PATIENCE, || {
            let log = substrate.node_log(Host::Dev1);
            let told = log.lines().any(|line| {
                line.contains("refused") && line.contains("mallory") && line.contains("denied")
            });
            told.then_some(()).ok_or(log)
        });
    });
}

#[test]
fn b12_b14_u02_a_member_speaks_as_nobody_else() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, member, node) = owner_and_member(substrate);
        steps::launch(&owner, "coder", &SLEEPER);
        let (planner, coder) = (number(&owner, "planner"), number(&owner, "coder"));
        for sender in [
            json!({"from_name": "coder"}),
            json!({"id": coder}),
            json!({"from_name": "coder", "from_node": "dev-1"}),
            json!({"from_name": "coder", "from_node": "dev-2"}),
            json!({"id": 7, "from_node": "mallory"}),
        ] {
            for kind in ["MsgSend", "MsgRequest"] {
                let mut spoofed = sender.clone();
                spoofed["type"] = kind.into();
                spoofed["to_name"] = "planner".into();
                spoofed["body"] = "I am the coder".into();
                let refusal = member.refusal(&node, &plain(call(spoofed)));
                let known = ["sender_forbidden", "session_not_found"];
                assert!(
                    known.contains(&refusal.as_str()),
                    "{kind} {sender}: {refusal}"
                );
            }
        }
        // A call is passed on once, and by the node of who makes it.
        let mut elsewhere = call(json!({"type": "MsgSend", "to_name": "planner", "body": "x"}));
        *elsewhere.node_mut().unwrap() = Some("dev-2".to_owned());
        assert_eq!(member.refusal(&node, &plain(elsewhere)), "bad_request");
        assert!(steps::inbox(&owner, "planner").is_empty());

        // What it vouches for is its own, whatever that is called.
        let id = "msg_AAAAAAAAAAAAAAAAAAAAAA";
        let forged = parcel(id, Some((coder, "coder")), planner, "good day");
        assert_eq!(deliver(&member, &node, forged), "delivered");
        let shown = owner.ok(&["inbox", "planner"]);
        assert!(shown.contains("mallory:coder"), "{shown}");
        for name in ["dev-1:coder", "coder\u{1b}[2J", "", "7"] {
            let forged = parcel("msg_AAAAAAAAAAAAAAAAAAAAAQ", Some((7, name)), planner, "x");
            assert_ne!(deliver(&member, &node, forged), "delivered", "{name:?}");
        }
        // Nor does it type.
        for delivery in ["pty", "both"] {
            let mut typed = parcel("msg_AAAAAAAAAAAAAAAAAAAAAg", None, planner, "rm -r");
            typed.delivery = delivery.to_owned();
            assert_eq!(deliver(&member, &node, typed), "denied", "{delivery}");
        }
        assert_eq!(steps::inbox(&owner, "planner").len(), 1);
    });
}

#[test]
fn b09_s27_a_member_forges_no_place_in_a_group() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, member, node) = owner_and_member(substrate);
        let _ = owner.run(&["group", "create", "mesh"]).ok();
        for name in ["agent-1", "agent-2"] {
            let words = ["launch", "--name", name, "--group", "mesh", "--"];
            let _ = owner.run(&[&words[..], &SLEEPER].concat()).ok();
        }
        let (agent, other) = (number(&owner, "agent-1"), number(&owner, "agent-2"));
        let send = |claim: Option<(u32, Option<String>)>, kind| {
            let body = json!({"type": kind, "to_id": agent, "body": "let me in", "async": true});
            member.refusal(&node, &(claim, None, call(body)))
        };
        wait_until("the node knows of the group", PATIENCE, || {
            let refusal = send(None, "MsgSend");
            (refusal == "group_forbids").then_some(()).ok_or(refusal)
        });
        let before = steps::inbox(&owner, "agent-1").len();
        // The numbers of sessions that are in it, on another node.
        for claim in [
            None,
            Some((other, Some("agent-2".to_owned()))),
            Some((agent, Some("agent-1".to_owned()))),
        ] {
            for kind in ["MsgSend", "MsgRequest"] {
                assert_eq!(
                    send(claim.clone(), kind),
                    "group_forbids",
                    "{kind} {claim:?}"
                );
            }
            let from = claim
                .as_ref()
                .map(|(id, name)| (*id, name.as_deref().unwrap()));
            for id in ["msg_AAAAAAAAAAAAAAAAAAAAAA", "req_AAAAAAAAAAAAAAAAAAAAAA"] {
                let parcel = parcel(id, from, agent, "let me in");
                assert_eq!(
                    deliver(&member, &node, parcel),
                    "group_forbids",
                    "{claim:?}"
                );
            }
        }
        assert_eq!(steps::inbox(&owner, "agent-1").len(), before);

        // Nor does the relay put it in, or make the group another.
        let network = member.network();
        let entry = |node: &str, session: u32| json!({"network_id": network, "node_name": node, "session_id": session});
        let members = "/api/v1/groups/mesh/members";
        let group = format!("/api/v1/groups/mesh?network_id={network}");
        let open = json!({"network_id": network, "messages_policy": "open"});
        for (method, path, body) in [
            ("POST", members, entry("mallory", 1)),
            ("POST", members, entry("dev-1", 1)),
            ("PUT", "/api/v1/groups/mesh/policy", open),
            ("DELETE", &group, Value::Null),
            (
                "POST",
                "/api/v1/groups",
                json!({"network_id": network, "name": "mine"}),
            ),
        ] {
            let (status, answer) = member.request(method, path, &body);
            assert_eq!(status, 403, "{method} {path} {body}: {answer}");
        }
    });
}

#[test]
fn b08_s08_a_grant_is_for_whom_it_was_given_and_as_long() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, member, node) = owner_and_member(substrate);
        steps::launch(&owner, "other", &SLEEPER);
        let guest = steps::invite(substrate, &[]);
        let _ = steps::join(substrate, Host::Dev2, &guest).ok();
        steps::wait_for_node(&owner, "dev-2", "there", |_| true);
        let (planner, other) = (number(&owner, "planner"), number(&owner, "other"));
        let give = |to: &str, ttl: &str| {
            let words = [
                "access", "grant", "planner", "--to", to, "--read", "--for", ttl,
            ];
            let given = owner.ok(&[&words[..], &["--json"]].concat());
            let given: Value = serde_json::from_str(&given).unwrap();
            let part = |name: &str| given[name].as_str().unwrap().to_owned();
            (part("grant_id"), part("delegation"))
        };
        let show = |token: &str, kind: &str, session| {
            member.refusal(&node, &(None, Some(token.to_owned()), about(kind, session)))
        };
        let (of_another, foreign) = give("dev-2", "1h");
        let (short, late) = give("mallory", "1s");
        wait_until("the short one has ended", PATIENCE, || {
            let told = owner.ok(&["access", "inspect", &short]);
            told.contains("expired").then_some(()).ok_or(told)
        });
        let (id, good) = give("mallory", "1h");
        wait_until("the grant is known there", PATIENCE, || {
            let answer = show(&good, "MsgRead", planner);
            answer
                .starts_with("MsgReadResult")
                .then_some(())
                .ok_or(answer)
        });
        // The node has heard of all of them: they come in their order.
        assert_eq!(
            show(&foreign, "MsgRead", planner),
            "denied",
            "of {of_another}"
        );
        assert_eq!(show(&late, "MsgRead", planner), "denied");
        assert_eq!(show(&good, "MsgRead", other), "denied");
        for kind in [
            "MsgListen",
            "Logs",
            "WatchSession",
            "Attach+",
            "Attach",
            "SendInput",
            "Kill",
        ] {
            assert_eq!(show(&good, kind, planner), "denied", "{kind}");
        }
        for at in 0..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let refusal = show(&changed, "MsgRead", planner);
            assert!(
                ["denied", "grant_invalid"].contains(&refusal.as_str()),
                "{at}: {refusal}"
            );
        }
        let _ = owner.run(&["access", "revoke", &id]).ok();
        wait_until("the grant is revoked", PATIENCE, || {
            let answer = show(&good, "MsgRead", planner);
            (answer == "denied").then_some(()).ok_or(answer)
        });
    });
}

#[test]
fn b15_u11_what_a_member_says_again_counts_once() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, member, node) = owner_and_member(substrate);
        let planner = number(&owner, "planner");
        for body in ["once", "once", "another"] {
            let parcel = parcel(
                "msg_AAAAAAAAAAAAAAAAAAAAAA",
                Some((7, "agent")),
                planner,
                body,
            );
            assert_eq!(deliver(&member, &node, parcel), "delivered");
        }
        let bodies: Vec<_> = steps::inbox(&owner, "planner")
            .iter()
            .map(|message| message["body"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(bodies, ["once"]);
    });
}

/// A reply to `request` by the session `by`.
fn reply(node: (&Member, &NodeRecord), id: &str, by: u32, body: &str, request: &str) -> String {
    let mut reply = parcel(id, Some((by, "agent")), 1, body);
    reply.request_id = Some(request.to_owned());
    deliver(node.0, node.1, reply)
}

#[test]
fn b15_u11_a_member_answers_what_it_was_asked_and_once() {
    case(&processes() as &dyn Substrate, |substrate| {
        let (owner, member, node) = owner_and_member(substrate);
        let answer = |id: &str, by, body: &str, request: &str| {
            reply((&member, &node), id, by, body, request)
        };
        let asked = owner.start(&["request", "-f", "planner", "mallory:7", "may I?"]);
        let delivered = Outcome {
            state: "delivered".to_owned(),
            got_by: Some((7, None)),
            ..Outcome::default()
        };
        let call = member.serve(|_| {
            Reply::MsgDelivered(Delivered {
                outcomes: vec![delivered],
            })
        });
        let Call::MsgDeliver(Deliver { parcels }) = call else {
            panic!("{call:?}");
        };
        let (request, first) = (&parcels[0].id, "rpl_AAAAAAAAAAAAAAAAAAAAAA");
        assert_ne!(
            answer("rpl_AAAAAAAAAAAAAAAAAAAAAQ", 8, "no", request),
            "delivered"
        );
        assert_eq!(answer(first, 7, "yes", request), "delivered");
        assert_eq!(
            answer(first, 7, "yes", request),
            "delivered",
            "it may have been lost"
        );
        assert_ne!(
            answer("rpl_AAAAAAAAAAAAAAAAAAAAAg", 7, "no", request),
            "delivered"
        );
        let heard = asked.wait(PATIENCE).ok();
        assert!(heard.stdout.contains("yes"), "{heard}");
        let replies = steps::inbox(&owner, "planner");
        assert!(
            !replies.iter().any(|message| message["body"] == "no"),
            "{replies:?}"
        );

        // Of what somebody else was asked it knows the number, and nothing follows from that.
        steps::launch(&owner, "coder", &SLEEPER);
        let _ = owner
            .run(&["request", "--async", "-f", "planner", "coder", "and you?"])
            .ok();
        let request = steps::wait_for_request(&owner, "coder");
        for by in [7, number(&owner, "coder")] {
            assert_ne!(
                answer("rpl_AAAAAAAAAAAAAAAAAAAAAw", by, "no", &request),
                "delivered"
            );
            let reply = json!({"type": "MsgReply", "request_id": request, "body": "no"});
            let refusal = member.refusal(&node, &(Some((by, None)), None, self::call(reply)));
            assert_eq!(refusal, "denied");
        }
        assert_eq!(
            steps::wait_for_request(&owner, "coder"),
            request,
            "it waits for its answer"
        );
    });
}
