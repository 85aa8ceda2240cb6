//! Fuzz target: what one replica says to another: Raft's messages and pieces of snapshots.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::messages::packet(bytes));
