//! What a scenario has seen, with everything replaced that differs from run to run.

use std::fmt::Write;

/// What those print who carry a command to another host, when it has failed there.
const CARRIER: &str = "command terminated with exit code";

/// A record of steps and what they led to. What is recorded is also printed as it is, and so seen
/// when a test fails, or while it runs when it is asked not to hide it.
#[derive(Debug)]
pub struct Trace {
    record: String,
    network: String,
}

impl Trace {
    /// An empty one, of hosts in `network`.
    #[must_use]
    pub fn new(network: &str) -> Self {
        Self {
            record: String::new(),
            network: network.to_owned(),
        }
    }

    /// Records a step and what was seen.
    pub fn step(&mut self, step: &str, seen: &str) {
        self.step_with(step, seen, seen);
    }

    /// The same where only a part of what was seen is recorded.
    #[expect(clippy::print_stdout, reason = "it is to be seen how far a test came")]
    pub fn step_with(&mut self, step: &str, seen: &str, recorded: &str) {
        println!("{step}\n    {}", seen.trim_end().replace('\n', "\n    "));
        // A `String` takes everything.
        let _ = writeln!(self.record, "{step}");
        let lines = recorded.lines().filter(|line| !line.starts_with(CARRIER));
        for line in lines {
            let line = line.replace(&format!("\"{}\"", self.network), "<network>");
            let _ = writeln!(self.record, "    {}", normal(&line));
        }
    }

    /// Compares with what is due.
    ///
    /// # Panics
    ///
    /// When they differ, with the whole record and the first line that does.
    #[track_caller]
    pub fn must_be(&self, due: &str) {
        let mut lines = self.record.lines().zip(due.lines()).enumerate();
        let first = lines.find(|(_, (seen, due))| seen != due);
        let longer = self.record.lines().count() != due.lines().count();
        assert!(
            first.is_none() && !longer,
            "{}\nfirst difference: {first:?}",
            self.record
        );
    }

    /// The whole record.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.record
    }
}

/// A line with ids, times, ages, addresses and spacing replaced.
#[must_use]
pub fn normal(line: &str) -> String {
    let mut words: Vec<String> = line.split_whitespace().map(word).collect();
    for at in 1..words.len() {
        if words[at] == "ago" {
            words[at - 1] = "<age>".to_owned();
        }
    }
    words.join(" ")
}

/// A word, whose punctuation on either side stays.
fn word(word: &str) -> String {
    let outside = |c: char| "()[],=\"".contains(c);
    let start = word.len() - word.trim_start_matches(outside).len();
    let end = word
        .trim_end_matches([')', ']', ',', '"', ':'])
        .len()
        .max(start);
    let (before, core, after) = (&word[..start], &word[start..end], &word[end..]);
    let core = match core.split_once('=') {
        Some((key, value)) => format!("{key}={}", replaced(value)),
        None => replaced(core).to_owned(),
    };
    format!("{before}{core}{after}")
}

fn replaced(word: &str) -> &str {
    let id = |prefix: &str| {
        word.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 22)
    };
    if id("msg_") || id("rpl_") {
        "<message>"
    } else if id("req_") {
        "<request>"
    } else if word.starts_with("CW-INV-") {
        "<invite>"
    } else if word.starts_with("http://") || word.starts_with("https://") {
        "<url>"
    } else if is_time(word) {
        "<time>"
    } else {
        word
    }
}

/// `2026-01-02T03:04:05.678Z` and the like.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 20
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[10] == b'T'
        && bytes.ends_with(b"Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_replaced() {
        for (line, expected) in [
            (
                "[2026-01-02T03:04:05.678Z] dev-1:planner → coder: hi there",
                "[<time>] dev-1:planner → coder: hi there",
            ),
            (
                "[2026-01-02T03:04:05.678Z] REQUEST a → b (req=req_0123456789abcdefghijkl, pending): x",
                "[<time>] REQUEST a → b (req=<request>, pending): x",
            ),
            (
                "Message sent: msg_0123456789abcdefghij-_",
                "Message sent: <message>",
            ),
            (
                "1    coder          sh      running        12s ago",
                "1 coder sh running <age> ago",
            ),
            ("  Created:      2026-01-02T03:04:05Z", "Created: <time>"),
            (
                "request \"req_0123456789abcdefghijkl\" may only",
                "request \"<request>\" may only",
            ),
        ] {
            assert_eq!(normal(line), expected);
        }
    }
}
