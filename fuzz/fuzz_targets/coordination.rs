//! See `codewire::fuzzing::coordination`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::coordination(data));
