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
