//! Every route by everybody.
//!
//! The routes come from the relay's own document, and so do the requests: every parameter and every
//! field that it calls required is filled in. What is added has no row here, and the test fails
//! until somebody has written down who may. A method that is not in the document has to be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh::{Identity, NetworkId};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::rig::{Node, Rig, TOKEN, identity, limited, node_name};
use crate::coord::Nonce;
use crate::coord::request::{Credential, Request, SCHEME, Signer};
use crate::relay::api;
use crate::relay::app::random;
use crate::relay::clock::unix_now;
use crate::relay::error::codes::CODES;
use crate::uplink::api::{Api, NewInvite};
use crate::uplink::http::Http;

/// Method and route as the document has them, what is asked for where [`VALUES`] does not say it,
/// and what each of [`World::callers`] gets: `.` it, `-` "who are you" (401), `x` "not you" (403),
/// `o` "there is none" (404), `?` "not like this" (400 and the rest). `#` stands for the number of
/// the caller, `GRANT` for a grant that there is.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const ROWS: &[Row] = &[
    ("GET", "/healthz", &[], "............"),
    ("GET", "/readyz", &[], "............"),
    ("GET", "/metrics", &[], "............"),
    ("GET", "/", &[], "............"),
    ("GET", "/page/style.css", &[], "............"),
    ("GET", "/page/page.js", &[], "............"),
    ("GET", "/page/icon.svg", &[], "............"),
    // The page knows nobody by a header; `page` shows whom it knows.
    ("GET", "/page/events", &[], "------------"),
    ("GET", "/page/session", &[], "------------"),
    // These are for the page's own origin.
    ("POST", "/page/session", &[], "xxxxxxxxxxxx"),
    ("DELETE", "/page/session", &[], "xxxxxxxxxxxx"),
    // There is no provider here.
    ("GET", "/page/login", &[], "????????????"),
    ("GET", "/api/v1/openapi.json", &[], "............"),
    ("GET", "/api/v1/auth/config", &[], "............"),
    ("GET", "/api/v1/auth/validate", &[], "-------....-"),
    ("GET", "/api/v1/networks", &[], "-------....-"),
    ("POST", "/api/v1/networks", &[], "-------.?..-"),
    ("GET", "/api/v1/invites", &[], "-------.xx.-"),
    ("POST", "/api/v1/invites", &[], "-------.xx.-"),
    (
        "DELETE",
        "/api/v1/invites/{id}",
        &[("id", "inv_0")],
        "-------oxxo-",
    ),
    ("GET", "/api/v1/ssh-keys", &[], "-------....-"),
    (
        "POST",
        "/api/v1/ssh-keys",
        &[(
            "key",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTHsMMC1QwAwG9fMVmDnDGvzxE5Tm5i0fzSbgnd1xZB a",
        )],
        "-------.???-",
    ),
    ("DELETE", "/api/v1/ssh-keys", &[], "-------oooo-"),
    ("POST", "/api/v1/ssh-passwords", &[], "--xxoo..xoo-"),
    // What opens this door is the ticket, and only a WebSocket goes through it.
    ("GET", "/api/v1/back/{ticket}", &[], "????????????"),
    // What opens this door is in the body.
    ("POST", "/api/v1/join", &[], "????????????"),
    ("GET", "/api/v1/nodes", &[], "--xx....x..-"),
    (
        "DELETE",
        "/api/v1/nodes/{name}",
        &[("name", "nobody")],
        "-------oxxo-",
    ),
    (
        "DELETE",
        "/api/v1/networks/{id}",
        &[("id", "absent")],
        "-------oxxx-",
    ),
    (
        "POST",
        "/api/v1/networks/{id}/rotate",
        &[("id", "absent")],
        "-------oxxx-",
    ),
    (
        "GET",
        "/api/v1/networks/{id}/members",
        &[("id", "home")],
        "--xxx...x..-",
    ),
    (
        "PUT",
        "/api/v1/networks/{id}/members",
        &[("id", "home")],
        "-------oxxo-",
    ),
    (
        "DELETE",
        "/api/v1/networks/{id}/members",
        &[("id", "home")],
        "-------oxxo-",
    ),
    ("GET", "/api/v1/groups", &[], "--xx....x..-"),
    (
        "POST",
        "/api/v1/groups",
        &[("name", "made-#")],
        "--xxxx..xx.-",
    ),
    ("GET", "/api/v1/groups/{name}", &[], "--xx....x..-"),
    (
        "DELETE",
        "/api/v1/groups/{name}",
        &[("name", "made-#")],
        "--xxxx..xx.-",
    ),
    ("POST", "/api/v1/groups/{name}/members", &[], "--xxxx..xx.-"),
    (
        "DELETE",
        "/api/v1/groups/{name}/members",
        &[],
        "--xxxx..xx.-",
    ),
    (
        "PUT",
        "/api/v1/groups/{name}/policy",
        &[("messages_policy", "open")],
        "--xxxx..xx.-",
    ),
    ("GET", "/api/v1/access-grants", &[], "--xx....x..-"),
    ("POST", "/api/v1/access-grants", &[], "--xxxx..xxx-"),
    // The guest is whom it is for; to others it is as if there were none.
    (
        "GET",
        "/api/v1/access-grants/{id}",
        &[("id", "GRANT")],
        "--xx.o..xo.-",
    ),
    (
        "DELETE",
        "/api/v1/access-grants/{id}",
        &[("id", "GRANT")],
        "--xxxx..xx.-",
    ),
    ("GET", "/api/v1/access/cache/events", &[], "--xx....x..-"),
    // These two ask for a proof once they are open, `hostile` and `live` show which.
    ("GET", "/api/v1/coordinate", &[], "????????????"),
    ("GET", "/derp", &[], "????????????"),
    ("GET", "/derp/probe", &[], "............"),
    ("GET", "/derp/latency-check", &[], "............"),
    ("GET", "/join", &[], "............"),
    // A node shares in its own network, whatever it asks for: the other one's has no such key.
    (
        "GET",
        "/api/v1/kv/{space}",
        &[("network_id", "home")],
        "--.x....x..-",
    ),
    (
        "GET",
        "/api/v1/kv/{space}/{key}",
        &[("network_id", "home")],
        "--ox....x..-",
    ),
    (
        "PUT",
        "/api/v1/kv/{space}/{key}",
        &[("network_id", "home")],
        "--.x....x..-",
    ),
    (
        "DELETE",
        "/api/v1/kv/{space}/{key}",
        &[("key", "none"), ("network_id", "home")],
        "--oxooooxoo-",
    ),
    ("GET", "/api/v1/auth/whoami", &[], "-------....-"),
    ("GET", "/api/v1/auth/logins", &[], "-------....-"),
    (
        "GET",
        "/api/v1/auth/logins",
        &[("all", "true")],
        "-------.xxx-",
    ),
    // A login makes no other.
    ("POST", "/api/v1/auth/logins", &[], "-------.xxx-"),
    (
        "DELETE",
        "/api/v1/auth/logins/{id}",
        &[("id", "none")],
        "-------oooo-",
    ),
    // These have no provider here; `login` of the scenarios has.
    ("POST", "/api/v1/device/authorize", &[], "????????????"),
    ("POST", "/api/v1/device/poll", &[], "????????????"),
    ("POST", "/api/v1/auth/token", &[], "????????????"),
    ("GET", "/auth/login", &[], "????????????"),
    ("GET", "/auth/callback", &[], "xxxxxxxxxxxx"),
    // The last: it ends the logins by which it is asked.
    ("DELETE", "/api/v1/auth/logins", &[], "-------....-"),
];

/// What is asked for, by the names that the document has for it.
const VALUES: &[(&str, &str)] = &[
    ("network_id", "home"),
    ("name", "mesh"),
    ("node_name", "owners"),
    ("target_node", "owners"),
    ("session_id", "#"),
    ("audience", "node:guests"),
    ("subject", "nobody"),
    ("role", "owner"),
    ("node", "owners"),
    ("space", "default"),
    ("ticket", "none"),
    ("code", "x"),
    ("code_verifier", "y"),
    ("poll_token", "x"),
    ("state", "x"),
    ("fingerprint", "none"),
    ("redirect_uri", "http://127.0.0.1:9/"),
    (
        "code_challenge",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ),
    ("key", "k"),
    ("token", "x"),
    ("invite_token", "x"),
    ("sign_key", "x"),
    ("timestamp", "1"),
    ("proof", "x"),
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
    let made: Value = serde_json::from_str(&made.1).unwrap();
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

/// A request, as the document describes it.
struct Asked {
    path: String,
    body: String,
}

/// Fills in what `operation` wants. What is given and not wanted is a mistake of the row.
fn asked(method: &str, route: &str, given: &[(&str, &str)], number: usize) -> Asked {
    let operation = &api::document()["paths"][route][method.to_lowercase()];
    assert!(
        operation.is_object(),
        "{method} {route} is not in the document"
    );
    let mut given: BTreeMap<_, _> = given.iter().copied().collect();
    let mut value = |name: &str, required: bool| -> Option<String> {
        let common = VALUES.iter().find(|(known, _)| *known == name);
        let common = common.filter(|_| required).map(|(_, value)| *value);
        let value = given.remove(name).or(common);
        assert!(
            value.is_some() || !required,
            "{method} {route} wants {name}"
        );
        value.map(|value| value.replace('#', &number.to_string()))
    };
    let (mut path, mut query) = (route.to_owned(), Vec::new());
    let empty = Vec::new();
    for parameter in operation["parameters"].as_array().unwrap_or(&empty) {
        let name = parameter["name"].as_str().unwrap();
        let found = value(name, parameter["required"] == true);
        match (parameter["in"].as_str(), found) {
            (Some("path"), Some(text)) => path = path.replace(&format!("{{{name}}}"), &text),
            (Some("query"), Some(text)) => query.push(format!("{name}={text}")),
            _ => {}
        }
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let content = &operation["requestBody"]["content"];
    let body = match &content["application/json"]["schema"]["$ref"] {
        Value::String(shape) => fields(shape, &mut value).to_string(),
        _ if content.is_object() => "v".to_owned(),
        _ => String::new(),
    };
    assert!(given.is_empty(), "{method} {route} does not know {given:?}");
    Asked { path, body }
}

/// A body of that shape.
fn fields(shape: &str, value: &mut impl FnMut(&str, bool) -> Option<String>) -> Value {
    let shape = api::document()
        .pointer(shape.trim_start_matches('#'))
        .unwrap();
    let mut body = Map::new();
    for (name, kind) in shape["properties"].as_object().unwrap() {
        let required = shape["required"].as_array();
        let required = required.is_some_and(|names| names.contains(&json!(name)));
        if let Some(text) = value(name, required) {
            let number = text
                .parse::<u64>()
                .ok()
                .filter(|_| kind["type"] == "integer");
            body.insert(
                name.clone(),
                number.map_or_else(|| json!(text), |it| json!(it)),
            );
        }
    }
    body.into()
}

/// Every path of the document with its methods.
fn documented() -> Vec<(String, Vec<String>)> {
    let paths = api::document()["paths"].as_object().unwrap();
    let methods = |it: &Value| {
        it.as_object()
            .unwrap()
            .keys()
            .map(|it| it.to_uppercase())
            .collect()
    };
    paths
        .iter()
        .map(|(path, it)| (path.clone(), methods(it)))
        .collect()
}

#[tokio::test]
async fn s02_b02_every_route_by_everybody() {
    limited(async {
        let world = world().await;
        let mut wrong = Vec::new();
        let mut cells = 0;
        for (method, route, given, row) in ROWS {
            let mut got = String::new();
            for (at, (_, proof)) in world.callers.iter().enumerate() {
                let Asked { path, body } = asked(method, route, given, at);
                let path = path.replace("GRANT", &world.grant);
                let (status, text) = send(&world.rig, proof, method, &path, &body).await;
                assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert!(!status.is_server_error(), "{method} {path}: {text}");
                got.push(letter(status));
                cells += 1;
            }
            if got != *row {
                wrong.push(format!("{method} {route}: {got} and not {row}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        for (path, methods) in documented() {
            for method in METHODS {
                if methods.iter().any(|known| known == method) {
                    let row = ROWS.iter().any(|row| (row.0, row.1) == (method, &*path));
                    assert!(row, "{method} {path} has no row");
                    continue;
                }
                let filled = path.replace(['{', '}'], "");
                let (status, text) = send(&world.rig, &Proof::Token, method, &filled, "").await;
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert!(text.contains(r#""code":"method_not_allowed""#), "{text}");
            }
        }
        println!("{cells} cells");
    })
    .await;
}

#[test]
fn the_document_is_whole() {
    let document = api::document();
    let text = document.to_string();
    // Every reference leads somewhere.
    for part in text.split("\"$ref\":\"#").skip(1) {
        let place = part.split('"').next().unwrap();
        assert!(document.pointer(place).is_some(), "{place}");
    }
    let mut ids = BTreeSet::new();
    let mut told = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert_ne!(operation["summary"], "", "{method} {path}");
            let answers = operation["responses"].as_object().unwrap();
            let good = answers.keys().any(|it| it.starts_with(['1', '2', '3']));
            assert!(good, "{method} {path} does nothing");
            for part in path.split('/').filter(|part| part.starts_with('{')) {
                let name = part.trim_matches(['{', '}']);
                let named = operation["parameters"].as_array().unwrap().iter();
                let named = named.filter(|it| it["in"] == "path" && it["name"] == name);
                assert_eq!(named.count(), 1, "{method} {path}: {name}");
            }
            for answer in answers.values() {
                let codes = answer.pointer("/content/application~1problem+json/schema/allOf/1");
                let codes = codes.and_then(|it| it["properties"]["code"]["enum"].as_array());
                let codes = codes.into_iter().flatten();
                told.extend(codes.map(|code| code.as_str().unwrap().to_owned()));
            }
        }
    }
    for (code, status, _) in CODES {
        // This one is for methods that are not in the document.
        let is_told = told.contains(*code) || *status == 405;
        assert!(is_told, "no route refuses with {code}");
    }
}
