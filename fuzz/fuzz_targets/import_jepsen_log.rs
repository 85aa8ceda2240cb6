//! Fuzz target: Jepsen's text log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::jepsen_log(bytes));
