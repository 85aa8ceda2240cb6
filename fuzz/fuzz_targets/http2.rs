//! Fuzz target: header blocks of HTTP/2 clients.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::http2::header_blocks(bytes));
