//! Who may do what in a network: the owner's other nodes everything, a guest little, somebody who
//! was put out nothing.

use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

#[test]
fn b03_u01_s24_a_guest_may_write_and_not_touch() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::network(substrate);
            let _ = steps::join(
                substrate,
                Host::Dev1,
                &steps::invite(substrate, &["--mine"]),
            )
            .ok();
            let _ = steps::join(substrate, Host::Dev2, &steps::invite(substrate, &[])).ok();
            steps::wait_until_online(substrate);
            let (owner, guest) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
            steps::launch(&owner, "planner", &SLEEPER);
            steps::launch(&guest, "coder", &SLEEPER);

            let _ = guest
                .run(&["msg", "-f", "coder", "dev-1:planner", "hello"])
                .ok();
            let inbox = steps::inbox(&owner, "planner");
            assert_eq!(inbox[0]["from_name"], "dev-2:coder", "{inbox:?}");
            for words in [
                &["launch", "dev-1", "--", "true"][..],
                &["kill", "dev-1:planner"],
                &["kill", "--all", "--node", "dev-1"],
                &["send", "dev-1:planner", "rm -rf"],
                &["logs", "dev-1:planner"],
                &["status", "dev-1:planner"],
                &["inbox", "dev-1:planner"],
            ] {
                guest.run(words).fails("denied");
            }
            for words in [
                &["listen", "--node", "dev-1"][..],
                &["logs", "-f", "dev-1:planner"],
            ] {
                guest.run(words).fails("denied");
            }
            // Nor the owner with what is the guest's: an invite gives nobody away.
            owner.run(&["logs", "dev-2:coder"]).fails("denied");
            assert_eq!(steps::status(&owner, "planner")["status"], "running");
            assert_eq!(owner.ok(&["list"]).lines().count(), 2);
        },
    );
}

#[test]
fn who_has_joined_knows_who_is_there() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::network(substrate);
            for host in [Host::Dev1, Host::Dev2] {
                let invite = steps::invite(substrate, &["--mine"]);
                let _ = steps::join(substrate, host, &invite).ok();
            }
            // At once: nothing is waited for.
            let guest = substrate.cw(Host::Dev2);
            let listed = guest.ok(&["node", "list"]);
            assert!(listed.contains("dev-1"), "{listed}");
        },
    );
}

#[test]
fn b15_s06_a_guest_replies_to_what_it_was_asked() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::network(substrate);
            let _ = steps::join(
                substrate,
                Host::Dev1,
                &steps::invite(substrate, &["--mine"]),
            )
            .ok();
            let _ = steps::join(substrate, Host::Dev2, &steps::invite(substrate, &[])).ok();
            steps::wait_until_online(substrate);
            let (owner, guest) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
            steps::launch(&owner, "planner", &SLEEPER);
            steps::launch(&guest, "coder", &SLEEPER);
            let request =
                owner.start(&["request", "-f", "planner", "dev-2:coder", "ready?", "--raw"]);
            let id = steps::wait_for_request(&guest, "coder");
            let _ = guest.run(&["reply", &id, "yes", "-f", "coder"]).ok();
            assert_eq!(request.wait(PATIENCE).ok().stdout, "yes\n");
        },
    );
}

#[test]
fn b11_s26_who_was_put_out_is_out_at_once() {
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| {
            steps::join_both(substrate);
            steps::wait_until_online(substrate);
            let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
            steps::launch(&here, "planner", &SLEEPER);
            // A connection that is open, on a path that may well be direct.
            let listener = there.start(&["listen", "--session", "dev-1:planner"]);
            let _ = listener.stderr.line("listening", PATIENCE);
            let _ = there.run(&["msg", "dev-1:planner", "as a member"]).ok();
            let url = substrate.relay_url();
            let revoked =
                substrate
                    .admin()
                    .run(&["network", "revoke", "dev-2", "--relay-url", &url]);
            assert_eq!(revoked.ok().stderr, "Node \"dev-2\" revoked\n");
            wait_until("dev-2 is out", PATIENCE, || {
                let list = here.ok(&["node", "list"]);
                if list.contains("dev-2") {
                    Err(list)
                } else {
                    Ok(())
                }
            });
            let refused = there.run(&["msg", "dev-1:planner", "as a stranger"]);
            // It is cut off, which may pass; nothing of it gets out until it is let in again.
            assert!(refused.stderr.contains("kept here"), "{refused}");
            here.run(&["msg", "dev-2:coder", "gone?"])
                .fails("node_unknown");
            assert_eq!(steps::inbox(&here, "planner").len(), 1);
            // Nor does it hear what is said now.
            let _ = here.run(&["msg", "planner", "among us"]).ok();
            let heard = listener.stdout.text();
            assert_eq!(heard, "[dev-2 → planner] as a member\n");
        },
    );
}
