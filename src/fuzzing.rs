//! What a fuzzer throws at the program: each target takes any bytes and must come back, soon, with
//! what it promises. `fuzz/` runs them; a test here plays its corpora again.

mod network;

pub use network::{coordination, credentials, papers, relay_events, relay_headers, sftp, ssh};

use bytes::BytesMut;
use rmcp::RoleServer;
use rmcp::model::{ClientRequest, JsonRpcMessage};
use rmcp::transport::Transport as _;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::config::Config;
use crate::locator::{Locator, Session};
use crate::node::post::journal::read_back;
use crate::node::proxy::Envelope;
use crate::paper::GrantToken;
use crate::rpc::frame::{self, Frame, HEADER, Kind, PAYLOAD_MAX};
use crate::rpc::{Coding, Wire};
use crate::term::{Detach, Strip, keys};
use crate::verb::logs::pieces::{Form, take_text, whole};
use crate::verb::{Call, Reply};

/// A name, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their corpora.
pub const TARGETS: &[Target] = &[
    ("local_frames", local_frames),
    ("json_calls", json_calls),
    ("binary_calls", binary_calls),
    ("keys", keys),
    ("words", words),
    ("config", config),
    ("outbox", outbox),
    ("logs", logs),
    ("mcp", mcp),
    ("websocket", websocket),
    ("credentials", credentials),
    ("papers", papers),
    ("coordination", coordination),
    ("relay_headers", relay_headers),
    ("relay_events", relay_events),
    ("ssh", ssh),
    ("sftp", sftp),
];

/// A stream of frames: the same in any pieces, and never more kept than has come.
pub fn local_frames(data: &[u8]) {
    let (piece, stream) = data
        .split_first()
        .map_or((1, data), |(piece, rest)| (1 + usize::from(*piece), rest));
    let read = |piece: usize| {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for part in stream.chunks(piece) {
            buffer.extend_from_slice(part);
            loop {
                match frame::decode(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error.code)),
                }
            }
            assert!(buffer.capacity() <= 4 * stream.len() + 128 * 1024);
        }
        (frames, None)
    };
    let frames = read(usize::MAX);
    assert_eq!(read(piece), frames);
    let mut again = Vec::new();
    for Frame { kind, payload } in &frames.0 {
        assert!(payload.len() <= PAYLOAD_MAX);
        again.extend(frame::header(*kind, payload.len()).unwrap_or([0; HEADER]));
        again.extend_from_slice(payload);
        match kind {
            Kind::Json => json_calls(payload),
            Kind::Binary => binary_calls(payload),
            Kind::Data => {}
        }
    }
    assert!(stream.starts_with(&again));
}

/// A call and an answer in JSON, as the local socket takes them.
pub fn json_calls(data: &[u8]) {
    if let Ok(call) = Coding::Json.decode::<Call>(data) {
        both_codings(&call);
        about(call);
    }
    if let Ok(reply) = Coding::Json.decode::<Reply>(data) {
        both_codings(&reply);
    }
}

/// The same in the coding between nodes. What can be read there can be written for the local
/// socket: a proxy does that.
pub fn binary_calls(data: &[u8]) {
    if let Ok(call) = Coding::Binary.decode::<Call>(data) {
        both_codings(&call);
        about(call);
    }
    if let Ok(reply) = Coding::Binary.decode::<Reply>(data) {
        both_codings(&reply);
    }
    if let Ok(envelope) = Coding::Binary.decode::<Envelope>(data) {
        both_codings(&envelope.call);
        let _ = envelope.grant.as_deref().map(str::parse::<GrantToken>);
    }
}

fn both_codings<T: Wire>(message: &T) {
    // What cannot be written, such as a number that is none, is an error of ours, not a panic.
    let Ok(json) = Coding::Json.encode(message) else {
        return;
    };
    let Ok(binary) = Coding::Binary.encode(message) else {
        return;
    };
    if let Ok(read) = Coding::Binary.decode::<T>(&binary) {
        assert_eq!(Coding::Json.encode(&read).ok(), Some(json));
    }
}

/// What routing and policy ask of a call before anybody handles it.
fn about(mut call: Call) {
    let _ = (call.action(), call.about(), call.sender());
    let _ = (call.node_mut().is_some(), call.grant_mut().is_some());
    let _ = format!("{call:?}");
}

/// What somebody types while attached, in any pieces; and the names of keys.
pub fn keys(data: &[u8]) {
    let (piece, typed) = data
        .split_first()
        .map_or((1, data), |(piece, rest)| (1 + usize::from(*piece), rest));
    let mut detach = Detach::default();
    let mut passed = 0;
    for part in typed.chunks(piece) {
        let out = detach.feed(part);
        passed += out.bytes.len();
        if out.detach {
            break;
        }
    }
    assert!(passed <= typed.len(), "nothing is typed that was not");
    let word = String::from_utf8_lossy(data);
    let bytes = keys::bytes(&word);
    assert!(bytes.len() <= word.len().max(5));
}

/// Words of the command line that name sessions, nodes, relays and servers.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(locator) = text.parse::<Locator>() {
        let shown = locator.to_string();
        assert_eq!(shown.parse::<Locator>().ok(), Some(locator));
    }
    if let Ok(session) = text.parse::<Session>() {
        let _ = session.to_ref();
    }
    if let Ok(url) = text.parse::<crate::uplink::RelayUrl>() {
        let shown = url.to_string();
        let again = shown.parse::<crate::uplink::RelayUrl>();
        assert_eq!(again.ok().map(|url| url.to_string()), Some(shown));
    }
    let _ = crate::ws::address(&text);
    let shown = crate::show::clean(&text);
    assert!(!shown.contains(|ch: char| ch.is_control() && ch != '\n' && ch != '\t'));
    let _ = (crate::show::cut(&text, 20), crate::show::age(&text));
}

/// `config.toml` and `servers.toml`, and a variable for everything.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(table) = text.parse::<toml::Table>() {
        let _ = Config::from(&table, |_| None);
        let none = |error: toml::ser::Error| panic!("what was read is written: {error}");
        let _ = toml::to_string(&table).unwrap_or_else(none);
    }
    let _ = crate::verb::server::saved(&text);
    let _ = Config::from(&toml::Table::new(), |_| Some(text.clone().into_owned()));
}

/// The outbox in any state: what can be read is, and what it says it holds it holds.
pub fn outbox(data: &[u8]) {
    let (outbox, damaged) = read_back(data);
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(outbox.iter().count() + damaged <= lines);
    for record in outbox.iter() {
        assert_eq!(outbox.get(record.letter.id), Some(record));
        let waiting = outbox.next_for(&record.letter.node, 10, 1 << 20);
        assert!(waiting.len() <= 10);
    }
    let _ = outbox.poll_expired(u64::MAX);
}

/// Output made into what a client of `cw logs` asked for: no byte of it acts on a terminal.
pub fn logs(data: &[u8]) {
    let (piece, output) = data
        .split_first()
        .map_or((1, data), |(piece, rest)| (1 + usize::from(*piece), rest));
    let size = session::Size { cols: 30, rows: 5 };
    for mut form in [
        Form::Strip(Strip::default()),
        Form::transcript(size, None, None),
        Form::transcript(size, Some(3), Some(100)),
    ] {
        let (mut partial, mut shown) = (Vec::new(), String::new());
        for part in output.chunks(piece) {
            partial.extend(form.feed(part));
            shown += &take_text(&mut partial);
        }
        partial.extend(form.finish());
        shown += &String::from_utf8_lossy(&partial);
        assert!(
            !shown.contains(['\u{1b}', '\u{7}', '\u{8}', '\u{9b}']),
            "{shown:?}"
        );
    }
    if !output.is_empty() {
        assert!((1..=output.len()).contains(&whole(output, piece)));
    }
}

/// Lines from an MCP client, and the arguments of whatever tool they call.
pub fn mcp(data: &[u8]) {
    let tools = crate::mcp::tool::table();
    quick(async {
        let input = std::io::Cursor::new(data.to_vec());
        let mut lines = AsyncRwTransport::<RoleServer, _, _>::new(input, tokio::io::sink());
        while let Some(message) = lines.receive().await {
            let JsonRpcMessage::Request(request) = message else {
                continue;
            };
            match request.request {
                ClientRequest::CallToolRequest(call) => {
                    let arguments = call.params.arguments.unwrap_or_default();
                    if let Some(entry) = tools.get(call.params.name.as_ref()) {
                        let _ = (entry.takes)(arguments);
                    }
                }
                ClientRequest::ReadResourceRequest(read) => {
                    let _ = crate::mcp::is_place(&read.params.uri);
                }
                _ => {}
            }
        }
    });
    // The arguments alone, so that they need not be found inside a line.
    if let Ok(serde_json::Value::Object(arguments)) = serde_json::from_slice(data) {
        for entry in tools.values() {
            let _ = (entry.takes)(arguments.clone());
        }
    }
}

/// A WebSocket that has been accepted: whatever comes is a frame of ours, or the end.
pub fn websocket(data: &[u8]) {
    quick(async {
        let (ours, mut theirs) = tokio::io::duplex(data.len().max(1));
        let _ = theirs.write_all(data).await;
        let _ = theirs.shutdown().await;
        let socket =
            WebSocketStream::from_raw_socket(ours, Role::Server, Some(crate::ws::config()));
        let mut channel = crate::ws::channel(socket.await);
        let mut come = 0;
        while let Ok(Some(frame)) = channel.receiver.next_frame().await {
            assert_ne!(frame.kind, Kind::Binary, "only between nodes");
            come += frame.payload.len();
        }
        assert!(come <= data.len(), "nothing is made larger");
    });
}

/// Runs what ends by itself.
fn quick(future: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if let Ok(runtime) = builder.enable_time().build() {
        runtime.block_on(future);
    }
}

#[cfg(test)]
#[path = "../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn corpora_are_played_again() {
    replay::replay(TARGETS);
}
