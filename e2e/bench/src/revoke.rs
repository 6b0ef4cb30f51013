//! How soon who was revoked is cut off: from the start of the command that revokes to the end of a
//! command, on another node, that was following a session until then.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::commands::Rig;
use crate::report::{Samples, head, load, row};

const ROUNDS: usize = 10;
/// What the followed session has printed.
const MARK: &str = "MARK!";

/// Measures and prints.
pub fn run(program: &str) -> Result<()> {
    println!("load before: {}", load());
    let rig = Rig::start(&std::path::absolute(Path::new(program))?)?;
    rig.out("dev-1", &["send", "planner", MARK])?;
    let (mut grants, mut nodes) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        grants.time(grant(&rig, &format!("guest-{round}"))?);
        nodes.time(node(&rig, &format!("own-{round}"))?);
    }
    head();
    for (name, samples) in [
        ("its grant was revoked", grants),
        ("its node was revoked", nodes),
    ] {
        let mut last = Samples::default();
        last.number(samples.quantile(1.0) / 1e3);
        let mut middle = Samples::default();
        middle.number(samples.median() / 1e3);
        row(&format!("{name}, cut off, median"), "ms", &middle, None, "");
        row(
            &format!("{name}, cut off, last"),
            "ms",
            &last,
            None,
            "<= 2 s",
        );
    }
    println!("load after: {}", load());
    Ok(())
}

/// Of somebody else, by a grant.
fn grant(rig: &Rig, guest: &str) -> Result<std::time::Duration> {
    let invite = rig.out("dev-1", &["network", "invite"])?;
    rig.out(guest, &["network", "join", invite.trim()])?;
    let words = [
        "access", "grant", "planner", "--to", guest, "--watch", "--json",
    ];
    rig.wait(|| rig.ok("dev-1", &words))?;
    let given: serde_json::Value = serde_json::from_str(&rig.out("dev-1", &words)?)?;
    let part = |name: &str| given[name].as_str().context("no such part of a grant");
    rig.out(guest, &["access", "accept", part("delegation")?])?;
    rig.wait(|| rig.ok(guest, &["logs", "dev-1:planner"]))?;
    let cut = cut(rig, guest, &["access", "revoke", part("grant_id")?]);
    rig.stop(guest);
    cut
}

/// Of the same owner.
fn node(rig: &Rig, node: &str) -> Result<std::time::Duration> {
    let invite = rig.out("dev-1", &["network", "invite", "--mine"])?;
    rig.out(node, &["network", "join", invite.trim()])?;
    rig.wait(|| rig.ok(node, &["logs", "dev-1:planner"]))?;
    let cut = cut(rig, node, &["network", "revoke", node]);
    rig.stop(node);
    cut
}

fn cut(rig: &Rig, node: &str, revoke: &[&str]) -> Result<std::time::Duration> {
    let mut follower = follow(rig, node)?;
    let start = Instant::now();
    rig.out("dev-1", revoke)?;
    let ended = follower.wait()?;
    ensure!(!ended.success(), "who is cut off is told");
    Ok(start.elapsed())
}

/// Follows the session, and has seen something of it.
fn follow(rig: &Rig, node: &str) -> Result<Child> {
    let mut command = rig.cw(node, &["logs", "-f", "dev-1:planner"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    while !line.contains(MARK) {
        line.clear();
        ensure!(lines.read_line(&mut line)? > 0, "it ended early");
    }
    // Somebody goes on reading: it must not end because nobody does.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    Ok(child)
}
