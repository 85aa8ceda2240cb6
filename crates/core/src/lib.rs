//! The seam of Synod: what every replication protocol, every state machine and both worlds (the server
//! and the simulator) agree on.
//!
//! Three ideas carry it (see `ARCHITECTURE.md`):
//!
//! 1. **Two worlds, one replica.** A [`Protocol`] knows no clock, socket, disk or thread. Time, randomness
//!    and order come in by argument; effects go out through the lanes of an [`Output`].
//! 2. **A batch is the unit of agreement.** One [`Batch`] is allocated by whoever proposes it and then
//!    shared by log, record, message and delivery.
//! 3. **Messages are promises; deliveries are facts.** A message waits, by default, for every record
//!    written before it; one's own disk takes part in a quorum through [`Input::Durable`].
//!
//! Floor 0: this crate imports no other crate of the workspace.

mod awaiting;
mod command;
mod machine;
mod members;
mod output;
mod planted;
mod protocol;
pub mod quorum;
mod rng;
mod stamp;
mod taken;
mod types;
pub mod wire;

pub use awaiting::Awaiting;
pub use command::{Batch, Command, CommandId, batch_bytes, empty_batch};
pub use machine::{Audience, Frozen, Machine, MemorySnapshot, SnapshotRef, SnapshotSource};
pub use members::{Change, ChangeError, Members};
pub use output::{Answer, Delivery, Outbound, Output, Patience, Refusal, Stamped};
pub use protocol::{Config, Input, Peer, Protocol, Recovered, Role, SnapshotPlaces, Status};
pub use rng::Rng;
pub use stamp::{Stamp, Vector};
pub use taken::Taken;
pub use types::{Index, Lsn, NodeId, ReadId, Time};
pub use wire::{Wire, WireError};
