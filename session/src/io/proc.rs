//! What the system tells about processes in `/proc`; elsewhere nothing is known.

use std::fs::File;
use std::io::Read as _;

/// More than 52 numbers of 20 digits and a name of 64 characters.
const LINE_MAX: usize = 2048;

/// A line of `/proc/<pid>/stat`, see proc_pid_stat(5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: u32,
    /// The leader of its session, in the sense of the system: of its terminal.
    pub(crate) leader: u32,
    /// Whether it has a controlling terminal.
    pub(crate) has_terminal: bool,
    pub(crate) exit_code: i32,
}

impl Stat {
    /// Of one process; `None` when it is gone or there is no `/proc`.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::of(pid).ok()
    }

    /// Of one process, or why that is not known.
    pub(crate) fn of(pid: u32) -> std::io::Result<Self> {
        // At once: every caller of the node is looked up, with all its ancestors.
        let mut text = [0; LINE_MAX];
        let len = File::open(format!("/proc/{pid}/stat"))?.read(&mut text)?;
        let stat = Self::parse(&String::from_utf8_lossy(&text[..len]));
        stat.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of the program is in parentheses and may contain any.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let _group = fields.next()?;
        let leader = fields.next()?.parse().ok()?;
        let has_terminal = fields.next()? != "0";
        // The state is the third field, the exit code the 52nd.
        let exit_code = fields.nth(52 - 8).and_then(|code| code.parse().ok());
        Some(Self {
            state,
            parent,
            leader,
            has_terminal,
            exit_code: exit_code.unwrap_or(0),
        })
    }
}

/// Whether a process ignores a signal; not known, and so false, where there is
/// no `/proc`.
pub(crate) fn ignores(pid: u32, signal: rustix::process::Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal.as_raw() - 1).unwrap_or(u32::MAX);
    mask.unwrap_or(0) & 1_u64.checked_shl(bit).unwrap_or(0) != 0
}

/// Every process there is; nothing where there is no `/proc`.
pub(crate) fn processes() -> Vec<(u32, Stat)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?)))
        .collect()
}

/// A variable in the environment that a process was started with; `None` where it
/// has none of that name, may not be asked, or there is no `/proc`.
pub(crate) fn environment(pid: u32, name: &str) -> Option<String> {
    let text = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let start = format!("{name}=").into_bytes();
    let value = text
        .split(|byte| *byte == 0)
        .find_map(|pair| pair.strip_prefix(start.as_slice()))?;
    String::from_utf8(value.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let numbers: Vec<_> = (8..52).map(|field| field.to_string()).collect();
        let text = format!(
            "42 (a) b (c) Z 7 8 9 34816 {} 10752\n",
            numbers[..44].join(" ")
        );
        let stat = Stat::parse(&text).unwrap();
        let expected = Stat {
            state: 'Z',
            parent: 7,
            leader: 9,
            has_terminal: true,
            exit_code: 42 << 8,
        };
        assert_eq!(stat, expected);
        assert_eq!(Stat::parse("42 (sh"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn variables_are_those_of_the_start() {
        let path = std::env::var("PATH").ok();
        assert_eq!(environment(std::process::id(), "PATH"), path);
        assert_eq!(environment(std::process::id(), "PAT"), None);
        assert_eq!(environment(u32::MAX, "PATH"), None);
    }
}
