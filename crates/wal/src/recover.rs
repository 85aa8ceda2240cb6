//! Reading a data folder after a stop, however it came about.
//!
//! # The rule
//!
//! A batch is written only when the batch before it is durable ([`crate::segment`]). So, where the log cannot be
//! read on at sequence `s`:
//!
//! 1. **A valid batch or segment header that begins after `s` lies behind it: damage.** What cannot be read had
//!    been durable. It is never skipped and never forgotten (Alagappan et al., *Protocol-Aware Recovery for
//!    Consensus-Based Storage*, FAST 2018).
//! 2. **One that begins with exactly `s` lies behind it: nothing is lost.** What cannot be read there held no
//!    record: padding, or a batch that was torn before the log was opened the last time.
//! 3. **Nothing valid lies behind it, and something is missing as a cut-off write leaves it** (zeros: see
//!    `could_be_torn`): **a torn tail.** The batch was never acknowledged, as a whole, and is dropped as a whole.
//! 4. **Nothing valid lies behind it, and nothing is missing, or something lies there that belongs elsewhere: damage.** It was whole once.
//!
//! What remains undecided is the very last batch of the log alone: when it was durable, and then whole sectors
//! of it turned into the zeros that had been there before (a write that the disk confirmed and never made, a
//! stale read), rule 3 takes it for torn. [`Log::mark`](crate::Log::mark) bounds that: a mark written when the log falls
//! idle, in a page of its own, makes rule 1 hold for that batch, too.
//!
//! Two more facts are checked by length: the last segment is exactly as long as it was made, and one that has
//! a successor is shorter. So a log whose last file was cut off, or whose last files are gone, is damaged, too.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use synod_core::Index;

use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, LogError};
use crate::mutants::Mutant;
use crate::names::{self, Contents};
use crate::segment::{
    BATCH_HEADER_BYTES, BadHeader, BatchHeader, FORMAT_VERSION, HEADER_BYTES, Header, Identity, Kind,
    NUMBER_MAX, body, could_be_torn, data_end, find_batch, find_misplaced, is_whole, is_zero, split_body,
};
use crate::snapshot::SnapshotFile;
use crate::window::Window;

/// What a data folder held.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Every record since the last checkpoint, the checkpoint's own first, in order; up to the damage, if there is any.
    pub records: Vec<Bytes>,
    /// The snapshot that the records build upon: the one that the last checkpoint names.
    pub snapshot: Option<SnapshotFile>,
    /// Snapshots that were saved, but that no checkpoint has named before the stop. They are not used: the
    /// records still tell everything that they hold. The next checkpoint removes them.
    pub unused_snapshots: Vec<Index>,
    /// The batch that was being written when the power failed, if any; none of it was ever acknowledged.
    pub torn: Option<TornTail>,
    /// What cannot be read although it was acknowledged; only with [`OnDamage::Report`](crate::OnDamage).
    pub damage: Option<Damage>,
    /// What can be read behind the damage.
    pub after_damage: Vec<Bytes>,
    /// The folder held no log: a new member, or one whose disk was wiped. Whether this is right only the
    /// caller can know: a member that voted before must not come back without its memory.
    pub fresh: bool,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A batch that was dropped because its write had not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// In which file.
    pub file: String,
    /// Where the batch began.
    pub offset: u64,
    /// How many bytes of the file are not zero from there on.
    pub bytes: u64,
}

/// What recovery tells the log.
pub(crate) struct Found {
    pub(crate) recovery: Recovery,
    /// The live segments, ascending.
    pub(crate) segments: Vec<u64>,
    pub(crate) last: Option<LastSegment>,
    /// The sequence of the next record.
    pub(crate) next: u64,
    /// Files that nothing needs any more.
    pub(crate) obsolete: Vec<String>,
}

/// The last segment of the log.
pub(crate) struct LastSegment {
    pub(crate) header: Header,
    pub(crate) file: Box<dyn DiskFile>,
    /// Where its last valid batch ends.
    pub(crate) end: u64,
    /// Where its last byte that is not zero ends.
    pub(crate) data_end: u64,
}

/// Reads the folder; changes nothing in it. `ahead` is shown the snapshot before the records are read.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    identity: Identity,
    refuse_damage: bool,
    ahead: impl FnOnce(&SnapshotFile),
) -> Result<Found, LogError> {
    let folder = disk.path("");
    let entries =
        disk.list().map_err(|error| LogError::io("listing the data folder", folder.clone(), error))?;
    let contents = names::sort_out(&entries, |name| disk.path(name))?;
    if contents.segments.is_empty() {
        if let Some(newest) = contents.snapshots.last() {
            return Err(LogError::MissingLog { folder, snapshot: names::snapshot(*newest) });
        }
        let recovery = Recovery { fresh: true, ..Recovery::default() };
        let obsolete = contents.temporaries;
        return Ok(Found { recovery, segments: Vec::new(), last: None, next: 1, obsolete });
    }
    let mut reader = Reader::new(disk.as_ref(), identity, refuse_damage);
    let live = reader.live_segments(&contents.segments)?;
    let base = live[0].header;
    let at = Index(base.checkpoint.map_or(0, |checkpoint| checkpoint.snapshot));
    if at > Index::ZERO {
        let snapshot = open_snapshot(disk, identity, at, &contents)?;
        ahead(&snapshot);
        reader.recovery.snapshot = Some(snapshot);
    }
    use_blocks_again();
    let mut last = None;
    let segments: Vec<u64> = live.iter().map(|segment| segment.header.number).collect();
    let mut live = live.into_iter().peekable();
    while let Some(segment) = live.next() {
        let following = live.peek().map(|segment| segment.header);
        last = Some(reader.read_segment(segment, following.as_ref())?);
    }
    let next = reader.expected;
    if next > NUMBER_MAX / 2 {
        // Far from where additions end, so that nobody else has to look out for that.
        let file = disk.path(&names::segment(*segments.last().unwrap_or(&0)));
        let what = format!("it claims to hold record {next}, which no log ever reaches");
        let damage = Damage { file, offset: 0, from_sequence: 0, to_sequence: None, what };
        return Err(LogError::Damaged(damage));
    }
    let mut recovery = reader.recovery;
    recovery.unused_snapshots = contents.snapshots.iter().copied().filter(|other| *other > at).collect();
    let obsolete = contents.temporaries.into_iter();
    let obsolete =
        obsolete.chain(contents.segments.iter().filter(|n| **n < base.number).map(|n| names::segment(*n)));
    let obsolete =
        obsolete.chain(contents.snapshots.iter().filter(|i| **i < at).map(|i| names::snapshot(*i)));
    Ok(Found { recovery, segments, last, next, obsolete: obsolete.collect() })
}

/// Batches are large, and are let go of one by one as they are applied: the store grows into what they leave, instead of touching new pages, if the
/// allocator keeps it. glibc's maps large blocks from the system, each by itself, but only those above the largest such block that it was given back
/// (mallopt(3), `M_MMAP_THRESHOLD`); other allocators lose nothing.
fn use_blocks_again() {
    const BLOCK_BYTES: usize = 16 << 20;
    // The compiler must not see that nothing is done with it.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK_BYTES)));
}

fn open_snapshot(
    disk: &Arc<dyn Disk>,
    identity: Identity,
    at: Index,
    contents: &Contents,
) -> Result<SnapshotFile, LogError> {
    if contents.snapshots.binary_search(&at).is_err() {
        let others: Vec<String> = contents.snapshots.iter().map(|at| names::snapshot(*at)).collect();
        let others =
            if others.is_empty() { String::new() } else { format!(" (there is {})", others.join(", ")) };
        return Err(LogError::MissingSnapshot { file: disk.path(&names::snapshot(at)), others });
    }
    SnapshotFile::open(disk, identity.cluster, at)
}

/// A segment that belongs to the log.
struct Segment {
    header: Header,
    file: Box<dyn DiskFile>,
    length: u64,
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    identity: Identity,
    refuse_damage: bool,
    recovery: Recovery,
    /// The sequence of the next record.
    expected: u64,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(disk: &'a dyn Disk, identity: Identity, refuse_damage: bool) -> Self {
        let recovery = Recovery::default();
        Reader { disk, identity, refuse_damage, recovery, expected: 1, buffer: Vec::new() }
    }

    /// From the newest segment that begins with a checkpoint (or from the very first one) to the last.
    fn live_segments(&mut self, numbers: &[u64]) -> Result<Vec<Segment>, LogError> {
        let mut live: Vec<Segment> = Vec::new();
        for &number in numbers.iter().rev() {
            if let Some(later) = live.last()
                && later.header.number != number + 1
            {
                return Err(self.missing(later.header.number - 1));
            }
            let segment = self.open_segment(number)?;
            let is_base = segment.header.checkpoint.is_some();
            live.push(segment);
            if is_base {
                break;
            }
        }
        let base = live.last().expect("the caller saw at least one").header;
        if base.checkpoint.is_none() && base.number != 1 {
            return Err(self.missing(base.number - 1));
        }
        self.expected = base.first;
        live.reverse();
        Ok(live)
    }

    fn missing(&self, number: u64) -> LogError {
        LogError::MissingSegment { file: self.disk.path(&names::segment(number)) }
    }

    fn open_segment(&self, number: u64) -> Result<Segment, LogError> {
        let name = names::segment(number);
        let path = self.disk.path(&name);
        let failed = |action| {
            let path = path.clone();
            move |error| LogError::io(action, path, error)
        };
        let file = self.disk.open(&name).map_err(failed("opening"))?;
        let length = file.length().map_err(failed("asking for the length"))?;
        // A file gets its name when its header is durable, so there is no such thing as a torn header.
        let rotten = |what: String| {
            let (file, from_sequence) = (path.clone(), 0);
            LogError::Damaged(Damage { file, offset: 0, from_sequence, to_sequence: None, what })
        };
        if length < HEADER_BYTES as u64 {
            return Err(rotten(format!("the file has {length} bytes, its header alone has {HEADER_BYTES}")));
        }
        let mut bytes = [0; HEADER_BYTES];
        file.read_at(0, &mut bytes).map_err(failed("reading"))?;
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(BadHeader::Rotten(what)) => return Err(rotten(what.to_owned())),
            Err(BadHeader::Newer(found)) => {
                return Err(LogError::NewerFormat { file: path, found, known: FORMAT_VERSION });
            }
        };
        let (found, expected) = (header.identity, self.identity);
        if found.cluster != expected.cluster {
            let (found, expected) = (found.cluster, expected.cluster);
            return Err(LogError::WrongCluster { file: path, found, expected });
        }
        if found.node != expected.node {
            let (found, expected) = (found.node.0, expected.node.0);
            return Err(LogError::WrongNode { file: path, found, expected });
        }
        if header.number != number {
            return Err(LogError::Misnamed { file: path, found: header.number });
        }
        if header.number > NUMBER_MAX || header.first > NUMBER_MAX {
            return Err(rotten("it claims a number that no log ever reaches".to_owned()));
        }
        if length > header.capacity {
            return Err(rotten(format!("it has {length} bytes, and was made with {}", header.capacity)));
        }
        Ok(Segment { header, file, length })
    }

    /// Reads one segment's records. `following` is the header of the segment behind it.
    fn read_segment(
        &mut self,
        segment: Segment,
        following: Option<&Header>,
    ) -> Result<LastSegment, LogError> {
        let Segment { header, file, length } = segment;
        let path = self.disk.path(&names::segment(header.number));
        let failed = |error| LogError::io("reading", path.clone(), error);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if following.is_none() {
            self.settle_last(&header, &*file, length)
                .map_err(|error| LogError::io("syncing", path.clone(), error))?;
        }
        let (mut at, is_all) = self.read_sound(&header, &*file, length).map_err(failed)?;
        let (mut bytes, mut end) = (Vec::new(), at);
        if !is_all {
            bytes.try_reserve_exact(length).map_err(|error| failed(error.into()))?;
            bytes.resize(length, 0);
            file.read_at(0, &mut bytes).map_err(failed)?;
            end = data_end(&bytes);
            at = self.read_on(&header, &path, &bytes[..], at, end)?;
        }
        let ending = Ending { path: &path, bytes: &bytes, length, at, data_end: end, header: &header };
        self.end_segment(&ending, following)?;
        Ok(LastSegment { header, file, end: at as u64, data_end: end as u64 })
    }

    /// Makes sure that what is read of the log's last segment is what its disk holds. What a process wrote before it was killed
    /// may be read back and still not be there, even after a sync that failed; but only the last batch can be so, because none
    /// is written before the one in front of it is synced.
    fn settle_last(&mut self, header: &Header, file: &dyn DiskFile, length: usize) -> io::Result<()> {
        let mut window = Window::new(file, length, std::mem::take(&mut self.buffer));
        let (mut last, mut at) = (HEADER_BYTES, HEADER_BYTES);
        while let Some((found, batch)) = window.batch(at, header.salt())? {
            last = found;
            at = found.saturating_add(batch.bytes());
        }
        self.buffer = window.into_buffer();
        file.settle(last as u64)
    }

    /// Reads batches as long as each is whole and follows the one before. Where that ends, and whether nothing follows.
    fn read_sound(
        &mut self,
        header: &Header,
        file: &dyn DiskFile,
        length: usize,
    ) -> io::Result<(usize, bool)> {
        let mut window = Window::new(file, length, std::mem::take(&mut self.buffer));
        let mut at = HEADER_BYTES;
        while let Some((found, batch)) = window.batch(at, header.salt())?
            && self.is_next(header, found, &batch)
            && let Some(body) = window.copy(found + BATCH_HEADER_BYTES, batch.body_bytes as usize)?
            && self.take(&body, &batch).is_some()
        {
            at = found + batch.bytes();
        }
        let is_all = window.is_zero_from(at)?;
        self.buffer = window.into_buffer();
        Ok((at, is_all))
    }

    /// Reads on where a segment is not sound, and leaps over what cannot be read. Where the last valid batch ends.
    fn read_on(
        &mut self,
        header: &Header,
        path: &str,
        bytes: &[u8],
        mut at: usize,
        data_end: usize,
    ) -> Result<usize, LogError> {
        let salt = header.salt();
        // Each turn reads a batch, or leaps over what cannot be read, or finds the end.
        loop {
            let batch = BatchHeader::decode(bytes, at, salt).filter(|batch| self.is_next(header, at, batch));
            if let Some(batch) = batch
                && let Some(body) = body(bytes, at, &batch)
                && self.take(&Bytes::copy_from_slice(body), &batch).is_some()
            {
                at += batch.bytes();
                continue;
            }
            // A header alone proves that what came before it was durable; to go on *without* a loss the
            // batch must be whole.
            let expected = self.expected;
            let found = find_batch(&bytes[..data_end], at + 1, salt, |found_at, found| {
                let is_whole = || body(bytes, found_at, found).is_some_and(|body| is_whole(body, found));
                found.first > expected || found.first == expected && is_whole()
            });
            let Some((found_at, found)) = found else { return Ok(at) };
            if found.first > self.expected || (at as u64) < header.batches_at() {
                let what = format!(
                    "it does not match its checksum, and what was written later, at offset {found_at}, proves \
                     that it did once"
                );
                self.damaged(path, at, Some(found.first), what)?;
                self.expected = found.first;
            } else if !is_zero(&bytes[at..found_at]) {
                let bytes = found_at - at;
                let what = format!("{path}: {bytes} unreadable bytes at offset {at} held no record");
                self.recovery.warnings.push(what);
            }
            at = found_at;
        }
    }

    /// Whether this batch is the one that comes next, at `at`.
    fn is_next(&self, header: &Header, at: usize, batch: &BatchHeader) -> bool {
        let in_checkpoint = (at as u64) < header.batches_at();
        batch.first == self.expected && in_checkpoint == (batch.kind == Kind::Checkpoint)
    }

    /// Takes the records of a batch, if it is whole. The memory is the batch's own: a record that lives on must not keep a whole
    /// segment there.
    fn take(&mut self, body: &Bytes, batch: &BatchHeader) -> Option<()> {
        if !is_whole(body, batch) {
            return None;
        }
        if Mutant::DamageIsTorn.is_on() && self.recovery.torn.is_some() {
            self.expected = batch.next();
            return Some(());
        }
        let damaged = self.recovery.damage.is_some();
        let records = if damaged { &mut self.recovery.after_damage } else { &mut self.recovery.records };
        let before = records.len();
        if split_body(body, batch.records, records).is_none() {
            records.truncate(before);
            return None;
        }
        self.expected = batch.next();
        Some(())
    }

    /// Judges what lies behind the last valid batch of a segment.
    fn end_segment(&mut self, end: &Ending<'_>, following: Option<&Header>) -> Result<(), LogError> {
        let Ending { path, bytes, length, at, data_end, header } = *end;
        let nothing_left = at >= data_end;
        if (at as u64) < header.batches_at() {
            let what = "the checkpoint that the segment begins with cannot be read".to_owned();
            self.damaged(path, at, following.map(|following| following.first), what)?;
        }
        if let Some(following) = following {
            if following.first != self.expected {
                let (next, first) = (names::segment(following.number), following.first);
                let what = if nothing_left {
                    format!(
                        "records are missing: it ends before sequence {}, and {next} begins with {first}",
                        self.expected
                    )
                } else {
                    format!(
                        "it does not match its checksum, and {next}, written later, proves that it did once"
                    )
                };
                self.damaged(path, at, Some(first), what)?;
                self.expected = first;
            }
            return Ok(());
        }
        if (length as u64) < header.capacity {
            let what = format!(
                "it has {length} bytes, and the last segment of a log has {}: it was cut off, or the segments behind \
                 it are gone",
                header.capacity
            );
            return self.damaged(path, at, None, what);
        }
        if nothing_left {
            return Ok(());
        }
        if let Some((found, belongs)) = find_misplaced(bytes, at..data_end, header.salt()) {
            let what = format!(
                "what was written to offset {belongs} of it is at offset {found}: the disk wrote it to the wrong place"
            );
            return self.damaged(path, at, None, what);
        }
        if could_be_torn(bytes, at, header.salt()) && !Mutant::TornIsDamage.is_on() {
            let bytes = (data_end - at) as u64;
            self.recovery.torn = Some(TornTail { file: path.to_owned(), offset: at as u64, bytes });
            self.recovery.warnings.push(format!(
                "{path}: the last write, {bytes} bytes at offset {at}, had not finished when the member stopped; \
                 nothing of it was acknowledged, and it is dropped"
            ));
            return Ok(());
        }
        let what = "it does not match its checksum, and nothing is missing as if a write had been cut off";
        self.damaged(path, at, None, what.to_owned())
    }

    /// Refuses the damage, or notes the first one.
    fn damaged(
        &mut self,
        path: &str,
        offset: usize,
        to_sequence: Option<u64>,
        what: String,
    ) -> Result<(), LogError> {
        if Mutant::DamageIsTorn.is_on() {
            let file = path.to_owned();
            self.recovery.torn = Some(TornTail { file, offset: offset as u64, bytes: 0 });
            return Ok(());
        }
        let (file, from_sequence) = (path.to_owned(), self.expected);
        let damage = Damage { file, offset: offset as u64, from_sequence, to_sequence, what };
        if self.refuse_damage {
            return Err(LogError::Damaged(damage));
        }
        if self.recovery.damage.is_none() {
            self.recovery.damage = Some(damage);
        } else {
            self.recovery.warnings.push(damage.to_string());
        }
        Ok(())
    }
}

/// Where the reading of a segment came to an end.
struct Ending<'a> {
    path: &'a str,
    /// All of it; empty where nothing but zeros lies behind what was read.
    bytes: &'a [u8],
    length: usize,
    /// Where the last valid batch ends.
    at: usize,
    /// Where the last byte ends that is not zero.
    data_end: usize,
    header: &'a Header,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use synod_core::NodeId;

    use super::*;
    use crate::log::{Log, LogOptions, OnDamage};
    use crate::memory::MemoryDisk;
    use crate::segment::{BATCH_HEADER_BYTES, Checkpoint, seal_batch};

    const IDENTITY: Identity = Identity { cluster: 2, node: NodeId(1) };

    /// What a batch in a made-up segment claims, and how far behind the one before it lies.
    type Claim = (u8, u64, u32, Vec<u8>, usize);

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..20u64, any::<u64>(), Just(NUMBER_MAX), Just(u64::MAX)]
    }

    fn claim() -> impl Strategy<Value = Claim> {
        let body = prop::collection::vec(prop_oneof![0..6u8, any::<u8>()], 0..40);
        (1..4u8, number(), prop_oneof![0..4u32, any::<u32>()], body, prop_oneof![Just(0usize), 0..90usize])
    }

    /// A segment whose header and batches have correct sums, but say whatever they like.
    fn made_up(header: &Header, length: usize, claims: &[Claim]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let head = header.encode();
        let fits = head.len().min(length);
        bytes[..fits].copy_from_slice(&head[..fits]);
        let mut at = HEADER_BYTES;
        for (kind, first, records, body, gap) in claims {
            at += gap;
            let kind = [Kind::Records, Kind::Checkpoint, Kind::Mark][usize::from(*kind) - 1];
            let mut batch = bytes::BytesMut::zeroed(BATCH_HEADER_BYTES);
            batch.extend_from_slice(body);
            seal_batch(&mut batch, kind, *first, *records, header.salt(), at as u64);
            let Some(place) = bytes.get_mut(at..at + batch.len()) else { break };
            place.copy_from_slice(&batch);
            at += batch.len();
        }
        bytes
    }

    /// A batch that is valid in its place but begins too late is no continuation: records are missing before it.
    #[test]
    fn a_gap_between_two_valid_batches_is_damage() {
        let header = Header { identity: IDENTITY, number: 1, first: 1, capacity: 400, checkpoint: None };
        let record = [1, 0, 0, 0, 9].to_vec();
        let batch = |first| (1, first, 1, record.clone(), 0);
        for (second, whole) in [(2, true), (3, false), (1, false)] {
            let disk = MemoryDisk::new();
            disk.edit(&names::segment(1), |file| *file = made_up(&header, 400, &[batch(1), batch(second)]));
            let opened = Log::open(Arc::new(disk), IDENTITY, LogOptions::default());
            assert_eq!(opened.is_ok(), whole, "sequence {second} behind 1");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Files with correct sums and absurd content (an enemy's, or a bug's) give an error or a log, never a
        /// panic and no absurd allocation; and what opens can be checkpointed and opened again.
        #[test]
        fn absurd_claims_are_survived(
            segments in prop::collection::vec(
                (1..4u64, number(), number(), prop::option::of((number(), number(), number())),
                 0..700usize, prop::collection::vec(claim(), 0..5)),
                1..3,
            )
        ) {
            let disk = MemoryDisk::new();
            for (number, first, capacity, checkpoint, length, claims) in segments {
                let checkpoint =
                    checkpoint.map(|(snapshot, bytes, records)| Checkpoint { snapshot, bytes, records });
                // Most of the time the length agrees, so that recovery gets further than that.
                let capacity = if capacity < 10 { capacity } else { length as u64 };
                let header = Header { identity: IDENTITY, number, first, capacity, checkpoint };
                let bytes = made_up(&header, length, &claims);
                disk.edit(&names::segment(number), |file| *file = bytes);
            }
            for on_damage in [OnDamage::Refuse, OnDamage::Report] {
                let options = LogOptions { segment_bytes_first: 4096, on_damage, ..LogOptions::default() };
                let Ok((mut log, _)) = Log::open(Arc::new(disk.clone()), IDENTITY, options) else { continue };
                log.checkpoint(Index::ZERO, &[1u64]).expect("nothing is wrong with the disk");
                log.append(&2u64).and_then(|()| log.sync()).expect("nothing is wrong with the disk");
                let (_, found) = Log::open(Arc::new(disk.clone()), IDENTITY, options).expect("it was made anew");
                prop_assert_eq!(found.records, [&[1u8][..], &[2]]);
            }
        }
    }
}
