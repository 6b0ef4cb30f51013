//! Those who should not get in, and what is no request at all.

use std::sync::Arc;
use std::time::Duration;

use derp::io::client;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh::{Identity, NodeKey};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::rig::{Rig, TOKEN, code, identity, limited, node_name};
use crate::coord::{
    HelloProof, Invite, JoinProof, JoinRequest, Nonce, Signature, ToNode, ToRelay, VERSION,
};
use crate::error::Result;
use crate::relay::clock::unix_now;
use crate::uplink::http::Http;

/// A join with whatever was made of it.
async fn join_with(rig: &Rig, request: &JoinRequest) -> String {
    let http = Http::new(rig.url(), None).unwrap();
    let request = http.request(Method::POST, "/api/v1/join").json(request);
    code(http.send::<Value>(request).await)
}

fn join_request(invite: &str, name: &str, who: &Identity) -> JoinRequest {
    let (key, sign_key, timestamp) = (who.key(), who.verifying_key(), unix_now());
    let parsed: Invite = invite.parse().unwrap();
    let proof = JoinProof {
        invite: &parsed,
        name,
        key: &key,
        sign_key: &sign_key,
        timestamp,
    };
    JoinRequest {
        invite_token: invite.to_owned(),
        node_name: name.to_owned(),
        key,
        sign_key,
        timestamp,
        proof: Signature::sign(who.signing_key(), &proof.message()),
    }
}

#[tokio::test]
async fn b12_u07_a_join_with_a_forged_proof_is_refused() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let other_invite = rig.invite(&network, 2).await;
        let (me, victim) = (identity(), identity());
        let request = || join_request(&invite, "dev-1", &me);

        let mut forged = request();
        forged.key = victim.key();
        assert_eq!(join_with(&rig, &forged).await, "proof_invalid");
        let mut forged = request();
        forged.sign_key = victim.verifying_key();
        assert_eq!(join_with(&rig, &forged).await, "proof_invalid");
        let mut forged = request();
        forged.node_name = "dev-2".to_owned();
        assert_eq!(join_with(&rig, &forged).await, "proof_invalid");
        let mut forged = request();
        forged.invite_token = other_invite.clone();
        assert_eq!(join_with(&rig, &forged).await, "proof_invalid");
        let mut forged = request();
        forged.timestamp += 1;
        assert_eq!(join_with(&rig, &forged).await, "proof_invalid");
        let mut forged = request();
        forged.proof.0[0] ^= 1;
        assert_eq!(join_with(&rig, &forged).await, "proof_invalid");
        let mut old = request();
        old.timestamp -= 3_600;
        assert_eq!(join_with(&rig, &old).await, "clock_skew");
        for name in ["", "-x", "a:b", "a/b", "ä", "a b", &"x".repeat(64)] {
            let named = join_request(&invite, name, &me);
            assert_eq!(join_with(&rig, &named).await, "name_invalid", "{name:?}");
        }
        assert_eq!(join_with(&rig, &request()).await, "ok");
    })
    .await;
}

/// Says hello with whatever was made of it; the answer.
pub(super) async fn hello(rig: &Rig, make: impl Fn(Nonce) -> ToRelay) -> ToNode {
    let url = format!("{}/api/v1/coordinate", rig.url().replace("http", "ws"));
    let (mut socket, _) = connect_async(url).await.unwrap();
    let mut next = async |say: Option<Message>| {
        if let Some(say) = say {
            socket.send(say).await.unwrap();
        }
        let Message::Text(text) = socket.next().await.unwrap().unwrap() else {
            panic!("no text");
        };
        serde_json::from_str::<ToNode>(&text).unwrap()
    };
    let ToNode::Challenge { nonce } = next(None).await else {
        panic!("no challenge");
    };
    let hello = serde_json::to_string(&make(nonce)).unwrap();
    next(Some(Message::Text(hello.into()))).await
}

#[tokio::test]
async fn b12_s05_a_hello_with_a_forged_signature_is_refused() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        let thief = identity();
        let issuer = node.membership.issuer;
        let key = node.identity.key();
        let hello_of = |who: &Identity, key: NodeKey, nonce: &Nonce, version| ToRelay::Hello {
            network: network.clone(),
            key,
            version,
            revision: None,
            papers: None,
            handovers: 0,
            ssh: Vec::new(),
            relays: false,
            signature: Signature::sign(
                who.signing_key(),
                &HelloProof {
                    issuer: &issuer,
                    nonce,
                    network: &network,
                    key: &key,
                }
                .message(),
            ),
        };
        let refused = |answer: ToNode| match answer {
            ToNode::Error { code, .. } => code,
            other => panic!("not refused: {other:?}"),
        };
        let forged = hello(&rig, |nonce| hello_of(&thief, key, &nonce, VERSION)).await;
        assert_eq!(refused(forged), "unauthorized");
        let stranger = hello(&rig, |nonce| hello_of(&thief, thief.key(), &nonce, VERSION)).await;
        assert_eq!(refused(stranger), "unauthorized");
        let replayed = hello(&rig, |_| {
            hello_of(&node.identity, key, &Nonce([7; 32]), VERSION)
        });
        assert_eq!(refused(replayed.await), "unauthorized");
        let newer = hello(&rig, |nonce| hello_of(&node.identity, key, &nonce, 99)).await;
        assert_eq!(refused(newer), "version_unsupported");
        let right = hello(&rig, |nonce| hello_of(&node.identity, key, &nonce, VERSION)).await;
        assert!(matches!(right, ToNode::Welcome { .. }), "{right:?}");
    })
    .await;
}

pub(super) async fn derp(
    rig: &Rig,
    who: &Identity,
) -> Result<(client::Sender, client::Receiver), derp::Error> {
    let config = client::Config {
        url: rig.url().to_owned(),
        secret: who.secret().clone(),
        tls: None,
        proxy: None,
    };
    let (sender, mut receiver) = client::connect(&config).await?;
    // Whoever is not admitted is cut after the handshake.
    sender.ping([1; 8]);
    loop {
        match receiver.recv().await? {
            client::Event::Pong(_) => return Ok((sender, receiver)),
            client::Event::Health(_) => {}
            other => panic!("no pong: {other:?}"),
        }
    }
}

#[tokio::test]
async fn b17_u08_packets_go_between_members_and_nobody_else() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 2).await;
        let a = rig.join(&invite, "dev-1").await.unwrap();
        let b = rig.join(&invite, "dev-2").await.unwrap();
        let (a_send, _a) = derp(&rig, &a.identity).await.unwrap();
        let (_b_send, mut b_receive) = derp(&rig, &b.identity).await.unwrap();
        a_send.try_send(&b.identity.key(), b"hello").unwrap();
        match b_receive.recv().await.unwrap() {
            client::Event::Packet { from, data } => {
                assert_eq!((from, &data[..]), (a.identity.key(), &b"hello"[..]));
            }
            other => panic!("no packet: {other:?}"),
        }
        assert!(derp(&rig, &identity()).await.is_err());

        rig.api()
            .revoke(&network, &node_name("dev-2"))
            .await
            .unwrap();
        while b_receive.recv().await.is_ok() {}
        assert!(derp(&rig, &b.identity).await.is_err());
        derp(&rig, &a.identity).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_key_in_two_networks_loses_its_packets_with_the_last() {
    limited(async {
        let rig = Rig::new().await;
        let (home, work) = (rig.network("home").await, rig.network("work").await);
        let me = identity();
        for network in [&home, &work] {
            let invite = rig.invite(network, 1).await;
            rig.join_as(&invite, "dev-1", Arc::clone(&me))
                .await
                .unwrap();
        }
        rig.api().revoke(&home, &node_name("dev-1")).await.unwrap();
        let (_send, mut receive) = derp(&rig, &me).await.unwrap();
        rig.api().revoke(&work, &node_name("dev-1")).await.unwrap();
        while receive.recv().await.is_ok() {}
        assert!(derp(&rig, &me).await.is_err());
    })
    .await;
}

/// Sends bytes to the relay's port and reads until it hangs up.
async fn raw(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.relay().http()).await.unwrap();
    // The relay may have hung up before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn u09_u10_garbage_is_answered_and_harms_nobody() {
    limited(async {
        let rig = Rig::new().await;
        let long_header = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(200_000));
        let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5_000));
        for bytes in [
            &b""[..],
            b"\0\0\0\0",
            b"\x16\x03\x01\x02\x00\x01",
            b"GET",
            b"GET / HTTP/1.1\r\n",
            b"POST /api/v1/join HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{",
            b"GET /derp HTTP/1.1\r\nhost: x\r\nupgrade: derp\r\nconnection: upgrade\r\n\r\ngarbage",
            b"GET /derp HTTP/1.1\r\nhost: x\r\nupgrade: derp\r\n\r\n",
            b"GET /api/v1/coordinate HTTP/1.1\r\nhost: x\r\n\r\n",
            b"POST /api/v1/join HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            long_header.as_bytes(),
            many_headers.as_bytes(),
        ] {
            raw(&rig, bytes).await;
        }
        let gone = raw(
            &rig,
            b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(gone.starts_with("HTTP/1.1 404"), "{gone}");
        assert!(gone.contains(r#""code":"not_found""#), "{gone}");
        let health = raw(
            &rig,
            b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(health.ends_with("ok"), "{health}");
        let from_page = "GET /api/v1/coordinate HTTP/1.1\r\nhost: x\r\norigin: http://evil.test\r\n\
             upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        let refused = raw(&rig, from_page.as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn b16_u10_bodies_have_a_limit_and_a_shape() {
    limited(async {
        let rig = Rig::new().await;
        let http = Http::new(rig.url(), Some(TOKEN)).unwrap();
        let post = async |path: &str, body: String| {
            let request = http.request(Method::POST, path).body(body);
            code(http.send::<Value>(request).await)
        };
        let huge = json!({ "network_id": "x".repeat(70_000) }).to_string();
        for path in ["/api/v1/networks", "/api/v1/join", "/api/v1/invites"] {
            assert_eq!(post(path, huge.clone()).await, "body_too_large", "{path}");
            for body in [
                "",
                "{",
                "[]",
                "[\"home\"]",
                "null",
                "{\"network_id\": 7}",
                "\u{0}",
            ] {
                assert_eq!(
                    post(path, body.to_owned()).await,
                    "bad_request",
                    "{path} {body:?}"
                );
            }
            let deep = "[".repeat(20_000);
            assert_eq!(post(path, deep).await, "bad_request", "{path}");
        }
        for id in ["", "-x", "a.b", "a/b", "a:b", "../x", "ä", &"x".repeat(64)] {
            let body = json!({ "network_id": id }).to_string();
            assert_eq!(
                post("/api/v1/networks", body).await,
                "network_invalid",
                "{id:?}"
            );
        }
        rig.network("home").await;
        for (uses, ttl) in [
            (0, "1h"),
            (10_001, "1h"),
            (1, "0s"),
            (1, "31d"),
            (1, "soon"),
        ] {
            let body = json!({ "network_id": "home", "uses": uses, "ttl": ttl }).to_string();
            assert_eq!(post("/api/v1/invites", body).await, "bad_request");
        }
        let get = async |path: &str| {
            let request = http.request(Method::GET, path);
            code(http.send::<Value>(request).await)
        };
        assert_eq!(get("/api/v1/nodes").await, "bad_request");
        assert_eq!(
            get("/api/v1/nodes?network_id=a%2Fb").await,
            "network_invalid"
        );
        assert_eq!(get("/api/v1/join").await, "method_not_allowed");
        assert_eq!(
            get("/api/v1/groups/%ff?network_id=home").await,
            "bad_request"
        );
        assert_eq!(get("/api/v1/coordinate").await, "upgrade_required");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_says_it_is_something_else_is_none() {
    limited(async {
        let rig = Rig::new().await;
        let http = Http::new(rig.url(), Some(TOKEN)).unwrap();
        // What a page of another place may send without asking is no body.
        for kind in ["text/plain", "application/x-www-form-urlencoded", "x"] {
            let request = http.request(Method::POST, "/api/v1/networks");
            let request = request.header("content-type", kind);
            let body = json!({ "network_id": "work" }).to_string();
            let answer = http.send::<Value>(request.body(body)).await;
            assert_eq!(code(answer), "media_type", "{kind}");
        }
    })
    .await;
}

#[tokio::test]
async fn s04_u23_the_join_page_shows_an_invite_and_nothing_else() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        let http = Http::new(rig.url(), None).unwrap();
        let page = async |path: String| {
            let request = http.request(Method::GET, &path);
            String::from_utf8(http.send_raw(request).await.unwrap()).unwrap()
        };
        let shown = page(format!("/join?invite={invite}")).await;
        let command = format!("cw network join --relay-url http://relay.test:8080 {invite}");
        assert!(shown.contains(&command), "{shown}");
        for bad in ["", "?invite=", "?invite=%3Cscript%3E", "?invite=x&invite=y"] {
            let shown = page(format!("/join{bad}")).await;
            assert!(shown.contains("no valid invite"), "{shown}");
            assert!(!shown.contains("script"), "{shown}");
        }
    })
    .await;
}

#[tokio::test]
async fn stun_tells_where_one_is() {
    limited(async {
        let rig = Rig::new().await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut request = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];
        request.extend([9; 12]);
        let mut at = rig.relay().stun().unwrap();
        // At the second port, which the first one tells, it says the same.
        for len in [44, 32] {
            let mut answer = [0; 64];
            let told = loop {
                // A datagram may be lost even here.
                socket.send_to(&request, at).await.unwrap();
                let answered = socket.recv_from(&mut answer);
                match tokio::time::timeout(Duration::from_secs(1), answered).await {
                    Ok(Ok((len, from))) if from == at => break len,
                    _ => {}
                }
            };
            assert_eq!(told, len);
            let port = u16::from_be_bytes([answer[26] ^ 0x21, answer[27] ^ 0x12]);
            assert_eq!(port, socket.local_addr().unwrap().port());
            at.set_port(u16::from_be_bytes([answer[38], answer[39]]));
        }
    })
    .await;
}

#[tokio::test]
async fn b16_u10_those_who_connect_and_say_nothing_do_not_keep_others_out() {
    limited(async {
        let rig = Rig::new().await;
        let mut idle = Vec::new();
        for n in 0..400 {
            let mut stream = TcpStream::connect(rig.relay().http()).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /healthz HT").await.unwrap();
            }
            idle.push(stream);
        }
        rig.api().validate().await.unwrap();
        // And they are sent away.
        for stream in &mut idle {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    })
    .await;
}
