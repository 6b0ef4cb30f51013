//! See `codewire::fuzzing::outbox`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::outbox(data));
