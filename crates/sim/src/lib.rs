//! Deterministic worlds for replicas: no clock, no socket, no disk, no thread.
//!
//! [`script`] runs a cluster step by step from a text file and compares what happens with what the file
//! says should happen: the golden traces of every protocol. The crate is generic over protocols and
//! imports none of them.
//!
//! Floor 3: sees core and replica.

pub mod script;
mod tally;

pub use tally::Tally;
