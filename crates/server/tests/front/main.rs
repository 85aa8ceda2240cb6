//! The client port against a real listener on loopback, with a store behind it that is alone in the world.
//!
//! What is tested here is the front: framing, mapping, errors, streams, abuse. Replication is tested elsewhere.

mod abuse;
mod calls;
mod client;
mod fake;
mod gateway;
mod levels;
mod lines;
mod watching;
