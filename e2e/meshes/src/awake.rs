//! Processors that do not halt.
//!
//! Where two processes take turns on a processor each, either of them halts while the other works.
//! To wake one is quick on some machines, and takes most of the time of a call on others, above all
//! on virtual ones. So calls are measured once more while a process of no importance at all
//! (`SCHED_IDLE`: whatever else wants the processor gets it at once) keeps each from halting.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context as _, Result};

use crate::child::Child;
use crate::end;

/// Keeps these processors awake until what is returned is dropped.
///
/// # Errors
///
/// Where there is no `chrt` (util-linux).
pub fn keep(cores: &[usize]) -> Result<Vec<Child>> {
    let idle = ["chrt", "--idle", "0"];
    let kept = cores
        .iter()
        .map(|core| Child::behind(&idle, &["awake", &core.to_string()]));
    kept.collect::<Result<_>>().context("no `chrt --idle`")
}

/// Does not let a processor halt until the standard input ends.
pub fn run(core: &str) -> Result<()> {
    end::pin(core)?;
    println!("ready");
    std::io::stdout().flush()?;
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        ended.store(true, Relaxed);
    });
    while !over.load(Relaxed) {
        std::hint::spin_loop();
    }
    Ok(())
}
