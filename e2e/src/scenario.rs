//! The scenario: three sessions on two nodes, everything typed that people type, most of it on
//! `dev-1`; then the direct way between the nodes is cut, the relay goes away and comes back, and
//! so does a node. Written once; [`crate::substrate`] says where it may run.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::pty::Terminal;
use crate::running::Running;
use crate::steps::{self, ECHO, RECOVERY, SLEEPER};
use crate::substrate::{Host, Substrate, Way};
use crate::trace::{Trace, normal};
use crate::{Cw, PATIENCE, wait_until};

/// How long a direct path may take to be found. Until then packets go by the relay.
const PATH: Duration = Duration::from_secs(30);

/// How often the path is looked at, where it must never be direct.
const LOOKS: usize = 5;

/// What is recorded after a loss.
const HEARD: &str = "planner is heard";

/// Plays the scenario, and returns what was seen.
#[track_caller]
pub fn play(substrate: &dyn Substrate) -> Trace {
    let mut trace = steps::join_both(substrate);
    let mut stage = Stage::new(substrate);
    steps::wait_until_online(substrate);
    stage.launches(&mut trace);
    stage.lists(&mut trace);
    stage.way(substrate.way());
    stage.messages(&mut trace);
    stage.listens(&mut trace);
    stage.asks(&mut trace);
    stage.is_discreet();
    stage.types(&mut trace);
    stage.attaches(&mut trace);
    stage.loses_the_direct_way(&mut trace);
    stage.loses_the_relay(&mut trace);
    stage.kills(&mut trace);
    stage.loses_a_node(&mut trace);
    trace
}

/// The hosts, and `cw` on both.
struct Stage<'a> {
    substrate: &'a dyn Substrate,
    here: Cw,
    there: Cw,
}

impl<'a> Stage<'a> {
    fn new(substrate: &'a dyn Substrate) -> Self {
        Self {
            substrate,
            here: substrate.cw(Host::Dev1),
            there: substrate.cw(Host::Dev2),
        }
    }

    /// `planner` on dev-1; `coder` and `reviewer` on dev-2, by commands typed on dev-1.
    #[track_caller]
    fn launches(&self, trace: &mut Trace) {
        for (target, command) in [
            ("planner", SLEEPER),
            ("dev-2:coder", ECHO),
            ("dev-2:reviewer", SLEEPER),
        ] {
            let done = steps::launch(&self.here, target, &command);
            trace.step(&format!("dev-1: launch {target}"), &done.stderr);
        }
    }

    #[track_caller]
    fn lists(&self, trace: &mut Trace) {
        for arguments in [vec!["list"], vec!["list", "dev-2"]] {
            trace.step(
                &format!("dev-1: {}", arguments.join(" ")),
                &self.here.ok(&arguments),
            );
        }
        let seen = |cw: &Cw, arguments| normal(&cw.ok(arguments));
        assert_eq!(
            seen(&self.there, &["list"]),
            seen(&self.here, &["list", "dev-2"])
        );
        self.nodes(trace);
    }

    /// Path and round trip are the substrate's affair.
    #[track_caller]
    fn nodes(&self, trace: &mut Trace) {
        let nodes = self.here.ok(&["node", "list"]);
        let seen: Vec<String> = nodes
            .lines()
            .map(|line| {
                let words = line.split_whitespace().filter(|word| *word != "*");
                words.take(2).collect::<Vec<_>>().join(" ")
            })
            .collect();
        trace.step_with("dev-1: node list", &nodes, &seen.join("\n"));
    }

    /// Packets take the way that they have to take here, and where that is the relay no other.
    #[track_caller]
    fn way(&self, way: Way) {
        for (cw, node) in [(&self.here, "dev-2"), (&self.there, "dev-1")] {
            match way {
                Way::Direct => steps::wait_for_way(cw, node, way, PATH),
                Way::Relayed => {
                    for _ in 0..LOOKS {
                        assert_eq!(steps::path(cw, node), way.word());
                    }
                }
            }
        }
    }

    /// A message of `planner` is in the inbox of `coder`, and says who sent it.
    #[track_caller]
    fn messages(&self, trace: &mut Trace) {
        let words = ["msg", "-f", "planner", "dev-2:coder", "hello from planner"];
        trace.step("dev-1: msg", &self.here.run(&words).ok().stderr);
        let inbox = steps::inbox(&self.there, "coder");
        let [message] = inbox.as_slice() else {
            panic!("one message, not {inbox:?}")
        };
        assert_eq!(message["type"], "direct.message");
        assert_eq!(message["from_name"], "dev-1:planner");
        assert_eq!(message["body"], "hello from planner");
        trace.step("dev-2: inbox coder", &self.there.ok(&["inbox", "coder"]));
        trace.step(
            "dev-1: inbox dev-2:coder",
            &self.here.ok(&["inbox", "dev-2:coder"]),
        );
    }

    /// Who listens hears the next message, from the other machine too.
    #[track_caller]
    fn listens(&self, trace: &mut Trace) {
        let near = self.there.start(&["listen", "--session", "coder"]);
        let far = self.here.start(&["listen", "--session", "dev-2:coder"]);
        for listener in [&near, &far] {
            let _ = listener.stderr.line("listening", PATIENCE);
        }
        let _ = self
            .here
            .run(&["msg", "-f", "planner", "dev-2:coder", "listen-check"])
            .ok();
        for (listener, host) in [(&near, "dev-2"), (&far, "dev-1")] {
            let line = listener.stdout.line("listen-check", PATIENCE);
            trace.step(&format!("{host}: listen"), &line);
        }
    }

    /// A request waits for the reply of exactly the session that was asked.
    #[track_caller]
    fn asks(&self, trace: &mut Trace) {
        let question = "ready for review?";
        let request = self.here.start(&[
            "request",
            "-f",
            "planner",
            "dev-2:coder",
            question,
            "--timeout",
            "60",
        ]);
        let id = wait_until("coder has the request", PATIENCE, || {
            let inbox = steps::inbox(&self.there, "coder");
            let pending = |message: &&Value| message["state"] == "pending";
            let Some(message) = inbox.iter().find(pending) else {
                return Err(format!("{inbox:?}"));
            };
            assert_eq!(message["type"], "message.request");
            assert_eq!(message["from_name"], "dev-1:planner");
            assert_eq!(message["body"], question);
            Ok(message["request_id"]
                .as_str()
                .unwrap_or_default()
                .to_owned())
        });
        trace.step("dev-2: inbox coder", &self.there.ok(&["inbox", "coder"]));

        let refused = self
            .there
            .run(&["reply", &id, "no", "-f", "reviewer"])
            .fails("not_addressee");
        assert!(
            refused.stderr.contains("may only be replied to by session"),
            "{refused}"
        );
        trace.step("dev-2: reply as reviewer", &refused.stderr);

        let replied = self
            .there
            .run(&["reply", &id, "approved", "-f", "coder"])
            .ok();
        trace.step("dev-2: reply as coder", &replied.stderr);
        let done = answered(request);
        trace.step("dev-1: request", &done);
        trace.step("dev-2: inbox coder", &self.there.ok(&["inbox", "coder"]));
    }

    /// Nobody else has got any of it.
    #[track_caller]
    fn is_discreet(&self) {
        let inbox = steps::inbox(&self.there, "reviewer");
        assert!(inbox.is_empty(), "reviewer has got {inbox:?}");
    }

    #[track_caller]
    fn types(&self, trace: &mut Trace) {
        let sent = self.here.run(&["send", "dev-2:coder", "one"]).ok();
        trace.step("dev-1: send", &sent.stderr);
        let log = steps::wait_for_output(&self.here, "dev-2:coder", "got:one");
        trace.step("dev-1: logs", &log);
        let followed = self.here.start(&["logs", "-f", "dev-2:coder"]);
        let _ = self.here.run(&["send", "dev-2:coder", "two"]).ok();
        let _ = followed.stdout.line("got:two", PATIENCE);
    }

    /// A terminal types, sees the echo, lets go, and is as it was.
    #[track_caller]
    fn attaches(&self, trace: &mut Trace) {
        let mut terminal = Terminal::run(&self.here, &["attach", "dev-2:coder"]);
        // What was there before the terminal came.
        terminal.shows("got:two", PATIENCE);
        terminal.type_in("three\r");
        terminal.shows("got:three", PATIENCE);
        let attached = steps::status(&self.there, "coder");
        assert_eq!(attached["attached_count"], 1, "{attached}");
        terminal.type_in("\x02d");
        assert_eq!(terminal.ends(PATIENCE), 0, "{}", terminal.text());
        terminal.restored().unwrap_or_else(|why| panic!("{why}"));
        let status = wait_until("nobody is attached", PATIENCE, || {
            let status = steps::status(&self.here, "dev-2:coder");
            if status["attached_count"] == 0 {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        });
        trace.step(
            "dev-1: attach, detach",
            status["status"].as_str().unwrap_or_default(),
        );
    }

    /// Messages go by the relay where they cannot go directly any more, and directly as soon as
    /// they can again.
    #[track_caller]
    fn loses_the_direct_way(&self, trace: &mut Trace) {
        let cut = self.substrate.cut_direct();
        self.says("when the direct way has just been cut", trace);
        if cut {
            for (cw, node) in [(&self.here, "dev-2"), (&self.there, "dev-1")] {
                steps::wait_for_way(cw, node, Way::Relayed, PATH);
            }
        }
        self.nodes(trace);
        self.says("by the relay", trace);
        self.substrate.heal_direct();
        self.way(self.substrate.way());
        self.nodes(trace);
    }

    /// Without anybody's help everything works again, and the relay knows what it knew.
    #[track_caller]
    fn loses_the_relay(&self, trace: &mut Trace) {
        let since = Instant::now();
        self.substrate.restart_relay();
        self.is_heard("dev-2:coder", "by another relay");
        trace.step_with("relay: restart", &after(since), HEARD);
        steps::wait_until_online(self.substrate);
        self.nodes(trace);
        let url = self.substrate.relay_url();
        let invite = wait_until("the relay invites", RECOVERY, || {
            let invite = ["network", "invite", "--mine", "--relay-url", &url];
            let done = self.substrate.admin().run(&invite);
            let said = done.to_string();
            (done.status == Some(0)).then_some(done.stdout).ok_or(said)
        });
        trace.step("admin: network invite", &invite);
    }

    /// The host comes back with what it knew, and others can work on it as before. What it ran is
    /// gone.
    #[track_caller]
    fn loses_a_node(&mut self, trace: &mut Trace) {
        let since = Instant::now();
        self.substrate.restart_node(Host::Dev2);
        let command = [&["launch", "dev-2:tester", "--"], &SLEEPER[..]].concat();
        wait_until("a session is launched on dev-2", RECOVERY, || {
            let done = self.here.run(&command);
            // It may have been done although the answer got lost.
            if done.status == Some(0) || done.stderr.contains("[name_taken]") {
                Ok(())
            } else {
                Err(done.to_string())
            }
        });
        self.there = self.substrate.cw(Host::Dev2);
        self.is_heard("dev-2:tester", "to whom it may concern");
        trace.step_with("dev-2: restart", &after(since), HEARD);
        steps::wait_until_online(self.substrate);
        self.way(self.substrate.way());
        self.nodes(trace);
        let inbox = steps::inbox(&self.there, "coder");
        for body in ["hello from planner", "by another relay"] {
            assert!(inbox.iter().any(|m| m["body"] == body), "{body}: {inbox:?}");
        }
        let sessions = self.here.ok(&["list", "dev-2"]);
        let tester = sessions.lines().filter(|line| line.contains("tester"));
        let tester = tester.collect::<Vec<_>>().join("\n");
        trace.step_with("dev-1: list dev-2", &sessions, &tester);
    }

    #[track_caller]
    fn says(&self, body: &str, trace: &mut Trace) {
        let said = self
            .here
            .run(&["msg", "-f", "planner", "dev-2:coder", body])
            .ok();
        trace.step("dev-1: msg", &said.stderr);
        let inbox = steps::inbox(&self.there, "coder");
        assert!(inbox.iter().any(|m| m["body"] == body), "{body}: {inbox:?}");
    }

    /// A message of `planner` gets through within the time that a recovery may take.
    #[track_caller]
    fn is_heard(&self, session: &str, body: &str) {
        wait_until(&format!("{session} hears from planner"), RECOVERY, || {
            let words = ["msg", "--no-queue", "-f", "planner", session, body];
            let done = self.here.run(&words);
            if done.status == Some(0) {
                Ok(())
            } else {
                Err(done.to_string())
            }
        });
    }

    #[track_caller]
    fn kills(&self, trace: &mut Trace) {
        let killed = self.here.run(&["kill", "dev-2:coder"]).ok();
        trace.step("dev-1: kill dev-2:coder", &killed.stderr);
        for (cw, session) in [(&self.here, "dev-2:coder"), (&self.there, "coder")] {
            assert_eq!(steps::status(cw, session)["status"], "killed");
        }
        let text = self.here.ok(&["status", "dev-2:coder"]);
        let rows = ["Session", "Name:", "Command:", "Status:", "Attached:"];
        let seen: Vec<&str> = text
            .lines()
            .filter(|line| rows.iter().any(|row| line.trim_start().starts_with(row)))
            .collect();
        trace.step("dev-1: status dev-2:coder", &seen.join("\n"));
        trace.step("dev-2: list", &self.there.ok(&["list"]));
    }
}

/// What is told after a loss.
fn after(since: Instant) -> String {
    format!("{HEARD}, {:.1} s later", since.elapsed().as_secs_f64())
}

/// The end of a request that was answered.
#[track_caller]
fn answered(request: Running) -> String {
    let done = request.wait(PATIENCE).ok();
    assert_eq!(done.stdout, "[reply from coder] approved\n", "{done}");
    done.stdout
}
