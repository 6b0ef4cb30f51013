//! Signing in to the status page, at the provider.

use e2e::relay::{Relay, TOKEN};
use e2e::web::{Answer, ask, parameter};
use e2e::{Local, case};
use serde_json::{Value, json};

use crate::rig::*;

/// The cookies that an answer sets, whole.
fn cookies<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let headers = answer.headers.iter();
    let set = headers.filter(|(key, _)| key == "set-cookie");
    let values = set.map(|(_, value)| value.as_str());
    values.filter(|value| value.starts_with(name)).collect()
}

/// A browser on its way to the status page: what the provider sends it back with, and its cookie.
fn browse_for_page(relay: &Relay) -> (String, String) {
    let there = ask("GET", &format!("{}/page/login", relay.url()), &[], "");
    assert_eq!(there.status, 303, "{there:?}");
    let place = there.header("location").expect("a place");
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("code_challenge_method", "S256"),
        ("redirect_uri", &format!("{}/auth/callback", relay.url())),
    ] {
        assert_eq!(parameter(place, name).as_deref(), Some(expected), "{place}");
    }
    for name in ["state", "nonce", "code_challenge"] {
        let value = parameter(place, name).unwrap_or_default();
        assert!(value.len() >= 22, "{name} can be guessed: {place}");
    }
    let cookie = cookies(&there, "cw_login_");
    let [cookie] = cookie[..] else {
        panic!("one cookie of this login: {there:?}");
    };
    let parts: Vec<_> = cookie.split("; ").collect();
    for part in ["Path=/auth", "Max-Age=600", "HttpOnly", "SameSite=Lax"] {
        assert!(parts.contains(&part), "{part}: {cookie}");
    }
    let back = ask("GET", place, &[], "");
    assert_eq!(back.status, 303, "{back:?}");
    let back = back.header("location").expect("a place").to_owned();
    (back, parts[0].to_owned())
}

/// Where the page of somebody who is back leads on to, and whether they are signed in.
#[track_caller]
fn leads(answer: &Answer) -> (String, Vec<&str>) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let place = answer
        .body
        .split("url=")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let place = place.expect("it leads on").to_owned();
    (place, cookies(answer, "cw_page="))
}

#[test]
fn a_browser_signs_in_to_the_status_page_at_the_provider() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &["--oidc-allowed-groups", "staff"]);
        let session = format!("{}/page/session", relay.url());
        let (back, cookie) = browse_for_page(&relay);
        let answer = arrive(&back, &cookie);
        let (place, signed) = leads(&answer);
        assert_eq!(place, "/");
        let [signed] = signed[..] else {
            panic!("one cookie of the page: {answer:?}");
        };
        let parts: Vec<_> = signed.split("; ").collect();
        for part in ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"] {
            assert!(parts.contains(&part), "{part}: {signed}");
        }
        // That of the way is not needed any more.
        let over = cookies(&answer, cookie.split('=').next().expect("a name"));
        assert!(
            over.len() == 1 && over[0].contains("Max-Age=0"),
            "{answer:?}"
        );
        let mine = ("cookie", parts[0]);
        let who = ask("GET", &session, &[mine], "");
        assert_eq!(
            (who.status, &who.json()["name"]),
            (200, &json!("ann")),
            "{who:?}"
        );
        assert_eq!(ask("GET", &session, &[], "").status, 401);

        // The same address again makes no second login, with or without the cookie of the way.
        let replayed = arrive(&back, &cookie);
        assert_eq!(
            (replayed.status, code(&replayed).as_str()),
            (410, "login_expired")
        );
        assert!(cookies(&replayed, "cw_page=").is_empty(), "{replayed:?}");
        // What is in the cookie is a login like any other, and nowhere in the clear.
        let token = parts[0].strip_prefix("cw_page=").expect("its value");
        assert!(token.starts_with("cws_"), "{token}");
        is_nowhere(&local.home().dir().join("relay"), token);
        assert!(!relay.log().contains(token));
        let admin = person(local, &relay).env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
        assert!(
            admin
                .ok(&["login", "list", "--all"])
                .contains("status page")
        );

        // Nobody but the page signs it out, and then the login is over.
        let evil = ask(
            "DELETE",
            &session,
            &[mine, ("origin", "http://evil.example")],
            "",
        );
        assert_eq!((evil.status, code(&evil).as_str()), (403, "forbidden"));
        assert_eq!(ask("GET", &session, &[mine], "").status, 200);
        let origin = relay.url();
        let out = ask("DELETE", &session, &[mine, ("origin", &origin)], "");
        assert_eq!(out.status, 204, "{out:?}");
        assert!(
            cookies(&out, "cw_page=;")[0].contains("Max-Age=0"),
            "{out:?}"
        );
        assert_eq!(ask("GET", &session, &[mine], "").status, 401);
        relay.stop();
    });
}

#[test]
fn nobody_else_gets_to_the_status_page_by_the_provider() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &["--oidc-allowed-groups", "staff"]);
        let refused = |answer: &Answer, status: u16, error: &str| {
            assert_eq!(
                (answer.status, code(answer).as_str()),
                (status, error),
                "{answer:?}"
            );
            assert!(cookies(answer, "cw_page=").is_empty(), "{answer:?}");
        };
        // Another browser; a state of nobody; the state of one way with the cookie of another.
        let (back, cookie) = browse_for_page(&relay);
        refused(&ask("GET", &back, &[], ""), 403, "login_invalid");
        let state = parameter(&back, "state").expect("a state");
        let other = back.replace(&state, &"x".repeat(state.len()));
        refused(&arrive(&other, &cookie), 403, "login_invalid");
        let (another, its_cookie) = browse_for_page(&relay);
        refused(&arrive(&back, &its_cookie), 403, "login_invalid");
        // A cookie of that name which somebody has made up.
        let (name, value) = cookie.split_once('=').expect("a cookie");
        let forged = format!("{name}={}", "0".repeat(value.len()));
        refused(&arrive(&back, &forged), 403, "login_invalid");
        // None of it has used up the way of who has begun it.
        assert_eq!(leads(&arrive(&back, &cookie)).0, "/");
        // What is good for the page is no code for a client.
        let state = parameter(&another, "state").expect("a state");
        refused(&exchange(&relay, &state, VERIFIER), 410, "login_expired");

        let mut visits = vec![(json!({"denies": true}), "login_denied")];
        visits.push((
            json!({"denies": false, "iss": "https://id.example.com"}),
            "login_invalid",
        ));
        for lie in ["nonce", "no_nonce", "audience", "expired", "foreign"] {
            visits.push((json!({"iss": null, "lie": lie}), "login_invalid"));
        }
        for groups in [json!(["guests"]), json!([]), json!("staff2"), Value::Null] {
            visits.push((
                json!({"lie": null, "user": {"sub": "3", "groups": groups}}),
                "not_allowed",
            ));
        }
        for (order, error) in visits {
            provider.told(&order);
            let (back, cookie) = browse_for_page(&relay);
            let answer = arrive(&back, &cookie);
            let (place, signed) = leads(&answer);
            assert_eq!(place, format!("/?refused={error}"), "{order}");
            assert!(signed.is_empty(), "{order}: {answer:?}");
            // It cannot be tried again with another answer of the provider.
            refused(&arrive(&back, &cookie), 410, "login_expired");
        }

        // The provider's code of one way for another: PKCE.
        provider.told(&json!({"user": {"sub": "1", "groups": ["staff"]}}));
        let (one, _) = browse_for_page(&relay);
        let (two, cookie) = browse_for_page(&relay);
        let (stolen, own) = (parameter(&one, "code"), parameter(&two, "code"));
        let swapped = two.replace(&own.expect("a code"), &stolen.expect("a code"));
        let answer = arrive(&swapped, &cookie);
        assert_eq!(
            leads(&answer),
            ("/?refused=login_expired".to_owned(), vec![])
        );
        relay.stop();
    });
}
