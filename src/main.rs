//! The `cw` binary.

fn main() -> std::process::ExitCode {
    codewire::main()
}
