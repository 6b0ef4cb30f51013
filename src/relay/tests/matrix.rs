//! Every route by everybody.
//!
//! The routes come from the relay's own table: one that is added has no row here, and the test
//! fails until somebody has written down who may. A method that has no row has to be refused.

use std::sync::Arc;

use mesh::{Identity, NetworkId};
use reqwest::{Method, StatusCode};

use super::rig::{Node, Rig, TOKEN, identity, limited, node_name};
use crate::coord::Nonce;
use crate::coord::request::{Credential, Request, SCHEME, Signer};
use crate::relay::api;
use crate::relay::app::random;
use crate::relay::clock::unix_now;
use crate::uplink::api::{Api, NewInvite};
use crate::uplink::http::Http;

/// Method and route, what is asked for, its body, and what each of [`callers`] gets: `.` it, `-`
/// "who are you" (401), `x` "not you" (403), `o` "there is none" (404), `?` "not like this" (400
/// and the rest). `#` stands for the number of the caller.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const ROWS: &[Row] = &[
    ("GET", "/healthz", "/healthz", "", "............"),
    ("GET", "/readyz", "/readyz", "", "............"),
    ("GET", "/metrics", "/metrics", "", "............"),
    (
        "GET",
        "/api/v1/auth/config",
        "/api/v1/auth/config",
        "",
        "............",
    ),
    (
        "GET",
        "/api/v1/auth/validate",
        "/api/v1/auth/validate",
        "",
        "-------....-",
    ),
    (
        "GET",
        "/api/v1/networks",
        "/api/v1/networks",
        "",
        "-------....-",
    ),
    (
        "POST",
        "/api/v1/networks",
        "/api/v1/networks",
        r#"{"network_id":"home"}"#,
        "-------.?..-",
    ),
    (
        "GET",
        "/api/v1/invites",
        "/api/v1/invites?network_id=home",
        "",
        "-------.xx.-",
    ),
    (
        "POST",
        "/api/v1/invites",
        "/api/v1/invites",
        r#"{"network_id":"home"}"#,
        "-------.xx.-",
    ),
    (
        "DELETE",
        "/api/v1/invites/{id}",
        "/api/v1/invites/inv_0?network_id=home",
        "",
        "-------oxxo-",
    ),
    (
        "GET",
        "/api/v1/ssh-keys",
        "/api/v1/ssh-keys",
        "",
        "-------....-",
    ),
    (
        "POST",
        "/api/v1/ssh-keys",
        "/api/v1/ssh-keys",
        r#"{"key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTHsMMC1QwAwG9fMVmDnDGvzxE5Tm5i0fzSbgnd1xZB a"}"#,
        "-------.???-",
    ),
    (
        "DELETE",
        "/api/v1/ssh-keys",
        "/api/v1/ssh-keys?fingerprint=none",
        "",
        "-------oooo-",
    ),
    (
        "POST",
        "/api/v1/ssh-passwords",
        "/api/v1/ssh-passwords",
        r#"{"network_id":"home","node":"owners"}"#,
        "--xxoo..xoo-",
    ),
    // What opens this door is the ticket, and only a WebSocket goes through it.
    (
        "GET",
        "/api/v1/back/{ticket}",
        "/api/v1/back/none",
        "",
        "????????????",
    ),
    // What opens this door is in the body.
    ("POST", "/api/v1/join", "/api/v1/join", "{}", "????????????"),
    (
        "GET",
        "/api/v1/nodes",
        "/api/v1/nodes?network_id=home",
        "",
        "--xx....x..-",
    ),
    (
        "DELETE",
        "/api/v1/nodes/{name}",
        "/api/v1/nodes/nobody?network_id=home",
        "",
        "-------oxxo-",
    ),
    (
        "DELETE",
        "/api/v1/networks/{id}",
        "/api/v1/networks/absent",
        "",
        "-------oxxx-",
    ),
    (
        "POST",
        "/api/v1/networks/{id}/rotate",
        "/api/v1/networks/absent/rotate",
        "{}",
        "-------oxxx-",
    ),
    (
        "GET",
        "/api/v1/networks/{id}/members",
        "/api/v1/networks/home/members",
        "",
        "--xxx...x..-",
    ),
    (
        "PUT",
        "/api/v1/networks/{id}/members",
        "/api/v1/networks/home/members",
        r#"{"subject":"nobody","role":"owner"}"#,
        "-------oxxo-",
    ),
    (
        "DELETE",
        "/api/v1/networks/{id}/members",
        "/api/v1/networks/home/members?subject=nobody",
        "",
        "-------oxxo-",
    ),
    (
        "GET",
        "/api/v1/groups",
        "/api/v1/groups?network_id=home",
        "",
        "--xx....x..-",
    ),
    (
        "POST",
        "/api/v1/groups",
        "/api/v1/groups",
        r#"{"network_id":"home","name":"made-#"}"#,
        "--xxxx..xx.-",
    ),
    (
        "GET",
        "/api/v1/groups/{name}",
        "/api/v1/groups/mesh?network_id=home",
        "",
        "--xx....x..-",
    ),
    (
        "DELETE",
        "/api/v1/groups/{name}",
        "/api/v1/groups/made-#?network_id=home",
        "",
        "--xxxx..xx.-",
    ),
    (
        "POST",
        "/api/v1/groups/{name}/members",
        "/api/v1/groups/mesh/members",
        r##"{"network_id":"home","node_name":"owners","session_id":#}"##,
        "--xxxx..xx.-",
    ),
    (
        "DELETE",
        "/api/v1/groups/{name}/members",
        "/api/v1/groups/mesh/members?network_id=home&node_name=owners&session_id=#",
        "",
        "--xxxx..xx.-",
    ),
    (
        "PUT",
        "/api/v1/groups/{name}/policy",
        "/api/v1/groups/mesh/policy",
        r#"{"network_id":"home","messages_policy":"open"}"#,
        "--xxxx..xx.-",
    ),
    (
        "GET",
        "/api/v1/access-grants",
        "/api/v1/access-grants?network_id=home",
        "",
        "--xx....x..-",
    ),
    (
        "POST",
        "/api/v1/access-grants",
        "/api/v1/access-grants",
        r#"{"network_id":"home","target_node":"owners","session_id":1,"audience":"node:guests"}"#,
        "--xxxx..xxx-",
    ),
    // The guest is whom it is for; to others it is as if there were none.
    (
        "GET",
        "/api/v1/access-grants/{id}",
        "/api/v1/access-grants/GRANT?network_id=home",
        "",
        "--xx.o..xo.-",
    ),
    (
        "DELETE",
        "/api/v1/access-grants/{id}",
        "/api/v1/access-grants/GRANT?network_id=home",
        "",
        "--xxxx..xx.-",
    ),
    (
        "GET",
        "/api/v1/access/cache/events",
        "/api/v1/access/cache/events?network_id=home",
        "",
        "--xx....x..-",
    ),
    // These two ask for a proof once they are open, `hostile` and `live` show which.
    (
        "GET",
        "/api/v1/coordinate",
        "/api/v1/coordinate",
        "",
        "????????????",
    ),
    ("GET", "/derp", "/derp", "", "????????????"),
    ("GET", "/derp/probe", "/derp/probe", "", "............"),
    (
        "GET",
        "/derp/latency-check",
        "/derp/latency-check",
        "",
        "............",
    ),
    ("GET", "/join", "/join", "", "............"),
    // A node shares in its own network, whatever it asks for: the other one's has no such key.
    (
        "GET",
        "/api/v1/kv/{space}",
        "/api/v1/kv/default?network_id=home",
        "",
        "--.x....x..-",
    ),
    (
        "GET",
        "/api/v1/kv/{space}/{*key}",
        "/api/v1/kv/default/k?network_id=home",
        "",
        "--ox....x..-",
    ),
    (
        "PUT",
        "/api/v1/kv/{space}/{*key}",
        "/api/v1/kv/default/k?network_id=home",
        "v",
        "--.x....x..-",
    ),
    (
        "DELETE",
        "/api/v1/kv/{space}/{*key}",
        "/api/v1/kv/default/none?network_id=home",
        "",
        "--oxooooxoo-",
    ),
    (
        "GET",
        "/api/v1/auth/whoami",
        "/api/v1/auth/whoami",
        "",
        "-------....-",
    ),
    (
        "GET",
        "/api/v1/auth/logins",
        "/api/v1/auth/logins",
        "",
        "-------....-",
    ),
    (
        "GET",
        "/api/v1/auth/logins",
        "/api/v1/auth/logins?all=true",
        "",
        "-------.xxx-",
    ),
    // A login makes no other.
    (
        "POST",
        "/api/v1/auth/logins",
        "/api/v1/auth/logins",
        "{}",
        "-------.xxx-",
    ),
    (
        "DELETE",
        "/api/v1/auth/logins/{id}",
        "/api/v1/auth/logins/none",
        "",
        "-------oooo-",
    ),
    // These have no provider here; `login` of the scenarios has.
    (
        "POST",
        "/api/v1/device/authorize",
        "/api/v1/device/authorize",
        "{}",
        "????????????",
    ),
    (
        "POST",
        "/api/v1/device/poll",
        "/api/v1/device/poll",
        r#"{"poll_token":"x"}"#,
        "????????????",
    ),
    (
        "POST",
        "/api/v1/auth/token",
        "/api/v1/auth/token",
        r#"{"code":"x","code_verifier":"y"}"#,
        "????????????",
    ),
    (
        "GET",
        "/auth/login",
        "/auth/login?redirect_uri=http://127.0.0.1:9/&state=x&code_challenge=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "",
        "????????????",
    ),
    (
        "GET",
        "/auth/callback",
        "/auth/callback?state=x",
        "",
        "xxxxxxxxxxxx",
    ),
    // The last: it ends the logins by which it is asked.
    (
        "DELETE",
        "/api/v1/auth/logins",
        "/api/v1/auth/logins",
        "",
        "-------....-",
    ),
];

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];

/// How somebody proves who they are.
enum Proof {
    Nothing,
    Token,
    Login(String),
    Key(Box<Node>),
}

struct World {
    rig: Rig,
    grant: String,
    callers: Vec<(&'static str, Proof)>,
}

/// Nobody, a key that the relay does not know, a node of another network with the same name as
/// the guest's, one that was revoked, a guest's, a member's, the owner's, and the admin; then the
/// logins of an outsider, a member and another owner, and one that is over.
async fn world() -> World {
    let rig = Rig::new().await;
    let (home, work) = (rig.network("home").await, rig.network("work").await);
    let guest = bare(&rig, &home, "guests").await;
    let member = bare(&rig, &home, "members").await;
    let owner = rig
        .join(&rig.invite(&home, 1).await, "owners")
        .await
        .unwrap();
    let revoked = bare(&rig, &home, "gone").await;
    rig.api().revoke(&home, &node_name("gone")).await.unwrap();
    let other = rig
        .join(&rig.invite(&work, 1).await, "guests")
        .await
        .unwrap();
    bare(&rig, &home, "chiefs").await;
    let nodes = rig.api().nodes(&home).await.unwrap();
    let subject = |name: &str| {
        let node = nodes.iter().find(|node| node.name.as_str() == name);
        node.unwrap().owner.clone()
    };
    for (name, role) in [("members", "member"), ("chiefs", "owner")] {
        rig.api()
            .set_role(&home, &subject(name), role)
            .await
            .unwrap();
    }
    let people = people(&rig, &subject("members"), &subject("chiefs")).await;
    let stranger = Node {
        identity: identity(),
        ..guest.clone()
    };
    let mesh = "mesh".parse().unwrap();
    rig.api().create_group(&home, &mesh).await.unwrap();
    let value = "/api/v1/kv/default/k?network_id=home";
    assert_eq!(
        send(&rig, &Proof::Token, "PUT", value, "v").await.0,
        StatusCode::OK
    );
    let grant =
        r#"{"network_id":"home","target_node":"owners","session_id":1,"audience":"node:guests"}"#;
    let made = send(&rig, &Proof::Token, "POST", "/api/v1/access-grants", grant).await;
    let made: serde_json::Value = serde_json::from_str(&made.1).unwrap();
    let grant = made["grant_id"].as_str().unwrap().to_owned();
    let mut callers = vec![
        ("nobody", Proof::Nothing),
        ("a stranger", Proof::Key(Box::new(stranger))),
        ("another network's node", Proof::Key(Box::new(other))),
        ("a revoked node", Proof::Key(Box::new(revoked))),
        ("a guest's node", Proof::Key(Box::new(guest))),
        ("a member's node", Proof::Key(Box::new(member))),
        ("the owner's node", Proof::Key(Box::new(owner))),
        ("the admin", Proof::Token),
    ];
    callers.extend(people);
    World {
        rig,
        grant,
        callers,
    }
}

/// The logins of an outsider, a member and an owner, and one that is over.
async fn people(rig: &Rig, member: &str, owner: &str) -> [(&'static str, Proof); 4] {
    let over = rig.login(owner).await;
    let api = Api::new(rig.url(), &over).unwrap();
    api.end_login("current").await.unwrap();
    [
        ("an outsider", Proof::Login(rig.login("oidc:0:out").await)),
        ("a member", Proof::Login(rig.login(member).await)),
        ("an owner", Proof::Login(rig.login(owner).await)),
        ("whose login is over", Proof::Login(over)),
    ]
}

/// A node that came by an invite of its own, as a guest.
async fn bare(rig: &Rig, network: &NetworkId, name: &str) -> Node {
    let new = NewInvite {
        network: network.clone(),
        uses: 1,
        ttl: "1h".to_owned(),
        mine: false,
        node_name: None,
    };
    let invite = rig.api().create_invite(&new).await.unwrap().token.unwrap();
    rig.join(&invite, name).await.unwrap()
}

async fn send(
    rig: &Rig,
    proof: &Proof,
    method: &str,
    path: &str,
    body: &str,
) -> (StatusCode, String) {
    let http = Http::streaming(rig.url()).unwrap();
    let request = http.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
    let request = match proof {
        Proof::Nothing => request,
        Proof::Token => request.bearer_auth(TOKEN),
        Proof::Login(token) => request.bearer_auth(token),
        Proof::Key(node) => request.header("authorization", signed(node, method, path, body)),
    };
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let status = answer.status();
    // What comes as events has no end.
    let streams = answer.headers().get("content-type").is_some_and(|kind| {
        kind.to_str()
            .is_ok_and(|kind| kind.starts_with("text/event-stream"))
    });
    let text = if streams {
        String::new()
    } else {
        answer.text().await.unwrap()
    };
    (status, text)
}

fn signed(node: &Node, method: &str, path: &str, body: &str) -> String {
    let identity: &Arc<Identity> = &node.identity;
    let signer = Signer {
        network: &node.membership.network,
        key: identity.key(),
        signing: identity.signing_key(),
    };
    let request = Request {
        issuer: &node.membership.issuer,
        method,
        path,
    };
    let nonce = Nonce(random());
    let credential = Credential::sign(&signer, &request, body.as_bytes(), unix_now(), nonce);
    format!("{SCHEME} {credential}")
}

fn letter(status: StatusCode) -> char {
    match status {
        StatusCode::UNAUTHORIZED => '-',
        StatusCode::FORBIDDEN => 'x',
        StatusCode::NOT_FOUND => 'o',
        status if status.is_success() => '.',
        _ => '?',
    }
}

#[tokio::test]
async fn s02_b02_every_route_by_everybody() {
    limited(async {
        let world = world().await;
        let paths = api::routes().paths;
        let mut wrong = Vec::new();
        let mut cells = 0;
        for (method, route, path, body, row) in ROWS {
            assert!(paths.contains(route), "there is no {route}");
            let path = path.replace("GRANT", &world.grant);
            let mut got = String::new();
            for (at, (_, proof)) in world.callers.iter().enumerate() {
                let number = |text: &str| text.replace('#', &at.to_string());
                let (path, body) = (number(&path), number(body));
                let (status, text) = send(&world.rig, proof, method, &path, &body).await;
                assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert!(!status.is_server_error(), "{method} {path}: {text}");
                got.push(letter(status));
                cells += 1;
            }
            if got != *row {
                wrong.push(format!("{method} {path}: {got} and not {row}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        for path in &paths {
            for method in METHODS {
                if ROWS.iter().any(|row| (row.0, row.1) == (method, *path)) {
                    continue;
                }
                let filled = path.replace("{*key}", "x").replace(['{', '}'], "");
                let (status, _) = send(&world.rig, &Proof::Token, method, &filled, "").await;
                let refused = StatusCode::METHOD_NOT_ALLOWED;
                assert_eq!(status, refused, "{method} {path} has no row");
            }
        }
        println!("{cells} cells");
    })
    .await;
}
