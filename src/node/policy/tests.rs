//! The table of who may do what, and its parts.

mod table;

use session::SessionId;

use super::*;

/// Every caller and every action: `.` is allowed, `x` is not.
#[test]
fn the_whole_table() {
    let actions = [
        Action::Greet,
        Action::List,
        Action::Manage,
        Action::Watch,
        Action::Message,
        Action::Reply,
        Action::ReadInbox(Session::Id(1)),
        Action::ReadInbox(Session::Name("planner".into())),
        Action::ReadInbox(Session::Id(2)),
        Action::Listen(Some(Session::Id(1))),
        Action::Listen(Some(Session::Id(2))),
        Action::Listen(None),
        Action::Share,
        Action::Network,
        Action::Administer,
    ];
    let peer = |same_owner, session| Caller::Peer {
        node: "dev-2".into(),
        key: NodeKey::from_bytes([2; 32]),
        owner: if same_owner { "ann" } else { "bob" }.into(),
        same_owner,
        session,
    };
    for (caller, row) in [
        (Caller::Owner, "..............."),
        (
            Caller::Session(SessionId(1), "planner".parse().ok()),
            "........x.xx..x",
        ),
        (peer(true, None), "............xxx"),
        (peer(true, Some((SessionId(1), None))), "......xxxxxxxxx"),
        (peer(false, None), "..xx.xxxxxxxxxx"),
    ] {
        let got: String = actions
            .iter()
            .map(|action| {
                if check(&caller, action, &Standing::default()).is_ok() {
                    '.'
                } else {
                    'x'
                }
            })
            .collect();
        assert_eq!(got, row, "{caller:?}");
    }
}

#[test]
fn a_refusal_names_both_sides() {
    let error = check(
        &Caller::Session(SessionId(1), None),
        &Action::Administer,
        &Standing::default(),
    )
    .unwrap_err();
    assert_eq!(error.code, "denied");
    assert_eq!(error.message, "session 1 may not change the node here");
}

/// Somebody who reads a log, or a refusal, knows who wanted what.
#[test]
fn each_refusal_says_who_and_what() {
    let nobody = Session::Name("nobody".into());
    for (action, what) in [
        (Action::Greet, "greet"),
        (Action::List, "list sessions"),
        (Action::Manage, "manage sessions"),
        (Action::Watch, "read a session"),
        (Action::Message, "send messages"),
        (Action::Reply, "reply"),
        (Action::ReadInbox(nobody), "read that inbox"),
        (Action::Listen(None), "follow those messages"),
        (Action::Share, "share values"),
        (Action::Network, "look at the network"),
        (Action::Administer, "change the node"),
    ] {
        let told = denied(&Caller::Owner, &action).message;
        assert_eq!(told, format!("the owner may not {what} here"));
    }
}

/// Groups are about sessions: what is about the node is as open as it was.
#[test]
fn outside_of_a_group_the_node_is_as_open_as_ever() {
    let standing = Standing {
        tie: Tie::Outside(Messages::InternalOnly, Debug::None),
        ..Standing::default()
    };
    for action in [
        Action::Greet,
        Action::List,
        Action::Share,
        Action::Network,
        Action::Administer,
    ] {
        assert!(
            check(&Caller::Owner, &action, &standing).is_ok(),
            "{action:?}"
        );
    }
}

/// A session that speaks as nobody in particular is that session.
#[test]
fn b09_a_session_is_bound_by_its_groups_also_when_it_names_no_sender() {
    let (me, caller) = (
        NodeKey::from_bytes([1; 32]),
        Caller::Session(SessionId(7), None),
    );
    let speaker = Speaker::of(&caller, &Party::owner(), &me);
    assert_eq!(speaker, Speaker::Session(me, 7));
}

/// A grant holds as it was given, and in no other way.
#[test]
fn t3_a_grant_with_any_claim_changed_is_none() {
    let (me, holder) = (NodeKey::from_bytes([1; 32]), NodeKey::from_bytes([2; 32]));
    let token = GrantToken::generate([1; 8], [2; 24]);
    let given = Grant {
        id: token.id.clone(),
        node: me,
        session: 7,
        label: String::new(),
        verbs: BTreeSet::from([Verb::Read]),
        audience: Audience::Owner("bob".into()),
        shown: "bob".into(),
        by: "ann".into(),
        hash: token.hash(),
        issued: 1_000,
        expires: 2_000,
        revoked: None,
    };
    let holds = |change: fn(&mut Grant), known, shown: &GrantToken, owner: &str, session, now| {
        let mut grant = given.clone();
        change(&mut grant);
        let rules = Rules {
            known,
            grants: BTreeMap::from([(token.id.clone(), grant)]),
            ..Rules::default()
        };
        let holder = Holder {
            token: shown,
            key: holder,
            owner,
        };
        super::grant(&rules, (&me, "ann"), &holder, session, now).is_some()
    };
    let with = |change| holds(change, true, &token, "bob", 7, 1_500);
    assert!(with(|_| {}));
    assert!(with(
        |grant| grant.audience = Audience::Node(NodeKey::from_bytes([2; 32]))
    ));
    let changes: [fn(&mut Grant); 9] = [
        |grant| grant.node = NodeKey::from_bytes([3; 32]),
        |grant| grant.session = 8,
        |grant| grant.audience = Audience::Owner("eve".into()),
        |grant| grant.audience = Audience::Node(NodeKey::from_bytes([3; 32])),
        |grant| grant.by = "eve".into(),
        |grant| grant.hash = GrantToken::generate([1; 8], [3; 24]).hash(),
        |grant| grant.issued = 1_500 + CLOCK_SKEW + 1,
        |grant| grant.expires = 1_500,
        |grant| grant.revoked = Some(1_200),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(!with(change), "change {at}");
    }
    let same = |known, shown: &GrantToken, owner: &str, session, now| {
        holds(|_| {}, known, shown, owner, session, now)
    };
    assert!(!same(false, &token, "bob", 7, 1_500), "not known to be all");
    assert!(!same(true, &token, "eve", 7, 1_500));
    assert!(!same(true, &token, "bob", 8, 1_500));
    assert!(!same(true, &token, "bob", 7, 2_000));
    for other in [([1; 8], [9; 24]), ([9; 8], [2; 24])] {
        let other = GrantToken::generate(other.0, other.1);
        assert!(!same(true, &other, "bob", 7, 1_500));
    }
}
