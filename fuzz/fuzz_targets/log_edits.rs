//! Fuzz target: a healthy log folder whose bytes were changed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::storage::log_edits(bytes));
