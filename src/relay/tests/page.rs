//! The status page, as a browser asks for it: who gets in, who sees what, and when that ends.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::rig::{Rig, TOKEN, limited, node_name};
use crate::coord::report::{Report, Session, Way};
use crate::uplink::http::Http;

fn ask(rig: &Rig, method: Method, path: &str) -> RequestBuilder {
    Http::streaming(rig.url()).unwrap().request(method, path)
}

/// Signs in from the page; the cookie.
async fn sign_in(rig: &Rig, token: &str) -> Result<String, StatusCode> {
    let request = ask(rig, Method::POST, "/page/session").header("origin", rig.url());
    let answer = request
        .json(&json!({ "token": token }))
        .send()
        .await
        .unwrap();
    if answer.status() != StatusCode::NO_CONTENT {
        assert!(!answer.headers().contains_key("set-cookie"));
        return Err(answer.status());
    }
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for flag in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age="] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN), "{cookie}");
    Ok(cookie.split(';').next().unwrap().to_owned())
}

/// What somebody with this cookie sees, at first and then as it changes.
struct Seen {
    answer: Response,
    text: String,
}

impl Seen {
    async fn by(rig: &Rig, cookie: &str) -> Self {
        let request = ask(rig, Method::GET, "/page/events").header("cookie", cookie);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Self {
            answer,
            text: String::new(),
        }
    }

    /// The next state; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data:"));
                let state = data.map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                match state {
                    Some(state) => return Some(state),
                    None => continue,
                }
            }
            let chunk = self.answer.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let state = self.next().await;
            let state = state.unwrap_or_else(|| panic!("the end came before {what}"));
            if is_it(&state) {
                return state;
            }
        }
    }
}

/// A node as the page has it.
fn node<'a>(state: &'a Value, name: &str) -> &'a Value {
    let networks = state["networks"].as_array().unwrap().iter();
    let mut nodes = networks.flat_map(|network| network["nodes"].as_array().unwrap());
    nodes
        .find(|node| node["name"] == name)
        .unwrap_or(&Value::Null)
}

#[tokio::test]
async fn a_browser_signs_in_from_the_page_alone() {
    limited(async {
        let rig = Rig::new().await;
        let right = json!({ "token": TOKEN });
        for origin in [
            None,
            Some("null"),
            Some("http://evil.test"),
            Some("http://127.0.0.1:1"),
        ] {
            for method in [Method::POST, Method::DELETE] {
                let mut request = ask(&rig, method, "/page/session").json(&right);
                if let Some(origin) = origin {
                    request = request.header("origin", origin);
                }
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{origin:?}");
                assert!(!answer.headers().contains_key("set-cookie"));
            }
        }
        // A form of another page could send this, and nothing else.
        let form = ask(&rig, Method::POST, "/page/session").header("origin", rig.url());
        let form = form
            .header("content-type", "text/plain")
            .body(right.to_string());
        let answer = form.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        for wrong in ["", "x", "cws_x", &TOKEN[1..]] {
            assert_eq!(sign_in(&rig, wrong).await, Err(StatusCode::UNAUTHORIZED));
        }
        let cookie = sign_in(&rig, TOKEN).await.unwrap();
        let status = async |path: &str, name: &str, value: &str| {
            let request = ask(&rig, Method::GET, path).header(name, value);
            request.send().await.unwrap().status()
        };
        assert_eq!(
            status("/page/session", "cookie", &cookie).await,
            StatusCode::OK
        );
        // The cookie opens the page and nothing else, and nothing else opens the page.
        let no = StatusCode::UNAUTHORIZED;
        assert_eq!(status("/api/v1/networks", "cookie", &cookie).await, no);
        let (_, held) = cookie.split_once('=').unwrap();
        let held = format!("Bearer {held}");
        assert_eq!(status("/api/v1/networks", "authorization", &held).await, no);
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(status("/page/session", "authorization", &bearer).await, no);
        let twice = format!("{cookie}; {cookie}");
        assert_eq!(status("/page/session", "cookie", &twice).await, no);
        let out = ask(&rig, Method::DELETE, "/page/session").header("origin", rig.url());
        let out = out.header("cookie", &cookie).send().await.unwrap();
        assert_eq!(out.status(), StatusCode::NO_CONTENT);
        assert_eq!(status("/page/session", "cookie", &cookie).await, no);
    })
    .await;
}

#[tokio::test]
async fn a_guesser_at_the_door_has_to_wait() {
    limited(async {
        let rig = Rig::new().await;
        let mut last = StatusCode::OK;
        for _ in 0..100 {
            last = sign_in(&rig, "a guess").await.unwrap_err();
        }
        assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            sign_in(&rig, TOKEN).await,
            Err(last),
            "nor by the right one"
        );
    })
    .await;
}

#[tokio::test]
async fn the_page_is_one_that_loads_nothing_from_elsewhere() {
    limited(async {
        let rig = Rig::new().await;
        for path in ["/", "/page/page.js", "/page/style.css", "/page/icon.svg"] {
            let answer = ask(&rig, Method::GET, path).send().await.unwrap();
            let policy = answer.headers()["content-security-policy"]
                .to_str()
                .unwrap();
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self';"),
                "{policy}"
            );
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            let text = answer.text().await.unwrap();
            assert!(
                !text
                    .replace("http://www.w3.org/2000/svg", "")
                    .contains("://"),
                "{path}"
            );
            if path == "/" {
                assert!(!text.contains("<style") && !text.contains("onclick"));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_viewer_sees_what_is_theirs_as_it_changes() {
    limited(async {
        let rig = Rig::new().await;
        let (home, work) = (rig.network("home").await, rig.network("work").await);
        let one = rig.join(&rig.invite(&home, 1).await, "one").await.unwrap();
        let two = rig.join(&rig.invite(&work, 1).await, "two").await.unwrap();
        let admin = sign_in(&rig, TOKEN).await.unwrap();
        let stranger = rig.login("oidc:0:out").await;
        let stranger = sign_in(&rig, &stranger).await.unwrap();
        let mut seen = Seen::by(&rig, &admin).await;
        let before = seen.next().await.unwrap();
        assert_eq!(before["networks"].as_array().unwrap().len(), 2);
        assert_eq!(node(&before, "one")["online"], false);

        // A node comes, says how it is, and goes.
        let mut up = one.up();
        up.until_connected().await;
        let here = seen
            .until("it is here", |it| node(it, "one")["online"] == true)
            .await;
        assert_eq!(node(&here, "one")["paths"], Value::Null);
        let way = |node: &super::rig::Node| Way {
            peer: node.identity.key(),
            direct: true,
            rtt_us: Some(1_250),
        };
        up.tell(Report {
            // The second is in no network of this one, and has no name here.
            paths: vec![way(&one), way(&two)],
            sessions: Some(vec![Session {
                id: 3,
                name: Some("coder".to_owned()),
                status: "running".to_owned(),
            }]),
        });
        let told = seen
            .until("it has told", |it| node(it, "one")["paths"].is_array())
            .await;
        let ways = json!([{ "to": "one", "direct": true, "rtt_ms": 1.3 }]);
        assert_eq!(node(&told, "one")["paths"], ways);
        assert_eq!(node(&told, "one")["sessions"][0]["name"], "coder");
        assert_eq!(node(&told, "two")["online"], false);

        let nothing = Seen::by(&rig, &stranger).await.next().await.unwrap();
        assert_eq!(nothing, json!({ "networks": [], "more": false }));

        drop(up);
        let gone = seen
            .until("it is gone", |it| node(it, "one")["online"] == false)
            .await;
        assert_eq!(node(&gone, "one")["paths"], Value::Null);
        assert!(node(&gone, "one")["last_seen"].is_string());
        rig.api().revoke(&home, &node_name("one")).await.unwrap();
        seen.until("it is out", |it| node(it, "one").is_null())
            .await;
    })
    .await;
}

#[tokio::test]
async fn sessions_are_shown_to_their_owner_alone() {
    limited(async {
        let rig = Rig::new().await;
        let home = rig.network("home").await;
        let one = rig.join(&rig.invite(&home, 1).await, "one").await.unwrap();
        let new = crate::uplink::api::NewInvite {
            network: home.clone(),
            uses: 1,
            ttl: "1h".to_owned(),
            mine: false,
            node_name: None,
        };
        let invite = rig.api().create_invite(&new).await.unwrap().token.unwrap();
        rig.join(&invite, "two").await.unwrap();
        let nodes = rig.api().nodes(&home).await.unwrap();
        let two = nodes.iter().find(|node| node.name.as_str() == "two");
        let member = two.unwrap().owner.clone();
        let login = rig.login(&member).await;
        let guest = sign_in(&rig, &login).await.unwrap();
        let hidden = Seen::by(&rig, &guest).await.next().await.unwrap();
        assert_eq!(hidden["networks"][0]["hidden"], true);
        assert_eq!(hidden["networks"][0]["nodes"], json!([]));

        rig.api().set_role(&home, &member, "member").await.unwrap();
        let mut up = one.up();
        up.until_connected().await;
        up.tell(Report {
            paths: Vec::new(),
            sessions: Some(Vec::new()),
        });
        let mut seen = Seen::by(&rig, &guest).await;
        let told = seen
            .until("it has told", |it| node(it, "one")["paths"].is_array())
            .await;
        assert_eq!(node(&told, "one")["sessions"], Value::Null);
        let mut own = Seen::by(&rig, &sign_in(&rig, TOKEN).await.unwrap()).await;
        own.until("its owner sees", |it| {
            node(it, "one")["sessions"].is_array()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_login_ends_what_it_shows() {
    limited(async {
        let rig = Rig::new().await;
        rig.network("home").await;
        let cookie = sign_in(&rig, TOKEN).await.unwrap();
        let mut seen = Seen::by(&rig, &cookie).await;
        assert!(seen.next().await.is_some());
        let end = ask(&rig, Method::DELETE, "/api/v1/auth/logins").bearer_auth(TOKEN);
        let end = end.send().await.unwrap();
        assert_eq!(end.status(), StatusCode::OK);
        while seen.next().await.is_some() {}
        let again = ask(&rig, Method::GET, "/page/events").header("cookie", &cookie);
        assert_eq!(
            again.send().await.unwrap().status(),
            StatusCode::UNAUTHORIZED
        );
    })
    .await;
}
