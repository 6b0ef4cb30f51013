//! Plays the committed corpora again, in an ordinary test: what a fuzzer has found once stays
//! found. Part of each crate that has targets.

use std::path::{Path, PathBuf};

/// Feeds every input of every target of a crate to it.
///
/// # Panics
///
/// When one makes it panic, with the file's name above; when a target has no corpus, or no
/// binary of its own.
pub(super) fn replay(targets: &[super::Target]) {
    for (name, target) in targets {
        let binary = place("fuzz_targets").join(format!("{name}.rs"));
        assert!(binary.exists(), "{} is missing", binary.display());
        let corpus = place("corpus").join(name);
        let files = std::fs::read_dir(&corpus);
        let files = files.unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
        let mut inputs = 0;
        for file in files {
            let path = file.expect("a directory can be read").path();
            let input = std::fs::read(&path).expect("an input can be read");
            let told = std::panic::catch_unwind(|| target(&input));
            assert!(told.is_ok(), "{name}: {}", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", corpus.display());
        // What every target gets sooner or later.
        for input in [&b""[..], &[0], &[0xff; 64], &[b'['; 4096], &[0; 4096]] {
            target(input);
        }
    }
}

fn place(below: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = package.ancestors().map(|root| root.join("fuzz"));
    let fuzz = roots.find(|root| root.join("Cargo.toml").exists());
    fuzz.expect("the fuzz package is there").join(below)
}
