//! Fuzz target: a client's request in protobuf.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::messages::protobuf(bytes));
