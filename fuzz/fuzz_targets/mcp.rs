//! See `codewire::fuzzing::mcp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::mcp(data));
