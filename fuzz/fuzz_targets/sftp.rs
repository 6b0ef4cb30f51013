//! See `codewire::fuzzing::sftp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::sftp(data));
