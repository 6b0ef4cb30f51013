//! What sessions say to each other.

use std::time::Duration;

use session::io::{Filter, Sessions};
use session::{
    EventType, MAX_BODY, MessageId, MessageKind, Party, RequestState, SessionId, SessionRef,
};

use crate::common::{Home, named, next_event, roughly, timed, wait_for_end};

/// A session that lives until it is typed at.
async fn launch(sessions: &Sessions, name: &str) -> (SessionId, SessionRef, Party) {
    let info = sessions.launch(named(name, "read x")).await.unwrap();
    let party = Party::local(info.id, info.name);
    (info.id, info.id.into(), party)
}

#[tokio::test(flavor = "multi_thread")]
async fn w28_a_message_is_in_both_logs_and_told_once() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let (coder_id, coder, _) = launch(&sessions, "coder").await;
        let (planner_id, planner, from) = launch(&sessions, "planner").await;
        let mut all = sessions.subscribe(Filter::default());
        let mut sent = sessions.subscribe(Filter {
            session: Some(planner_id),
            kinds: vec![EventType::DirectMessage],
            ..Filter::default()
        });
        let by_name: SessionRef = "@coder".parse().unwrap();
        let first = sessions
            .deliver(&by_name, from, "one".into())
            .await
            .unwrap();
        assert_eq!(first.from.to_string(), "planner");
        assert_eq!(first.to.to_string(), "coder");
        let second = sessions
            .deliver(&coder, Party::owner(), "two".into())
            .await
            .unwrap();
        assert_ne!(first.id, second.id);

        let inbox = sessions.inbox(&coder, 50).unwrap();
        let messages: Vec<_> = inbox.into_iter().map(|item| item.message).collect();
        assert_eq!(messages, [first.clone(), second.clone()]);
        let inbox = sessions.inbox(&coder, 1).unwrap();
        assert_eq!(inbox[0].message, second);
        let inbox = sessions.inbox(&planner, 50).unwrap();
        assert_eq!(inbox.len(), 1);
        assert_eq!(inbox[0].message, first);

        for _ in 0..2 {
            let event = next_event(&mut all).await;
            assert_eq!(event.session, coder_id);
        }
        assert_eq!(next_event(&mut sent).await.session, planner_id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_the_reply_of_whom_it_was_addressed_to() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let (asked_id, asked, _) = launch(&sessions, "asked").await;
        let (asker_id, asker, from) = launch(&sessions, "asker").await;
        let (request, reply) = sessions.request(&asked, from, "why?".into()).await.unwrap();
        assert_eq!(request.request_id, Some(request.id));
        let id = request.id.to_string();
        let inbox = sessions.inbox(&asked, 9).unwrap();
        assert_eq!(inbox[0].state, Some(RequestState::Pending));
        assert_eq!(sessions.find(&asked).unwrap().pending_requests, 1);

        for by in [Some(asker_id), None] {
            let refused = sessions.reply(&id, by, "I say".into()).await.unwrap_err();
            assert_eq!(refused.code(), "not_addressee");
        }
        let sent = sessions
            .reply(&id, Some(asked_id), "so".into())
            .await
            .unwrap();
        let got = reply.await.unwrap();
        assert_eq!(got, sent);
        assert_eq!(got.from.to_string(), "asked");
        assert_eq!(got.request_id, Some(request.id));
        let again = sessions.reply(&id, Some(asked_id), "no".into()).await;
        assert_eq!(again.unwrap_err().code(), "request_not_found");
        for text in ["", "nonsense", "req_AAAAAAAAAAAAAAAAAAAAAA"] {
            let unknown = sessions.reply(text, Some(asked_id), String::new()).await;
            let text = format!("no pending request with ID {text:?}");
            assert_eq!(unknown.unwrap_err().to_string(), text);
        }
        for session in [&asked, &asker] {
            let inbox = sessions.inbox(session, 9).unwrap();
            assert_eq!(inbox.len(), 2);
            assert_eq!(inbox[0].state, Some(RequestState::Answered));
            assert_eq!(inbox[1].message, sent);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w28_a_reply_that_comes_late_is_in_the_inbox_of_who_asked() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let (asked_id, asked, _) = launch(&sessions, "asked").await;
        let (_, asker, from) = launch(&sessions, "asker").await;
        let (request, reply) = sessions.request(&asked, from, "why?".into()).await.unwrap();
        drop(reply);
        let id = request.id.to_string();
        sessions
            .reply(&id, Some(asked_id), "late".into())
            .await
            .unwrap();
        let inbox = sessions.inbox(&asker, 1).unwrap();
        assert_eq!(inbox[0].message.body, "late");
        assert_eq!(inbox[0].message.kind, MessageKind::Reply);
        // Who asks again by the same id gets the same reply.
        let from = Party::owner();
        let (_, reply) = sessions
            .request_as(request.id, &asked, from, "why?".into())
            .await
            .unwrap();
        assert_eq!(reply.await.unwrap().body, "late");
        assert_eq!(sessions.inbox(&asked, 9).unwrap().len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_hears_that_the_other_has_ended() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let (asked_id, asked, _) = launch(&sessions, "asked").await;
        let owner = Party::owner;
        let (request, reply) = sessions
            .request(&asked, owner(), "why?".into())
            .await
            .unwrap();
        let repeated = sessions.request_as(request.id, &asked, owner(), String::new());
        let (_, repeated) = repeated.await.unwrap();
        sessions
            .kill(asked_id, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(reply.await.unwrap_err().code(), "session_ended");
        assert_eq!(repeated.await.unwrap_err().code(), "session_ended");
        let inbox = sessions.inbox(&asked, 9).unwrap();
        assert_eq!(inbox[0].state, Some(RequestState::Abandoned));
        let late = sessions.request_as(request.id, &asked, owner(), String::new());
        let (_, late) = late.await.unwrap();
        assert_eq!(late.await.unwrap_err().code(), "session_ended");
        let dead = sessions.deliver(&asked, owner(), "hello?".into()).await;
        assert_eq!(dead.unwrap_err().code(), "session_ended");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w16_bodies_have_a_limit_and_keep_every_byte() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let (id, coder, _) = launch(&sessions, "coder").await;
        let largest = "\u{1b}\n\"".repeat(MAX_BODY / 3) + "x";
        assert_eq!(largest.len(), MAX_BODY);
        let owner = Party::owner;
        sessions
            .deliver(&coder, owner(), largest.clone())
            .await
            .unwrap();
        let over = sessions
            .deliver(&coder, owner(), largest.clone() + "y")
            .await;
        assert_eq!(over.unwrap_err().code(), "body_too_large");
        let (request, _reply) = sessions.request(&coder, owner(), "?".into()).await.unwrap();
        let request = request.id.to_string();
        let over = sessions
            .reply(&request, Some(id), largest.clone() + "y")
            .await;
        assert_eq!(over.unwrap_err().code(), "body_too_large");
        sessions
            .reply(&request, Some(id), largest.clone())
            .await
            .unwrap();
        let inbox = sessions.inbox(&coder, usize::MAX).unwrap();
        let lens: Vec<_> = inbox.iter().map(|item| item.message.body.len()).collect();
        assert_eq!(lens, [MAX_BODY, 1, MAX_BODY]);
        assert!(inbox[0].message.body == largest);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_sent_again_is_there_once() {
    timed(async {
        let home = Home::new().synced();
        let sessions = home.open().await;
        let (_, coder, _) = launch(&sessions, "coder").await;
        let id = MessageId::new(MessageKind::Direct, [7; 16]);
        let from = Party {
            node: Some("dev-1".into()),
            session: Some((SessionId(3), None)),
        };
        let first = sessions.deliver_as(id, &coder, from.clone(), "hi".into());
        let first = first.await.unwrap();
        let again = sessions.deliver_as(id, &coder, from.clone(), "hi".into());
        assert_eq!(again.await.unwrap(), first);
        assert_eq!(sessions.inbox(&coder, 9).unwrap().len(), 1);
        let wrong = sessions.request_as(id, &coder, from, "hi".into()).await;
        assert_eq!(wrong.unwrap_err().code(), "protocol");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w15_inboxes_outlive_sessions_and_nodes() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let (id, coder, _) = launch(&sessions, "coder").await;
        let owner = Party::owner;
        sessions
            .deliver(&coder, owner(), "keep".into())
            .await
            .unwrap();
        sessions.input(id, "\n".into()).await.unwrap();
        let ended = wait_for_end(&sessions, id).await;
        sessions.shutdown(Duration::ZERO).await;
        drop(sessions);

        let sessions = home.reopen().await;
        let found = sessions.find(&coder).unwrap();
        assert_eq!(roughly(found), roughly(ended));
        let inbox = sessions.inbox(&coder, 9).unwrap();
        assert_eq!(inbox[0].message.body, "keep");
        // The name is free; the new session has an inbox of its own.
        let (next, _, _) = launch(&sessions, "coder").await;
        assert_eq!(next.0, id.0 + 1);
        let by_name: SessionRef = "coder".parse().unwrap();
        assert!(sessions.inbox(&by_name, 9).unwrap().is_empty());
    })
    .await;
}
