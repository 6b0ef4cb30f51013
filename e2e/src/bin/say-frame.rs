//! Says one control frame on the socket of a node, as the process it is run from, and prints the
//! answer: what a program inside a session may try without `cw`.

use std::path::Path;
use std::process::ExitCode;

use e2e::wire::{Frame, Wire};

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, request] = arguments.as_slice() else {
        return ExitCode::from(2);
    };
    let Ok(request) = serde_json::from_str(request) else {
        return ExitCode::from(2);
    };
    let mut wire = Wire::connect(Path::new(socket));
    wire.say(&request);
    match wire.hear() {
        Some(Frame::Control(answer)) => println!("{answer}"),
        other => println!("{other:?}"),
    }
    ExitCode::SUCCESS
}
