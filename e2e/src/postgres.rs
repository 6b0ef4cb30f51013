//! A PostgreSQL server for tests: its own directory, its own Unix socket, no port, and gone with
//! whoever has started it.
//!
//! A shell looks after it, as the user `postgres` if we are root: the server refuses to be root. The
//! shell takes words from a pipe. The end of the pipe, which comes also when the test is killed, is
//! the end of the server and of its directory.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The name that owns everything in the server.
const USER: &str = "cw";

/// Written for speed: what a test writes need not survive a power failure.
const OPTIONS: &str = "-c listen_addresses= -c fsync=off -c full_page_writes=off \
     -c max_connections=200 -c shared_buffers=32MB";

/// Arguments: where the server's programs are, where it may write, its options.
const SHELL: &str = r#"
set -eu
cd "$2"
start() { "$1/pg_ctl" -D "$2/data" -l "$2/log" -w -t 120 -o "-k $2 $3" start >>"$2/log" 2>&1; }
stop() { "$1/pg_ctl" -D "$2/data" -m immediate -w -t 120 stop >>"$2/log" 2>&1; }
end() { stop "$@" || :; cd /; rm -rf "$2"; }
"$1/initdb" -D data -A trust -U cw -E UTF8 --no-locale --no-sync >log 2>&1 || { cat log; exit 1; }
start "$@" || { cat log; exit 1; }
echo ready
while read -r word; do
    "$word" "$@" || { cat log; exit 1; }
    echo ready
done
end "$@"
"#;

/// See the module.
pub struct Server {
    programs: PathBuf,
    dir: PathBuf,
    shell: Mutex<Shell>,
    databases: AtomicU32,
}

struct Shell {
    child: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// One for all tests of this process. Where there is none, that is said.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::launch).as_ref();
        told(shared.map_err(String::clone))
    }

    /// One that a test may stop. Where there is none, that is said.
    pub fn own() -> Option<Self> {
        told(Self::launch())
    }

    /// # Errors
    ///
    /// Why there is none here. What is there and does not start panics.
    fn launch() -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not here")?;
        let dir = Path::new("/tmp").join(format!(
            "cw-postgres-{}-{}",
            std::process::id(),
            SERVERS.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SHELL, "sh"])
            .args([&programs, &dir])
            .arg(OPTIONS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let me = dir.metadata().map_err(|error| error.to_string())?.uid();
        if me == 0 {
            let (uid, gid) = user().ok_or("there is no user 'postgres' for the server")?;
            chown(&dir, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
            command.uid(uid).gid(gid);
        }
        let mut child = command.spawn().map_err(|error| format!("sh: {error}"))?;
        let (words, answers) = (child.stdin.take(), child.stdout.take());
        let mut shell = Shell {
            child,
            words,
            answers: BufReader::new(answers.expect("it is a pipe")),
        };
        shell.until_ready();
        Ok(Self {
            programs,
            dir,
            shell: Mutex::new(shell),
            databases: AtomicU32::new(0),
        })
    }

    /// A new, empty database: its URL, with a password that the server does not look at.
    pub fn database(&self) -> String {
        let name = format!("relay{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(self.programs.join("createdb"))
            .args(["-U", USER, "-h"])
            .args([&self.dir])
            .arg(&name)
            .output()
            .expect("createdb runs");
        assert!(made.status.success(), "{made:?}");
        let dir = self.dir.display();
        format!("postgres://{USER}:s3cr3t-of-the-database@localhost/{name}?host={dir}")
    }

    /// Ends it as if its machine had failed; its directory stays.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Starts it again.
    pub fn start(&self) {
        self.tell("start");
    }

    fn tell(&self, word: &str) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let words = shell.words.as_mut().expect("it is there until the end");
        writeln!(words, "{word}").expect("the shell listens");
        shell.until_ready();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        shell.words = None;
        // Nobody would look at why it could not be waited for.
        let _ = shell.child.wait();
    }
}

impl Shell {
    fn until_ready(&mut self) {
        let mut said = String::new();
        loop {
            let before = said.len();
            let read = self.answers.read_line(&mut said);
            assert!(read.is_ok_and(|length| length > 0), "postgres: {said}");
            if said[before..].trim_end() == "ready" {
                return;
            }
        }
    }
}

static SERVERS: AtomicU32 = AtomicU32::new(0);

/// To the terminal itself, as `scripts/check` counts these lines.
fn told<T>(found: Result<T, String>) -> Option<T> {
    let tell = |why: &String| {
        let test = std::thread::current();
        let test = test.name().unwrap_or("a test");
        // Nobody may be listening.
        let _ = writeln!(std::io::stderr(), "\nskipped: {test}: {why}");
    };
    found.inspect_err(tell).ok()
}

/// Where Debian has them, the newest, or beside the `initdb` that is found by its name.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    found.sort();
    let named = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|dir| dir.join("initdb").exists())
    };
    found.pop().map(|(_, programs)| programs).or_else(named)
}

/// Who the server may be when we are root.
fn user() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
