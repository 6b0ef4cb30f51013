//! Defects that are known of the system whose interface this one has, at its other doors: the
//! WebSocket and the tools for agents. Those of the local socket are in `rows`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use e2e::pty::Terminal;
use e2e::steps::{self, ECHO, SLEEPER};
use e2e::{Cw, Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// The first line of the answer to a WebSocket handshake with this header.
fn handshake(address: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut line = String::new();
    let _ = BufReader::new(stream.take(4096)).read_line(&mut line);
    line
}

#[test]
fn w31_w32_the_websocket_lets_nobody_in_without_a_token_and_has_room() {
    case(&Local::new(CW), |local| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let served = local.cw().clone().env("CODEWIRE_LISTEN", &address);
        let _ = served.run(&["start"]).ok();
        steps::launch(
            &served,
            "large",
            &["sh", "-c", "seq 1 60000; echo end; read -r x"],
        );
        steps::wait_for_output(&served, "large", "\nend\n");
        steps::launch(&served, "coder", &SLEEPER);
        let path = local.home().dir().join("token");
        let token = wait_until("the node has made a token", PATIENCE, || {
            std::fs::read_to_string(&path).map_err(|error| error.to_string())
        });
        let right = format!("Authorization: Bearer {token}\r\n");
        assert!(handshake(&address, &right).contains(" 101 "));
        let wrong = [
            String::new(),
            "Authorization: Bearer \r\n".to_owned(),
            "Authorization: Bearer\r\n".to_owned(),
            "Authorization: \r\n".to_owned(),
            format!("Authorization: Basic {token}\r\n"),
            format!("Authorization: Bearer {token}x\r\n"),
            format!("Authorization: Bearer {}\r\n", &token[1..]),
        ];
        for header in &wrong {
            let answer = handshake(&address, header);
            assert!(answer.contains(" 401 "), "{header:?}: {answer:?}");
        }
        // Nor does a file that was emptied open the door, now or after the node's next start.
        std::fs::write(&path, "").expect("it is ours");
        for _ in 0..2 {
            let answer = handshake_or_refused(&address, &wrong[1]);
            assert!(!answer.contains(" 101 "), "{answer:?}");
            std::fs::write(&path, &token).expect("it is ours");
            let _ = served.run(&["node", "restart"]).ok();
            std::fs::write(&path, "").expect("it is ours");
        }
        std::fs::write(&path, &token).expect("it is ours");
        let _ = served.run(&["node", "restart"]).ok();

        // Those that say nothing keep nobody out.
        let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(&address)).collect();
        has_room(local, &served, &address, &token);
        drop(silent);
        assert!(!local.home().log().contains(&token));
    });
}

/// More than 32 KiB in both directions, and a session by its name.
#[track_caller]
fn has_room(local: &Local, served: &Cw, address: &str, token: &str) {
    let cw = local.cw().clone().env("CODEWIRE_SERVER_TOKEN", token);
    let from = |words: &[&str]| {
        let mut all = vec!["--server", address];
        all.extend(words);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |cw: &Cw, words: &[&str], input: &[u8]| {
        let all = from(words);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        cw.run_with(&all, input, PATIENCE * 2).ok()
    };
    let log = run(&cw, &["logs", "large"], b"").stdout;
    assert!(
        log.starts_with("1\n2\n") && log.ends_with("60000\nend\n"),
        "{}",
        log.len()
    );
    let body = "x".repeat(1 << 20);
    let _ = run(&cw, &["msg", "coder", "-"], body.as_bytes());
    assert_eq!(steps::inbox(served, "coder")[0]["body"], body);
    let words = from(&["attach", "large"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut terminal = Terminal::run(&cw, &words);
    terminal.shows("60000", PATIENCE);
    terminal.type_in("\u{2}d");
    assert_eq!(terminal.ends(PATIENCE), 0);
}

/// The same, where nobody may listen.
fn handshake_or_refused(address: &str, header: &str) -> String {
    match TcpStream::connect(address) {
        Ok(_) => handshake(address, header),
        Err(error) => error.to_string(),
    }
}

/// An agent's client of the tools: lines of JSON.
struct Tools {
    child: Child,
    input: ChildStdin,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Tools {
    fn start(cw: &Cw) -> Self {
        let mut command = cw.command(&["mcp-server"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
        let sink = Arc::clone(&heard);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let value =
                    serde_json::from_str(&line).unwrap_or_else(|_| json!({"no JSON": line}));
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(value);
            }
        });
        Self {
            child,
            input,
            heard,
        }
    }

    fn say(&mut self, message: &Value) {
        writeln!(self.input, "{message}").expect("it listens");
    }

    fn call(&mut self, id: u64, tool: &str, arguments: &Value) {
        let parameters = json!({"name": tool, "arguments": arguments});
        self.say(
            &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": parameters}),
        );
    }

    fn heard(&self) -> Vec<Value> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    #[track_caller]
    fn answer(&self, id: u64) -> Value {
        wait_until(&format!("call {id} is answered"), PATIENCE, || {
            let heard = self.heard();
            let found = heard.iter().find(|one| one["id"] == id).cloned();
            found.ok_or_else(|| format!("{heard:?}"))
        })
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn w43_an_agents_tools_are_answered_as_they_should() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &ECHO);
        let mut tools = Tools::start(cw);
        let hello = json!({
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "0"},
        });
        tools.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}));
        let welcome = tools.answer(1);
        let version = welcome["result"]["serverInfo"]["version"]
            .as_str()
            .unwrap_or_default();
        assert!(cw.ok(&["--version"]).contains(version), "{welcome}");
        // A notification is not answered, a ping is.
        tools.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        tools.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}));
        assert!(tools.answer(2)["result"].is_object());
        // A tool that takes long keeps no other waiting.
        tools.call(
            3,
            "codewire_wait_for",
            &json!({"session_id": "coder", "timeout_seconds": 600}),
        );
        tools.call(4, "codewire_list_sessions", &json!({}));
        let listed = tools.answer(4);
        assert!(listed.to_string().contains("coder"), "{listed}");
        assert!(
            !tools.heard().iter().any(|one| one["id"] == 3),
            "{:?}",
            tools.heard()
        );
        // What fails says so.
        tools.call(
            5,
            "codewire_get_session_status",
            &json!({"session_id": "nobody"}),
        );
        let failed = tools.answer(5);
        assert!(
            failed["result"]["isError"] == true || failed["error"].is_object(),
            "{failed}"
        );
        tools.call(6, "codewire_dance", &json!({}));
        assert!(tools.answer(6)["error"].is_object(), "{}", tools.answer(6));
        tools.say(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}));
        let list = tools.answer(7);
        let all = list["result"]["tools"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let msg = all.iter().find(|one| one["name"] == "codewire_msg");
        let schema = msg
            .map(|one| one["inputSchema"]["properties"].clone())
            .unwrap_or_default();
        assert!(schema["delivery"].is_object(), "{schema}");
        assert!(
            tools.heard().iter().all(|one| one["id"].is_u64()),
            "{:?}",
            tools.heard()
        );
    });
}
