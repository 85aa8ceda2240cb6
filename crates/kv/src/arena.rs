//! Where the versions live: chunks of memory, filled in the order of revisions.
//!
//! Every version of every key is one record in a chunk: a small header, then the pair as [`KeyValue`] encodes it. A
//! version is named by an [`At`], eight bytes. Because records are appended in the order of their revisions, and a chunk
//! that is thinned out is replaced *in its place*, the chunks from first to last are the history in order: a watcher
//! catches up, and the consistency hash is computed, by walking them. The price is that a chunk's memory comes back only
//! when what still lives in it has been moved (see `scrub`).
//!
//! Sealed chunks are shared and never change; only the tail, and a chunk that is being moved, are written. So a frozen
//! copy shares all chunks but those two.
//!
//! A record: varint(length of the pair * 4 + has a lease * 2 + tombstone), varint(sub revision), for a tombstone
//! varint(main revision) (a put has it in its pair), CRC-32C of the pair, the pair. A tombstone's pair holds its key alone,
//! as upstream's does. Whatever is asked of a version that is superseded stands in its first bytes.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::record::{KeyValue, put_varint, take_slice, take_varint, varint_len};

/// How large a chunk grows; a larger record gets a chunk of its own. Just below the size from which the usual
/// allocators map pages for each block.
pub(crate) const CHUNK_BYTES: usize = 128 * 1024 - 64;

/// A revision to the letter: which write, and which change within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rev {
    /// Counts the writes.
    pub(crate) main: i64,
    /// Counts the changes of one write, from 0.
    pub(crate) sub: u32,
}

/// Where a version's record is, and whether it is a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// The chunk; the highest bit says tombstone.
    chunk: u32,
    offset: u32,
}

const TOMBSTONE: u32 = 1 << 31;

impl At {
    fn new(chunk: u32, offset: usize, tombstone: bool) -> At {
        assert!(chunk < TOMBSTONE, "two thousand million chunks");
        let offset = u32::try_from(offset).expect("a chunk of more than 4 GiB");
        At { chunk: if tombstone { chunk | TOMBSTONE } else { chunk }, offset }
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.chunk & TOMBSTONE != 0
    }

    pub(crate) fn chunk(self) -> u32 {
        self.chunk & !TOMBSTONE
    }

    pub(crate) fn offset(self) -> u32 {
        self.offset
    }
}

/// A record, taken apart as far as is cheap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// The change's number within its write.
    pub(crate) sub: u32,
    /// For a tombstone its main revision; for a put 0, because the pair knows it.
    tombstone_main: i64,
    /// Whether it marks a deletion.
    pub(crate) tombstone: bool,
    /// Whether the pair names a lease.
    leased: bool,
    crc: u32,
    /// The encoded pair.
    pub(crate) kv: &'a [u8],
}

/// What stands before a pair.
#[derive(Clone, Copy, Debug)]
struct Header {
    rev: Rev,
    tombstone: bool,
    leased: bool,
    crc: u32,
    length: usize,
}

impl Header {
    fn head(&self) -> u64 {
        (self.length as u64) << 2 | u64::from(self.leased) << 1 | u64::from(self.tombstone)
    }

    fn encoded_len(&self) -> usize {
        let main = if self.tombstone { varint_len(self.rev.main as u64) } else { 0 };
        varint_len(self.head()) + varint_len(self.rev.sub.into()) + main + CRC_BYTES
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.head());
        put_varint(out, self.rev.sub.into());
        if self.tombstone {
            put_varint(out, self.rev.main as u64);
        }
        out.extend_from_slice(&self.crc.to_le_bytes());
    }
}

const CRC_BYTES: usize = 4;

impl<'a> Record<'a> {
    fn parse(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
        let head = take_varint(bytes)?;
        let tombstone = head & 1 != 0;
        let sub = u32::try_from(take_varint(bytes)?).ok()?;
        let tombstone_main = if tombstone { i64::try_from(take_varint(bytes)?).ok()? } else { 0 };
        let (crc, rest) = bytes.split_first_chunk::<CRC_BYTES>()?;
        let (kv, rest) = rest.split_at_checked(usize::try_from(head >> 2).ok()?)?;
        *bytes = rest;
        let (leased, crc) = (head & 2 != 0, u32::from_le_bytes(*crc));
        Some(Record { sub, tombstone_main, tombstone, leased, crc, kv })
    }

    /// No header is longer.
    pub(crate) const HEADER_BYTES_MAX: usize = 30 + CRC_BYTES;

    /// The length of the record that begins here, header included, if its header is here whole.
    pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        let head = take_varint(&mut rest)?;
        take_varint(&mut rest)?;
        if head & 1 != 0 {
            take_varint(&mut rest)?;
        }
        (bytes.len() - rest.len() + CRC_BYTES).checked_add(usize::try_from(head >> 2).ok()?)
    }

    /// Takes a record apart that comes from outside; `None` unless it is just as [`Arena::append`] would have written it.
    pub(crate) fn parse_checked(mut bytes: &'a [u8]) -> Option<(Record<'a>, KeyValue<'a>)> {
        let length = bytes.len();
        let record = Record::parse(&mut bytes).filter(|_| bytes.is_empty())?;
        let pair = KeyValue::parse(record.kv)?;
        let numbers = [pair.create, pair.modified, pair.version];
        let sound = match record.tombstone {
            true => {
                numbers == [0; 3] && pair.value.is_empty() && pair.lease == 0 && record.tombstone_main > 1
            }
            false => {
                numbers.iter().all(|number| *number > 0) && pair.create <= pair.modified && pair.modified > 1
            }
        };
        let exact = record.raw_len() == length
            && pair.encoded_len() == record.kv.len()
            && record.leased == (pair.lease != 0)
            && record.crc == crc32c::crc32c(record.kv)
            && !pair.key.is_empty();
        (sound && exact).then_some((record, pair))
    }

    /// The lease that the pair names; 0: none.
    pub(crate) fn lease(&self) -> i64 {
        if self.leased { self.pair().lease } else { 0 }
    }

    pub(crate) fn pair(&self) -> KeyValue<'a> {
        KeyValue::parse(self.kv).expect("the arena holds pairs that it encoded or checked itself")
    }

    pub(crate) fn key(&self) -> &'a [u8] {
        let mut rest = &self.kv[1..];
        take_slice(&mut rest).expect("the arena holds pairs that it encoded or checked itself")
    }

    pub(crate) fn main(&self) -> i64 {
        if self.tombstone {
            return self.tombstone_main;
        }
        let mut rest = &self.kv[1..];
        let main = take_slice(&mut rest).and_then(|_| {
            // create_revision and mod_revision follow the key, and neither is ever 0.
            rest = rest.get(1..)?;
            take_varint(&mut rest)?;
            rest = rest.get(1..)?;
            take_varint(&mut rest)
        });
        main.expect("the arena holds pairs that it encoded or checked itself") as i64
    }

    pub(crate) fn rev(&self) -> Rev {
        Rev { main: self.main(), sub: self.sub }
    }

    /// How many bytes of its chunk the record takes.
    pub(crate) fn raw_len(&self) -> usize {
        let rev = Rev { main: self.tombstone_main, sub: self.sub };
        let (tombstone, leased, crc, length) = (self.tombstone, self.leased, self.crc, self.kv.len());
        Header { rev, tombstone, leased, crc, length }.encoded_len() + length
    }

    /// What this version counts for in the accounts; `main` is its main revision, which it costs a little to find.
    pub(crate) fn accounts_at(&self, main: i64) -> Accounts {
        accounts(Rev { main, sub: self.sub }, self.tombstone, self.crc, self.kv.len())
    }
}

/// The two sums that are kept of all versions, and what one of them adds: size and digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) size: u64,
    pub(crate) digest: u64,
}

/// What a version counts for: its pair and a flat sum for finding it in the size, a number that stands for it in the digest.
fn accounts(rev: Rev, tombstone: bool, crc: u32, length: usize) -> Accounts {
    let content = u64::from(crc) << 32 | length as u64;
    let digest = mix(
        mix(content ^ u64::from(tombstone)).wrapping_add(mix(rev.main as u64 ^ u64::from(rev.sub) << 40))
    );
    Accounts { size: length as u64 + VERSION_OVERHEAD_BYTES, digest }
}

/// What a version costs beside its pair, roughly: header, index, allocator.
const VERSION_OVERHEAD_BYTES: u64 = 32;

/// Scatters a number's bits (the finaliser of splitmix64).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where a sealed chunk stands in the history.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    id: u32,
    last: Rev,
}

/// What was filled, where it was filled; copied only if much of its room is empty.
fn without_waste(mut bytes: Vec<u8>) -> Bytes {
    if bytes.capacity() - bytes.len() > CHUNK_BYTES / 16 {
        bytes.shrink_to_fit();
    }
    bytes.into()
}

/// A chunk that is being filled.
#[derive(Clone, Debug, Default)]
struct Open {
    id: u32,
    bytes: Vec<u8>,
    last: Rev,
}

/// All chunks.
///
/// Invariants: `order` names every sealed chunk once, by ascending revisions, and the tail follows them all; an `At` in
/// the index names a record of a sealed chunk, of the tail, or of the chunk that is being moved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arena {
    chunks: Vec<Option<Bytes>>,
    order: Vec<Sealed>,
    free: Vec<u32>,
    tail: Open,
    moving: Option<Open>,
    /// Bytes of sealed chunks.
    sealed_bytes: usize,
}

impl Arena {
    pub(crate) fn new() -> Arena {
        Arena { chunks: vec![None], ..Arena::default() }
    }

    fn bytes(&self, chunk: u32) -> &[u8] {
        match &self.chunks[chunk as usize] {
            Some(sealed) => sealed,
            None if chunk == self.tail.id => &self.tail.bytes,
            None => {
                let moving = self.moving.as_ref().filter(|moving| moving.id == chunk);
                &moving.expect("a version points into a chunk that is gone").bytes
            }
        }
    }

    pub(crate) fn record(&self, at: At) -> Record<'_> {
        let mut bytes = &self.bytes(at.chunk())[at.offset as usize..];
        Record::parse(&mut bytes).expect("the arena holds records that it wrote itself")
    }

    /// The main revision of the last version that was appended.
    pub(crate) fn newest(&self) -> i64 {
        self.tail.last.main
    }

    /// Looks at the beginning of each record, so that its memory is near when its key is read next.
    pub(crate) fn touch(&self, records: impl Iterator<Item = At>) {
        let sum = records.fold(0u8, |sum, at| {
            let rest = &self.bytes(at.chunk())[at.offset as usize..];
            // A header and a short key are about half a line of the processor's cache long, and may lie across two.
            sum ^ rest[0] ^ rest[(rest.len() - 1).min(32)]
        });
        std::hint::black_box(sum);
    }

    pub(crate) fn compare(&self, at: At, key: &[u8]) -> Ordering {
        self.record(at).key().cmp(key)
    }

    pub(crate) fn main(&self, at: At) -> i64 {
        self.record(at).main()
    }

    /// Appends a version, and tells what it counts for; revisions must ascend.
    pub(crate) fn append(&mut self, rev: Rev, tombstone: bool, pair: &KeyValue<'_>) -> (At, Accounts) {
        let length = pair.encoded_len();
        let mut header = Header { rev, tombstone, leased: pair.lease != 0, crc: 0, length };
        let at = self.begin(rev, tombstone, header.encoded_len() + length);
        // The checksum is over bytes that do not lie there yet: its place is filled in afterwards.
        let tail = &mut self.tail.bytes;
        header.encode(tail);
        let start = tail.len();
        pair.encode(tail);
        header.crc = crc32c::crc32c(&tail[start..]);
        tail[start - CRC_BYTES..start].copy_from_slice(&header.crc.to_le_bytes());
        (at, accounts(rev, tombstone, header.crc, length))
    }

    /// Appends a record as it stands.
    pub(crate) fn append_raw(&mut self, rev: Rev, tombstone: bool, raw: &[u8]) -> At {
        let at = self.begin(rev, tombstone, raw.len());
        self.tail.bytes.extend_from_slice(raw);
        at
    }

    /// Makes room in the tail, which is sealed before if it would grow too large.
    fn begin(&mut self, rev: Rev, tombstone: bool, length: usize) -> At {
        assert!(
            self.tail.last < rev,
            "revisions ascend, so that the chunks are the history: {:?} after {:?}",
            rev,
            self.tail.last
        );
        if self.tail.bytes.len() + length > CHUNK_BYTES && !self.tail.bytes.is_empty() {
            self.seal();
        }
        self.tail.last = rev;
        At::new(self.tail.id, self.tail.bytes.len(), tombstone)
    }

    /// Makes a chunk of the tail, and goes on with an empty one.
    fn seal(&mut self) {
        let (id, last) = (self.tail.id, self.tail.last);
        let sealed = std::mem::replace(&mut self.tail.bytes, Vec::with_capacity(CHUNK_BYTES));
        self.order.push(Sealed { id, last });
        self.sealed_bytes += sealed.len();
        self.chunks[id as usize] = Some(without_waste(sealed));
        self.tail.id = self.reserve();
    }

    fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.chunks.push(None);
            u32::try_from(self.chunks.len() - 1).expect("two thousand million chunks")
        })
    }

    /// How many chunks are sealed.
    pub(crate) fn sealed(&self) -> usize {
        self.order.len()
    }

    /// The sealed chunk at a position of the history, with its name.
    pub(crate) fn chunk_at(&self, position: usize) -> (u32, Bytes) {
        let id = self.order[position].id;
        (id, self.chunks[id as usize].clone().expect("a sealed chunk is there"))
    }

    /// The records of a chunk, each with where it is.
    pub(crate) fn records_of(id: u32, chunk: &[u8]) -> impl Iterator<Item = (At, Record<'_>, &[u8])> {
        let mut rest = chunk;
        std::iter::from_fn(move || {
            let before = rest;
            let record = Record::parse(&mut rest)?;
            let raw = &before[..before.len() - rest.len()];
            Some((At::new(id, chunk.len() - before.len(), record.tombstone), record, raw))
        })
    }

    /// Opens a chunk for records that are to be moved.
    pub(crate) fn begin_move(&mut self) {
        assert!(self.moving.is_none(), "one move at a time");
        self.moving = Some(Open { id: self.reserve(), ..Open::default() });
    }

    /// Copies a record into the chunk that was opened.
    pub(crate) fn move_record(&mut self, record: &Record<'_>, raw: &[u8]) -> At {
        let moving = self.moving.as_mut().expect("a move was begun");
        let rev = record.rev();
        assert!(moving.bytes.is_empty() || moving.last < rev, "records keep their order when they are moved");
        moving.last = rev;
        let at = At::new(moving.id, moving.bytes.len(), record.tombstone);
        moving.bytes.extend_from_slice(raw);
        at
    }

    /// Puts the chunk that was filled in the place of `positions`, whose chunks are given up.
    pub(crate) fn end_move(&mut self, positions: std::ops::Range<usize>) {
        let moving = self.moving.take().expect("a move was begun");
        let kept = (!moving.bytes.is_empty()).then_some(Sealed { id: moving.id, last: moving.last });
        for Sealed { id, .. } in self.order.splice(positions, kept) {
            let gone = self.chunks[id as usize].take().expect("a sealed chunk is there");
            self.sealed_bytes -= gone.len();
            self.free.push(id);
        }
        if kept.is_some() {
            self.sealed_bytes += moving.bytes.len();
            self.chunks[moving.id as usize] = Some(without_waste(moving.bytes));
        } else {
            self.free.push(moving.id);
        }
    }

    /// The bytes that chunks take, dead records included.
    pub(crate) fn bytes_held(&self) -> usize {
        self.sealed_bytes + self.tail.bytes.len()
    }

    /// The history from a main revision on, in order.
    pub(crate) fn history(&self, from: i64) -> impl Iterator<Item = (At, Record<'_>)> {
        let start = self.order.partition_point(|sealed| sealed.last.main < from);
        let ids = self.order[start..].iter().map(|sealed| sealed.id).chain([self.tail.id]);
        ids.flat_map(move |id| {
            let bytes = self.bytes(id);
            let mut rest = bytes;
            std::iter::from_fn(move || {
                let offset = bytes.len() - rest.len();
                let record = Record::parse(&mut rest)?;
                Some((At::new(id, offset, record.tombstone), record))
            })
        })
        .skip_while(move |(_, record)| record.main() < from)
    }

    /// The names of all chunks, in the order of the history.
    pub(crate) fn chunk_names(&self) -> Vec<u32> {
        self.order.iter().map(|sealed| sealed.id).chain([self.tail.id]).collect()
    }

    /// The bytes of a record, header included.
    pub(crate) fn raw(&self, chunk: u32, offset: u32) -> &[u8] {
        let bytes = &self.bytes(chunk)[offset as usize..];
        let mut rest = bytes;
        Record::parse(&mut rest).expect("the arena holds records that it wrote itself");
        &bytes[..bytes.len() - rest.len()]
    }
}
