//! Fuzz target: dbcop's sessions of transactions.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::dbcop(bytes));
