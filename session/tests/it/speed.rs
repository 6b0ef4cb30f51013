//! Figures, not verdicts: run by hand, in release, to compare before and after.

use std::time::Instant;

use session::io::{Chunk, From};

use crate::common::{Home, shell};

/// Processor time of this process, milliseconds.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
    (fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()) * 10
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn throughput() {
    let home = Home::new();
    let sessions = home.open().await;
    let file = home.path().join("64MiB");
    let line = format!("{}\n", "x".repeat(99));
    std::fs::write(&file, line.repeat(64 * 1024 * 1024 / 100)).unwrap();
    for attached in [false, true, false, true, false, true] {
        let (begun, used) = (Instant::now(), processor_ms());
        let id = sessions.launch(shell(&format!("cat {}", file.display())));
        let id = id.await.unwrap().id;
        let from = if attached { From::Start } else { From::End };
        let mut reader = sessions.reader(id, from).unwrap();
        let mut end = false;
        while !end {
            if attached {
                end = matches!(reader.next().await.unwrap(), Chunk::End { .. });
            } else {
                // Nobody reads: only the end is waited for.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                end = !sessions.find(&id.into()).unwrap().status.is_running();
            }
        }
        let wall = begun.elapsed().as_millis();
        let used = processor_ms() - used;
        let bytes = sessions.find(&id.into()).unwrap().output_end;
        let per_mb = used * 1000 / (bytes / 1_000_000);
        println!("attached {attached}: {bytes} bytes in {wall} ms, {per_mb} µs of processor a MB");
    }
}
