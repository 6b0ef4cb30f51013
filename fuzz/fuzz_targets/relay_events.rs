//! See `codewire::fuzzing::relay_events`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::relay_events(data));
