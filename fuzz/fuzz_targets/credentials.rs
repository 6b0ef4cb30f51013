//! See `codewire::fuzzing::credentials`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::credentials(data));
