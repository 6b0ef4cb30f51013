//! One test: runs it, prints the logs when it fails, ends everything, and looks for errors in the
//! logs when it passed.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Something that a test has set up.
pub trait Setting {
    /// The logs, each with its name.
    fn logs(&self) -> Vec<(String, String)>;

    /// Ends everything. Never panics; may be called twice.
    fn tear_down(&self);
}

/// Runs a test in its setting.
///
/// # Panics
///
/// As the test does; or when a log has an error.
#[track_caller]
pub fn case<S: Setting + ?Sized>(setting: &S, test: impl FnOnce(&S)) {
    let ended = catch_unwind(AssertUnwindSafe(|| test(setting)));
    setting.tear_down();
    let logs = setting.logs();
    if let Err(panic) = ended {
        print(&logs);
        resume_unwind(panic);
    }
    let errors: Vec<&str> = logs
        .iter()
        .flat_map(|(_, log)| log.lines())
        .filter(|line| line.contains(" ERROR ") || line.contains("panicked at"))
        .collect();
    if !errors.is_empty() {
        print(&logs);
        panic!("the logs have errors:\n{}", errors.join("\n"));
    }
}

/// What a test needs; none, and it is said that the test is skipped and why, where that is not
/// to be had.
#[must_use]
pub fn or_skip<T>(setting: Result<T, String>) -> Option<T> {
    let told = setting.inspect_err(|why| {
        let test = std::thread::current();
        let test = test.name().unwrap_or("a test");
        // Not by a macro: what those print of a test that passes is shown to nobody. There is
        // nobody to tell if it cannot be written.
        let _ = writeln!(std::io::stderr(), "\nskipped: {test}: {why}");
    });
    told.ok()
}

#[expect(clippy::print_stderr, reason = "the only way to see why a test failed")]
fn print(logs: &[(String, String)]) {
    for (name, log) in logs {
        eprintln!("----- {name}\n{}", log.trim_end());
    }
    eprintln!("-----");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log(&'static str);

    impl Setting for Log {
        fn logs(&self) -> Vec<(String, String)> {
            vec![("log".to_owned(), self.0.to_owned())]
        }

        fn tear_down(&self) {}
    }

    fn passes(log: &'static str, test: fn(&Log)) -> bool {
        catch_unwind(AssertUnwindSafe(|| case(&Log(log), test))).is_ok()
    }

    #[test]
    fn an_error_in_a_log_fails_a_test_that_passed() {
        assert!(passes("t  INFO cw: fine\n", |_| {}));
        assert!(!passes("t  INFO cw: fine\nt ERROR cw: torn\n", |_| {}));
        assert!(!passes("thread 'main' panicked at src/x.rs\n", |_| {}));
        assert!(!passes("t  INFO cw: fine\n", |_| panic!("failed")));
    }
}
