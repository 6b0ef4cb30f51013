//! See `codewire::fuzzing::papers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::papers(data));
