//! Several clients at one terminal.

use session::io::{Chunk, Filter, From, How};
use session::screen::Screen;
use session::{EventKind, EventType, Size};

use crate::common::{Home, next_event, shell, timed, wait_for_output};

const fn size(cols: u16, rows: u16) -> Size {
    Size { cols, rows }
}

#[tokio::test(flavor = "multi_thread")]
async fn w23_the_one_who_types_leads_the_size() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "trap 'stty size' WINCH; echo one; while :; do read x; echo $x; done";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        wait_for_output(&sessions, id, "one").await;
        let now = || sessions.find(&id.into()).unwrap().size;
        let come = |read_only, size| {
            let how = How {
                read_only,
                size: Some(size),
            };
            sessions.attach_as(id, how).unwrap()
        };
        let watcher = come(true, size(10, 5));
        assert_ne!(now(), size(10, 5));
        let first = come(false, size(80, 24));
        assert_eq!(now(), size(80, 24));
        let second = come(false, size(120, 40));
        assert_eq!(now(), size(80, 24));
        assert!(first.seat.leads() && !second.seat.leads());
        second.seat.input("\n".into()).await.unwrap();
        assert_eq!(now(), size(120, 40));
        wait_for_output(&sessions, id, "40 120").await;
        first.seat.propose(size(81, 25)).unwrap();
        watcher.seat.propose(size(11, 6)).unwrap();
        assert_eq!(now(), size(120, 40));
        let refused = watcher.seat.input("x".into()).await.unwrap_err();
        assert_eq!(refused.code(), "protocol");
        drop(second);
        assert_eq!(now(), size(81, 25));
        assert_eq!(sessions.find(&id.into()).unwrap().attached, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w08_a_client_far_behind_is_repainted_and_told_of_the_gap() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script =
            "read x; seq 1 2000000; printf '\\033[2J\\033[Hthe \\033[1mend'; read x; echo bye";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        let mut client = sessions.attach(id).unwrap();
        assert_eq!(client.catch_up().await.unwrap(), None);
        let mut shown = Screen::new(sessions.find(&id.into()).unwrap().size);
        shown.feed(&client.repaint);
        sessions.input(id, "\n".into()).await.unwrap();
        // It hears a little, and then nothing for long.
        if let Chunk::Bytes { bytes, .. } = client.reader.next().await.unwrap() {
            shown.feed(&bytes);
        }
        let heard = client.reader.offset();
        let mut all = sessions.reader(id, From::Offset(heard)).unwrap();
        let mut last = Vec::new();
        while !last.ends_with(b"\x1b[1mend") {
            if let Chunk::Bytes { bytes, .. } = all.next().await.unwrap() {
                last = bytes.to_vec();
            }
        }
        let skipped = client.catch_up().await.unwrap().unwrap();
        assert_eq!((skipped.from, skipped.to), (heard, all.offset()));
        assert!(skipped.repaint.len() < 128 * 1024);
        let said = String::from_utf8_lossy(&skipped.repaint).into_owned();
        let missing = (skipped.to - skipped.from).div_ceil(1 << 20);
        assert!(said.contains(&format!(
            "\r\n[cw] {missing} MiB of output are only in the log\r\n"
        )));
        shown.feed(&skipped.repaint);
        assert_eq!(shown.text(0)[0], "the end");
        assert_eq!(client.catch_up().await.unwrap(), None);
        sessions.input(id, "\n".into()).await.unwrap();
        let mut rest = Vec::new();
        while let Chunk::Bytes { bytes, .. } = client.reader.next().await.unwrap() {
            rest.extend_from_slice(&bytes);
        }
        assert_eq!(rest, b"\r\nbye\r\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w24_clients_that_went_with_the_node_have_left() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(shell("echo x; read x")).await.unwrap().id;
        let client = sessions.attach(id).unwrap();
        let number = client.seat.client();
        let path = home.session_file(id, "events.jsonl");
        let before = std::fs::read(&path).unwrap();
        sessions.shutdown(std::time::Duration::ZERO).await;
        drop((client, sessions));
        // As it was when the client was there.
        std::fs::write(&path, before).unwrap();
        let sessions = home.reopen().await;
        let kinds = vec![EventType::Detached];
        let filter = Filter {
            kinds,
            ..Filter::default()
        };
        let left = next_event(&mut sessions.subscribe_since(filter, 0)).await;
        assert_eq!(left.kind, EventKind::Detached { client: number });
    })
    .await;
}
