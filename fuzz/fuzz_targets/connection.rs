//! Fuzz target: what a client says on an HTTP/2 connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_server::tried::connection(bytes));
