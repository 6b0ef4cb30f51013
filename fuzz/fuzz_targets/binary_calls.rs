//! See `codewire::fuzzing::binary_calls`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::binary_calls(data));
