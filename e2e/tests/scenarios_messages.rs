//! What existing clients say to each other's sessions, by number, through the socket. The others
//! are in `wire`, and those that type into programs in `typing`.

use e2e::wire::Wire;
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

struct Node<'a>(&'a Local);

impl Node<'_> {
    fn wire(&self) -> Wire {
        Wire::connect(&self.0.home().socket())
    }

    #[track_caller]
    fn ask(&self, call: Value, kind: &str) -> Value {
        self.wire().ask(&call, kind)
    }

    #[track_caller]
    fn launch(&self, name: Option<&str>) -> u64 {
        let mut call = json!({"type": "Launch", "command": ["sleep", "1000"], "working_dir": "/"});
        if let Some(name) = name {
            call["name"] = json!(name);
        }
        let id = self.ask(call, "Launched")["id"].as_u64();
        id.expect("a session has a number")
    }

    #[track_caller]
    fn inbox(&self, id: u64, tail: u64) -> Vec<Value> {
        let call = json!({"type": "MsgRead", "id": id, "tail": tail});
        let read = self.ask(call, "MsgReadResult");
        read["messages"].as_array().cloned().unwrap_or_default()
    }

    /// The request that waits in an inbox; who asked may wait no longer.
    #[track_caller]
    fn pending(&self, id: u64) -> String {
        wait_until("a request is in the inbox", PATIENCE, || {
            let inbox = self.inbox(id, 10);
            let open = |state: &Value| state == "pending" || state == "expired";
            let found = inbox.iter().find(|one| open(&one["state"]));
            let request = found.and_then(|one| one["request_id"].as_str());
            request
                .map(str::to_owned)
                .ok_or_else(|| format!("{inbox:?}"))
        })
    }
}

fn with_node(test: impl FnOnce(&Node<'_>)) {
    case(&Local::new(CW), |local| {
        let _ = local.cw().run(&["start"]).ok();
        test(&Node(local));
    });
}

#[test]
fn s35_s38_s43_s44_s45_messages_by_name_and_number_are_in_both_logs() {
    with_node(|node| {
        let planner = node.launch(Some("planner"));
        let coder = node.launch(Some("coder"));
        let nobody = node.launch(None);
        let list = node.ask(json!({"type": "ListSessions"}), "SessionList");
        assert_eq!(list["sessions"][0]["name"], "planner", "{list}");
        assert!(list["sessions"][2].get("name").is_none(), "{list}");

        let mut ids = Vec::new();
        for number in 0..5 {
            let call = json!({"type": "MsgSend", "id": planner, "to_id": coder, "body": format!("{number}")});
            let sent = node.ask(call, "MsgSent");
            ids.push(sent["message_id"].as_str().unwrap_or_default().to_owned());
        }
        let inbox = node.inbox(coder, 50);
        let read: Vec<_> = inbox
            .iter()
            .filter_map(|one| one["message_id"].as_str())
            .collect();
        assert_eq!(read, ids, "the order is that of sending");
        // Opaque: as long as each other, and telling nothing of who and when.
        for (at, id) in ids.iter().enumerate() {
            assert!(id.starts_with("msg_") && id.len() == 26, "{id}");
            assert!(!ids[at + 1..].contains(id), "{id} is there twice");
        }
        assert_eq!(node.inbox(planner, 50).len(), 5, "who sends has a copy");
        let last = node.inbox(coder, 2);
        let bodies: Vec<_> = last.iter().map(|one| one["body"].clone()).collect();
        assert_eq!(bodies, ["3", "4"]);

        // What no session has sent is in the log of who got it alone.
        let call = json!({"type": "MsgSend", "to_id": nobody, "body": "from outside"});
        let _ = node.ask(call, "MsgSent");
        let got = node.inbox(nobody, 50);
        assert_eq!((got.len(), &got[0]["from"]), (1, &json!(0)), "{got:?}");
        assert_eq!(node.inbox(planner, 50).len(), 5);
        let call = json!({"type": "MsgSend", "to_name": "nobody", "body": "x"});
        assert_eq!(node.ask(call, "Error")["code"], "session_not_found");
    });
}

#[test]
fn s41_s48_who_asks_from_outside_is_answered_by_who_was_asked() {
    with_node(|node| {
        let coder = node.launch(Some("coder"));
        let other = node.launch(Some("other"));
        let mut asker = node.wire();
        asker.say(&json!({"type": "MsgRequest", "to_name": "coder", "body": "?"}));
        let request = node.pending(coder);
        // A token gives nobody the right to reply: there is none, and one that is made up is nothing.
        let inbox = node.inbox(coder, 1);
        assert!(inbox[0].get("reply_token").is_none(), "w26: {inbox:?}");
        let reply = |more: Value| {
            let mut call = json!({"type": "MsgReply", "request_id": request, "body": "!"});
            let fields = more.as_object().cloned().unwrap_or_default();
            call.as_object_mut().expect("an object").extend(fields);
            call
        };
        let refused = node.ask(reply(json!({"reply_token": "made-up"})), "Error");
        assert_eq!(refused["code"], "sender_required", "{refused}");
        let refused = node.ask(
            reply(json!({"id": other, "reply_token": "made-up"})),
            "Error",
        );
        assert_eq!(refused["code"], "not_addressee", "{refused}");
        let _ = node.ask(reply(json!({"id": coder})), "MsgReplySent");
        assert_eq!(asker.expect("MsgRequestResult")["from_id"], coder);
    });
}

#[test]
fn s46_a_reply_after_the_time_is_kept_and_a_second_one_is_refused() {
    with_node(|node| {
        let planner = node.launch(Some("planner"));
        let coder = node.launch(Some("coder"));
        let call = json!({
            "type": "MsgRequest", "id": planner, "to_id": coder, "body": "?", "timeout_seconds": 1,
        });
        let late = node.ask(call, "Error");
        let request = node.pending(coder);
        assert_eq!(late["code"], "timeout", "{late}");
        let text = late["message"].as_str().unwrap_or_default();
        assert_eq!(text, format!("request {request} timed out after 1s"));
        // Both are told, and the reply is taken all the same.
        for inbox in [coder, planner] {
            let told = node.inbox(inbox, 50);
            assert_eq!(told[0]["state"], "expired", "{told:?}");
            assert!(told[0]["deadline"].is_string(), "{told:?}");
        }
        let reply = json!({"type": "MsgReply", "request_id": request, "id": coder, "body": "late"});
        let _ = node.ask(reply.clone(), "MsgReplySent");
        assert!(
            node.inbox(planner, 50)
                .iter()
                .any(|one| one["body"] == "late")
        );
        assert_eq!(node.inbox(planner, 50)[0]["state"], "answered");
        let again = node.ask(reply, "Error");
        assert_eq!(again["code"], "request_not_found", "{again}");
        let text = again["message"].as_str().unwrap_or_default();
        assert!(text.contains(&request), "{again}");
    });
}
