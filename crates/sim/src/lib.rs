//! Deterministic worlds for replicas: no clock, no socket, no disk, no thread.
//!
//! Two ways to make a cluster live. [`script`] runs it step by step from a text file and compares what happens with what the
//! file says: the golden traces of every protocol. [`world`] lets it run by itself for a while, with clients and with everything
//! going wrong that a [`swarm`] drew from a seed, and [`oracle`]s that watch what no replica can see.
//!
//! | part | what |
//! |---|---|
//! | [`family`] | what a protocol tells the simulator about itself |
//! | [`swarm`], [`faults`] | what a seed draws: the plan |
//! | [`world`] | virtual time, machines, the two phases |
//! | [`network`], [`partition`], [`disk`], [`byzantine`] | the parts that misbehave |
//! | [`client`], [`oracle`] | who asks, and who judges |
//! | [`endurance`] | one cluster, one long life |
//! | [`generals`] | the Byzantine generals, as a game of their own |
//! | [`hunt`], [`planted`] | whether the simulator finds what it is for |
//! | [`sweep`], [`shrink`], [`report`] | many seeds, the fewest faults, the figures |
//! | [`trace`], [`diagram`] | what happened, as text and as pictures |
//!
//! The crate is generic over protocols and imports none of them. Floor 3: sees core, replica, log, store and checker.

pub mod byzantine;
pub mod client;
pub mod diagram;
pub mod disk;
pub mod endurance;
pub mod family;
pub mod faults;
pub mod generals;
pub mod hunt;
pub mod machine;
pub mod network;
pub mod oracle;
pub mod partition;
pub mod planted;
pub mod report;
pub mod script;
pub mod shrink;
pub mod swarm;
pub mod sweep;
mod tally;
pub mod trace;
pub mod watcher;
pub mod world;

pub use tally::Tally;
