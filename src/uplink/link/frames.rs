//! The frames of a coordination connection, at the node's end.

use std::io;
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::interval;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::coord::report::Report;
use crate::coord::{KEEPALIVE, ToNode, ToRelay};
use crate::uplink::dial::{Stream, within};

/// How long the WebSocket handshake, and each step of ours, may take.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(10);

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Why a connection is over, or never was.
pub(super) enum End {
    /// It broke; the relay was reached or not.
    Broken(io::Error),
    /// The relay does not want this node.
    Refused(String),
    /// There is no such network any more.
    Deleted,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Pings for ever, and reports what there is to report, or until that fails.
pub(super) async fn speak(
    mut sink: SplitSink<Socket, Message>,
    mut told: watch::Receiver<Option<Report>>,
) -> io::Error {
    let mut due = interval(KEEPALIVE);
    // This connection has told nothing yet.
    told.mark_changed();
    let mut is_open = true;
    loop {
        let message = tokio::select! {
            _ = due.tick() => Message::Ping(Vec::new().into()),
            changed = told.changed(), if is_open => {
                is_open = changed.is_ok();
                let report = told.borrow_and_update().clone();
                let Some(report) = report.filter(|_| is_open) else {
                    continue;
                };
                match serde_json::to_string(&ToRelay::Report(report)) {
                    Ok(text) => Message::Text(text.into()),
                    Err(error) => return io::Error::other(error),
                }
            }
        };
        if let Err(error) = sink.send(message).await {
            return io::Error::other(error);
        }
    }
}

pub(super) async fn next_frame(socket: &mut Socket) -> Result<ToNode, End> {
    let next = async {
        loop {
            let Some(message) = socket.next().await else {
                return Ok(Err(broken("the relay closed the connection")));
            };
            match parse(&message.map_err(io::Error::other)?) {
                Ok(Some(frame)) => return Ok(Ok(frame)),
                Ok(None) => {}
                Err(end) => return Ok(Err(end)),
            }
        }
    };
    let frame = within(STEP_LIMIT, "the relay's answer", next).await??;
    match frame {
        ToNode::Error { code, message } => Err(refusal(&code, message)),
        frame => Ok(frame),
    }
}

pub(super) fn parse(message: &Message) -> Result<Option<ToNode>, End> {
    match message {
        Message::Text(text) => match serde_json::from_str(text) {
            Ok(frame) => Ok(Some(frame)),
            Err(error) => Err(unexpected(&error.to_string())),
        },
        Message::Close(_) => Err(broken("the relay closed the connection")),
        Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => Ok(None),
    }
}

pub(super) fn refusal(code: &str, message: String) -> End {
    match code {
        "stopping" | "store_unavailable" => End::Broken(io::Error::other(message)),
        _ => End::Refused(message),
    }
}

pub(super) fn unexpected(why: &str) -> End {
    End::Broken(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the relay says something else than expected: {why}"),
    ))
}

pub(super) fn broken(why: &'static str) -> End {
    End::Broken(io::Error::new(io::ErrorKind::ConnectionAborted, why))
}
