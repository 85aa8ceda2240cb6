//! Fuzz target: telling an input's format by its content, then reading and judging it so.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::detect(bytes));
