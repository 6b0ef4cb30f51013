//! See `codewire::fuzzing::websocket`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::websocket(data));
