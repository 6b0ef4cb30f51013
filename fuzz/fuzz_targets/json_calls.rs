//! See `codewire::fuzzing::json_calls`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::json_calls(data));
