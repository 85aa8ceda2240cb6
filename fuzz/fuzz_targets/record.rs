//! Fuzz target: what Raft wrote into the log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::messages::record(bytes));
