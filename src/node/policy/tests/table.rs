//! All verbs times all kinds of callers times how they stand to the session, at all times: who
//! may, computed by the policy from papers, and by a second, dumber account of the rules.
//!
//! The verbs come from [`Call`] itself: one that is added does not compile until it has its rows.

use session::{Name, SessionId};

use crate::node::policy::*;
use crate::paper::{Joining, Member};
use crate::verb::Call;

const NOW: u64 = 1_800_000_000;
const HOME: NodeKey = NodeKey::from_bytes([1; 32]);
const SISTER: NodeKey = NodeKey::from_bytes([2; 32]);
const STRANGER: NodeKey = NodeKey::from_bytes([3; 32]);

/// The session that each call is about.
const TARGET: u32 = 1;

/// What a verb is, for the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Greet,
    List,
    Manage,
    Launch,
    Look,
    Write,
    Inbox,
    Listen,
    Share,
    Network,
    Rule,
}

/// The rows of each verb, and the verb after it.
fn row(call: &Call) -> (Class, Option<&'static str>) {
    use Class::{Greet, Inbox, Launch, List, Listen, Look, Manage, Network, Rule, Share, Write};
    match call {
        Call::Hello(_) => (Greet, Some("Launch")),
        Call::Launch(_) => (Launch, Some("ListSessions")),
        Call::ListSessions(_) => (List, Some("Attach")),
        Call::Attach(call) if call.read_only => (Look, Some("Detach")),
        Call::Attach(_) => (Manage, Some("Attach+")),
        Call::Detach => (Greet, Some("Resize")),
        Call::Resize(_) => (Greet, Some("Logs")),
        Call::Logs(_) => (Look, Some("SendInput")),
        Call::SendInput(_) => (Manage, Some("Kill")),
        Call::Kill(_) => (Manage, Some("KillAll")),
        // These do it to each session that they may.
        Call::KillAll(_) => (Launch, Some("KillByTags")),
        Call::KillByTags(_) => (Launch, Some("GetStatus")),
        Call::GetStatus(_) => (Look, Some("WatchSession")),
        Call::WatchSession(_) => (Look, Some("Wait")),
        Call::Wait(_) => (Look, Some("Subscribe")),
        Call::Subscribe(_) => (Look, Some("Unsubscribe")),
        Call::Unsubscribe => (Greet, Some("Screen")),
        Call::Screen(_) => (Look, Some("Rename")),
        Call::Rename(_) => (Manage, Some("Tag")),
        Call::Tag(_) => (Manage, Some("MsgSend")),
        Call::MsgSend(_) => (Write, Some("MsgRead")),
        Call::MsgRead(_) => (Inbox, Some("MsgRequest")),
        Call::MsgRequest(_) => (Write, Some("MsgReply")),
        Call::MsgReply(_) => (Write, Some("MsgListen")),
        Call::MsgListen(_) => (Listen, Some("MsgResume")),
        Call::MsgResume(_) => (Write, Some("MsgOutbox")),
        Call::MsgOutbox(_) => (Network, Some("MsgProgress")),
        Call::MsgProgress(_) => (Write, Some("MsgDeliver")),
        Call::MsgDeliver(_) => (Write, Some("KVSet")),
        Call::KvSet(_) => (Share, Some("KVGet")),
        Call::KvGet(_) => (Share, Some("KVDelete")),
        Call::KvDelete(_) => (Share, Some("KVList")),
        Call::KvList(_) => (Share, Some("KVWatch")),
        Call::KvWatch(_) => (Share, Some("ListNodes")),
        Call::ListNodes(_) => (Network, Some("PingNode")),
        Call::PingNode(_) => (Network, Some("JoinNetwork")),
        Call::JoinNetwork(_) => (Rule, Some("RunErrand")),
        Call::RunErrand(_) => (Rule, Some("StopNode")),
        Call::StopNode(_) => (Rule, Some("RestartNode")),
        Call::RestartNode(_) => (Rule, Some("LendTerminal")),
        Call::LendTerminal => (Greet, Some("NodeStatus")),
        Call::NodeStatus(_) => (Network, Some("NodeMetrics")),
        Call::NodeMetrics(_) => (Network, None),
    }
}

/// A call of this type about the target, with whatever any of them needs.
fn sample(name: &str) -> Call {
    let read_only = name.ends_with('+');
    let call = serde_json::json!({
        "type": name.trim_end_matches('+'),
        "id": TARGET, "to_id": TARGET, "read_only": read_only,
        "version": 1, "command": ["x"], "cols": 1, "rows": 1, "data": "", "tags": ["x"],
        "body": "x", "new_name": "x", "message_id": "x", "request_id": "x",
        "grace": 0, "timeout_ms": 0, "parcels": [], "node": null, "invite": "x", "method": "GET",
        "path": "/", "space": "x", "ns": "x", "key": "x", "value": "", "namespace": "x",
        "until_state": "x", "add": [], "remove": [], "to": "x", "name": null, "all": false,
        "queued": false, "tail": 1, "prefix": "",
    });
    let mut call = call;
    if name == "MsgOutbox" {
        call["session"] = "x".into();
    }
    if name == "MsgProgress" {
        call["until"] = "".into();
        call["session"] = TARGET.into();
    }
    if name == "PingNode" || name == "NodeStatus" {
        call["node"] = "dev-2".into();
    }
    serde_json::from_value(call).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every verb that can be called is among the rows, not only written down.
#[test]
fn no_verb_is_without_its_row() {
    let none = serde_json::json!({ "type": "no such verb" });
    let error = serde_json::from_value::<Call>(none)
        .unwrap_err()
        .to_string();
    let (_, known) = error.split_once("expected one of").unwrap();
    let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
    assert!(known.len() > 30, "{error}");
    let rows: Vec<_> = verbs().into_iter().map(|(name, _, _)| name).collect();
    for name in known {
        assert!(rows.iter().any(|row| row == name), "{name} has no row");
    }
}

fn verbs() -> Vec<(String, Class, Call)> {
    let mut next = Some("Hello");
    let mut verbs = Vec::new();
    while let Some(name) = next {
        let call = sample(name);
        let (class, after) = row(&call);
        verbs.push((name.to_owned(), class, call));
        next = after;
    }
    verbs
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Owner,
    /// The target itself.
    Itself,
    /// Another session here.
    Neighbour,
    /// The owner, from another of its nodes.
    Sister,
    /// A session on it.
    SisterSession,
    /// Somebody else's node.
    Foreigner,
    /// A session on it.
    ForeignSession,
}

const WHO: [Who; 7] = [
    Who::Owner,
    Who::Itself,
    Who::Neighbour,
    Who::Sister,
    Who::SisterSession,
    Who::Foreigner,
    Who::ForeignSession,
];

impl Who {
    fn caller(self) -> Caller {
        let peer = |key, session: Option<u32>| Caller::Peer {
            node: if key == SISTER { "dev-2" } else { "dev-3" }.into(),
            key,
            owner: if key == SISTER { "ann" } else { "bob" }.into(),
            same_owner: key == SISTER,
            session: session.map(|id| (SessionId(id), None::<Name>)),
        };
        match self {
            Self::Owner => Caller::Owner,
            Self::Itself => Caller::Session(SessionId(TARGET), None),
            Self::Neighbour => Caller::Session(SessionId(2), None),
            Self::Sister => peer(SISTER, None),
            Self::SisterSession => peer(SISTER, Some(5)),
            Self::Foreigner => peer(STRANGER, None),
            Self::ForeignSession => peer(STRANGER, Some(7)),
        }
    }

    fn acting(self) -> Party {
        match self.caller() {
            Caller::Owner => Party::owner(),
            Caller::Session(id, name) => Party::local(id, name),
            Caller::Peer { node, session, .. } => Party {
                node: Some(node),
                session,
            },
        }
    }

    /// The seat that its session has in a group.
    const fn seat(self) -> Option<(NodeKey, u32)> {
        match self {
            Self::Owner | Self::Sister | Self::Foreigner => None,
            Self::Itself => Some((HOME, TARGET)),
            Self::Neighbour => Some((HOME, 2)),
            Self::SisterSession => Some((SISTER, 5)),
            Self::ForeignSession => Some((STRANGER, 7)),
        }
    }
}

/// By which door it comes in. Whoever has passed one is judged as who it is there, so a door is a
/// way to be somebody: over the WebSocket one is the owner, who alone has its token; on the socket
/// the kernel tells the owner from the sessions; the mesh knows only nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Socket,
    WebSocket,
    Mesh,
}

impl Who {
    const fn doors(self) -> &'static [Door] {
        match self {
            Self::Owner => &[Door::Socket, Door::WebSocket],
            Self::Itself | Self::Neighbour => &[Door::Socket],
            Self::Sister | Self::SisterSession | Self::Foreigner | Self::ForeignSession => {
                &[Door::Mesh]
            }
        }
    }
}

/// How it stands to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// Nothing stands between them.
    Plain,
    /// Both are in a group.
    SameGroup,
    /// The target alone is in one, of these rules.
    Outside(Messages, Debug),
    /// The target is in two: an open one and a closed one.
    OutsideTwo,
    /// The caller has a grant.
    Granted,
    /// It shows a grant that is another's.
    Stolen,
    /// It shows a grant for the target that the owner of the target's node did not give.
    Usurped,
}

const RELATIONS: [Relation; 9] = [
    Relation::Plain,
    Relation::SameGroup,
    Relation::Outside(Messages::InternalOnly, Debug::None),
    Relation::Outside(Messages::InternalOnly, Debug::ObserveOnly),
    Relation::Outside(Messages::Open, Debug::Full),
    Relation::OutsideTwo,
    Relation::Granted,
    Relation::Stolen,
    Relation::Usurped,
];

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Live,
    /// The grant was revoked, or the caller taken out of the group.
    Revoked,
    /// The grant has run out.
    Expired,
    /// The node has started again and has its papers from its disk.
    Restarted,
    /// The node has started again, without its papers.
    Bereft,
}

const WHEN: [When; 5] = [
    When::Live,
    When::Revoked,
    When::Expired,
    When::Restarted,
    When::Bereft,
];

struct World {
    rules: Rules,
    marks: Vec<GroupName>,
    token: Option<GrantToken>,
    now: u64,
}

fn group(name: &str, rules: (Messages, Debug), seats: &[(NodeKey, u32)]) -> Group {
    let member = |(node, session): &(NodeKey, u32)| Member {
        node: *node,
        session: *session,
        label: "x".into(),
        added: NOW,
    };
    Group {
        name: name.parse().unwrap(),
        messages: rules.0,
        debug: rules.1,
        joining: Joining::Owners,
        members: seats.iter().map(member).collect(),
        created: NOW,
        created_by: "ann".into(),
        deleted: false,
    }
}

fn world(who: Who, relation: Relation, when: When) -> World {
    let mut world = World {
        rules: Rules {
            known: when != When::Bereft,
            ..Rules::default()
        },
        marks: Vec::new(),
        token: None,
        now: if when == When::Expired {
            NOW + 601
        } else {
            NOW
        },
    };
    let usual = (Messages::InternalOnly, Debug::ObserveOnly);
    let target = (HOME, TARGET);
    let groups = match relation {
        Relation::SameGroup => {
            let seat = who.seat().filter(|_| when != When::Revoked);
            let seats: Vec<_> = [target].into_iter().chain(seat).collect();
            vec![group("mesh", usual, &seats)]
        }
        Relation::Outside(messages, debug) => vec![group("mesh", (messages, debug), &[target])],
        Relation::OutsideTwo => vec![
            group("mesh", (Messages::Open, Debug::Full), &[target]),
            group("inner", (Messages::InternalOnly, Debug::None), &[target]),
        ],
        _ => Vec::new(),
    };
    world.marks = groups.iter().map(|group| group.name.clone()).collect();
    let token = GrantToken::generate([7; 8], [9; 24]);
    let given = match relation {
        Relation::Granted => Some((STRANGER, "ann")),
        Relation::Stolen => Some((NodeKey::from_bytes([8; 32]), "ann")),
        Relation::Usurped => Some((STRANGER, "bob")),
        _ => None,
    };
    let grants = given.map(|(audience, by)| Grant {
        id: token.id.clone(),
        node: HOME,
        session: TARGET,
        label: "x".into(),
        verbs: [Verb::Read, Verb::Listen, Verb::Watch].into(),
        audience: Audience::Node(audience),
        shown: "x".into(),
        by: by.into(),
        hash: token.hash(),
        issued: NOW,
        expires: NOW + 600,
        revoked: (when == When::Revoked).then_some(NOW),
    });
    world.token = grants.is_some().then_some(token);
    if when != When::Bereft {
        // What is on the disk is what is believed.
        let text = serde_json::to_string(&(groups, grants)).unwrap();
        let (groups, grants): (Vec<Group>, Option<Grant>) = serde_json::from_str(&text).unwrap();
        let named = |group: Group| (group.name.clone(), group);
        world.rules.groups = groups.into_iter().map(named).collect();
        world.rules.grants = grants
            .map(|grant| (grant.id.clone(), grant))
            .into_iter()
            .collect();
    }
    world
}

/// What the policy says.
fn decided(world: &World, who: Who, class: Class, call: &Call) -> bool {
    let (caller, acting) = (who.caller(), who.acting());
    let about =
        !matches!(class, Class::Launch) && (call.about().is_some() || class == Class::Write);
    let mut standing = Standing::default();
    if about {
        let target = Target {
            node: HOME,
            session: TARGET,
            marks: world.marks.clone(),
        };
        let speaker = Speaker::of(&caller, &acting, &HOME);
        standing.tie = tie(Some(&world.rules), &HOME, speaker, &target);
        if let (Some(token), Caller::Peer { key, owner, .. }) = (&world.token, &caller) {
            let holder = Holder {
                token,
                key: *key,
                owner,
            };
            let found = grant(&world.rules, (&HOME, "ann"), &holder, TARGET, world.now);
            standing.granted = found.map(|grant| grant.verbs.clone()).unwrap_or_default();
        }
    }
    check(&caller, &call.action(), &standing).is_ok()
}

/// What it should say.
fn expected(who: Who, class: Class, call: &Call, relation: Relation, when: When) -> bool {
    let foreign = matches!(who, Who::Foreigner | Who::ForeignSession);
    let about = call.about().is_some() || class == Class::Write;
    let holds = relation == Relation::Granted && matches!(when, When::Live | When::Restarted);
    if holds && foreign && matches!(class, Class::Look | Class::Inbox | Class::Listen) {
        return true;
    }
    let usual = match who {
        Who::Owner => true,
        Who::Itself => class != Class::Rule,
        Who::Neighbour => !matches!(class, Class::Rule | Class::Inbox | Class::Listen),
        Who::Sister => !matches!(class, Class::Rule | Class::Network | Class::Share),
        Who::SisterSession => !matches!(
            class,
            Class::Rule | Class::Network | Class::Share | Class::Inbox | Class::Listen
        ),
        // Replies come as what a node delivers.
        Who::Foreigner | Who::ForeignSession => {
            matches!(class, Class::Greet | Class::List | Class::Write)
                && !matches!(call, Call::MsgReply(_))
        }
    };
    if !usual || !about || matches!(who, Who::Owner | Who::Itself | Who::Sister) {
        return usual;
    }
    let closed = (Messages::InternalOnly, Debug::None);
    let open = (Messages::Open, Debug::Full);
    let grouped = !matches!(
        relation,
        Relation::Plain | Relation::Granted | Relation::Stolen | Relation::Usurped
    );
    let (messages, debug) = match (relation, when) {
        // The marks are here; of others' sessions nothing is known.
        (_, When::Bereft) if grouped || who != Who::Neighbour => closed,
        (_, When::Bereft) => open,
        (Relation::SameGroup, When::Revoked) => (Messages::InternalOnly, Debug::ObserveOnly),
        // A node is in no group, only sessions are.
        (Relation::SameGroup, _) if who == Who::Foreigner => {
            (Messages::InternalOnly, Debug::ObserveOnly)
        }
        (Relation::SameGroup, _) => open,
        (Relation::Outside(messages, debug), _) => (messages, debug),
        (Relation::OutsideTwo, _) => closed,
        _ => open,
    };
    match class {
        Class::Write => messages == Messages::Open,
        Class::Look => debug != Debug::None,
        Class::Manage => debug == Debug::Full,
        _ => true,
    }
}

#[test]
fn b03_u01_every_verb_by_everybody_in_every_relation_at_any_time() {
    let mut cells = 0;
    let mut allowed = 0;
    let mut by_door = [0; 3];
    for (name, class, call) in verbs() {
        for who in WHO {
            for relation in RELATIONS {
                for when in WHEN {
                    let world = world(who, relation, when);
                    let got = decided(&world, who, class, &call);
                    let want = expected(who, class, &call, relation, when);
                    assert_eq!(got, want, "{name} by {who:?}, {relation:?}, {when:?}");
                    for door in who.doors() {
                        cells += 1;
                        by_door[*door as usize] += 1;
                        allowed += u32::from(got);
                    }
                }
            }
        }
    }
    println!("{cells} cells, {allowed} allowed; socket, WebSocket, mesh: {by_door:?}");
    assert!(by_door.iter().all(|cells| *cells >= 1_500), "{by_door:?}");
}

/// Each claim of a grant, changed.
#[test]
fn b08_s08_a_grant_with_any_claim_changed_lets_nobody_in() {
    let world = world(Who::Foreigner, Relation::Granted, When::Live);
    let (id, good) = world.rules.grants.iter().next().unwrap();
    let token = world.token.clone().unwrap();
    let holds = |rules: &Rules, token: &GrantToken, session: u32, now: u64, key: NodeKey| {
        let holder = Holder {
            token,
            key,
            owner: "bob",
        };
        grant(rules, (&HOME, "ann"), &holder, session, now).is_some()
    };
    let usual = |rules: &Rules| holds(rules, &token, TARGET, NOW, STRANGER);
    assert!(usual(&world.rules));
    // Again and again: it is good for many looks.
    assert!(usual(&world.rules));
    let changes: [fn(&mut Grant); 9] = [
        |grant| grant.node = SISTER,
        |grant| grant.session = 2,
        |grant| grant.audience = Audience::Node(SISTER),
        |grant| grant.audience = Audience::Owner("carol".into()),
        |grant| grant.by = "carol".into(),
        |grant| grant.hash = crate::paper::SecretHash([0; 32]),
        |grant| grant.issued = NOW + CLOCK_SKEW + 1,
        |grant| grant.expires = NOW,
        |grant| grant.revoked = Some(NOW),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut rules = world.rules.clone();
        let mut changed = good.clone();
        change(&mut changed);
        rules.grants.insert(id.clone(), changed);
        assert!(!usual(&rules), "change {at}");
    }
    let mut owners = world.rules.clone();
    let mut to_owner = good.clone();
    to_owner.audience = Audience::Owner("bob".into());
    owners.grants.insert(id.clone(), to_owner);
    assert!(usual(&owners));
    let mut unknown = world.rules.clone();
    unknown.known = false;
    assert!(!usual(&unknown));
    let other = GrantToken::generate([7; 8], [8; 24]);
    assert!(!holds(&world.rules, &other, TARGET, NOW, STRANGER));
    let missing = GrantToken::generate([6; 8], [9; 24]);
    assert!(!holds(&world.rules, &missing, TARGET, NOW, STRANGER));
    assert!(!holds(&world.rules, &token, 2, NOW, STRANGER));
    assert!(!holds(&world.rules, &token, TARGET, NOW + 600, STRANGER));
    assert!(!holds(&world.rules, &token, TARGET, NOW, SISTER));
}

/// The owner who names a session as the sender is that session to groups.
#[test]
fn b09_who_speaks_as_a_session_is_bound_as_it_is() {
    let world = world(
        Who::Neighbour,
        Relation::Outside(Messages::InternalOnly, Debug::ObserveOnly),
        When::Live,
    );
    let target = Target {
        node: HOME,
        session: TARGET,
        marks: Vec::new(),
    };
    let tie_as = |caller: &Caller, acting: &Party| {
        let speaker = Speaker::of(caller, acting, &HOME);
        tie(Some(&world.rules), &HOME, speaker, &target)
    };
    let planner = Party::local(SessionId(2), None);
    let outside = Tie::Outside(Messages::InternalOnly, Debug::ObserveOnly);
    assert_eq!(tie_as(&Caller::Owner, &planner), outside);
    assert_eq!(tie_as(&Who::Sister.caller(), &planner), outside);
    assert_eq!(tie_as(&Caller::Owner, &Party::owner()), Tie::Free);
    // Without a network there are no groups, but a mark still closes.
    let marked = Target {
        marks: vec!["mesh".parse().unwrap()],
        ..target
    };
    let speaker = Speaker::Session(HOME, 2);
    let closed = Tie::Outside(Messages::InternalOnly, Debug::None);
    assert_eq!(tie(None, &HOME, speaker, &marked), closed);
}
