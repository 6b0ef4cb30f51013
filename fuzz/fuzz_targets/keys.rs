//! See `codewire::fuzzing::keys`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::keys(data));
