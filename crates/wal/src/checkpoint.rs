//! Putting records into a buffer, many of them into a checkpoint, and clearing away what a checkpoint replaces.
//!
//! When a checkpoint counts, and what a crash leaves of it, is told in `log.rs`.

use std::sync::Arc;

use bytes::BytesMut;
use synod_core::{Index, Wire};

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::mutants::Mutant;
use crate::names;
use crate::segment::{BATCH_HEADER_BYTES, HEADER_BYTES, Header, Kind, RECORD_HEADER_BYTES, seal_batch};

/// A larger record is refused.
pub const RECORD_BYTES_MAX: usize = 256 << 20;
/// A batch takes no more than this; [`Log::append`](crate::Log::append) refuses beyond.
pub const BATCH_BYTES_MAX: usize = 1 << 30;
/// A checkpoint is written in pieces of about this size.
const CHECKPOINT_BATCH_BYTES: usize = 1 << 20;
/// The files that a checkpoint has made superfluous. Dropping it removes them; it may travel to another thread for
/// that. What a crash leaves of them, or a disk that will not remove them, the next start removes.
pub struct Superseded {
    disk: Arc<dyn Disk>,
    segments: Vec<u64>,
    /// Snapshots before this one.
    snapshot: Index,
}

impl Superseded {
    pub(crate) fn new(disk: Arc<dyn Disk>, segments: Vec<u64>, snapshot: Index) -> Superseded {
        Superseded { disk, segments, snapshot }
    }

    /// Removes the files, and tells what went wrong; nothing that does harms the log.
    ///
    /// # Errors
    /// [`LogError::Io`] for the first file that could not be removed.
    pub fn remove(mut self) -> Result<(), LogError> {
        self.remove_all()
    }

    fn remove_all(&mut self) -> Result<(), LogError> {
        let mut names: Vec<String> = self.segments.drain(..).map(names::segment).collect();
        let snapshot = std::mem::replace(&mut self.snapshot, Index::ZERO);
        if snapshot > Index::ZERO {
            let failed = |error| LogError::io("listing", self.disk.path(""), error);
            let contents = names::sort_out(&self.disk.list().map_err(failed)?, |name| self.disk.path(name))?;
            names.extend(
                contents
                    .snapshots
                    .into_iter()
                    .filter(|at| *at < snapshot || Mutant::RemovesItsSnapshot.is_on())
                    .map(names::snapshot),
            );
        }
        for name in names {
            match self.disk.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LogError::io("removing", self.disk.path(&name), error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Superseded {
    fn drop(&mut self) {
        let _ = self.remove_all();
    }
}

/// Why a segment was not made.
pub(crate) enum MakeError {
    Disk(std::io::Error),
    Refused(LogError),
}

impl From<std::io::Error> for MakeError {
    fn from(error: std::io::Error) -> Self {
        MakeError::Disk(error)
    }
}

/// Appends a record with its length in front; leaves `buffer` as it was when that would be too much.
pub(crate) fn put_record(buffer: &mut BytesMut, encode: impl FnOnce(&mut BytesMut)) -> Result<(), LogError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    encode(buffer);
    let length = buffer.len() - start - RECORD_HEADER_BYTES;
    let too_large = if length > RECORD_BYTES_MAX {
        Some(("a record", length, RECORD_BYTES_MAX))
    } else if buffer.len() >= BATCH_BYTES_MAX {
        Some(("a batch of records", buffer.len(), BATCH_BYTES_MAX))
    } else {
        None
    };
    if let Some((what, bytes, max)) = too_large {
        buffer.truncate(start);
        return Err(LogError::TooLarge { what, bytes: bytes as u64, max: max as u64 });
    }
    buffer[start..start + RECORD_HEADER_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// Writes a checkpoint's records behind where the header will be; returns how many bytes they take.
pub(crate) fn write_checkpoint<R: Wire>(
    header: &Header,
    file: &dyn DiskFile,
    records: &[R],
) -> Result<u64, MakeError> {
    let salt = header.salt();
    let mut buffer = BytesMut::zeroed(BATCH_HEADER_BYTES);
    let (mut count, mut first) = (0u32, header.first);
    let mut at = HEADER_BYTES as u64;
    for (i, record) in records.iter().enumerate() {
        put_record(&mut buffer, |out| record.encode(out)).map_err(MakeError::Refused)?;
        count += 1;
        if buffer.len() >= CHECKPOINT_BATCH_BYTES || i + 1 == records.len() {
            seal_batch(&mut buffer, Kind::Checkpoint, first, count, salt, at);
            file.write_at(at, &buffer)?;
            at += buffer.len() as u64;
            first += u64::from(count);
            count = 0;
            buffer.clear();
            buffer.resize(BATCH_HEADER_BYTES, 0);
        }
    }
    Ok(at - HEADER_BYTES as u64)
}
