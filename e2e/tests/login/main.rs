//! Who is let in by a relay: by its token, by a provider, by nobody; and until when.
//!
//! The provider is a process of its own with real keys, `test-provider`, which lies when it is told.

mod page;
mod rig;

use e2e::relay::{Relay, TOKEN};
use e2e::web::{ask, open, parameter, try_ask};
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

use rig::*;

#[test]
fn none_lets_in_everybody_of_this_machine_and_no_pages() {
    case(&Local::new(CW), |local| {
        let data = local.home().dir().join("relay");
        let serve = |listen: &str, ssh: &str| {
            let data = data.display().to_string();
            let words = ["relay", "serve", "--base-url", "http://127.0.0.1:1"];
            let more = [
                "--auth-mode",
                "none",
                "--listen",
                listen,
                "--ssh-listen",
                ssh,
            ];
            let last = ["--stun-listen", "", "--data-dir", &data];
            local.cw().run(&[&words[..], &more, &last].concat())
        };
        for listen in [":0", "0.0.0.0:0", "[::]:0"] {
            serve(listen, "").fails("config_invalid").hints("127.0.0.1");
            serve("127.0.0.1:0", listen).fails("config_invalid");
        }
        let relay = Relay::new(local.cw().clone(), &data, "127.0.0.1:0");
        let relay = relay.with(&["--auth-mode", "none"]);
        relay.start();
        assert!(relay.log().contains("nobody is asked who they are"));
        let cw = person(local, &relay);
        cw.run(&["whoami"]).fails("unauthorized").hints("cw login");
        let told = cw.run(&["login"]).ok();
        assert!(told.stderr.contains("asks nobody who they are"), "{told}");
        assert_eq!(whoami(&cw)["subject"], "admin");
        let _ = cw.run(&["network", "create", "demo"]).ok();
        // A page that somebody of this machine looks at.
        let url = format!("{}/api/v1/networks", relay.url());
        let body = r#"{"network_id":"theirs"}"#;
        for header in [("origin", "http://evil.example"), ("host", "evil.example")] {
            assert_eq!(ask("POST", &url, &[header], body).status, 403, "{header:?}");
        }
        let _ = cw.run(&["logout"]).ok();
        cw.run(&["whoami"]).fails("unauthorized");
        relay.stop();
    });
}

#[test]
fn the_token_becomes_a_login_that_can_be_ended() {
    case(&Local::new(CW), |local| {
        let data = local.home().dir().join("relay");
        let relay = Relay::new(local.cw().clone(), &data, "127.0.0.1:0");
        relay.start();
        let cw = person(local, &relay);
        cw.run(&["login"])
            .fails("unauthorized")
            .hints("--token-file");
        let with_token = cw.clone().env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
        let _ = with_token.run(&["login"]).ok();
        is_nowhere(local.home().dir(), TOKEN);
        let me = whoami(&cw);
        assert_eq!(me["subject"], "admin");
        assert_eq!(me["login"]["current"], true);
        let _ = cw.run(&["network", "create", "demo"]).ok();
        let wrong = cw.clone().env("CODEWIRE_RELAY_AUTH_TOKEN", "wrong");
        wrong.run(&["whoami"]).fails("unauthorized");

        // It outlives the relay, and is kept as a hash alone.
        let file = std::fs::read_to_string(local.home().dir().join("logins.json"));
        let file: Value = serde_json::from_str(&file.expect("a file")).expect("JSON");
        let kept = file.as_object().and_then(|logins| logins.values().next());
        let token = kept.expect("a login")["token"]
            .as_str()
            .expect("a token")
            .to_owned();
        relay.kill();
        relay.start();
        assert_eq!(whoami(&cw)["subject"], "admin");
        is_nowhere(&data, &token);
        assert!(!relay.log().contains(&token));

        // A login cannot make another.
        let bearer = format!("Bearer {token}");
        let url = format!("{}/api/v1/auth/logins", relay.url());
        let made = ask("POST", &url, &[("authorization", &bearer)], "{}");
        assert_eq!((made.status, code(&made).as_str()), (403, "forbidden"));

        // Ended from elsewhere: what goes on by it is cut off, and what comes is refused.
        let url = format!("{}/api/v1/access/cache/events?network_id=demo", relay.url());
        let stream = open(&url, &[("authorization", &bearer)]);
        let id = me["login"]["id"].as_str().expect("an id");
        assert!(with_token.ok(&["login", "list"]).contains(id));
        let _ = with_token.run(&["login", "revoke", id]).ok();
        stream.ends(PATIENCE);
        cw.run(&["whoami"]).fails("unauthorized").hints("cw login");
        with_token.run(&["login", "revoke", id]).fails("not_found");
        let _ = cw.run(&["logout"]).ok();
        cw.run(&["logout"]).fails("not_found");

        // Another token is another door.
        let _ = with_token.run(&["login"]).ok();
        relay.stop();
        let file = local.home().dir().join("other-token");
        std::fs::write(&file, "another token").expect("it is ours");
        let file = file.display().to_string();
        let words = ["relay", "serve", "--base-url", "http://127.0.0.1:1"];
        let address = relay.address();
        let data = data.display().to_string();
        let more = [
            "--listen",
            &address,
            "--stun-listen",
            "",
            "--data-dir",
            &data,
        ];
        let last = ["--auth-token-file", &file];
        let running = local.cw().start(&[&words[..], &more, &last].concat());
        let _ = running.stderr.line("HTTP listening on ", PATIENCE);
        cw.run(&["whoami"]).fails("unauthorized");
    });
}

#[test]
fn s12_a_code_typed_at_the_provider_logs_in() {
    let mut provider = Provider::new();
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &["--oidc-allowed-groups", "staff,admins"]);
        let cw = person(local, &relay);
        // The administrator's token is good in every mode.
        let admin = cw.clone().env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
        assert_eq!(whoami(&admin)["subject"], "admin");

        provider.told(&json!({"user": {
            "sub": "248289761001", "preferred_username": "ann", "email": "boss@example.com",
            "email_verified": true, "groups": ["staff"],
        }}));
        let login = begin(&cw);
        wait_until("the relay has asked", PATIENCE, || {
            let seen = provider.seen();
            (seen["counts"]["token"].as_u64() > Some(0))
                .then_some(())
                .ok_or_else(|| seen.to_string())
        });
        provider.told(&json!({"device": "approve"}));
        let done = login.wait(PATIENCE).ok();
        assert!(done.stderr.contains("as ann (oidc:"), "{done}");
        let me = whoami(&cw);
        let ann = me["subject"].as_str().expect("a subject").to_owned();
        assert!(
            ann.ends_with(":248289761001") && !ann.contains("boss"),
            "{me}"
        );
        let _ = cw.run(&["network", "create", "anns"]).ok();

        // Another subject with the same address is another person, who sees nothing of it.
        let bob_home = Local::new(CW);
        let bob = person(&bob_home, &relay);
        provider.told(&json!({"user": {
            "sub": "2", "preferred_username": "ann", "email": "boss@example.com",
            "email_verified": true, "groups": ["others", "admins"],
        }}));
        let _ = begin(&bob).wait(PATIENCE).ok();
        assert_ne!(whoami(&bob)["subject"], ann.as_str());
        assert_eq!(bob.ok(&["network", "list"]), "No networks\n");
        bob.run(&["network", "create", "anns"])
            .fails("network_taken");
        let id = me["login"]["id"].as_str().expect("an id");
        bob.run(&["login", "revoke", id]).fails("not_found");
        bob.run(&["login", "list", "--all"]).fails("forbidden");
        assert!(admin.ok(&["login", "list", "--all"]).contains(id));

        // Who is in no such group; who is in none.
        for groups in [json!(["other"]), json!([]), json!("staff2"), Value::Null] {
            provider.told(&json!({"user": {"sub": "3", "groups": groups}}));
            let eve = Local::new(CW);
            let done = begin(&person(&eve, &relay)).wait(PATIENCE);
            let _ = done.fails("not_allowed");
        }
        // The provider asks for its pace, and was never asked faster.
        let fastest = provider.seen()["fastest_ms"].as_u64();
        assert!(fastest.is_none_or(|fastest| fastest >= 900), "{fastest:?}");

        // It is away: who is in stays in, who comes is told.
        provider.stop();
        assert_eq!(whoami(&cw)["subject"], ann.as_str());
        relay.kill();
        relay.start();
        assert_eq!(whoami(&cw)["subject"], ann.as_str());
        bob.run(&["login"]).fails("provider_unreachable");
        provider = Provider::start(&provider.address.clone());
        provider.told(&json!({"device": "approve"}));
        wait_until("it is there again", PATIENCE, || {
            let url = format!("{}/api/v1/device/authorize", relay.url());
            let answer = ask("POST", &url, &[], "{}");
            (answer.status == 200).then_some(()).ok_or(answer.body)
        });
        is_nowhere(&local.home().dir().join("relay"), SECRET);
        assert!(!relay.log().contains(SECRET));
        relay.stop();
    });
}

#[test]
fn a_code_that_is_denied_expired_or_asked_for_too_often() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &[]);
        let cw = person(local, &relay);
        for (fate, error) in [("deny", "login_denied"), ("expire", "login_expired")] {
            provider.told(&json!({"device": "pending"}));
            let login = begin(&cw);
            provider.told(&json!({ "device": fate }));
            let _ = login.wait(PATIENCE).fails(error);
        }
        let post = |path: &str, body: Value| {
            ask(
                "POST",
                &format!("{}{path}", relay.url()),
                &[],
                &body.to_string(),
            )
        };
        let begin_with = |order: Value| {
            provider.told(&order);
            let begun = post("/api/v1/device/authorize", json!({})).json();
            json!({ "poll_token": begun["poll_token"] })
        };
        let poll = begin_with(json!({"device": "pending", "interval": 60}));
        let first = post("/api/v1/device/poll", poll.clone());
        assert_eq!(
            (first.status, &first.json()["status"]),
            (202, &json!("pending"))
        );
        // Too soon: the provider does not hear of it.
        let asked = provider.seen()["counts"]["token"].clone();
        for _ in 0..5 {
            let early = post("/api/v1/device/poll", poll.clone());
            assert_eq!(
                (early.status, &early.json()["status"]),
                (202, &json!("slow_down"))
            );
        }
        assert_eq!(provider.seen()["counts"]["token"], asked);
        // The provider wants it slower.
        let poll = begin_with(json!({"device": "slow", "interval": 10}));
        let slower = post("/api/v1/device/poll", poll).json();
        assert_eq!(slower, json!({"status": "slow_down", "interval": 15}));
        // Granted; and again to the same secret, if the answer was lost.
        let poll = begin_with(json!({"device": "approve"}));
        let granted = post("/api/v1/device/poll", poll.clone());
        assert_eq!(granted.status, 200, "{granted:?}");
        let again = post("/api/v1/device/poll", poll.clone());
        assert_eq!((again.status, again.json()), (200, granted.json()));
        // But not when it was ended since.
        let token = granted.json()["token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let bearer = format!("Bearer {token}");
        let url = format!("{}/api/v1/auth/logins/current", relay.url());
        let ended = ask("DELETE", &url, &[("authorization", &bearer)], "");
        assert_eq!(ended.status, 204);
        let late = post("/api/v1/device/poll", poll);
        assert_eq!((late.status, code(&late).as_str()), (410, "login_expired"));
        for nonsense in ["", "x", "WDJB-MJHT"] {
            let answer = post("/api/v1/device/poll", json!({ "poll_token": nonsense }));
            assert_eq!(answer.status, 410, "{nonsense}");
        }
        relay.stop();
    });
}

#[test]
fn lies_of_a_provider_are_not_believed() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &[]);
        for truth in [Value::Null, json!("ed_dsa")] {
            provider.told(&json!({ "lie": truth }));
            let (code, error) = visit(&relay);
            assert_eq!(error, None, "{truth}");
            let granted = exchange(&relay, &code.expect("a code"), VERIFIER);
            assert_eq!(granted.status, 200, "{granted:?}");
        }
        for lie in [
            "nonce",
            "no_nonce",
            "issuer",
            "audience",
            "two_audiences",
            "party",
            "expired",
            "future",
            "none",
            "hs256",
            "foreign",
            "unknown_key",
            "changed",
            "no_subject",
            "garbage",
        ] {
            provider.told(&json!({ "lie": lie }));
            let (code, error) = visit(&relay);
            assert_eq!(error.as_deref(), Some("login_invalid"), "{lie}");
            assert_eq!(code, None, "{lie}");
        }
        relay.stop();
    });
    // The same by a code, which has no nonce.
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &[]);
        provider.told(&json!({"device": "approve"}));
        for lie in ["issuer", "audience", "expired", "none", "hs256", "foreign"] {
            provider.told(&json!({ "lie": lie }));
            let post = |path: &str, body: Value| {
                ask(
                    "POST",
                    &format!("{}{path}", relay.url()),
                    &[],
                    &body.to_string(),
                )
            };
            let begun = post("/api/v1/device/authorize", json!({})).json();
            let poll = json!({ "poll_token": begun["poll_token"] });
            let answer = post("/api/v1/device/poll", poll.clone());
            assert_eq!(
                (answer.status, code(&answer).as_str()),
                (403, "login_invalid"),
                "{lie}"
            );
            // It is over with that.
            let again = post("/api/v1/device/poll", poll);
            assert_eq!(again.status, 410, "{lie}");
        }
        relay.stop();
    });
}

#[test]
fn a_provider_that_is_another_is_not_asked() {
    let provider = Provider::new();
    provider.told(&json!({"issuer": "https://id.example.com"}));
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &[]);
        let url = format!("{}/api/v1/device/authorize", relay.url());
        let answer = ask("POST", &url, &[], "{}");
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (502, "provider_unreachable")
        );
        assert_eq!(provider.seen()["counts"]["device"], Value::Null);
        relay.stop();
    });
}

#[test]
fn codes_and_states_of_browsers_are_good_once_and_for_one() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &[]);
        let (back, cookie) = browse(&relay);
        // Another browser, or the state of nobody.
        let foreign = ask("GET", &back, &[], "");
        assert_eq!(
            (foreign.status, code(&foreign).as_str()),
            (403, "login_invalid")
        );
        let place = at_client(&arrive(&back, &cookie));
        let code_here = parameter(&place, "code").expect("a code");
        // The same address again: of the provider's code, and of the state.
        let replayed = arrive(&back, &cookie);
        assert_eq!(
            (replayed.status, code(&replayed).as_str()),
            (410, "login_expired")
        );
        // A client that has not begun it, and uses the code up.
        let stolen = exchange(&relay, &code_here, "another verifier");
        assert_eq!(
            (stolen.status, code(&stolen).as_str()),
            (410, "login_expired")
        );
        assert_eq!(exchange(&relay, &code_here, VERIFIER).status, 410);

        let (good, _) = visit(&relay);
        let good = good.expect("a code");
        assert_eq!(exchange(&relay, &good, VERIFIER).status, 200);
        assert_eq!(exchange(&relay, &good, VERIFIER).status, 410, "replayed");

        // The provider's code of one login for another.
        let (one, _) = browse(&relay);
        let (two, cookie) = browse(&relay);
        let stolen = parameter(&one, "code").expect("a code");
        let own = parameter(&two, "code").expect("a code");
        let swapped = two.replace(&own, &stolen);
        let place = at_client(&arrive(&swapped, &cookie));
        assert_eq!(parameter(&place, "error").as_deref(), Some("login_expired"));

        // The answer of another provider (RFC 9207), and somebody who says no.
        provider.told(&json!({"iss": "https://id.example.com"}));
        assert_eq!(visit(&relay).1.as_deref(), Some("login_invalid"));
        provider.told(&json!({"iss": null, "denies": true}));
        assert_eq!(visit(&relay).1.as_deref(), Some("login_denied"));

        // Nobody is sent to where the browser is not.
        let begin = |redirect: &str| {
            let challenge = challenge();
            let query = format!("redirect_uri={redirect}&code_challenge={challenge}&state=x");
            ask(
                "GET",
                &format!("{}/auth/login?{query}", relay.url()),
                &[],
                "",
            )
            .status
        };
        assert_eq!(begin("http://evil.example:80/"), 400);
        assert_eq!(begin("https://127.0.0.1:9/"), 400);
        relay.stop();
    });
}

#[test]
fn a_browser_logs_the_command_line_in() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let relay = relay(local, &provider, &[]);
        let cw = person(local, &relay);
        provider.told(&json!({"no_codes": true}));
        cw.run(&["login"])
            .fails("no_device_flow")
            .hints("--browser");
        let login = cw.start(&["login", "--browser"]);
        let line = login.stderr.line("/auth/login?", PATIENCE);
        let there = ask("GET", line.trim(), &[], "");
        let cookie = there.header("set-cookie").expect("a cookie");
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        let provider_url = there.header("location").expect("a place");
        let back = ask("GET", provider_url, &[], "");
        let back = arrive(back.header("location").expect("a place"), &cookie);
        let place = back.header("location").expect("a place");
        // What is not this login's does not end it.
        let state = parameter(place, "state").expect("a state");
        let other = place.replace(&state, "other");
        assert_eq!(
            try_ask("GET", &other, &[], "").expect("it listens").status,
            400
        );
        let page = ask("GET", place, &[], "");
        assert!(page.body.contains("terminal"), "{page:?}");
        let done = login.wait(PATIENCE).ok();
        assert!(done.stderr.contains("as ann (oidc:"), "{done}");
        assert_eq!(whoami(&cw)["name"], "ann");
        // A second login takes the place of the first, which is over.
        let before = whoami(&cw)["login"]["id"].clone();
        provider.told(&json!({"no_codes": false, "device": "approve"}));
        relay.kill();
        relay.start();
        let _ = begin(&cw).wait(PATIENCE).ok();
        let list = cw.ok(&["login", "list"]);
        assert_ne!(whoami(&cw)["login"]["id"], before);
        assert!(!list.contains(before.as_str().expect("an id")), "{list}");
        let _ = cw.run(&["logout", "--all"]).ok();
        cw.run(&["whoami"]).fails("unauthorized");
        relay.stop();
    });
}

#[test]
fn another_list_of_groups_lets_in_nobody_who_was_in() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let first = relay(local, &provider, &["--oidc-allowed-groups", "staff,guests"]);
        let cw = person(local, &first);
        provider.told(&json!({"device": "approve"}));
        let _ = begin(&cw).wait(PATIENCE).ok();
        first.stop();
        first.start();
        assert_eq!(whoami(&cw)["name"], "ann");
        first.stop();
        let second = relay(local, &provider, &["--oidc-allowed-groups", "guests"]);
        let cw = cw.env("CODEWIRE_RELAY_URL", second.url());
        // The client knows the old relay's address; show the same token to the new one.
        let file = std::fs::read_to_string(local.home().dir().join("logins.json"));
        let file: Value = serde_json::from_str(&file.expect("a file")).expect("JSON");
        let kept = file.as_object().and_then(|logins| logins.values().next());
        let token = kept.expect("a login")["token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let shown = cw.env("CODEWIRE_RELAY_AUTH_TOKEN", token);
        shown.run(&["whoami"]).fails("unauthorized");
        second.stop();
    });
}

#[test]
fn github_is_asked_for_the_number_of_an_account() {
    let provider = Provider::new();
    case(&Local::new(CW), |local| {
        let cw = local.cw().clone().env("CW_GITHUB_CLIENT_SECRET", SECRET);
        let data = local.home().dir().join("relay");
        let url = provider.url();
        let words = ["--auth-mode", "github", "--github-url", &url];
        let more = [
            "--github-client-id",
            CLIENT,
            "--github-allowed-users",
            "Octocat,583231",
        ];
        let relay = Relay::new(cw, &data, "127.0.0.1:0").with(&[&words[..], &more].concat());
        relay.start();
        relay.stop();
        relay.start();
        let cw = person(local, &relay);
        let user = |number: u64, login: &str| json!({"id": number, "login": login, "email": "boss@example.com"});
        provider.told(&json!({"device": "approve", "user": user(1, "octocat")}));
        let done = begin(&cw).wait(PATIENCE).ok();
        assert!(done.stderr.contains("as octocat (github:"), "{done}");
        let octocat = whoami(&cw)["subject"].clone();
        // The account has another name now: it is still the same, and no longer let in by its name.
        for (number, login, may) in [
            (1, "octocat-2", false),
            (2, "583231", false),
            (583_231, "whoever", true),
            (3, "octocat", true),
        ] {
            provider.told(&json!({ "user": user(number, login) }));
            let (code, error) = visit(&relay);
            assert_eq!(code.is_some(), may, "{number} {login}: {error:?}");
            if let Some(code) = code {
                let granted = exchange(&relay, &code, VERIFIER).json();
                let subject = granted["subject"].as_str().unwrap_or_default();
                assert!(subject.ends_with(&format!(":{number}")), "{granted}");
                assert_ne!(granted["subject"], octocat);
            } else {
                assert_eq!(error.as_deref(), Some("not_allowed"), "{number} {login}");
            }
        }
        provider.told(&json!({"device": "deny"}));
        let _ = begin(&cw).wait(PATIENCE).fails("login_denied");
        // The provider's code of one login for another.
        let (one, _) = browse(&relay);
        let (two, cookie) = browse(&relay);
        let codes = [&one, &two].map(|url| parameter(url, "code").expect("a code"));
        let place = at_client(&arrive(&two.replace(&codes[1], &codes[0]), &cookie));
        assert_eq!(parameter(&place, "error").as_deref(), Some("login_expired"));
        relay.stop();
    });
}

#[test]
fn a_restored_backup_brings_no_login_back() {
    case(&Local::new(CW), |local| {
        let data = local.home().dir().join("relay");
        let relay = Relay::new(local.cw().clone(), &data, "127.0.0.1:0");
        relay.start();
        let cw = person(local, &relay);
        let with_token = cw.clone().env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN);
        let _ = with_token.run(&["login"]).ok();
        let _ = cw.run(&["network", "create", "demo"]).ok();
        let data = data.display().to_string();
        let saved = local.home().dir().join("saved").display().to_string();
        let _ = cw
            .run(&["relay", "backup", "--data-dir", &data, &saved])
            .ok();
        let id = whoami(&cw)["login"]["id"].clone();
        let id = id.as_str().expect("an id");
        let _ = with_token.run(&["login", "revoke", id]).ok();
        relay.stop();
        let restore = ["relay", "restore", "--data-dir", &data, "--replace", &saved];
        let told = cw.run(&restore).ok();
        assert!(told.stderr.contains("has to log in again"), "{told}");
        relay.start();
        cw.run(&["whoami"]).fails("unauthorized");
        assert!(with_token.ok(&["network", "list"]).contains("demo"));
        relay.stop();
    });
}
