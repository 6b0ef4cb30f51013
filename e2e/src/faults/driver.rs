//! Does what the plan says.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;

use super::client::{End, send};
use super::plan::{Fault, Step};
use super::traffic::{Run, SESSIONS, text};
use crate::history::{Call, Line, Receipt};
use crate::home::Part;
use crate::substrate::Host;
use crate::wait::within;
use crate::{PATIENCE, wait_until};

/// How long the calls up to the next fault may take before it comes all the same.
const NEXT: Duration = Duration::from_secs(20);

/// How long a node may take to come back on a machine that is busy with others.
const LONG: Duration = Duration::from_secs(120);

/// Processes that a crowd is.
const CROWD: usize = 100;

/// See the module.
pub(super) struct Driver<'a> {
    run: &'a Run<'a>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    cli: usize,
}

/// What has to be taken back.
enum Held {
    Nothing,
    /// These limits again.
    Limit(rustix::process::Pid, Rlimit),
    /// Somebody who does not read.
    Reader(#[expect(dead_code, reason = "it is held, not read")] Option<UnixStream>),
    /// A session to be ended.
    Session(Host, String),
}

impl<'a> Driver<'a> {
    pub(super) fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            counts: BTreeMap::new(),
            cli: 0,
        }
    }

    /// Plays the whole plan; afterwards all is well.
    pub(super) fn play(&mut self, plan: &[Step]) {
        for host in Host::ALL {
            self.forge(host);
        }
        for step in plan {
            self.run.wait_for(step.at, NEXT);
            let held = self.inject(step.fault);
            if let Some(also) = step.also {
                let _ = self.inject(also);
            }
            let limit = Duration::from_millis(step.at_most_ms);
            self.run.wait_for(self.run.done() + step.calls, limit);
            self.take_back(held);
            self.run.world.heal();
            for host in Host::ALL {
                self.runs(host, Part::Node);
                self.runs(host, Part::Keeper);
            }
        }
    }

    /// Starts the sessions of the run on a node, as far as they do not run.
    pub(super) fn launch(&self, host: Host) {
        self.launch_talkers(host);
        let home = self.run.world.home(host);
        let script = format!(
            "stty -icanon -echo; while read -r line; do {} {} \"$line\"; done",
            self.run.world.say_frame(),
            home.socket().display()
        );
        let command = ["sh".to_owned(), "-c".to_owned(), script];
        self.launch_one(host, self.forger(), &command, &[]);
    }

    /// Those that talk.
    pub(super) fn launch_talkers(&self, host: Host) {
        for number in 0..SESSIONS {
            let command = ["sleep".to_owned(), "1000".to_owned()];
            self.launch_one(host, self.run.name(number), &command, &[self.run.tag()]);
        }
    }

    fn launch_one(&self, host: Host, name: String, command: &[String], tags: &[String]) {
        let call = json!({"type": "Launch", "name": name, "command": command, "tags": tags});
        match self.run.client(host).call(&call, PATIENCE) {
            End::Answer(_) => {}
            // It was started before its node was lost.
            End::Refused(code, _) if code == "name_taken" => {}
            End::Refused(why, _) | End::Lost(why) => panic!("{name} cannot be started: {why}"),
        }
    }

    fn forger(&self) -> String {
        self.run.name(SESSIONS)
    }

    /// A program in a session speaks for another, and for itself.
    fn forge(&self, host: Host) {
        let (from, to) = (self.run.name(0), self.run.name(1));
        for (number, claim) in [(1, Some(from)), (2, None)] {
            let me = format!("{}:{}", host.name(), self.forger());
            let body = format!("{me}#{number}");
            let frame = json!({
                "type": "MsgSend", "to_name": to, "body": body, "delivery": "inbox",
                "from_name": claim,
            });
            let _ = self.run.invoke(Call::Message {
                from: me,
                to: vec![format!("{}:{to}", host.name())],
                body,
            });
            let line = base64::engine::general_purpose::STANDARD.encode(format!("{frame}\n"));
            let call = json!({"type": "SendInput", "name": self.forger(), "data": line});
            // Whether it comes to it is not known, and need not be.
            let _ = self.run.client(host).call(&call, PATIENCE);
        }
    }

    fn inject(&mut self, fault: Fault) -> Held {
        *self.counts.entry(fault.word()).or_default() += 1;
        let world = self.run.world;
        match fault {
            Fault::KillNode(host) => {
                self.runs(host, Part::Node);
                // It may have to wait for room on its disk.
                let _ = world.home(host).kill(Part::Node);
            }
            Fault::KillKeeper(host) => {
                self.answers(host);
                let _ = world.home(host).kill(Part::Keeper);
                self.runs(host, Part::Keeper);
            }
            Fault::Crash(host) => self.crash(host, true),
            Fault::KillRelay => {
                world.relay().kill();
                world.relay().start();
            }
            Fault::RollBackRelay => world.roll_relay_back(),
            Fault::KillClient(host) => self.kill_client(host),
            Fault::StopNode(host) => self.stop(world.home(host).pid(Part::Node)),
            Fault::StopKeeper(host) => self.stop(world.home(host).pid(Part::Keeper)),
            Fault::StopRelay => self.stop(world.relay().pid()),
            Fault::Hold(host, up, down) => match world.shim(host) {
                Some(shim) => shim.hold(up, down),
                None => drop(world.substrate().cut(host)),
            },
            Fault::Cut(host) => world
                .shim(host)
                .into_iter()
                .for_each(super::shim::Shim::cut),
            Fault::Lose(host, percent) => world.lose(host, percent),
            Fault::Clock(host, ahead) => world.set_clock(host, ahead),
            Fault::Disk(_) => world.fill_disk(true),
            Fault::Descriptors(host) => return self.few_descriptors(host),
            Fault::SlowReader(host) => return self.slow_reader(host),
            Fault::Crowd(host) => return self.crowd(host),
        }
        Held::Nothing
    }

    fn take_back(&self, held: Held) {
        match held {
            Held::Nothing | Held::Reader(_) => {}
            // The process may have ended meanwhile.
            Held::Limit(pid, limit) => drop(prlimit(Some(pid), Resource::Nofile, limit)),
            Held::Session(host, name) => {
                let call = json!({"type": "Kill", "name": name, "grace_seconds": 0});
                let _ = self.run.client(host).call(&call, PATIENCE);
            }
        }
        if let Some(pid) = self.run.world.relay().pid() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    fn stop(&self, pid: Option<rustix::process::Pid>) {
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::STOP);
        }
    }

    /// Waits until a node does.
    pub(super) fn answers(&self, host: Host) {
        let mut client = self.run.client(host);
        wait_until("the node answers", PATIENCE, || {
            match client.call(&json!({"type": "ListSessions"}), PATIENCE) {
                End::Answer(_) => Ok(()),
                End::Refused(why, _) | End::Lost(why) => Err(why),
            }
        });
    }

    /// The machine of a node crashes and comes back, with or without the sessions.
    pub(super) fn crash(&self, host: Host, sessions: bool) {
        let world = self.run.world;
        self.runs(host, Part::Node);
        self.runs(host, Part::Keeper);
        world.home(host).kill_both();
        self.start(host);
        if sessions {
            self.launch(host);
        }
    }

    /// Waits until a part of a node runs.
    fn runs(&self, host: Host, part: Part) {
        let home = self.run.world.home(host);
        wait_until(&format!("a {part:?} runs"), LONG, || {
            home.pid(part).map(drop).ok_or_else(|| home.log())
        });
    }

    /// Starts a node, also on a machine that is slower than a command has patience for.
    pub(super) fn start(&self, host: Host) {
        let cw = self.run.world.cw(host);
        wait_until("the node is started", LONG, || {
            let done = cw.run(&["start"]);
            (done.status == Some(0))
                .then_some(())
                .ok_or_else(|| done.to_string())
        });
    }

    /// A command that may be killed before it knows what became of its message.
    fn kill_client(&mut self, host: Host) {
        self.cli += 1;
        let me = self.run.label(host, 0);
        let (from, body) = (self.run.name(0), format!("{me}/cli#{}", self.cli));
        let label = self.run.label(Host::Dev1, 1);
        let op = self.run.invoke(Call::Message {
            from: me,
            to: vec![label.clone()],
            body: body.clone(),
        });
        let words = [
            "msg",
            "--json",
            "--delivery",
            "inbox",
            "-f",
            &from,
            &label,
            &body,
        ];
        let mut command = self.run.world.cw(host).start(&words);
        let limit = Duration::from_millis(u64::from(self.run.number * 7 % 60));
        let _ = within(limit, || {
            if command.runs() {
                Err(String::new())
            } else {
                Ok(())
            }
        });
        command.kill();
        let told = serde_json::from_str::<serde_json::Value>(&command.stdout.text());
        self.run.write(match told {
            Ok(sent) => Line::Ok {
                op,
                receipts: vec![Receipt {
                    to: label,
                    id: text(&sent["message_id"]),
                    state: text(&sent["state"]),
                }],
            },
            Err(_) => Line::Info {
                op,
                why: "killed".to_owned(),
            },
        });
    }

    fn few_descriptors(&self, host: Host) -> Held {
        let Some(pid) = self.run.world.home(host).pid(Part::Node) else {
            return Held::Nothing;
        };
        let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
        let open = open.map_or(0, Iterator::count);
        let few = Rlimit {
            current: u64::try_from(open).ok(),
            maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
        };
        match prlimit(Some(pid), Resource::Nofile, few) {
            Ok(before) => Held::Limit(pid, before),
            Err(_) => Held::Nothing,
        }
    }

    fn slow_reader(&self, host: Host) -> Held {
        let stream = UnixStream::connect(self.run.world.home(host).socket());
        let mut stream = stream.ok();
        if let Some(stream) = &mut stream {
            let _ = send(stream, &json!({"type": "Subscribe", "since": 0}));
        }
        Held::Reader(stream)
    }

    fn crowd(&self, host: Host) -> Held {
        let name = format!("{}-crowd", self.run.tag());
        let script =
            format!("i=0; while [ $i -lt {CROWD} ]; do sleep 1000 & i=$((i+1)); done; wait");
        let command = ["sh".to_owned(), "-c".to_owned(), script];
        let call = json!({"type": "Launch", "name": name, "command": command});
        let _ = self.run.client(host).call(&call, PATIENCE);
        Held::Session(host, name)
    }
}
