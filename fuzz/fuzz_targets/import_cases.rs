//! Fuzz target: objects that hold a whole history each.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::cases(bytes));
