//! What protocols with a log and a leader share: the log's way to the own disk, and to each peer.
//!
//! Neither file knows what is agreed or why; both only count. Raft uses them for its terms, primary-backup for its views.

mod disk;
mod progress;

pub(crate) use disk::Disk;
pub(crate) use progress::{Flow, Progress};
