//! What a segment of the log looks like on disk: one header, then batches, then zeros.
//!
//! A segment is a file that was made as long as it will ever be (`capacity`), filled from the front and never
//! written twice in the same place. All numbers are little-endian; every sum is CRC-32C.
//!
//! ```text
//! header, 128 bytes                          batch
//!   0  magic "SYNODLOG"                        0  kind: 1 records, 2 checkpoint, 3 mark
//!   8  format version          u32             4  length of the body        u32
//!  12  flags: 1 = checkpoint   u32             8  first sequence            u64
//!  16  cluster                 u64            16  number of records         u32
//!  24  node                    u64            20  all-zero sectors          u32
//!  32  segment number          u64            24  sum of the body           u32
//!  40  first sequence          u64            28  reserved, zero            u32
//!  48  capacity                u64            32  sum of the above          u32
//!  56  snapshot index          u64            36  magic, no byte of it zero
//!  64  checkpoint: bytes       u64            40  body: (length u32, payload)*, then one byte 0xED
//!  72  checkpoint: records     u64
//! 124  sum of the above        u32
//! ```
//!
//! A *batch* is what one sync makes durable: all of it counts, or nothing. It is written only when the batch
//! before it is durable, so **a valid batch (or segment header) that begins with sequence `f` proves that
//! every record before `f` was on disk**. Its header's sum covers the cluster, the node, the segment and the
//! offset in the file: a batch that turns up anywhere else than where it was written is not valid there.
//!
//! The count of sectors (512 bytes, aligned in the file) that are wholly zero by nature, and a last byte that
//! is never zero, tell a torn write from rot: see `could_be_torn`.

use std::ops::Range;

use synod_core::NodeId;

/// How the files of one member are told from everybody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub node: NodeId,
}

/// The format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The length of a segment's header.
pub(crate) const HEADER_BYTES: usize = 128;
/// The length of a batch's header.
pub(crate) const BATCH_HEADER_BYTES: usize = 40;
/// In front of each record in a batch's body: its length.
pub(crate) const RECORD_HEADER_BYTES: usize = 4;
/// The last byte of every batch; not zero, so that a write that was cut off shows.
pub(crate) const BATCH_END: u8 = 0xed;
/// What a disk writes wholly or not at all, except where a write was cut off.
pub(crate) const SECTOR_BYTES: usize = 512;

/// A mark goes to a page of its own, with zeros in front of it: what destroys the last batch should not destroy what proves it.
pub(crate) const PAGE_BYTES: usize = 4096;

/// No log gets so far, in segments or in records: a number beyond is nonsense, however well its sum matches.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"SYNODLOG";
const BATCH_MAGIC: [u8; 4] = *b"BTCH";
const FLAG_CHECKPOINT: u32 = 1;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    pub(crate) number: u64,
    /// The sequence of the first record in it.
    pub(crate) first: u64,
    /// The length of the file while it is the last of the log.
    pub(crate) capacity: u64,
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// The checkpoint that a segment begins with: it stands for everything in earlier segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The snapshot that its records build upon; 0 when they need none.
    pub(crate) snapshot: u64,
    /// The bytes of its batches, which follow the header at once.
    pub(crate) bytes: u64,
    /// How many records they hold.
    pub(crate) records: u64,
}

/// Why 128 bytes are no header of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// The sum does not match, or the magic is missing.
    Rotten(&'static str),
    /// A later program's.
    Newer(u32),
}

/// A batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) kind: Kind,
    pub(crate) body_bytes: u32,
    /// The sequence of its first record.
    pub(crate) first: u64,
    pub(crate) records: u32,
    /// How many sectors of the whole batch are zero by nature.
    pub(crate) zero_sectors: u32,
    pub(crate) body_sum: u32,
}

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Records = 1,
    Checkpoint = 2,
    /// No records: proves that everything before it was durable.
    Mark = 3,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let checkpoint = self.checkpoint.unwrap_or(Checkpoint { snapshot: 0, bytes: 0, records: 0 });
        let flags = if self.checkpoint.is_some() { FLAG_CHECKPOINT } else { 0 };
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&flags.to_le_bytes());
        let numbers = [
            self.identity.cluster,
            self.identity.node.0,
            self.number,
            self.first,
            self.capacity,
            checkpoint.snapshot,
            checkpoint.bytes,
            checkpoint.records,
        ];
        for (i, number) in numbers.iter().enumerate() {
            out[16 + 8 * i..24 + 8 * i].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c(&out[..HEADER_BYTES - 4]);
        out[HEADER_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Whatever the version: magic, version and the sum over 128 bytes stay where they are.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, BadHeader> {
        if bytes[..8] != *MAGIC {
            return Err(BadHeader::Rotten("it does not begin like a log segment"));
        }
        if u32_at(bytes, HEADER_BYTES - 4) != crc32c::crc32c(&bytes[..HEADER_BYTES - 4]) {
            return Err(BadHeader::Rotten("the header does not match its checksum"));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let number = |i: usize| u64_at(bytes, 16 + 8 * i);
        let checkpoint = Checkpoint { snapshot: number(5), bytes: number(6), records: number(7) };
        Ok(Header {
            identity: Identity { cluster: number(0), node: NodeId(number(1)) },
            number: number(2),
            first: number(3),
            capacity: number(4),
            checkpoint: (u32_at(bytes, 12) & FLAG_CHECKPOINT != 0).then_some(checkpoint),
        })
    }

    /// Where the sums of this segment's batches start from.
    pub(crate) fn salt(&self) -> u32 {
        let mut salt = crc32c::crc32c(&self.identity.cluster.to_le_bytes());
        salt = crc32c::crc32c_append(salt, &self.identity.node.0.to_le_bytes());
        crc32c::crc32c_append(salt, &self.number.to_le_bytes())
    }

    /// Where ordinary batches begin.
    pub(crate) fn batches_at(&self) -> u64 {
        let checkpoint_bytes = self.checkpoint.map_or(0, |checkpoint| checkpoint.bytes);
        checkpoint_bytes.saturating_add(HEADER_BYTES as u64)
    }
}

impl BatchHeader {
    fn encode(&self, salt: u32, offset: u64) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[0] = self.kind as u8;
        out[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.first.to_le_bytes());
        out[16..20].copy_from_slice(&self.records.to_le_bytes());
        out[20..24].copy_from_slice(&self.zero_sectors.to_le_bytes());
        out[24..28].copy_from_slice(&self.body_sum.to_le_bytes());
        let sum = batch_header_sum(&out, salt, offset);
        out[32..36].copy_from_slice(&sum.to_le_bytes());
        out[36..40].copy_from_slice(&BATCH_MAGIC);
        out
    }

    /// The header at `offset` of a segment, when one is there.
    pub(crate) fn decode(segment: &[u8], offset: usize, salt: u32) -> Option<BatchHeader> {
        let bytes = segment.get(offset..offset.checked_add(BATCH_HEADER_BYTES)?)?;
        Self::decode_at(bytes.try_into().ok()?, offset, salt)
    }

    /// The header that these bytes are, if they were sealed for `offset`.
    pub(crate) fn decode_at(
        bytes: &[u8; BATCH_HEADER_BYTES],
        offset: usize,
        salt: u32,
    ) -> Option<BatchHeader> {
        if !is_header_of(bytes, salt, offset) {
            return None;
        }
        let kind = match bytes[0] {
            1 => Kind::Records,
            2 => Kind::Checkpoint,
            3 => Kind::Mark,
            _ => return None,
        };
        let first = u64_at(bytes, 8);
        (first <= NUMBER_MAX).then(|| BatchHeader {
            kind,
            body_bytes: u32_at(bytes, 4),
            first,
            records: u32_at(bytes, 16),
            zero_sectors: u32_at(bytes, 20),
            body_sum: u32_at(bytes, 24),
        })
    }

    /// The sequence after its last record.
    pub(crate) fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.records))
    }

    /// The length of the whole batch.
    pub(crate) fn bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.body_bytes as usize
    }
}

/// Whether these are a header's bytes, sealed for a batch at `offset`.
fn is_header_of(bytes: &[u8], salt: u32, offset: usize) -> bool {
    bytes[36..40] == BATCH_MAGIC && u32_at(bytes, 32) == batch_header_sum(bytes, salt, offset as u64)
}

fn batch_header_sum(header: &[u8], salt: u32, offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &offset.to_le_bytes()), &header[..32])
}

/// Turns a buffer (room for the header, then records, each with its length in front) into a batch that is
/// valid at `offset`.
pub(crate) fn seal_batch(
    buffer: &mut bytes::BytesMut,
    kind: Kind,
    first: u64,
    records: u32,
    salt: u32,
    offset: u64,
) {
    buffer.extend_from_slice(&[BATCH_END]);
    let body = &buffer[BATCH_HEADER_BYTES..];
    let mut header = BatchHeader {
        kind,
        body_bytes: u32::try_from(body.len()).expect("bounded by BATCH_BYTES_MAX"),
        first,
        records,
        zero_sectors: 0,
        body_sum: crc32c::crc32c(body),
    };
    // The header's own bytes decide whether the sector that they end in is zero: never, for the magic.
    buffer[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode(salt, offset));
    header.zero_sectors = zero_sectors(buffer, offset);
    buffer[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode(salt, offset));
}

/// How many of the sectors that `bytes` touches, lying at `offset` of the file, hold only zeros of it.
pub(crate) fn zero_sectors(bytes: &[u8], offset: u64) -> u32 {
    let mut count = 0;
    let mut rest = bytes;
    let mut room = SECTOR_BYTES - (offset % SECTOR_BYTES as u64) as usize;
    while !rest.is_empty() {
        let (sector, after) = rest.split_at(room.min(rest.len()));
        count += u32::from(is_zero(sector));
        rest = after;
        room = SECTOR_BYTES;
    }
    count
}

/// Whether all of `bytes` are zero; looks no further than the first that is not.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // In pieces, so that the long zero tail of a segment is checked many bytes at a time.
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Where the last byte that is not zero ends.
pub(crate) fn data_end(bytes: &[u8]) -> usize {
    let mut end = bytes.len();
    while end > 0 {
        let from = (end - 1) / 4096 * 4096;
        if !is_zero(&bytes[from..end]) {
            return from + bytes[from..end].iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        }
        end = from;
    }
    0
}

/// Whether what is wrong at `offset`, behind which no later batch is found, can come from a write that power
/// failed under: then it was never acknowledged. Otherwise it was whole once and has rotted.
///
/// A write into zeros that did not finish leaves zeros behind: either from some byte on (the write was cut
/// off), or in whole sectors (they were never written). So:
///
/// - With a valid header, something is missing when the batch's last byte is zero, or more of its sectors are zero than its header
///   counts; and nothing is behind it, where nobody was writing.
/// - Without one, something of the header is missing: a sector that the header touches is zero from the
///   header's first byte (or the sector's) to the sector's end, or everything is zero from within the header on.
pub(crate) fn could_be_torn(segment: &[u8], offset: usize, salt: u32) -> bool {
    if let Some(header) = BatchHeader::decode(segment, offset, salt) {
        let Some(end) = offset.checked_add(header.bytes()).filter(|end| *end <= segment.len()) else {
            return false; // It was written into room that was there.
        };
        let missing =
            segment[end - 1] == 0 || zero_sectors(&segment[offset..end], offset as u64) > header.zero_sectors;
        return missing && is_zero(&segment[end..]);
    }
    let header_end = (offset + BATCH_HEADER_BYTES).min(segment.len());
    if is_zero(&segment[header_end.saturating_sub(1).max(offset)..]) {
        return true;
    }
    let mut from = offset;
    while from < header_end {
        let sector_end = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(segment.len());
        if is_zero(&segment[from..sector_end]) {
            return true;
        }
        from = sector_end;
    }
    false
}

/// The first batch header at or after `from`, wherever it begins, that `wanted` (offset, header) likes.
pub(crate) fn find_batch(
    segment: &[u8],
    from: usize,
    salt: u32,
    wanted: impl Fn(usize, &BatchHeader) -> bool,
) -> Option<(usize, BatchHeader)> {
    let magic_at = BATCH_HEADER_BYTES - BATCH_MAGIC.len();
    let mut at = from.checked_add(magic_at)?;
    while at + BATCH_MAGIC.len() <= segment.len() {
        // Skips the zero tail and most other bytes quickly.
        let skip = segment[at..].iter().position(|byte| *byte == BATCH_MAGIC[0])?;
        at += skip;
        if segment[at..].starts_with(&BATCH_MAGIC)
            && let Some(header) = BatchHeader::decode(segment, at - magic_at, salt)
            && wanted(at - magic_at, &header)
        {
            return Some((at - magic_at, header));
        }
        at += 1;
    }
    None
}

/// The first batch header in `range` that was sealed for another place, a whole number of sectors away: where it is, and where
/// it belongs. Only a disk that writes to the wrong place leaves such a thing.
pub(crate) fn find_misplaced(segment: &[u8], range: Range<usize>, salt: u32) -> Option<(usize, usize)> {
    let magic_at = BATCH_HEADER_BYTES - BATCH_MAGIC.len();
    let found = segment.get(range.clone())?.windows(BATCH_HEADER_BYTES).enumerate();
    let alike = found.filter(|(_, bytes)| {
        bytes[magic_at..] == BATCH_MAGIC && matches!(bytes[..4], [1..=3, 0, 0, 0]) && is_zero(&bytes[28..32])
    });
    // What a client wrote may look so; it is not looked at for ever.
    alike.take(64).find_map(|(at, bytes)| {
        let at = range.start + at;
        let places = (at % SECTOR_BYTES..segment.len()).step_by(SECTOR_BYTES);
        places
            .filter(|place| *place != at)
            .find(|place| is_header_of(bytes, salt, *place))
            .map(|place| (at, place))
    })
}

/// Whether a batch's body is what was written.
pub(crate) fn is_whole(body: &[u8], header: &BatchHeader) -> bool {
    body.last() == Some(&BATCH_END)
        && (crc32c::crc32c(body) == header.body_sum || crate::mutants::Mutant::ChecksNoSums.is_on())
}

/// The body of the batch at `offset`.
pub(crate) fn body<'a>(segment: &'a [u8], offset: usize, header: &BatchHeader) -> Option<&'a [u8]> {
    segment.get(offset + BATCH_HEADER_BYTES..offset.checked_add(header.bytes())?)
}

/// Cuts a batch's body into its records, each a slice of it. `None` when the lengths do not add up.
pub(crate) fn split_body(body: &bytes::Bytes, records: u32, out: &mut Vec<bytes::Bytes>) -> Option<()> {
    let mut at = 0usize;
    let end = body.len().checked_sub(1)?;
    for _ in 0..records {
        let length = u32_at(body.get(at..at + RECORD_HEADER_BYTES)?, 0) as usize;
        let from = at + RECORD_HEADER_BYTES;
        at = from.checked_add(length).filter(|to| *to <= end)?;
        out.push(body.slice(from..at));
    }
    (at == end).then_some(())
}
