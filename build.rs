//! Links `cw` for a fixed address where that is possible.
//!
//! Otherwise the loader writes some hundred thousand pointers, in each process anew: every command
//! begins with it, and keeper and node each hold the pages. Go's programs are linked like this too.
//! Libraries, stacks and heap are still placed at random.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| {
        std::env::var(name).is_ok_and(|found| found.split(',').any(|one| one == value))
    };
    // A static program needs other objects to start from, which only the compiler can choose.
    if is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && !is("CARGO_CFG_TARGET_FEATURE", "crt-static")
    {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
