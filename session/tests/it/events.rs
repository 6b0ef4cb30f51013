//! Events: their order over all sessions, and how to come back to them.

use session::io::{Filter, Notice, Sessions, Subscription};
use session::{Event, EventKind, EventType, Party, SessionRef, Tag};

use crate::common::{Home, named, next_event, shell, timed, wait_for_end, wait_for_output};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// Events from the past up to a cursor.
async fn up_to(events: &mut Subscription, cursor: u64) -> Vec<Event> {
    let mut found: Vec<Event> = Vec::new();
    while found.last().is_none_or(|event| event.cursor < cursor) {
        found.push(next_event(events).await);
    }
    found
}

fn messages(sessions: &Sessions) -> Subscription {
    sessions.subscribe(Filter {
        kinds: vec![EventType::DirectMessage],
        ..Filter::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_have_one_order_that_outlives_the_node() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        assert_eq!(sessions.cursor(), 0);
        let mut live = sessions.subscribe(Filter::default());
        let mut launches = Vec::new();
        for number in 0..8 {
            let sessions = sessions.clone();
            launches.push(tokio::spawn(async move {
                let script = format!("echo {number}; read x; echo $x");
                let id = sessions.launch(shell(&script)).await.unwrap().id;
                let to = SessionRef::Id(id);
                let party = Party::owner();
                sessions.deliver(&to, party, "hi".into()).await.unwrap();
                sessions.input(id, "go\n".into()).await.unwrap();
                wait_for_end(&sessions, id).await
            }));
        }
        for launch in launches {
            launch.await.unwrap();
        }
        let last = sessions.cursor();
        let told = up_to(&mut live, last).await;
        assert!(told.is_sorted_by(|one, next| one.cursor < next.cursor));
        let since = |since| sessions.subscribe_since(Filter::default(), since);
        assert_eq!(up_to(&mut since(0), last).await, told);
        for event in &told[..told.len() - 1] {
            let mut later = since(event.cursor);
            let later = up_to(&mut later, last).await;
            assert_eq!(later[0].cursor, event.cursor + 1);
            assert_eq!(later.last(), told.last());
        }
        sessions.shutdown(std::time::Duration::ZERO).await;
        drop((sessions, live));

        let sessions = home.reopen().await;
        assert_eq!(sessions.cursor(), last);
        let mut again = sessions.subscribe_since(Filter::default(), 0);
        assert_eq!(up_to(&mut again, last).await, told);
        sessions.launch(shell("true")).await.unwrap();
        let created = next_event(&mut again).await;
        assert_eq!(created.cursor, last + 1);
        assert_eq!(again.cursor(), last + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w36_u13_a_slow_subscriber_misses_nothing() {
    timed(async {
        const MANY: u64 = 20_000;
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(shell("read x")).await.unwrap().id;
        let mut slow = messages(&sessions);
        // More than wait for anybody in memory.
        for number in 0..MANY {
            let body = number.to_string();
            let to = SessionRef::Id(id);
            sessions.deliver(&to, Party::owner(), body).await.unwrap();
        }
        for number in 0..MANY {
            let EventKind::Message(message) = next_event(&mut slow).await.kind else {
                panic!("no message");
            };
            assert_eq!(message.body, number.to_string());
        }
        // It has not lost its place among what happens now.
        let to = SessionRef::Id(id);
        sessions
            .deliver(&to, Party::owner(), "x".into())
            .await
            .unwrap();
        assert_eq!(next_event(&mut slow).await.cursor, sessions.cursor());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_goes_on_without_a_seam_while_things_happen() {
    timed(async {
        const MANY: usize = 2000;
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(shell("read x")).await.unwrap().id;
        let other = sessions.launch(shell("read x")).await.unwrap().id;
        let sender = sessions.clone();
        let sending = tokio::spawn(async move {
            for number in 0..MANY {
                let to = SessionRef::Id(if number % 3 == 0 { other } else { id });
                let body = number.to_string();
                sender.deliver(&to, Party::owner(), body).await.unwrap();
            }
        });
        let filter = Filter {
            kinds: vec![EventType::DirectMessage],
            ..Filter::default()
        };
        let mut cursor = 0;
        let mut number = 0;
        while number < MANY {
            let mut events = sessions.subscribe_since(filter.clone(), cursor);
            for _ in 0..37.min(MANY - number) {
                let event = next_event(&mut events).await;
                let EventKind::Message(message) = event.kind else {
                    panic!("no message");
                };
                assert_eq!(message.body, number.to_string());
                (cursor, number) = (event.cursor, number + 1);
            }
        }
        sending.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_elsewhere_is_a_gap() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut ahead = sessions.subscribe_since(Filter::default(), 1000);
        let gap = Notice::Gap { from: 1000, to: 0 };
        assert_eq!(ahead.next().await, Some(gap));
        sessions.launch(shell("true")).await.unwrap();
        assert_eq!(next_event(&mut ahead).await.cursor, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_changes_and_stays_changed() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let first = sessions.launch(named("a", "read x")).await.unwrap().id;
        let second = sessions.launch(named("b", "read x")).await.unwrap().id;
        let name = |text: &str| Some(text.parse().unwrap());
        let taken = sessions.rename(first, name("b")).await.unwrap_err();
        assert_eq!(taken.code(), "name_taken");
        let before = sessions.cursor();
        sessions.rename(first, name("a")).await.unwrap();
        assert_eq!(sessions.cursor(), before);
        // They change places over a third name.
        let info = sessions.rename(first, name("c")).await.unwrap();
        assert_eq!(info.name, name("c"));
        sessions.rename(second, name("a")).await.unwrap();
        sessions.rename(first, name("b")).await.unwrap();
        let third = sessions.launch(named("c", "read x")).await.unwrap().id;
        let info = sessions.rename(third, None).await.unwrap();
        assert_eq!(info.name, None);
        let missing = sessions.rename(session::SessionId(9), None).await;
        assert_eq!(missing.unwrap_err().code(), "session_not_found");
        let kinds = vec![EventType::Renamed];
        let filter = Filter {
            kinds,
            ..Filter::default()
        };
        let renamed = next_event(&mut sessions.subscribe_since(filter, 0)).await;
        let expected = EventKind::Renamed {
            name: name("c"),
            previous: name("a"),
        };
        assert_eq!((renamed.session, renamed.kind), (first, expected));
        sessions.shutdown(std::time::Duration::ZERO).await;
        drop(sessions);

        let sessions = home.reopen().await;
        let find = |name: &str| sessions.find(&name.parse().unwrap());
        assert_eq!(find("a").unwrap().id, second);
        assert_eq!(find("b").unwrap().id, first);
        assert_eq!(find("c").unwrap_err().code(), "session_not_found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_filter_by_what_they_were_at_the_time() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let filter = Filter {
            tags: vec![tag("worker"), tag("other")],
            ..Filter::default()
        };
        let mut live = sessions.subscribe(filter.clone());
        let id = sessions.launch(shell("read x")).await.unwrap().id;
        let to = SessionRef::Id(id);
        let say = |body: &str| sessions.deliver(&to, Party::owner(), body.into());
        say("before").await.unwrap();
        let info = sessions
            .retag(id, vec![tag("worker"), tag("x")], vec![])
            .await
            .unwrap();
        assert_eq!(info.tags, [tag("worker"), tag("x")]);
        say("during").await.unwrap();
        let again = sessions
            .retag(id, vec![tag("x")], vec![tag("none")])
            .await
            .unwrap();
        assert_eq!(again.tags, info.tags);
        sessions
            .retag(id, vec![], vec![tag("worker")])
            .await
            .unwrap();
        say("after").await.unwrap();
        let many = (0..40).map(|number| tag(&number.to_string())).collect();
        let refused = sessions.retag(id, many, vec![]).await.unwrap_err();
        assert_eq!(refused.code(), "tag_invalid");
        // Launched later.
        let mut spec = shell("true");
        spec.tags = vec![tag("worker")];
        let last = sessions.launch(spec).await.unwrap().id;
        wait_for_end(&sessions, last).await;

        let past = sessions.subscribe_since(filter, 0);
        for mut events in [&mut live, &mut { past }] {
            let events = &mut events;
            let kind = next_event(events).await.kind;
            assert!(matches!(kind, EventKind::Tagged { tags } if tags.len() == 2));
            let kind = next_event(events).await.kind;
            assert!(matches!(kind, EventKind::Message(message) if message.body == "during"));
            let kind = next_event(events).await.kind;
            assert!(matches!(kind, EventKind::Tagged { tags } if tags == [tag("x")]));
            let created = next_event(events).await;
            assert_eq!(created.session, last);
            let ended = next_event(events).await;
            assert!(matches!(ended.kind, EventKind::Exited(_)));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w24_output_is_summed_up_now_and_then_and_at_the_end() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "echo one; printf '\\033[1mtwo\\033[0m\\n'; read x; echo three";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        let mut events = sessions.subscribe(Filter {
            session: Some(id),
            kinds: vec![EventType::OutputSummary, EventType::Status],
            ..Filter::default()
        });
        wait_for_output(&sessions, id, "two").await;
        let EventKind::OutputSummary(first) = next_event(&mut events).await.kind else {
            panic!("no summary");
        };
        assert_eq!((first.total_lines, first.lines_delta), (2, 2));
        assert_eq!(first.preview, "two");
        sessions.input(id, "\n".into()).await.unwrap();
        let EventKind::OutputSummary(last) = next_event(&mut events).await.kind else {
            panic!("no summary");
        };
        assert_eq!(last.preview, "three");
        let info = wait_for_end(&sessions, id).await;
        assert_eq!(last.total_bytes, info.output_end);
        assert_eq!(last.bytes_delta, info.output_end - first.total_bytes);
        assert_eq!((last.total_lines, last.lines_delta), (4, 2));
        let ended = next_event(&mut events).await.kind;
        assert!(matches!(ended, EventKind::Exited(_)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_from_before_there_were_cursors_come_first() {
    timed(async {
        let home = Home::new();
        for (id, second) in [(1, 5), (2, 3)] {
            let path = home.session_file(session::SessionId(id), "events.jsonl");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let line = |seq, second, kind: &str, data: &str| {
                format!(
                    "{{\"seq\":{seq},\"timestamp\":\"2026-01-01T00:00:0{second}Z\",\
                     \"type\":\"{kind}\",\"data\":{data}}}\n"
                )
            };
            let created = r#"{"command":["true"],"working_dir":"/"}"#;
            let ended = r#"{"from":"running","to":"completed","exit_code":0}"#;
            let text =
                line(1, second, "session.created", created) + &line(2, 9, "session.status", ended);
            std::fs::write(path, text).unwrap();
        }
        let sessions = home.open().await;
        let mut events = sessions.subscribe_since(Filter::default(), 0);
        let mut found = Vec::new();
        for _ in 0..4 {
            let event = next_event(&mut events).await;
            assert_eq!(event.cursor, 0);
            found.push((event.session.0, event.seq));
        }
        assert_eq!(found, [(2, 1), (1, 1), (1, 2), (2, 2)]);
        let id = sessions.launch(shell("true")).await.unwrap().id;
        let created = next_event(&mut events).await;
        assert_eq!((created.session, created.cursor), (id, 1));
    })
    .await;
}
