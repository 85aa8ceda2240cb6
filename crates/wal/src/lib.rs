//! The write-ahead log and the snapshots of one member: what it must not forget.
//!
//! Design, section 4: records carry checksums; recovery tells a torn tail from rot; a failed write or sync
//! is final; folders are synced on create and rename; everything goes through a [`Disk`], which a simulator
//! can implement with every fault there is. Records are opaque bytes here; `synod-core`'s
//! [`Wire`](synod_core::Wire) encodes them.
//!
//! - [`Log`]: append, sync, checkpoint. [`Recovery`]: what a folder held.
//! - [`Snapshots`]: write one ([`SnapshotWriter`]), receive one ([`Incoming`]), read one ([`SnapshotFile`]).
//! - [`Disk`]: [`RealDisk`] for the server, [`MemoryDisk`] for tests and simulations.
//! - [`recover`]: the rule by which a torn write is told from rot. [`segment`]: the format.
//!
//! ```
//! use std::sync::Arc;
//! use synod_core::{Index, NodeId};
//! use synod_wal::{Identity, Log, LogOptions, MemoryDisk};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In the server: Arc::new(RealDisk::open("data/member")?)
//! let disk = Arc::new(MemoryDisk::new());
//! let identity = Identity { cluster: 0xc1, node: NodeId(1) };
//! let (mut log, found) = Log::open(disk.clone(), identity, LogOptions::default())?;
//! assert!(found.fresh);
//!
//! // Group commit: append what has gathered, sync once, tell `Durable`. One thread does this in a loop.
//! log.append(&7u64)?; // anything that implements `Wire`
//! log.append_bytes(b"encoded already")?;
//! log.sync()?;
//!
//! // A snapshot is written on any other thread; then the protocol's checkpoint takes the place of the log.
//! let mut writer = log.snapshots().create(Index(2))?;
//! std::io::Write::write_all(&mut writer, b"the state after delivery 2")?;
//! let snapshot = writer.finish()?; // snapshot.to_ref() is what the replica gets
//! assert_eq!(snapshot.bytes(), 26);
//! log.checkpoint(Index(2), &[8u64, 9u64])?; // returns what to drop elsewhere: the old files
//! log.mark()?; // when idle, and before a planned stop
//! drop(log);
//!
//! let (_log, found) = Log::open(disk, identity, LogOptions::default())?;
//! assert_eq!(found.records, [&[8u8][..], &[9]]);
//! assert_eq!(found.snapshot.map(|snapshot| snapshot.at()), Some(Index(2)));
//! # Ok(())
//! # }
//! ```
//!
//! What the caller owes: on any error for which [`LogError::is_fatal`] holds, the process ends and reads the
//! folder anew; it acknowledges nothing that was not synced; a snapshot at an index is complete before
//! [`Log::checkpoint`] names it; and a checkpoint's records stand for everything appended before it.

mod checkpoint;
mod disk;
mod error;
mod log;
mod memory;
mod memory_file;
pub mod mutants;
mod names;
mod real;
pub mod recover;
pub mod segment;
mod snapshot;
mod snapshot_writer;
mod window;

pub use checkpoint::{BATCH_BYTES_MAX, RECORD_BYTES_MAX, Superseded};
pub use disk::{Disk, DiskFile, Entry, EntryKind};
pub use error::{Damage, LogError};
pub use log::{Log, LogOptions, OnDamage, Statistics};
pub use memory::{Fate, Fault, MemoryDisk, Operation, OperationKind, Unsynced};
pub use real::RealDisk;
pub use recover::{Recovery, TornTail};
pub use segment::Identity;
pub use snapshot::{CHUNK_BYTES, SNAPSHOT_BYTES_MAX, SnapshotFile, Snapshots};
pub use snapshot_writer::{Incoming, SnapshotWriter};
