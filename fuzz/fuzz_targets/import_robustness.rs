//! Fuzz target: etcd robustness' reports.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::robustness(bytes));
