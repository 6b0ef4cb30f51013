//! See `codewire::fuzzing::ssh`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::ssh(data));
