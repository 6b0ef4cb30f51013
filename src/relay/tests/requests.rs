//! Requests to the relay's port as no client of ours makes them, byte for byte: one row each. All
//! get an answer, or none and the end of the connection; the relay serves others as before.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{Rig, TOKEN, limited};

/// Sends bytes and reads to the end: the status, or nothing, and the whole answer. Who says no more
/// after half of a request is not waited for; after a whole one that would look like leaving.
async fn exchange(rig: &Rig, bytes: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(rig.relay().http()).await.unwrap();
    // It may have had enough before the end.
    let _ = stream.write_all(bytes).await;
    let text = String::from_utf8_lossy(bytes);
    let whole = text.starts_with("GET ") && text.contains("\r\nconnection: close\r\n");
    if !whole {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.strip_prefix("HTTP/1.").unwrap_or_default();
    let status = status.get(2..).unwrap_or_default();
    (status.chars().take(3).collect(), answer)
}

/// A request with the relay's token, and these headers and this body besides.
fn asking(line: &str, headers: &str, body: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
         {headers}\r\n{body}"
    )
}

fn posting(body: &str) -> String {
    let headers = format!("content-length: {}\r\n", body.len());
    asking("POST /api/v1/networks", &headers, body)
}

/// Every row, then a proof that the relay still serves.
async fn check(rows: &[(&str, String, &str)]) {
    limited(async {
        let rig = Rig::new().await;
        rig.network("home").await;
        let mut wrong = Vec::new();
        for (name, bytes, expected) in rows {
            let (status, answer) = exchange(&rig, bytes.as_bytes()).await;
            // What is no HTTP is answered before there is a request to be refused.
            let told = !answer.contains("content-type:") || answer.contains(r#""code":""#);
            // Who is cut off in the middle of sending may lose the answer.
            let due = expected.trim_end_matches('?');
            let lost = status.is_empty() && due.len() < expected.len();
            if (status != due && !lost) || (status.starts_with('4') && !told) {
                let start: String = answer.chars().take(300).collect();
                wrong.push(format!(
                    "{name}: {expected} was due, there came {status}: {start}"
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        rig.api().validate().await.unwrap();
    })
    .await;
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn a5_http_paths() {
    let get = |path: &str| asking(&format!("GET {path}"), "", "");
    check(&[
        ("two slashes", get("//api/v1/networks"), "404"),
        ("two slashes inside", get("/api//v1/networks"), "404"),
        ("a slash at the end", get("/api/v1/networks/"), "404"),
        ("dots", get("/api/v1/x/../networks"), "404"),
        ("encoded dots", get("/api/v1/%2e%2e/v1/networks"), "404"),
        ("an encoded slash", get("/api%2fv1/networks"), "404"),
        (
            "an encoded slash in a name",
            get("/api/v1/groups/..%2fnetworks?network_id=home"),
            "400",
        ),
        (
            "an encoded NUL in a name",
            get("/api/v1/groups/a%00b?network_id=home"),
            "400",
        ),
        (
            "encoded twice",
            get("/api/v1/groups/%252e%252e?network_id=home"),
            "400",
        ),
        (
            "no UTF-8 in a name",
            get("/api/v1/groups/%ff?network_id=home"),
            "400",
        ),
        (
            "a wide letter in a name",
            get("/api/v1/groups/%EF%BD%81?network_id=home"),
            "400",
        ),
        (
            "a name of 10,000 bytes",
            get(&format!(
                "/api/v1/groups/{}?network_id=home",
                "a".repeat(10_000)
            )),
            "400",
        ),
        (
            "a group that there is not",
            get("/api/v1/groups/nothing?network_id=home"),
            "404",
        ),
        ("capitals", get("/API/V1/networks"), "404"),
        ("a semicolon", get("/api/v1/networks;x=y"), "404"),
        ("a whole URL", get("http://other.test/healthz"), "200"),
        ("an asterisk", get("*"), "404"),
        ("no slash", get("api/v1/networks"), "400"),
        ("a blank in it", get("/api/v1/net works"), "400"),
        ("a raw NUL", get("/api/v1/net\0works"), "400"),
        ("a fragment", get("/healthz#x"), "200"),
        ("a query without a name", get("/healthz?=&&=&x"), "200"),
        (
            "one network twice",
            get("/api/v1/nodes?network_id=home&network_id=work"),
            "400",
        ),
        (
            "a network in another encoding",
            get("/api/v1/nodes?network_id=%68ome"),
            "200",
        ),
        (
            "a network that is none",
            get("/api/v1/nodes?network_id=..%2f"),
            "400",
        ),
        (
            "a network of others",
            get("/api/v1/nodes?network_id=work"),
            "404",
        ),
        (
            "a query of 10,000 bytes",
            get(&format!("/healthz?{}", "x".repeat(10_000))),
            "200",
        ),
        (
            "a query of 60,000 bytes",
            get(&format!("/healthz?{}", "x".repeat(60_000))),
            "431?",
        ),
        (
            "a path of 100,000 bytes",
            get(&format!("/{}", "x".repeat(100_000))),
            "431?",
        ),
    ])
    .await;
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn a5_http_methods_and_framing() {
    let raw = |text: &str| text.to_owned();
    let chunked = |rest: &str| {
        asking(
            "POST /api/v1/networks",
            "transfer-encoding: chunked\r\n",
            rest,
        )
    };
    let both = "content-length: 4\r\ntransfer-encoding: chunked\r\n";
    check(&[
        ("HEAD", asking("HEAD /healthz", "", ""), "200"),
        ("OPTIONS", asking("OPTIONS /api/v1/networks", "", ""), "405"),
        ("TRACE", asking("TRACE /healthz", "", ""), "405"),
        ("CONNECT", asking("CONNECT x:80", "", ""), "404"),
        ("PATCH", asking("PATCH /api/v1/networks", "", ""), "405"),
        (
            "a method that is none",
            asking("DANCE /healthz", "", ""),
            "405",
        ),
        ("small letters", asking("get /healthz", "", ""), "405"),
        (
            "a method overridden",
            asking(
                "GET /api/v1/networks",
                "x-http-method-override: DELETE\r\n",
                "",
            ),
            "200",
        ),
        ("HTTP/1.0", raw("GET /healthz HTTP/1.0\r\n\r\n"), "200"),
        ("HTTP/0.9", raw("GET /healthz\r\n"), "400"),
        (
            "HTTP/3.0",
            raw("GET /healthz HTTP/3.0\r\nhost: x\r\n\r\n"),
            "400",
        ),
        (
            "HTTP/2 by prior knowledge",
            raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            "",
        ),
        ("TLS", raw("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n"), "400"),
        ("SSH", raw("SSH-2.0-OpenSSH_9\r\n\r\n"), "400"),
        ("nothing", raw(""), ""),
        ("an empty line", raw("\r\n"), ""),
        ("half a head", raw("GET /healthz HTTP/1.1\r\nhost"), ""),
        (
            "two lengths",
            asking(
                "POST /api/v1/networks",
                "content-length: 2\r\ncontent-length: 3\r\n",
                "{}x",
            ),
            "400",
        ),
        (
            "a length that is none",
            asking("POST /api/v1/networks", "content-length: x\r\n", "{}"),
            "400",
        ),
        (
            "a length below zero",
            asking("POST /api/v1/networks", "content-length: -1\r\n", "{}"),
            "400",
        ),
        (
            "a length of 2^64",
            asking(
                "POST /api/v1/networks",
                "content-length: 18446744073709551616\r\n",
                "{}",
            ),
            "400",
        ),
        (
            "a length with a sign",
            asking("POST /api/v1/networks", "content-length: +2\r\n", "{}"),
            "400",
        ),
        (
            "a length over what comes",
            asking("POST /api/v1/networks", "content-length: 20\r\n", "{}"),
            "400",
        ),
        (
            "a length and chunks",
            asking("POST /api/v1/networks", both, "2\r\n{}\r\n0\r\n\r\n"),
            "400",
        ),
        ("chunks", chunked("2\r\n{}\r\n0\r\n\r\n"), "400"),
        ("a chunk without an end", chunked("2\r\n{}\r\n"), "400"),
        (
            "a chunk whose size is none",
            chunked("zz\r\n{}\r\n0\r\n\r\n"),
            "400",
        ),
        (
            "a chunk of 2^64",
            chunked("ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            "400",
        ),
        ("chunks without an end", chunked("1000\r\n"), "400"),
        (
            "chunks over the limit",
            chunked(&format!(
                "{}0\r\n\r\n",
                format!("1000\r\n{}\r\n", " ".repeat(0x1000)).repeat(20)
            )),
            "413?",
        ),
        (
            "another coding",
            asking("POST /api/v1/networks", "transfer-encoding: gzip\r\n", "{}"),
            "400",
        ),
        (
            "a header folded",
            raw("GET /healthz HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n"),
            "400",
        ),
        (
            "a blank before the colon",
            raw("GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n"),
            "400",
        ),
        (
            "a name with a blank",
            raw("GET /healthz HTTP/1.1\r\nb ad: x\r\n\r\n"),
            "400",
        ),
        (
            "a NUL in a value",
            raw("GET /healthz HTTP/1.1\r\nhost: x\0y\r\n\r\n"),
            "400",
        ),
        (
            "no colon",
            raw("GET /healthz HTTP/1.1\r\nhost\r\n\r\n"),
            "400",
        ),
        (
            "1,000 headers",
            asking("GET /healthz", &"x: y\r\n".repeat(1_000), ""),
            "431?",
        ),
        (
            "a header of 1 MB",
            asking(
                "GET /healthz",
                &format!("x: {}\r\n", "y".repeat(1 << 20)),
                "",
            ),
            "431?",
        ),
        (
            "another host",
            raw("GET /healthz HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n\r\n"),
            "200",
        ),
        (
            "no host",
            raw("GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"),
            "200",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a5_http_credentials() {
    let with = |headers: &str| {
        format!("GET /api/v1/networks HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
    };
    let bearer = |token: &str| with(&format!("authorization: Bearer {token}\r\n"));
    let twice = format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer x\r\n");
    let forged = format!(
        "authorization: CW-Node home.{}.1000.{}.{}.{}\r\n",
        "09".repeat(32),
        "A".repeat(43),
        "A".repeat(43),
        "A".repeat(86)
    );
    check(&[
        ("none", with(""), "401"),
        ("an empty one", with("authorization: \r\n"), "401"),
        ("a scheme alone", with("authorization: Bearer\r\n"), "401"),
        ("an empty token", bearer(""), "401"),
        ("another token", bearer("x"), "401"),
        (
            "a part of the token",
            bearer(&TOKEN[..TOKEN.len() - 1]),
            "401",
        ),
        ("more than the token", bearer(&format!("{TOKEN}x")), "401"),
        (
            "a token before the token",
            bearer(&format!("x {TOKEN}")),
            "401",
        ),
        (
            "a token of 10,000 bytes",
            bearer(&"x".repeat(10_000)),
            "401",
        ),
        (
            "a token of 50,000 bytes",
            bearer(&"x".repeat(50_000)),
            "431?",
        ),
        ("Basic", with("authorization: Basic YTpi\r\n"), "401"),
        ("no UTF-8", bearer("\u{fffd}\u{fffd}"), "401"),
        ("two, a right one first", with(&twice), "401"),
        ("a node's, forged", with(&forged), "401"),
        (
            "a node's that is none",
            with("authorization: CW-Node x\r\n"),
            "401",
        ),
        (
            "in a cookie",
            with(&format!("cookie: token={TOKEN}\r\n")),
            "401",
        ),
        (
            "by a proxy",
            with(&format!("proxy-authorization: Bearer {TOKEN}\r\n")),
            "401",
        ),
        (
            "from here, says a header",
            with("x-forwarded-for: 127.0.0.1\r\nx-real-ip: ::1\r\n"),
            "401",
        ),
        ("the right one", bearer(TOKEN), "200"),
    ])
    .await;
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn a5_http_json_bodies() {
    let deep = |open: &str, times: usize| format!("{{\"network_id\":{}", open.repeat(times));
    check(&[
        ("nothing", posting(""), "400"),
        ("a byte", posting("{"), "400"),
        ("a list", posting("[]"), "400"),
        ("null", posting("null"), "400"),
        ("a word", posting("\"x\""), "400"),
        ("a number", posting("7"), "400"),
        ("no field", posting("{}"), "400"),
        (
            "a field of another type",
            posting("{\"network_id\":7}"),
            "400",
        ),
        (
            "an endless number",
            posting("{\"network_id\":1e400}"),
            "400",
        ),
        (
            "a field twice",
            posting("{\"network_id\":\"a\",\"network_id\":\"b\"}"),
            "400",
        ),
        ("lists 10,000 deep", posting(&deep("[", 10_000)), "400"),
        (
            "objects 10,000 deep",
            posting(&deep("{\"a\":", 10_000)),
            "400",
        ),
        (
            "a lone surrogate",
            posting("{\"network_id\":\"\\ud800\"}"),
            "400",
        ),
        (
            "a NUL in a name",
            posting("{\"network_id\":\"a\\u0000b\"}"),
            "400",
        ),
        ("a raw NUL", posting("{\"network_id\":\"a\0b\"}"), "400"),
        (
            "bytes after it",
            posting("{\"network_id\":\"work\"}x"),
            "400",
        ),
        ("two of them", posting("{\"network_id\":\"work\"}{}"), "400"),
        (
            "a byte order mark",
            posting("\u{feff}{\"network_id\":\"work\"}"),
            "400",
        ),
        (
            "a comment",
            posting("{\"network_id\":\"work\"/*x*/}"),
            "400",
        ),
        ("single quotes", posting("{'network_id':'work'}"), "400"),
        (
            "one byte over the limit",
            posting(&format!("{}{}", " ".repeat(64 * 1024 - 1), "{}")),
            "413",
        ),
        (
            "all the limit",
            posting(&format!("{}{}", " ".repeat(64 * 1024 - 2), "{}")),
            "400",
        ),
        (
            "a wide letter in a name",
            posting("{\"network_id\":\"ｗork\"}"),
            "400",
        ),
        (
            "a name of 64 bytes",
            posting(&format!("{{\"network_id\":\"{}\"}}", "a".repeat(64))),
            "400",
        ),
    ])
    .await;
}
