//! See `codewire::fuzzing::words`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::words(data));
