//! The shape of the code, checked. What is only written down somewhere rots; this fails.
//!
//! The checks look at text, line by line. That is enough because everything is formatted the same
//! way, and it keeps them short enough to be read before they are argued with.

use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file, without its unit tests.
const FILE_LINES: usize = 500;

/// The most lines of a function.
const FUNCTION_LINES: usize = 70;

/// Files that may be longer, with the length that they may have. It may only get shorter.
const LONGER: &[(&str, usize)] = &[];

/// Crates whose code gets time, chance and bytes as arguments, except in `io/`.
const PURE: [&str; 3] = ["derp/src/", "mesh/src/", "session/src/"];

/// What such code must not name.
const IMPURE: [&str; 6] = [
    "tokio::",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "rand::rng()",
];

/// Crates that must not depend on each other, in whatever section of their manifests.
const STRANGERS: [(&str, &str); 6] = [
    ("derp", "mesh"),
    ("derp", "session"),
    ("mesh", "session"),
    ("mesh", "codewire"),
    ("session", "mesh"),
    ("session", "derp"),
];

/// Parts of the program that must not name each other: the first is below the second, or beside.
const BELOW: [(&str, &str); 10] = [
    ("src/rpc/", "crate::verb"),
    ("src/rpc/", "crate::node"),
    ("src/rpc/", "crate::cli"),
    ("src/term/", "crate::verb"),
    ("src/relay/", "crate::verb"),
    ("src/relay/", "crate::node"),
    ("src/uplink/", "crate::verb"),
    ("src/uplink/", "crate::node"),
    ("src/verb/", "derp::"),
    ("src/node/", "derp::"),
];

/// Tests wait for events.
const AWAKE: [&str; 2] = ["e2e/src/", "e2e/tests/"];

/// The only file among them that may sleep.
const SLEEPER: &str = "e2e/src/wait.rs";

#[test]
fn the_code_has_its_shape() {
    let root = root();
    let mut complaints = Vec::new();
    for path in files(&root, "rs") {
        let name = relative(&root, &path);
        let text = fs::read_to_string(&path).expect("a source file can be read");
        let source = Source::new(&name, &text);
        source.has_a_header(&mut complaints);
        source.does_not_sleep(&mut complaints);
        if !name.contains("tests/") && !name.ends_with("/tests.rs") {
            source.is_short(&mut complaints);
            source.names_nothing_forbidden(&mut complaints);
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let root = root();
    let without: Vec<String> = files(&root, "toml")
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .filter(|path| {
            let text = fs::read_to_string(path).expect("a manifest can be read");
            // A manifest with a workspace of its own lies outside of ours.
            let ours = text.contains("[package]") && !is_root_of_another(&root, path, &text);
            ours && !text.contains("\n[lints]\nworkspace = true\n")
        })
        .map(|path| relative(&root, path))
        .collect();
    assert!(
        without.is_empty(),
        "without [lints] workspace = true: {without:?}"
    );
}

#[test]
fn crates_do_not_depend_on_strangers() {
    for (name, stranger) in STRANGERS {
        let path = root().join(name).join("Cargo.toml");
        let text = fs::read_to_string(&path).expect("a manifest can be read");
        let depends = text.lines().any(|line| {
            let word = line.split(['.', '=', ' ']).next();
            word == Some(stranger) || line.contains(&format!("\"{stranger}/"))
        });
        assert!(!depends, "{name} must not depend on {stranger}");
    }
}

fn is_root_of_another(root: &Path, path: &Path, text: &str) -> bool {
    path.parent() != Some(root) && text.contains("[workspace]")
}

/// A file as lines, up to its unit tests.
struct Source<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Source<'a> {
    fn new(name: &'a str, text: &'a str) -> Self {
        let own = text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or(text);
        Self {
            name,
            lines: own.lines().collect(),
        }
    }

    fn has_a_header(&self, complaints: &mut Vec<String>) {
        let first = self.lines.iter().find(|line| !line.trim().is_empty());
        if !first.is_some_and(|line| line.starts_with("//!") || line.starts_with("#![doc")) {
            complaints.push(format!("{}: no //! that says what it is", self.name));
        }
    }

    fn does_not_sleep(&self, complaints: &mut Vec<String>) {
        let awake = AWAKE.iter().any(|place| self.name.starts_with(place));
        if !awake || self.name == SLEEPER {
            return;
        }
        for (number, line) in self.code() {
            // In two pieces, so that this line is not one of them.
            if line.contains(concat!("thread::", "sleep"))
                || line.contains(concat!("time::", "sleep"))
            {
                complaints.push(format!("{}:{number}: wait for an event", self.name));
            }
        }
    }

    fn is_short(&self, complaints: &mut Vec<String>) {
        let longer = LONGER.iter().find(|(file, _)| *file == self.name);
        let most = longer.map_or(FILE_LINES, |(_, most)| *most);
        if self.lines.len() > most {
            complaints.push(format!(
                "{}: {} lines, {most} allowed",
                self.name,
                self.lines.len()
            ));
        }
        for (at, line) in self.lines.iter().enumerate() {
            let length = if starts_function(line) {
                self.length_of_block(at)
            } else {
                0
            };
            if length > FUNCTION_LINES {
                complaints.push(format!(
                    "{}:{}: a function of {length} lines, {FUNCTION_LINES} allowed",
                    self.name,
                    at + 1
                ));
            }
        }
    }

    fn names_nothing_forbidden(&self, complaints: &mut Vec<String>) {
        let pure = PURE.iter().any(|place| self.name.starts_with(place));
        // Fuzz targets drive a core as `io` does.
        let pure = pure && !self.name.contains("/io/") && !self.name.ends_with("/fuzzing.rs");
        for (number, line) in self.code() {
            let impure = IMPURE.iter().filter(|word| pure && line.contains(**word));
            for word in impure {
                complaints.push(format!("{}:{number}: {word} outside of io/", self.name));
            }
            for (place, other) in BELOW {
                if self.name.starts_with(place) && names(line, other) {
                    complaints.push(format!("{}:{number}: must not know {other}", self.name));
                }
            }
        }
    }

    /// The lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let numbered = self
            .lines
            .iter()
            .enumerate()
            .map(|(at, line)| (at + 1, *line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The lines from here to the brace that closes at the indent of the first.
    fn length_of_block(&self, at: usize) -> usize {
        let first = self.lines[at];
        let indent = &first[..first.len() - first.trim_start().len()];
        let end = format!("{indent}}}");
        let rest = &self.lines[at..];
        rest.iter()
            .position(|line| *line == end)
            .map_or(0, |last| last + 1)
    }
}

/// Whether `line` names a crate, not merely a path that ends in its name.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn starts_function(line: &str) -> bool {
    let head = line.trim_start();
    let mut words = head.split_whitespace();
    let qualifier = |word: &str| {
        word.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(&word)
    };
    let first = words.find(|word| !qualifier(word));
    first == Some("fn") && !head.ends_with(['}', ';'])
}

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the workspace")
        .to_owned()
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The files below `dir` with this ending, except what was built.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a source directory can be read");
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The checks, checked: what they are there for does not get past them.
#[test]
fn the_checks_see_what_they_look_for() {
    let long = format!(
        "//! x\n\nfn long() {{\n{}}}\n",
        "    x();\n".repeat(FUNCTION_LINES)
    );
    let cases = [
        ("src/a.rs", "fn a() {}\n".to_owned(), "no //!"),
        ("src/a.rs", long, "a function of 72 lines"),
        ("src/a.rs", "//! x\n".repeat(FILE_LINES + 1), "501 lines"),
        (
            "mesh/src/a.rs",
            "//! x\nlet now = Instant::now();\n".to_owned(),
            "outside of io/",
        ),
        (
            "src/rpc/a.rs",
            "//! x\nuse crate::verb::Call;\n".to_owned(),
            "must not know",
        ),
        (
            "e2e/tests/a.rs",
            format!("//! x\nstd::{}{};\n", "thread::", "sleep(x)"),
            "wait for",
        ),
    ];
    for (name, text, expected) in cases {
        let mut complaints = Vec::new();
        let source = Source::new(name, &text);
        source.has_a_header(&mut complaints);
        source.does_not_sleep(&mut complaints);
        source.is_short(&mut complaints);
        source.names_nothing_forbidden(&mut complaints);
        let [complaint] = complaints.as_slice() else {
            panic!("{name} with {expected}: {complaints:?}")
        };
        assert!(complaint.contains(expected), "{complaint}");
    }
}
