//! Snapshot files: the state of the machine after one delivery, readable from any offset.
//!
//! A snapshot is written under a temporary name, in checksummed chunks, by whoever has the time (never the
//! thread that applies); when it is complete and synced it gets its own name by a rename. So a file with a
//! snapshot's name is a complete one, always.
//!
//! ```text
//! header, 64 bytes                         chunk, repeated                 footer, 32 bytes
//!   0  magic "SYNODSNP"                      256 KiB of the state            0  magic "SYNODEND"
//!   8  format version        u32             (the last one: what is left)    8  length of the state    u64
//!  12  bytes in a chunk      u32             sum: of the header's sum,      16  sum of the state       u32
//!  16  cluster               u64               the chunk's number and the   20  header's sum           u32
//!  24  index                 u64               chunk's plain sum    u32     28  sum of the above       u32
//!  60  sum of the above      u32
//! ```
//!
//! Numbers are little-endian, sums CRC-32C. Not compressed: the state is what clients stored, often
//! compressed or random already, and the disk is not what a restart waits for (see ADR 2).

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use synod_core::{Index, SnapshotRef, SnapshotSource};

use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, LogError};
use crate::names;
use crate::segment::FORMAT_VERSION;
use crate::snapshot_writer::{Incoming, SnapshotWriter};

const MAGIC: &[u8; 8] = b"SYNODSNP";
pub(crate) const END_MAGIC: &[u8; 8] = b"SYNODEND";
const HEADER_BYTES: usize = 64;
pub(crate) const FOOTER_BYTES: usize = 32;
pub(crate) const SUM_BYTES: usize = 4;

/// What a reader must read and check to get at one byte.
pub const CHUNK_BYTES: usize = 256 << 10;

/// A larger state than this is refused: 1 TiB.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

/// Makes, receives and opens the snapshots of one data folder; cheap to clone and to give to another thread.
#[derive(Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    cluster: u64,
}

impl Snapshots {
    /// The snapshots in `disk`, of this cluster.
    pub(crate) fn new(disk: Arc<dyn Disk>, cluster: u64) -> Snapshots {
        Snapshots { disk, cluster }
    }

    /// Begins to write the state after the delivery at `at`.
    ///
    /// # Errors
    /// [`LogError::NoSpace`], or [`LogError::Io`] when the file cannot be made.
    pub fn create(&self, at: Index) -> Result<SnapshotWriter, LogError> {
        let name = format!("{}{}", names::snapshot(at), names::TEMPORARY);
        SnapshotWriter::new(&self.disk, self.cluster, at, name)
    }

    /// Begins to receive a peer's snapshot of `total` bytes. What was received of one at the same index
    /// before is thrown away.
    ///
    /// # Errors
    /// As [`Snapshots::create`]; [`LogError::TooLarge`] for more than [`SNAPSHOT_BYTES_MAX`].
    pub fn receive(&self, at: Index, total: u64) -> Result<Incoming, LogError> {
        if total > SNAPSHOT_BYTES_MAX {
            return Err(LogError::TooLarge { what: "a snapshot", bytes: total, max: SNAPSHOT_BYTES_MAX });
        }
        let writer = SnapshotWriter::new(&self.disk, self.cluster, at, names::incoming(at))?;
        Ok(Incoming::new(writer, total))
    }

    /// Opens the snapshot at `at`.
    ///
    /// # Errors
    /// When there is none, or it is not whole, or another cluster's.
    pub fn open(&self, at: Index) -> Result<SnapshotFile, LogError> {
        SnapshotFile::open(&self.disk, self.cluster, at)
    }
}

/// A complete snapshot. Each read is checked against the sums of the chunks that it touches.
#[derive(Clone)]
pub struct SnapshotFile {
    shared: Arc<Shared>,
}

struct Shared {
    path: String,
    file: Box<dyn DiskFile>,
    at: Index,
    bytes: u64,
    sum: u32,
    salt: u32,
    /// The last chunk that was read and checked: readers go through it in small steps.
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// One more than the chunk's number; 0 when there is none.
    number: u64,
    chunk: Vec<u8>,
}

impl SnapshotFile {
    pub(crate) fn open(disk: &Arc<dyn Disk>, cluster: u64, at: Index) -> Result<SnapshotFile, LogError> {
        let name = names::snapshot(at);
        let path = disk.path(&name);
        let file = match disk.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LogError::MissingSnapshot { file: path, others: String::new() });
            }
            Err(error) => return Err(LogError::io("opening", path, error)),
        };
        let failed = |action| {
            let path = path.clone();
            move |error| LogError::io(action, path, error)
        };
        let length = file.length().map_err(failed("asking for the length"))?;
        let least = (HEADER_BYTES + FOOTER_BYTES) as u64;
        if length < least {
            return Err(rotten(&path, 0, format!("it has {length} bytes, a snapshot has at least {least}")));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_at(0, &mut header).map_err(failed("reading"))?;
        let salt = check_header(&header, &path, cluster, at)?;
        let mut footer = [0; FOOTER_BYTES];
        let footer_at = length - FOOTER_BYTES as u64;
        file.read_at(footer_at, &mut footer).map_err(failed("reading"))?;
        let (bytes, sum) =
            check_footer(&footer, salt).map_err(|what| rotten(&path, footer_at, what.to_owned()))?;
        let chunks = bytes.div_ceil(CHUNK_BYTES as u64);
        let expected = bytes.checked_add(chunks * SUM_BYTES as u64 + least);
        if expected != Some(length) {
            return Err(rotten(&path, footer_at, format!("{bytes} bytes of state do not fit in {length}")));
        }
        let cache = Mutex::default();
        Ok(SnapshotFile { shared: Arc::new(Shared { path, file, at, bytes, sum, salt, cache }) })
    }

    /// The last delivery that the state contains.
    #[must_use]
    pub fn at(&self) -> Index {
        self.shared.at
    }

    /// The length of the state.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes
    }

    /// The CRC-32C of the whole state.
    #[must_use]
    pub fn sum(&self) -> u32 {
        self.shared.sum
    }

    /// What replica and machine know it as.
    #[must_use]
    pub fn to_ref(&self) -> SnapshotRef {
        SnapshotRef { at: self.shared.at, bytes: self.shared.bytes, source: self.shared.clone() }
    }

    /// Reads everything and checks every sum.
    ///
    /// # Errors
    /// [`LogError::Damaged`] with the first chunk that is not what it was, or [`LogError::Io`].
    pub fn verify(&self) -> Result<(), LogError> {
        let mut cache = Cache::default();
        let mut sum = 0;
        for number in 0..self.shared.bytes.div_ceil(CHUNK_BYTES as u64) {
            self.shared.load(number, &mut cache)?;
            sum = crc32c::crc32c_combine(sum, crc32c::crc32c(&cache.chunk), cache.chunk.len());
        }
        if sum != self.shared.sum {
            return Err(rotten(&self.shared.path, 0, "the whole does not match its checksum".to_owned()));
        }
        Ok(())
    }
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ref().fmt(f)
    }
}

impl Shared {
    /// Makes `cache` hold chunk `number`, checked.
    fn load(&self, number: u64, cache: &mut Cache) -> Result<(), LogError> {
        if cache.number == number + 1 {
            return Ok(());
        }
        cache.number = 0;
        let from = number * CHUNK_BYTES as u64;
        let length = (self.bytes - from).min(CHUNK_BYTES as u64) as usize;
        cache.chunk.resize(length + SUM_BYTES, 0);
        let offset = HEADER_BYTES as u64 + number * (CHUNK_BYTES + SUM_BYTES) as u64;
        self.file
            .read_at(offset, &mut cache.chunk)
            .map_err(|error| LogError::io("reading", self.path.clone(), error))?;
        let found = chunk_sum(self.salt, number, crc32c::crc32c(&cache.chunk[..length]));
        if cache.chunk[length..] != found.to_le_bytes() {
            return Err(rotten(&self.path, offset, format!("chunk {number} does not match its checksum")));
        }
        cache.chunk.truncate(length);
        cache.number = number + 1;
        Ok(())
    }
}

impl SnapshotSource for Shared {
    fn read_at(&self, offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        while !buffer.is_empty() {
            self.load(at / CHUNK_BYTES as u64, &mut cache)?;
            let from = (at % CHUNK_BYTES as u64) as usize;
            let length = buffer.len().min(cache.chunk.len() - from);
            let (now, later) = buffer.split_at_mut(length);
            now.copy_from_slice(&cache.chunk[from..from + length]);
            buffer = later;
            at += length as u64;
        }
        Ok(())
    }
}

/// The header, and its sum, from which the sums of the chunks start.
pub(crate) fn encode_header(cluster: u64, at: Index) -> ([u8; HEADER_BYTES], u32) {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
    header[16..24].copy_from_slice(&cluster.to_le_bytes());
    header[24..32].copy_from_slice(&at.0.to_le_bytes());
    let sum = crc32c::crc32c(&header[..HEADER_BYTES - SUM_BYTES]);
    header[HEADER_BYTES - SUM_BYTES..].copy_from_slice(&sum.to_le_bytes());
    (header, sum)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the caller stays inside the array")
}

fn check_header(header: &[u8; HEADER_BYTES], path: &str, cluster: u64, at: Index) -> Result<u32, LogError> {
    if header[..8] != *MAGIC {
        return Err(rotten(path, 0, "it does not begin like a snapshot".to_owned()));
    }
    let sum = crc32c::crc32c(&header[..HEADER_BYTES - SUM_BYTES]);
    if sum.to_le_bytes() != header[HEADER_BYTES - SUM_BYTES..] {
        return Err(rotten(path, 0, "the header does not match its checksum".to_owned()));
    }
    let version = u32::from_le_bytes(number(header, 8));
    if version > FORMAT_VERSION {
        return Err(LogError::NewerFormat { file: path.to_owned(), found: version, known: FORMAT_VERSION });
    }
    let found = u64::from_le_bytes(number(header, 16));
    if found != cluster {
        return Err(LogError::WrongCluster { file: path.to_owned(), found, expected: cluster });
    }
    let found = u64::from_le_bytes(number(header, 24));
    if found != at.0 {
        return Err(LogError::Misnamed { file: path.to_owned(), found });
    }
    if u32::from_le_bytes(number(header, 12)) != CHUNK_BYTES as u32 {
        return Err(rotten(path, 12, format!("its chunks are not of {CHUNK_BYTES} bytes")));
    }
    Ok(sum)
}

/// The length of the state, and its sum.
fn check_footer(footer: &[u8; FOOTER_BYTES], salt: u32) -> Result<(u64, u32), &'static str> {
    let sum = crc32c::crc32c(&footer[..FOOTER_BYTES - SUM_BYTES]);
    if footer[..8] != *END_MAGIC {
        return Err("it does not end like a snapshot: it was cut off");
    }
    if sum.to_le_bytes() != footer[FOOTER_BYTES - SUM_BYTES..] {
        return Err("the end does not match its checksum");
    }
    if salt.to_le_bytes() != footer[20..24] {
        return Err("beginning and end belong to two snapshots");
    }
    let bytes = u64::from_le_bytes(number(footer, 8));
    if bytes > SNAPSHOT_BYTES_MAX {
        return Err("it claims to be larger than any snapshot");
    }
    Ok((bytes, u32::from_le_bytes(number(footer, 16))))
}

pub(crate) fn chunk_sum(salt: u32, number: u64, plain: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &number.to_le_bytes()), &plain.to_le_bytes())
}

fn rotten(path: &str, offset: u64, what: String) -> LogError {
    let file = path.to_owned();
    LogError::Damaged(Damage { file, offset, from_sequence: 0, to_sequence: None, what })
}
