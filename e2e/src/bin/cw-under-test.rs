//! The program itself, so that `CARGO_BIN_EXE_cw-under-test` exists for this package's tests.

fn main() -> std::process::ExitCode {
    codewire::main()
}
