//! See `codewire::fuzzing::logs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::logs(data));
