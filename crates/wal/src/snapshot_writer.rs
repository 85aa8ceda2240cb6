//! Writing a snapshot: chunk by chunk under a temporary name, our own state or a peer's.
//!
//! The format is described in `snapshot.rs`. Left out: going on with a half-received snapshot after a restart; what
//! was half-made is thrown away, and the peer sends it again.

use std::io;
use std::sync::Arc;

use synod_core::Index;

use crate::disk::{Disk, DiskFile};
use crate::error::{LogError, is_full};
use crate::names;
use crate::snapshot::{
    CHUNK_BYTES, END_MAGIC, FOOTER_BYTES, SNAPSHOT_BYTES_MAX, SUM_BYTES, SnapshotFile, chunk_sum,
    encode_header,
};

/// So much is written before it is synced: one huge sync at the end would hold up the log's own syncs.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// A snapshot in the making; dropping it unfinished throws it away.
///
/// Give it to [`Frozen::write_to`](synod_core::Frozen::write_to), then [`SnapshotWriter::finish`]. It is buffered already.
pub struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    /// Its temporary name; empty once there is nothing to throw away.
    name: String,
    cluster: u64,
    at: Index,
    salt: u32,
    /// The chunk that is being filled, with room for its sum.
    chunk: Vec<u8>,
    chunks: u64,
    /// Where the next chunk goes.
    offset: u64,
    unsynced: u64,
    /// Of the state so far, but for what is in `chunk`.
    written: u64,
    sum: u32,
    failed: Option<LogError>,
}

impl SnapshotWriter {
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        cluster: u64,
        at: Index,
        name: String,
    ) -> Result<SnapshotWriter, LogError> {
        let path = disk.path(&name);
        match disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::io("removing an unfinished snapshot", path, error));
            }
            _ => {}
        }
        let file = disk.create(&name).map_err(|error| failure("making", &path, 0, error))?;
        let (header, salt) = encode_header(cluster, at);
        let mut writer = SnapshotWriter {
            disk: disk.clone(),
            file,
            name,
            cluster,
            at,
            salt,
            chunk: Vec::with_capacity(CHUNK_BYTES + SUM_BYTES),
            chunks: 0,
            offset: 0,
            unsynced: 0,
            written: 0,
            sum: 0,
            failed: None,
        };
        writer.put(&header)?;
        Ok(writer)
    }

    /// The state's bytes so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written + self.chunk.len() as u64
    }

    /// Takes some more of the state.
    ///
    /// # Errors
    /// [`LogError::NoSpace`], [`LogError::TooLarge`] or [`LogError::Io`]; the same again for every later call.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), LogError> {
        self.check()?;
        let size = self.written() + bytes.len() as u64;
        if size > SNAPSHOT_BYTES_MAX {
            return self.fail(LogError::TooLarge {
                what: "a snapshot",
                bytes: size,
                max: SNAPSHOT_BYTES_MAX,
            });
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_BYTES {
                self.put_chunk()?;
            }
        }
        Ok(())
    }

    /// Completes the file, syncs it and gives it its name.
    ///
    /// # Errors
    /// As [`SnapshotWriter::append`]; then there is no such snapshot, now or after a restart, unless only the last step, the
    /// sync of the folder, failed: then nobody knows, and the error is fatal.
    pub fn finish(mut self) -> Result<SnapshotFile, LogError> {
        self.check()?;
        if !self.chunk.is_empty() {
            self.put_chunk()?;
        }
        let mut footer = [0; FOOTER_BYTES];
        footer[..8].copy_from_slice(END_MAGIC);
        footer[8..16].copy_from_slice(&self.written.to_le_bytes());
        footer[16..20].copy_from_slice(&self.sum.to_le_bytes());
        footer[20..24].copy_from_slice(&self.salt.to_le_bytes());
        let sum = crc32c::crc32c(&footer[..FOOTER_BYTES - SUM_BYTES]);
        footer[FOOTER_BYTES - SUM_BYTES..].copy_from_slice(&sum.to_le_bytes());
        self.put(&footer)?;
        let path = self.disk.path(&self.name);
        let size = self.offset;
        self.file.sync_all().map_err(|error| failure("syncing", &path, size, error))?;
        let name = names::snapshot(self.at);
        self.disk.rename(&self.name, &name).map_err(|error| failure("renaming", &path, size, error))?;
        self.name.clear();
        self.disk
            .sync_dir()
            .map_err(|error| LogError::io("syncing the folder of", self.disk.path(&name), error))?;
        SnapshotFile::open(&self.disk, self.cluster, self.at)
    }

    fn check(&self) -> Result<(), LogError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn fail<T>(&mut self, error: LogError) -> Result<T, LogError> {
        self.failed = Some(error.clone());
        Err(error)
    }

    fn put_chunk(&mut self) -> Result<(), LogError> {
        let plain = crc32c::crc32c(&self.chunk);
        self.sum = crc32c::crc32c_combine(self.sum, plain, self.chunk.len());
        self.written += self.chunk.len() as u64;
        let sum = chunk_sum(self.salt, self.chunks, plain);
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.extend_from_slice(&sum.to_le_bytes());
        self.chunks += 1;
        self.put(&chunk)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let path = || self.disk.path(&self.name);
        if let Err(error) = self.file.write_at(self.offset, bytes) {
            let error = failure("writing", &path(), bytes.len() as u64, error);
            return self.fail(error);
        }
        self.offset += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.unsynced = 0;
            if let Err(error) = self.file.sync_data() {
                let error = failure("syncing", &path(), bytes.len() as u64, error);
                return self.fail(error);
            }
        }
        Ok(())
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // What cannot be removed now is removed when the folder is opened the next time.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// A peer's snapshot on its way in; dropping it throws it away.
pub struct Incoming {
    writer: SnapshotWriter,
    total: u64,
}

impl Incoming {
    pub(crate) fn new(writer: SnapshotWriter, total: u64) -> Incoming {
        Incoming { writer, total }
    }

    /// The last delivery that it contains.
    #[must_use]
    pub fn at(&self) -> Index {
        self.writer.at
    }

    /// Everything before this offset is here: a sender that was interrupted goes on from it.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.writer.written()
    }

    /// Takes the bytes that belong at `offset`. What is here already is skipped; a gap is refused.
    ///
    /// # Errors
    /// [`LogError::NotAsSent`] for a gap and for more bytes than announced; as [`SnapshotWriter::append`] otherwise.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
        let (at, received) = (self.at(), self.received());
        if offset > received {
            let what = format!("bytes from {offset} on were sent, but only those before {received} are here");
            return Err(LogError::NotAsSent { at, what });
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.total) {
            let what =
                format!("{} bytes at {offset} are more than the {} announced", bytes.len(), self.total);
            return Err(LogError::NotAsSent { at, what });
        }
        let known = usize::try_from(received - offset).unwrap_or(usize::MAX).min(bytes.len());
        self.writer.append(&bytes[known..])
    }

    /// Completes it, when everything is here and its sum (CRC-32C of the whole state) is `sum`.
    ///
    /// # Errors
    /// [`LogError::NotAsSent`] when it is not; as [`SnapshotWriter::finish`] otherwise.
    pub fn finish(mut self, sum: u32) -> Result<SnapshotFile, LogError> {
        let (at, received, total) = (self.at(), self.received(), self.total);
        if received != total {
            let what = format!("{received} of {total} bytes were received");
            return Err(LogError::NotAsSent { at, what });
        }
        if !self.writer.chunk.is_empty() {
            self.writer.put_chunk()?;
        }
        if self.writer.sum != sum {
            let what = format!("its checksum is {:08x}, {sum:08x} was sent", self.writer.sum);
            return Err(LogError::NotAsSent { at, what });
        }
        self.writer.finish()
    }
}

fn failure(action: &'static str, path: &str, bytes: u64, error: io::Error) -> LogError {
    if is_full(&error) {
        return LogError::NoSpace { file: path.to_owned(), bytes };
    }
    LogError::io(action, path.to_owned(), error)
}
