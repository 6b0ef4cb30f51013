//! What a relay needs to start, and what it refuses.

use std::os::unix::fs::PermissionsExt as _;

use super::rig::{Rig, code, config, limited};
use crate::relay::server::{Relay, start_in_turn};
use crate::uplink::api::Api;

#[tokio::test]
async fn b10_what_makes_no_sense_is_refused() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let good = config(dir.path().join("relay"), "127.0.0.1:0");
        let start = async |change: &dyn Fn(&mut crate::relay::Config)| {
            let mut config = good.clone();
            change(&mut config);
            match Relay::start(&config).await {
                Ok(relay) => {
                    relay.stop().await;
                    "ok".to_owned()
                }
                Err(error) => error.code,
            }
        };
        assert_eq!(
            start(&|c| c.ssh_listen = "nowhere".into()).await,
            "config_invalid"
        );
        for mode in ["github", "oidc", "magic", ""] {
            let invalid = "config_invalid";
            assert_eq!(
                start(&|c| c.auth_mode = mode.into()).await,
                invalid,
                "{mode}"
            );
        }
        let open = |listen: &'static str| {
            move |c: &mut crate::relay::Config| {
                c.auth_mode = "none".into();
                c.listen = listen.into();
            }
        };
        assert_eq!(start(&open("127.0.0.1:0")).await, "ok");
        assert_eq!(start(&open("0.0.0.0:0")).await, "config_invalid");
        for url in ["", "relay.test", "ftp://relay.test", "http://"] {
            assert_eq!(start(&|c| c.base_url = url.into()).await, "config_invalid");
        }
        for listen in ["", "8080", "nowhere:80", ":99999"] {
            assert_eq!(start(&|c| c.listen = listen.into()).await, "config_invalid");
        }
        assert_eq!(
            start(&|c| c.auth_token = " ".parse().ok()).await,
            "config_invalid"
        );
        assert_eq!(start(&|_| ()).await, "ok");
        assert_eq!(start(&|c| c.stun_listen.clear()).await, "ok");
    })
    .await;
}

#[tokio::test]
async fn one_data_directory_has_one_relay() {
    limited(async {
        let mut rig = Rig::new().await;
        let second = config(rig.path("relay"), "127.0.0.1:0");
        assert_eq!(code(Relay::start(&second).await), "locked");
        rig.restart().await;
    })
    .await;
}

#[tokio::test]
async fn a_successor_waits_for_its_turn() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path().join("relay"), "127.0.0.1:0");
        config.lock_wait = 600;
        let first = Relay::start(&config).await.unwrap();
        let (second, ()) = tokio::join!(start_in_turn(&config), first.stop());
        second.unwrap().stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_token_is_made_once_and_kept_private() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("relay");
        let mut config = config(data.clone(), "127.0.0.1:0");
        config.auth_token = None;
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let relay = Relay::start(&config).await.unwrap();
            let token = std::fs::read_to_string(data.join("auth-token")).unwrap();
            let url = format!("http://{}", relay.http());
            Api::new(&url, token.trim())
                .unwrap()
                .validate()
                .await
                .unwrap();
            tokens.push(token);
            relay.stop().await;
        }
        assert_eq!(tokens[0], tokens[1]);
        assert_eq!(tokens[0].trim().len(), 32);
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(data.clone()), 0o700);
        for file in std::fs::read_dir(&data).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
        }

        config.auth_token_file = Some(data.join("other"));
        assert_eq!(code(Relay::start(&config).await), "config_invalid");
        std::fs::write(data.join("other"), "from a file\n").unwrap();
        let relay = Relay::start(&config).await.unwrap();
        let url = format!("http://{}", relay.http());
        Api::new(&url, "from a file")
            .unwrap()
            .validate()
            .await
            .unwrap();
    })
    .await;
}
