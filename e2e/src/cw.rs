//! Types `cw` on some host, and looks at how it went.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portable_pty::CommandBuilder;

use crate::running::Running;
use crate::wait::PATIENCE;

/// `cw` on some host: the program with what stands before its arguments, and its environment.
///
/// Of the environment of the test only `PATH` is passed on; everything to what carries a command
/// to another host ([`Cw::carried`]).
#[derive(Clone, Debug)]
pub struct Cw {
    /// The program and the words before the arguments: `cw`, or `ip netns exec <name> cw`.
    words: Vec<OsString>,
    /// Where what carries the command wants to be told of a terminal.
    tty: Option<usize>,
    variables: Vec<(OsString, OsString)>,
    dir: PathBuf,
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was typed.
    pub line: String,
    /// The exit status, none after a signal.
    pub status: Option<i32>,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Cw {
    /// Where the node is, for one of this machine.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.dir
    }

    /// `program` with the node in `home`, run in `home`.
    #[must_use]
    pub fn new(program: &Path, home: &Path) -> Self {
        let cw = Self {
            words: vec![program.into()],
            tty: None,
            variables: Vec::new(),
            dir: home.to_owned(),
        };
        cw.env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("CODEWIRE_HOME", home)
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color")
    }

    /// What other programs carry to its host: `docker exec …` or `kubectl … exec …`, both of which
    /// take `--tty` after that word. They have the test's environment, and of that the command
    /// gets what they are told to pass on.
    #[must_use]
    pub fn carried(words: &[&str]) -> Self {
        let exec = words.iter().position(|word| *word == "exec");
        Self {
            words: words.iter().map(OsString::from).collect(),
            tty: exec.map(|at| at + 1),
            variables: Vec::new(),
            dir: std::env::temp_dir(),
        }
        .env("TERM", "xterm-256color")
    }

    /// The same behind some words, such as `ip netns exec <name>`.
    #[must_use]
    pub fn behind(mut self, words: &[&str]) -> Self {
        self.words.splice(0..0, words.iter().map(OsString::from));
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// When it takes longer than [`PATIENCE`].
    #[track_caller]
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, b"", PATIENCE)
    }

    /// Runs it to its end with something on its standard input.
    ///
    /// # Panics
    ///
    /// When it takes longer than `limit`.
    #[track_caller]
    #[must_use]
    pub fn run_with(&self, arguments: &[&str], input: &[u8], limit: Duration) -> Done {
        self.start_with(arguments, input).wait(limit)
    }

    /// Runs it, and returns its standard output.
    ///
    /// # Panics
    ///
    /// When it fails or takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok().stdout
    }

    /// Starts it in the background.
    #[track_caller]
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(arguments, b"")
    }

    /// Starts it in the background with something on its standard input.
    #[track_caller]
    #[must_use]
    pub fn start_with(&self, arguments: &[&str], input: &[u8]) -> Running {
        Running::start(self.command(arguments), input)
    }

    /// The command, not started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.words[0]);
        if self.tty.is_none() {
            command.env_clear();
        }
        command
            .args(&self.words[1..])
            .args(arguments)
            .envs(self.variables.iter().cloned())
            .current_dir(&self.dir);
        command
    }

    /// The command for a terminal, not started.
    #[must_use]
    pub fn command_in_terminal(&self, arguments: &[&str]) -> CommandBuilder {
        let mut words = self.words.clone();
        if let Some(at) = self.tty {
            words.insert(at, "--tty".into());
        }
        let mut command = CommandBuilder::from_argv(words);
        if self.tty.is_none() {
            command.env_clear();
        }
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command.args(arguments);
        command.cwd(&self.dir);
        command
    }
}

impl Done {
    /// The same, if it has succeeded.
    ///
    /// # Panics
    ///
    /// When it has failed.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(self.status == Some(0), "this should have worked: {self}");
        self
    }

    /// The same, if it has failed the way all failures look: a status that is not 0, the code in
    /// brackets at the end of the first line, nothing on standard output.
    ///
    /// # Panics
    ///
    /// When it has not.
    #[track_caller]
    pub fn fails(self, code: &str) -> Self {
        assert!(self.status.is_some_and(|status| status != 0), "{self}");
        let told = self
            .stderr
            .lines()
            .any(|line| line.ends_with(&format!("[{code}]")));
        assert!(told, "no [{code}] in {self}");
        assert_eq!(self.stdout, "", "{self}");
        self
    }

    /// The same, if the line after the error says what to do about it.
    ///
    /// # Panics
    ///
    /// When there is no such line, or `part` is not in it.
    #[track_caller]
    pub fn hints(self, part: &str) -> Self {
        let hint = self.stderr.lines().find(|line| line.starts_with("    "));
        assert!(
            hint.is_some_and(|hint| hint.contains(part)),
            "no hint with {part:?} in {self}"
        );
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\nstatus {:?} after {:?}\nstdout: {}\nstderr: {}",
            self.line, self.status, self.took, self.stdout, self.stderr
        )
    }
}
