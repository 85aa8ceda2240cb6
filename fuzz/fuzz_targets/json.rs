//! Fuzz target: bodies of the JSON gateway.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_server::tried::json(bytes));
