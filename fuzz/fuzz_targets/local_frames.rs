//! See `codewire::fuzzing::local_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::local_frames(data));
