//! Clients that mean harm, and crowds of clients, against the built program: its memory stays bounded, it says what HTTP/2 wants it
//! to say, and a good client is served all the while.
//!
//! `frames` holds what a single client can do with HTTP/2 (resets, floods, bombs, windows, streams that are none); `crowds` what many
//! can do by being many (connections, watchers that never read, full ranges). Memory is the kernel's own figure for the highest
//! that the process ever had, so that nothing hides between two looks.

#[path = "../common/mod.rs"]
mod common;

mod crowds;
mod frames;
mod good;
mod wire;
