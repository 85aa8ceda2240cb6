//! Everything that can be wrong with a data folder: what, in which file, at which offset, and what to do.

use std::fmt;
use std::io;
use std::sync::Arc;

use synod_core::Index;

/// Why the log or a snapshot cannot go on.
///
/// [`LogError::NoSpace`], [`LogError::TooLarge`], [`LogError::MissingSnapshot`] from a checkpoint, and whatever happens to a
/// snapshot that is being written leave the log as it was. Everything else ends it: see [`LogError::is_fatal`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system said no.
    #[error(
        "{file}: {action} failed: {source}; nothing is retried on this file: see to the disk (or to the file's owner and mode), then start again"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// There is no room for a new file; nothing was harmed, and the same call may be made again later.
    #[error("{file}: no room on the disk for {bytes} bytes more: free some, nothing is lost meanwhile")]
    NoSpace {
        /// The file that could not be made.
        file: String,
        /// How much it needs.
        bytes: u64,
    },
    /// Another process works in this folder.
    #[error("{folder} is in use by another process{by}: stop that one, or choose another data folder")]
    InUse {
        /// The data folder.
        folder: String,
        /// " (process 123)", when it is known.
        by: String,
    },
    /// Bytes that were acknowledged as durable are not what they were.
    #[error("{0}; {DAMAGE_ADVICE}")]
    Damaged(Damage),
    /// The file belongs to another cluster.
    #[error(
        "{file} belongs to cluster {found:016x}, this is cluster {expected:016x}: point the member at its own data folder"
    )]
    WrongCluster {
        /// Which file.
        file: String,
        /// The cluster that the file names.
        found: u64,
        /// The cluster that was expected.
        expected: u64,
    },
    /// The file belongs to another member of the cluster.
    #[error(
        "{file} belongs to member {found:x}, this is member {expected:x}: point the member at its own data folder"
    )]
    WrongNode {
        /// Which file.
        file: String,
        /// The member that the file names.
        found: u64,
        /// The member that was expected.
        expected: u64,
    },
    /// A later version of this program wrote the file.
    #[error(
        "{file} has format version {found}, this program knows up to {known}: start the newer program that wrote it"
    )]
    NewerFormat {
        /// Which file.
        file: String,
        /// The version that the file names.
        found: u32,
        /// The newest version that can be read.
        known: u32,
    },
    /// The name and the content of a file do not agree.
    #[error(
        "{file} says inside that it is number {found}: it was renamed or copied over; give it its own name again"
    )]
    Misnamed {
        /// Which file.
        file: String,
        /// The number inside.
        found: u64,
    },
    /// Something else stands where a file belongs.
    #[error("{file} is {what}, not a regular file: put the file back, or restore the folder from a copy")]
    NotAFile {
        /// Which name.
        file: String,
        /// What it is.
        what: &'static str,
    },
    /// A segment of the log is not there.
    #[error(
        "{file} is missing, though the log goes on without it: put it back; without it acknowledged records are lost, and the member must be removed from the cluster and added anew"
    )]
    MissingSegment {
        /// The segment's name.
        file: String,
    },
    /// The snapshot on which the log rests is not there.
    #[error(
        "{file} is missing, though the log rests on it{others}: put it back, or remove the member from the cluster and add it anew"
    )]
    MissingSnapshot {
        /// The snapshot's name.
        file: String,
        /// What there is instead.
        others: String,
    },
    /// There are snapshots, and no log at all.
    #[error(
        "{folder} holds {snapshot} but no log: a snapshot newer than the log proves that log files were lost; put them back, or remove the member from the cluster and add it anew with an empty folder"
    )]
    MissingLog {
        /// The data folder.
        folder: String,
        /// The snapshot that was found.
        snapshot: String,
    },
    /// A record or a snapshot beyond the limit.
    #[error("{what} of {bytes} bytes is larger than the limit of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// An incoming snapshot is not what its sender announced.
    #[error(
        "snapshot {at:?} as received is not what was sent: {what}; it was thrown away and can be sent again"
    )]
    NotAsSent {
        /// The snapshot's index.
        at: Index,
        /// What does not agree.
        what: String,
    },
}

const DAMAGE_ADVICE: &str = "what is there no longer tells all that this member promised, so it must not go on \
    with it: put the file back from a copy, or remove the member from the cluster and add it anew with an empty folder";

/// A place where acknowledged bytes are no longer what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// The first byte that cannot be trusted.
    pub offset: u64,
    /// The sequence of the first record that is lost; every earlier one was recovered. 0 when the whole file is
    /// concerned: a header, or a snapshot.
    pub from_sequence: u64,
    /// The sequence at which readable records go on; `None` when none does.
    pub to_sequence: Option<u64>,
    /// What is wrong there, and what proves that it is not a torn write.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at offset {}: {}", self.file, self.offset, self.what)?;
        match self.to_sequence {
            Some(to) if to > self.from_sequence => {
                write!(f, " (records {} to {} are lost)", self.from_sequence, to - 1)
            }
            _ if self.from_sequence > 0 => write!(f, " (records from {} on are lost)", self.from_sequence),
            _ => Ok(()),
        }
    }
}

impl LogError {
    pub(crate) fn io(action: &'static str, file: String, source: io::Error) -> LogError {
        LogError::Io { action, file, source: Arc::new(source) }
    }

    /// Whether the log can not go on after this.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            LogError::NoSpace { .. }
                | LogError::TooLarge { .. }
                | LogError::NotAsSent { .. }
                | LogError::MissingSnapshot { .. }
        )
    }
}

/// Whether the disk or a quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> io::Error {
        let kind = match &error {
            LogError::Io { source, .. } => source.kind(),
            LogError::NoSpace { .. } => io::ErrorKind::StorageFull,
            LogError::MissingSnapshot { .. } => io::ErrorKind::NotFound,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
