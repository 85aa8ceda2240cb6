//! Replication protocols as state machines: each a module of its own, and none imports another.
//!
//! All implement [`synod_core::Protocol`]: inputs and the time come in, records, messages, deliveries and
//! answers go out. Floor 1: this crate imports the core alone.

pub mod backup;
pub mod causal;
mod flow;
pub mod multipaxos;
pub mod paxos;
pub mod pbft;
pub mod pow;
pub mod raft;
