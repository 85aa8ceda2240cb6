//! The write-ahead log: records in, one sync for all that have gathered, and a checkpoint that lets the past go.
//!
//! The caller appends records (into memory), then syncs: everything appended becomes one batch, one write and
//! one `fdatasync`. Batches are never torn apart: after a crash a batch is there as a whole or not at all.
//!
//! A *checkpoint* is a few records that stand for everything before them, above a snapshot. It is written at
//! the head of a new segment, under a temporary name; the rename is the moment at which the old log ends and
//! the new one begins, and the snapshot that it names becomes the one that a restart begins from. After that
//! the older files go. A crash at any step leaves the old log or the new one.
//!
//! Left out on purpose: writing ahead on another thread, recycling of segments, compression (see ADR 2).

use std::sync::Arc;

use bytes::BytesMut;
use synod_core::{Index, Wire};

use crate::checkpoint::{MakeError, Superseded, put_record, write_checkpoint};
use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, LogError, is_full};
use crate::mutants::Mutant;
use crate::names;
use crate::recover::{Recovery, recover};
use crate::segment::{
    BATCH_HEADER_BYTES, Checkpoint, HEADER_BYTES, Header, Identity, Kind, PAGE_BYTES, seal_batch,
};
use crate::snapshot::{SnapshotFile, Snapshots};

/// A buffer that one huge batch made larger than this is given back.
const BUFFER_KEPT_BYTES_MAX: usize = 8 << 20;

/// What a person or a simulation may choose.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// The size of the first segment after a start; each further one is twice as large.
    pub segment_bytes_first: u64,
    /// No segment is made larger, but for a batch or a checkpoint that needs it.
    pub segment_bytes_max: u64,
    /// What to do about damage.
    pub on_damage: OnDamage,
}

/// What to do when acknowledged records cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not open: the member must not go on with a part of its memory.
    Refuse,
    /// Open, tell ([`Recovery::damage`]) and take nothing but a checkpoint: for a protocol that gets from its peers
    /// what was lost, and then writes down the whole.
    Report,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { segment_bytes_first: 4 << 20, segment_bytes_max: 64 << 20, on_damage: OnDamage::Refuse }
    }
}

/// The log of one member. See the crate's documentation for an example.
///
/// Invariants: at most one batch is written and not yet synced; nothing is ever written twice to one place;
/// after a failed write or sync every call returns that error, for ever.
pub struct Log {
    disk: Arc<dyn Disk>,
    identity: Identity,
    options: LogOptions,
    /// The live segments, ascending.
    segments: Vec<u64>,
    active: Option<Active>,
    /// Room for a batch header, then the records that no batch holds yet, each with its length in front.
    buffer: BytesMut,
    records: u32,
    /// The sequence of the first record in `buffer`.
    next: u64,
    /// The size of the next segment.
    segment_bytes: u64,
    written: Written,
    fatal: Option<LogError>,
    damage: Option<Damage>,
    statistics: Statistics,
}

/// The segment that is being written.
struct Active {
    file: Box<dyn DiskFile>,
    header: Header,
    salt: u32,
    /// Where the next batch goes.
    end: u64,
}

/// How far the last batch has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// It is durable.
    Durable,
    /// It is durable, and a mark behind it proves that.
    Marked,
    /// The disk has it, and was not told to sync it.
    InFlight,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Records appended.
    pub records: u64,
    /// Batches written.
    pub batches: u64,
    /// Bytes written, without preallocation.
    pub bytes: u64,
    /// Syncs of log data (one for each batch).
    pub syncs: u64,
    /// Segments made.
    pub segments: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
}

impl Log {
    /// Opens the log in `disk`, or makes one.
    ///
    /// What was found is durable when this returns. Temporary and superseded files are removed.
    ///
    /// # Errors
    /// Whatever is wrong with the folder, by name: see [`LogError`]. Nothing was changed then.
    pub fn open(
        disk: Arc<dyn Disk>,
        identity: Identity,
        options: LogOptions,
    ) -> Result<(Log, Recovery), LogError> {
        Log::open_ahead(disk, identity, options, |_| ())
    }

    /// As [`Log::open`]; `ahead` is shown the snapshot that the log stands on before the records are read, so that it can be
    /// loaded while the disk is busy with those.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_ahead(
        disk: Arc<dyn Disk>,
        identity: Identity,
        options: LogOptions,
        ahead: impl FnOnce(&SnapshotFile),
    ) -> Result<(Log, Recovery), LogError> {
        let found = recover(&disk, identity, options.on_damage == OnDamage::Refuse, ahead)?;
        for name in &found.obsolete {
            disk.remove(name).map_err(|error| LogError::io("removing", disk.path(name), error))?;
        }
        let mut log = Log {
            disk,
            identity,
            options,
            segments: found.segments,
            active: None,
            buffer: BytesMut::zeroed(BATCH_HEADER_BYTES),
            records: 0,
            next: found.next,
            segment_bytes: options.segment_bytes_first.min(options.segment_bytes_max).max(PAGE_BYTES as u64),
            written: Written::Durable,
            fatal: None,
            damage: found.recovery.damage.clone(),
            statistics: Statistics::default(),
        };
        // Names that a process gave before it was killed may not be durable yet.
        log.sync_dir()?;
        if let (Some(last), None) = (found.last, &log.damage) {
            let header = last.header;
            let untouched = last.data_end <= last.end && last.end == header.batches_at();
            if untouched {
                // Nothing was written behind its header: it is as good as new.
                let active = Active { file: last.file, header, salt: header.salt(), end: last.end };
                log.active = Some(active);
            } else {
                // Whatever lies behind the last batch stays: nothing is ever written over it.
                log.start_segment(0)?;
                log.shrink(last.file.as_ref(), header.number, last.end.max(last.data_end))?;
            }
        } else if log.damage.is_none() {
            log.start_segment(0)?;
        }
        Ok((log, found.recovery))
    }

    /// Takes a record into memory. It is durable only after [`Log::sync`].
    ///
    /// # Errors
    /// [`LogError::TooLarge`], and then the record was not taken; or what ended the log before.
    pub fn append(&mut self, record: &impl Wire) -> Result<(), LogError> {
        self.append_with(|out| record.encode(out))
    }

    /// As [`Log::append`], for a record that is encoded already.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_bytes(&mut self, record: &[u8]) -> Result<(), LogError> {
        self.append_with(|out| out.extend_from_slice(record))
    }

    fn append_with(&mut self, encode: impl FnOnce(&mut BytesMut)) -> Result<(), LogError> {
        self.check()?;
        if let Some(damage) = &self.damage {
            return Err(LogError::Damaged(damage.clone()));
        }
        put_record(&mut self.buffer, encode)?;
        self.records += 1;
        self.statistics.records += 1;
        Ok(())
    }

    /// The bytes in memory that no batch holds yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - BATCH_HEADER_BYTES
    }

    /// Makes everything that was appended durable: one write, one sync.
    ///
    /// # Errors
    /// [`LogError::NoSpace`]: nothing was written, and it may be tried again. Anything else ends the log.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.sync_written()?;
        self.write()?;
        self.sync_written()
    }

    /// Hands what was appended to the disk as one batch, and does not wait for it. While a batch is in
    /// flight this does nothing, for a batch proves that the one before it is durable.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn write(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.records == 0 || self.written == Written::InFlight {
            return Ok(());
        }
        let needed = self.buffer.len() as u64 + 1;
        let has_room =
            self.active.as_ref().is_some_and(|active| active.end + needed < active.header.capacity);
        if !has_room {
            self.start_segment(needed)?;
        }
        let active = self.active.as_mut().expect("a segment was just made");
        seal_batch(&mut self.buffer, Kind::Records, self.next, self.records, active.salt, active.end);
        let result = active.file.write_at(active.end, &self.buffer);
        let number = active.header.number;
        self.end_if_failed("writing", number, result)?;
        let active = self.active.as_mut().expect("it was not ended");
        active.end += self.buffer.len() as u64;
        self.statistics.bytes += self.buffer.len() as u64;
        self.statistics.batches += 1;
        self.next += u64::from(self.records);
        self.written = Written::InFlight;
        self.forget_pending();
        Ok(())
    }

    /// Waits until what [`Log::write`] handed over is durable; what was appended since stays in memory.
    ///
    /// # Errors
    /// Ends the log.
    pub fn sync_written(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.written != Written::InFlight {
            return Ok(());
        }
        let active = self.active.as_ref().expect("something was written to it");
        let number = active.header.number;
        let mut result = if Mutant::ConfirmsUnsynced.is_on() { Ok(()) } else { active.file.sync_data() };
        if result.is_err() && Mutant::RetriesSync.is_on() {
            result = active.file.sync_data();
        }
        self.end_if_failed("syncing", number, result)?;
        self.written = Written::Durable;
        self.statistics.syncs += 1;
        Ok(())
    }

    /// Proves on disk that the last batch was durable; one more sync, so for idle moments and before a
    /// planned stop. Does nothing when it was done already, or when something is still to be synced.
    ///
    /// Without it, and only for the very last batch, recovery could take sectors that the disk lost *after*
    /// confirming them for a torn write.
    ///
    /// # Errors
    /// [`LogError::NoSpace`]: it is not proven yet, and may be tried again. Anything else ends the log.
    pub fn mark(&mut self) -> Result<(), LogError> {
        self.check()?;
        let Some(active) = self.active.as_mut() else { return Ok(()) };
        if self.records > 0 || self.written != Written::Durable || active.end == active.header.batches_at() {
            return Ok(());
        }
        let at = active.end.next_multiple_of(PAGE_BYTES as u64);
        let mut mark = BytesMut::zeroed(BATCH_HEADER_BYTES);
        seal_batch(&mut mark, Kind::Mark, self.next, 0, active.salt, at);
        if at + mark.len() as u64 >= active.header.capacity {
            // A new segment's header proves the same.
            self.start_segment(0)?;
            self.written = Written::Marked;
            return Ok(());
        }
        let number = active.header.number;
        let result = active.file.write_at(at, &mark).and_then(|()| active.file.sync_data());
        active.end = at + mark.len() as u64;
        self.end_if_failed("marking", number, result)?;
        self.statistics.bytes += mark.len() as u64;
        self.written = Written::Marked;
        Ok(())
    }

    /// Starts the log anew: `records` stand for everything appended so far, synced or not, above the saved
    /// snapshot at `snapshot` ([`Index::ZERO`]: above nothing). When this returns they are durable.
    ///
    /// Dropping what it returns removes the older segments and snapshots. Freeing large files takes a file system
    /// many milliseconds, so a server drops it on another thread.
    ///
    /// # Errors
    /// [`LogError::NoSpace`], [`LogError::TooLarge`] and [`LogError::MissingSnapshot`] leave everything as it was. Anything else
    /// ends the log.
    pub fn checkpoint<R: Wire>(&mut self, snapshot: Index, records: &[R]) -> Result<Superseded, LogError> {
        self.check()?;
        if snapshot > Index::ZERO {
            self.snapshots().open(snapshot)?;
        }
        let records_count = records.len() as u64;
        // Sequences that were given out are not used again, whatever became of their records.
        let first = self.next + u64::from(self.records);
        let number = self.segments.last().map_or(1, |last| last + 1);
        let checkpoint = Checkpoint { snapshot: snapshot.0, bytes: 0, records: records_count };
        let mut header = self.header(number, first, 0);
        header.checkpoint = Some(checkpoint);
        self.make_segment(header, |header, file, size| {
            let bytes = write_checkpoint(header, file, records)?;
            header.checkpoint = Some(Checkpoint { bytes, ..checkpoint });
            header.capacity = HEADER_BYTES as u64 + bytes + size;
            Ok(())
        })?;
        self.next = first + records_count;
        self.forget_pending();
        self.written = Written::Durable;
        self.damage = None;
        self.statistics.checkpoints += 1;
        Ok(self.superseded(snapshot))
    }

    /// Makes, receives and opens this folder's snapshots, on any thread.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        Snapshots::new(self.disk.clone(), self.identity.cluster)
    }

    /// What was done since the log was opened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// What ended the log, if anything did.
    #[must_use]
    pub fn fatal(&self) -> Option<&LogError> {
        self.fatal.as_ref()
    }

    fn check(&self) -> Result<(), LogError> {
        self.fatal.clone().map_or(Ok(()), Err)
    }

    /// Remembers a fatal error for ever.
    fn end<T>(&mut self, error: LogError) -> Result<T, LogError> {
        if error.is_fatal() {
            self.fatal.get_or_insert(error.clone());
        }
        Err(error)
    }

    fn end_if_failed(
        &mut self,
        action: &'static str,
        number: u64,
        result: std::io::Result<()>,
    ) -> Result<(), LogError> {
        let Err(error) = result else { return Ok(()) };
        let path = self.disk.path(&names::segment(number));
        self.end(LogError::io(action, path, error))
    }

    fn forget_pending(&mut self) {
        self.records = 0;
        if self.buffer.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER_BYTES, 0);
    }

    fn header(&self, number: u64, first: u64, capacity: u64) -> Header {
        Header { identity: self.identity, number, first, capacity, checkpoint: None }
    }

    /// Goes on in a new segment with room for a batch of `needed` bytes.
    fn start_segment(&mut self, needed: u64) -> Result<(), LogError> {
        let number = self.segments.last().map_or(1, |last| last + 1);
        let header = self.header(number, self.next, 0);
        let before = self.active.as_ref().map(|active| (active.header.number, active.end));
        let old = self.make_segment(header, |header, _, size| {
            header.capacity = HEADER_BYTES as u64 + size.max(needed + 1);
            Ok(())
        })?;
        if let (Some(old), Some((number, end))) = (old, before) {
            self.shrink(old.file.as_ref(), number, end)?;
        }
        Ok(())
    }

    /// Makes a segment under a temporary name, fills it, and puts it in the place of the active one, which is
    /// returned. A full disk leaves everything as it was.
    fn make_segment(
        &mut self,
        mut header: Header,
        fill: impl FnOnce(&mut Header, &dyn DiskFile, u64) -> Result<(), MakeError>,
    ) -> Result<Option<Active>, LogError> {
        let name = names::segment(header.number);
        let temporary = format!("{name}{}", names::TEMPORARY);
        let path = self.disk.path(&temporary);
        let size = self.segment_bytes;
        let made = self.disk.create(&temporary).map_err(MakeError::Disk).and_then(|file| {
            fill(&mut header, file.as_ref(), size)?;
            file.preallocate(header.capacity)?;
            file.write_at(0, &header.encode())?;
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(MakeError::Refused(error)) => {
                return self.abandon(&temporary, error);
            }
            Err(MakeError::Disk(error)) if is_full(&error) => {
                let bytes = header.capacity.max(size);
                return self.abandon(&temporary, LogError::NoSpace { file: path, bytes });
            }
            Err(MakeError::Disk(error)) => return self.end(LogError::io("making", path, error)),
        };
        if Mutant::RemovesFirst.is_on() && header.checkpoint.is_some() {
            for number in self.segments.drain(..) {
                let _ = self.disk.remove(&names::segment(number));
            }
        }
        let synced = if Mutant::RenamesUnsynced.is_on() { Ok(()) } else { file.sync_all() };
        let placed = synced.and_then(|()| self.disk.rename(&temporary, &name));
        let is_forgetful = Mutant::ForgetsFolder.is_on();
        if let Err(error) = placed.and_then(|()| if is_forgetful { Ok(()) } else { self.disk.sync_dir() }) {
            return self.end(LogError::io("syncing and renaming", path, error));
        }
        self.segments.push(header.number);
        self.segment_bytes = (size * 2).min(self.options.segment_bytes_max).max(size);
        self.statistics.segments += 1;
        let active = Active { file, header, salt: header.salt(), end: header.batches_at() };
        Ok(self.active.replace(active))
    }

    /// Throws a file away that could not be completed, and reports why.
    fn abandon<T>(&mut self, temporary: &str, error: LogError) -> Result<T, LogError> {
        match self.disk.remove(temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let path = self.disk.path(temporary);
                self.end(LogError::io("removing", path, error))
            }
            _ => Err(error),
        }
    }

    /// Gives back the room behind the last batch of a segment that has a successor now. Being shorter than it
    /// was made is also how it tells that it has one, so this is synced, too.
    fn shrink(&mut self, file: &dyn DiskFile, number: u64, length: u64) -> Result<(), LogError> {
        let result = file.shrink(length).and_then(|()| file.sync_all());
        self.end_if_failed("shrinking", number, result)
    }

    fn sync_dir(&mut self) -> Result<(), LogError> {
        let result = self.disk.sync_dir();
        result.or_else(|error| self.end(LogError::io("syncing", self.disk.path(""), error)))
    }

    /// What the newest segment's checkpoint stands for.
    fn superseded(&mut self, snapshot: Index) -> Superseded {
        let newest = self.segments.pop().expect("a checkpoint has a segment");
        let segments = self.segments.drain(..).collect();
        self.segments.push(newest);
        Superseded::new(self.disk.clone(), segments, snapshot)
    }
}
