//! What the system knows about processes.

use std::path::Path;

/// Ticks in a second, as `/proc` counts them.
const TICKS: f64 = 100.0;

/// Processes that run a program whose file name starts as `program`'s does, and that carry
/// `mark` in their environment.
pub fn of(program: &Path, mark: &str) -> Vec<u32> {
    let Some(name) = program.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
            let same = exe.is_ok_and(|exe| {
                let exe = exe.file_name().and_then(|exe| exe.to_str());
                exe.is_some_and(|exe| exe.starts_with(name))
            });
            same && std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| {
                text.split(|byte| *byte == 0)
                    .any(|one| one == mark.as_bytes())
            })
        })
        .collect()
}

/// Processor time so far, user and system, in seconds.
pub fn cpu(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| cpu_of(*pid).unwrap_or(0.0)).sum()
}

fn cpu_of(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may contain anything, utime and stime are the 12th and 13th.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS)
}

/// Memory in KiB, what is shared divided among those who share it.
pub fn pss(pids: &[u32]) -> f64 {
    let one = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        number_after(&text, "Pss:")
    };
    pids.iter().filter_map(one).sum()
}

/// How often their threads went to or from a processor so far.
pub fn switches(pids: &[u32]) -> f64 {
    let mut sum = 0.0;
    for pid in pids {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            sum += number_after(&text, "\nvoluntary_ctxt_switches:").unwrap_or(0.0);
            sum += number_after(&text, "nonvoluntary_ctxt_switches:").unwrap_or(0.0);
        }
    }
    sum
}

fn number_after(text: &str, label: &str) -> Option<f64> {
    let (_, rest) = text.split_once(label)?;
    rest.split_whitespace().next()?.parse().ok()
}
