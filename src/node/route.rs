//! Here or there: which node a call is for.
//!
//! After this the call no longer names a node, so no handler can tell a call that was typed on
//! its own machine from one that came through the mesh.

use crate::error::{Error, Result};
use crate::locator::Session;
use crate::verb::Call;

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To this node.
    Here,
    /// To the node of this name.
    There(String),
}

/// Decides, and takes the node's name out of the call. `me` is this node's name, `knows` tells
/// whether the network has a node of some name.
///
/// # Errors
///
/// `node_unknown`; `locator_invalid` for a word before `--` that names nothing.
pub(super) fn route(call: &mut Call, me: &str, knows: impl Fn(&str) -> bool) -> Result<Route> {
    match call {
        Call::Launch(launch) => place(launch, me, &knows)?,
        // `cw subscribe dev-1` is about everything there: a known node wins over a name.
        Call::Subscribe(subscribe) => {
            let select = &mut subscribe.select;
            if let (None, Some(Session::Name(word))) = (&select.node, &select.session)
                && (word == me || knows(word))
            {
                select.node = Some(word.clone());
                select.session = None;
            }
        }
        // Only its own node speaks for a session, so that is where a reply goes.
        Call::MsgReply(reply) if reply.node.is_none() => {
            reply.node = reply.from.as_mut().and_then(|from| from.node.take());
        }
        _ => {}
    }
    let Some(node) = call.node_mut().and_then(Option::take) else {
        return Ok(Route::Here);
    };
    if node == me {
        return Ok(Route::Here);
    }
    if matches!(call, Call::MsgSend(_) | Call::MsgRequest(_)) {
        // These may have to wait for the other node, so this one keeps them. Whether there is such
        // a node is asked only for those that it does not have yet.
        if let Some(place) = call.node_mut() {
            *place = Some(node);
        }
        return Ok(Route::Here);
    }
    if !knows(&node) {
        return Err(Error::new(
            "node_unknown",
            format!("no node named {node:?} in this network"),
        ));
    }
    match call {
        // The other machine has its own variables, directories and agents.
        Call::Launch(launch) => {
            launch.environment.clear();
            launch.caller_dir = None;
        }
        Call::Attach(attach) => attach.ssh_auth_sock = None,
        _ => {}
    }
    Ok(Route::There(node))
}

/// `launch name`, `launch node`, `launch node:name`: a known node wins over a name.
fn place(
    launch: &mut crate::verb::launch::Launch,
    me: &str,
    knows: &impl Fn(&str) -> bool,
) -> Result<()> {
    let Some(target) = launch.target.take() else {
        return Ok(());
    };
    if let Some((node, name)) = target.split_once(':') {
        if launch.name.is_some() {
            return Err(Error::new("usage", "the session has two names")
                .hint("leave out --name or the name after the node"));
        }
        launch.node = Some(crate::locator::node_name(node)?);
        launch.name = Some(name.to_owned());
    } else if target == me || knows(&target) {
        launch.node = Some(target);
    } else {
        launch.target = Some(target);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::launch::Launch;
    use crate::verb::{list, reply, status};

    fn go(call: &mut Call) -> Result<Route> {
        route(call, "dev-1", |node| node == "dev-2")
    }

    fn launch(target: &str) -> Call {
        Call::Launch(Launch {
            target: Some(target.into()),
            environment: vec!["A=b".into()],
            ..Launch::default()
        })
    }

    fn there() -> Route {
        Route::There("dev-2".into())
    }

    #[test]
    fn a_node_in_front_is_taken_out() {
        let mut call = Call::GetStatus(status::Status {
            target: "dev-2:coder".parse().unwrap(),
            json: false,
        });
        assert_eq!(go(&mut call).unwrap(), there());
        assert_eq!(go(&mut call).unwrap(), Route::Here);
        let mut call = Call::ListSessions(list::List {
            node: Some("dev-1".into()),
            ..list::List::default()
        });
        assert_eq!(go(&mut call).unwrap(), Route::Here);
        let mut call = Call::ListSessions(list::List {
            node: Some("dev-9".into()),
            ..list::List::default()
        });
        assert_eq!(go(&mut call).unwrap_err().code, "node_unknown");
    }

    #[test]
    fn what_may_be_kept_already_is_looked_at_here() {
        let mut call = Call::MsgSend(
            serde_json::from_value(serde_json::json!({
                "to_name": "coder", "node": "dev-9", "body": "hi", "delivery": "inbox",
            }))
            .unwrap(),
        );
        assert_eq!(go(&mut call).unwrap(), Route::Here);
        assert_eq!(call.node_mut().unwrap().as_deref(), Some("dev-9"));
    }

    #[test]
    fn a_known_node_wins_over_a_name() {
        for (target, node, name, left) in [
            ("planner", None, None, Some("planner")),
            ("dev-2", Some("dev-2"), None, None),
            ("dev-1", None, None, None),
            ("dev-2:coder", Some("dev-2"), Some("coder"), None),
        ] {
            let mut call = launch(target);
            let route = go(&mut call).unwrap();
            assert_eq!(
                route,
                node.map_or(Route::Here, |node| Route::There(node.into())),
                "{target}"
            );
            let Call::Launch(call) = call else {
                unreachable!()
            };
            assert_eq!(
                (call.name.as_deref(), call.target.as_deref()),
                (name, left),
                "{target}"
            );
            assert_eq!(call.environment.is_empty(), node.is_some(), "{target}");
        }
    }

    #[test]
    fn a_reply_goes_to_the_node_of_its_session() {
        let mut call = Call::MsgReply(reply::Reply {
            request_id: "req_x".into(),
            body: "yes".into(),
            from: Some("dev-2:coder".parse().unwrap()),
            node: None,
            message_id: None,
        });
        assert_eq!(go(&mut call).unwrap(), there());
        assert_eq!(call.sender().unwrap().node, None);
    }
}
