//! Launch, output, end: what a session is for its callers.

use crate::common::{Home, named, read_to_end, shell, timed, wait_for_end, wait_for_output};
use session::{Outcome, Size, Status};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_and_ends_with_its_last_byte_and_its_code() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut spec = named("coder", "stty size; echo hello; exit 42");
        spec.size = Size { cols: 99, rows: 33 };
        let info = sessions.launch(spec).await.unwrap();
        assert_eq!(info.id.0, 1);
        let (output, status) = read_to_end(&sessions, info.id).await;
        assert_eq!(String::from_utf8(output).unwrap(), "33 99\r\nhello\r\n");
        let outcome = Outcome::Code(42);
        let killed = false;
        assert_eq!(status, Status::Exited { outcome, killed });
        let info = sessions.find(&info.id.into()).unwrap();
        assert_eq!(info.status, status);
        assert_eq!((info.output_end, info.output_lines), (14, 2));
        sessions.shutdown(std::time::Duration::ZERO).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_arrives() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut spec = shell("read one; echo got $one; read two; echo got $two");
        spec.input = Some("first\n".into());
        let id = sessions.launch(spec).await.unwrap().id;
        wait_for_output(&sessions, id, "got first").await;
        assert_eq!(sessions.input(id, "second\n".into()).await.unwrap(), 7);
        wait_for_output(&sessions, id, "got second").await;
        let info = wait_for_end(&sessions, id).await;
        assert_eq!(info.status.to_string(), "completed (0)");
        let late = sessions.input(id, "third\n".into()).await.unwrap_err();
        assert_eq!(late.code(), "session_not_running");
    })
    .await;
}
