//! What sits between a protocol and the outside, shared by the server and the simulator.
//!
//! A [`Replica`] owns one [`Protocol`](synod_core::Protocol) and one [`Machine`](synod_core::Machine). It
//! gathers commands into batches and reads into fences, holds messages back until the disk has caught up,
//! applies what is delivered, decides when a snapshot is due, and carries snapshots to peers in chunks. It
//! is sans-IO itself: everything that must touch a disk, a wire or a client goes through a [`World`], of
//! which there are two, so that the simulator tests what production runs.
//!
//! One turn of a replica:
//!
//! ```text
//! submit / read / receive / durable / checkpointed / saved / staged / tick     any number, in any order
//! flush(now, world)                                             once: effects leave in one group
//! deadline()                                                    when to call tick at the latest
//! ```
//!
//! Floor 2: knows core alone.

mod bases;
mod compaction;
pub mod mutants;
mod past;
mod reads;
mod replica;
mod transfer;
mod world;

pub use compaction::CompactionPolicy;
pub use replica::{Limits, Replica, RestoreFailed};
pub use world::{Chunk, Packet, Piece, TransferId, World};
