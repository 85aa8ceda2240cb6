//! The whole replicated state as bytes, and back.
//!
//! A snapshot holds what is kept, in one canonical form: two replicas at the same position write the same bytes, however
//! far each has come with removing compacted versions. The records come first, in the order of the history, which is how
//! they lie in memory, so writing and reading them is copying; then the keys in their order, each with the numbers of its
//! records, so that the index is built without searching. A CRC-32C ends it.
//!
//! ```text
//! magic 4 · format 1 · applied · revision · compacted + 1 · quota
//! alarms: count, (member, kind) · members: count, (node, attributes) · leases: count, (name, length, remaining)
//! records: count, (record as in the arena) · keys: count, (count, record numbers ascending) · CRC-32C of all before, 4
//! ```
//! A store without a single order has format 2, and behind the quota what decides which write is the last:
//! ```text
//! whose history · vector: count, (origin, deliveries, commands) · floor
//! keys' marks: count, (key, mark) · ranges' marks: count, (key, end, mark) · members' marks: count, (node, mark)
//! ```
//! A store that has carried out wishes of clients that trust no single replica has format 3, and behind the quota the table of them, with its length.
//! A mark is a clock and an origin.
//! Numbers are varints; the attributes carry their length. Reading trusts nothing: lengths and counts are bounded by the
//! bytes that are there, and every invariant of the store is checked on the way.
//!
//! (tidy: long because what is written and how it is read back stand side by side, and are read as one.)

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use synod_core::wire::Reader;
use synod_core::{Audience, Command, Frozen, Index, Machine, NodeId, SnapshotRef, Stamp, Wire};

use crate::arena::{Accounts, Arena, At, Record, Rev};
use crate::convergent::{Convergent, Mark, Swept};
use crate::lease::{Lease, Leases};
use crate::mutants::Mutant;
use crate::mvcc::Mvcc;
use crate::once::Clients;
use crate::op::{Alarm, MemberAttributes, Op, Reply};
use crate::op_wire::{decode_alarm, encode_alarm};
use crate::record::put_varint;
use crate::slot::{Slot, Version};
use crate::store::Store;
use crate::view::View;

const MAGIC: &[u8; 4] = b"SYKV";

/// The form of a store with a total order.
const FORMAT: u8 = 1;

/// The form of a store without a single order.
const FORMAT_CONVERGENT: u8 = 2;

/// The form of a store with a total order that has carried out wishes: see `once`.
const FORMAT_WISHES: u8 = 3;

/// What is collected before it is written.
const WRITE_BYTES: usize = 64 << 10;

/// What is read at a time.
const READ_BYTES: usize = 256 << 10;

/// A CRC-32C at the end.
const CHECKSUM_BYTES: usize = 4;

/// So many keys are read ahead: see `read_keys`.
const KEYS_AHEAD: usize = 64;

/// No history is longer; beyond it, arithmetic on revisions could overflow.
const REVISION_MAX: i64 = i64::MAX / 4;

/// A number takes at most so many bytes.
const VARINT_BYTES_MAX: usize = 10;

/// One moment's replicated state, to be written down elsewhere.
#[derive(Clone, Debug)]
pub struct FrozenStore {
    view: View,
    leases: Vec<(i64, i64, i64)>,
    alarms: BTreeSet<Alarm>,
    members: BTreeMap<u64, MemberAttributes>,
    quota: u64,
    applied: Index,
    clients: Clients,
    convergent: Option<Convergent>,
}

/// A replicated state that was read back, and that no store has become yet.
pub struct State {
    pub(crate) mvcc: Mvcc,
    pub(crate) leases: Leases,
    pub(crate) alarms: BTreeSet<Alarm>,
    pub(crate) members: BTreeMap<u64, MemberAttributes>,
    pub(crate) quota: u64,
    pub(crate) applied: Index,
    pub(crate) clients: Clients,
    pub(crate) convergent: Option<Convergent>,
}

impl Machine for Store {
    type Reply = Reply;
    type Frozen = FrozenStore;

    fn expect(&self, commands: &[Command]) {
        // One alone waits for memory either way.
        if commands.len() > 1 {
            self.view().approach(commands.iter().filter_map(|command| Op::key_of(&command.payload)));
        }
    }

    fn apply(&mut self, at: Index, command: &Command, audience: Audience) -> Reply {
        self.apply_command(at, command, audience)
    }

    fn stamped(&mut self, stamp: &Stamp) {
        self.take_stamp(stamp);
    }

    fn apply_stamped(&mut self, at: Index, stamp: &Stamp, command: &Command, audience: Audience) -> Reply {
        self.apply_stamped_command(at, stamp, command, audience)
    }

    fn merge(&self, other: &SnapshotRef, at: Index) -> io::Result<FrozenStore> {
        self.merged(State::read(other)?, at).map(|merged| merged.freeze())
    }

    fn freeze(&self) -> FrozenStore {
        let forgets = Mutant::SnapshotForgetsLeases.is_on();
        FrozenStore {
            view: self.mvcc.view.clone(),
            leases: self
                .leases
                .iter()
                .filter(|_| !forgets)
                .map(|(id, lease)| (id, lease.ttl, lease.remaining))
                .collect(),
            alarms: self.alarms.clone(),
            members: self.members.clone(),
            quota: self.quota,
            applied: self.applied,
            clients: self.clients.clone(),
            convergent: self.convergent.clone(),
        }
    }

    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()> {
        self.become_state(State::read(source)?)
    }

    fn taken_back(&mut self) {
        self.hub().taken_back();
    }
}

struct Writer<'a> {
    out: &'a mut dyn io::Write,
    buffer: BytesMut,
    crc: u32,
}

impl Writer<'_> {
    fn number(&mut self, value: u64) -> io::Result<()> {
        put_varint(&mut self.buffer, value);
        self.flush_if(WRITE_BYTES)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.flush_if(WRITE_BYTES)
    }

    fn flush_if(&mut self, at_least: usize) -> io::Result<()> {
        if self.buffer.len() < at_least {
            return Ok(());
        }
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Frozen for FrozenStore {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut to = Writer { out, buffer: BytesMut::new(), crc: 0 };
        to.bytes(MAGIC)?;
        to.bytes(&[match &self.convergent {
            Some(_) => FORMAT_CONVERGENT,
            None if self.clients.is_empty() => FORMAT,
            None => FORMAT_WISHES,
        }])?;
        to.number(self.applied.0)?;
        to.number(self.view.revision as u64)?;
        to.number((self.view.compacted + 1) as u64)?;
        to.number(self.quota)?;
        if let Some(convergent) = &self.convergent {
            convergent.write_to(&mut to)?;
        } else if !self.clients.is_empty() {
            let clients = self.clients.to_bytes();
            to.number(clients.len() as u64)?;
            to.bytes(&clients)?;
        }
        to.number(self.alarms.len() as u64)?;
        for alarm in &self.alarms {
            encode_alarm(*alarm, &mut to.buffer);
        }
        to.number(self.members.len() as u64)?;
        for (node, attributes) in &self.members {
            let attributes = attributes.to_bytes();
            to.number(*node)?;
            to.number(attributes.len() as u64)?;
            to.bytes(&attributes)?;
        }
        to.number(self.leases.len() as u64)?;
        for (id, ttl, remaining) in &self.leases {
            for number in [id, ttl, remaining] {
                to.number(*number as u64)?;
            }
        }
        self.write_versions(&mut to)?;
        to.flush_if(0)?;
        let crc = to.crc.to_le_bytes();
        to.out.write_all(&crc)
    }
}

impl FrozenStore {
    fn write_versions(&self, to: &mut Writer<'_>) -> io::Result<()> {
        let View { arena, index, compacted, .. } = &self.view;
        // The records that are kept, by chunk: their offsets in order give each its number.
        let names = arena.chunk_names();
        let mut ranks = vec![0; names.iter().max().map_or(0, |name| *name as usize + 1)];
        for (rank, name) in names.iter().enumerate() {
            ranks[*name as usize] = rank;
        }
        let holds = Mutant::SnapshotHoldsCompacted.is_on();
        let doomed = |slot: &Slot| if holds { 0 } else { slot.doomed(arena, *compacted) };
        let mut kept: Vec<Vec<u32>> = vec![Vec::new(); names.len()];
        let mut keys = 0u64;
        for (_, slot) in index.slots(index.first(), index.end()) {
            let before = keys;
            for at in slot.versions().skip(doomed(slot)) {
                kept[ranks[at.chunk() as usize]].push(at.offset());
                keys = before + 1;
            }
        }
        let mut first_number = Vec::with_capacity(kept.len());
        let mut count = 0;
        for offsets in &mut kept {
            offsets.sort_unstable();
            first_number.push(count);
            count += offsets.len();
        }
        to.number(count as u64)?;
        for (name, offsets) in names.iter().zip(&kept) {
            for offset in offsets {
                to.bytes(arena.raw(*name, *offset))?;
            }
        }
        to.number(keys)?;
        for (_, slot) in index.slots(index.first(), index.end()) {
            let doomed = doomed(slot);
            let versions = slot.versions().count() - doomed;
            if versions == 0 {
                continue;
            }
            to.number(versions as u64)?;
            for at in slot.versions().skip(doomed) {
                let rank = ranks[at.chunk() as usize];
                let within = kept[rank].binary_search(&at.offset()).expect("it was collected above");
                to.number((first_number[rank] + within) as u64)?;
            }
        }
        Ok(())
    }
}

impl Convergent {
    fn write_to(&self, to: &mut Writer<'_>) -> io::Result<()> {
        let mark = |to: &mut Writer<'_>, mark: &Mark| {
            to.number(mark.clock)?;
            to.number(mark.origin.0)
        };
        to.number(self.node.0)?;
        to.number(self.vector.iter().count() as u64)?;
        for (origin, deliveries) in self.vector.iter() {
            for number in [origin.0, deliveries, self.commands.get(origin)] {
                to.number(number)?;
            }
        }
        to.number(self.floor)?;
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_unstable();
        to.number(keys.len() as u64)?;
        for (key, known) in keys {
            to.number(key.len() as u64)?;
            to.bytes(key)?;
            mark(to, known)?;
        }
        to.number(self.ranges.len() as u64)?;
        for range in &self.ranges {
            for bytes in [&range.key, &range.range_end] {
                to.number(bytes.len() as u64)?;
                to.bytes(bytes)?;
            }
            mark(to, &range.mark)?;
        }
        to.number(self.members.len() as u64)?;
        for (node, known) in &self.members {
            to.number(*node)?;
            mark(to, known)?;
        }
        Ok(())
    }

    fn read(from: &mut Source<'_>) -> io::Result<Convergent> {
        fn mark(from: &mut Source<'_>) -> io::Result<Mark> {
            let clock = from.number("a mark's clock")?;
            Ok(Mark { clock, origin: NodeId(from.number("a mark's origin")?) })
        }
        fn bytes(from: &mut Source<'_>) -> io::Result<Bytes> {
            let length = from.count("a mark's key")?;
            Ok(Bytes::copy_from_slice(from.take(length)?))
        }
        let mut convergent = Convergent::new(NodeId(from.number("whose history it is")?));
        for _ in 0..from.count("origins")? {
            let origin = NodeId(from.number("origin")?);
            convergent.vector.raise(origin, from.number("deliveries")?);
            convergent.commands.raise(origin, from.number("commands")?);
        }
        convergent.floor = from.number("floor")?;
        for _ in 0..from.count("keys' marks")? {
            let key = bytes(from)?;
            let mark = mark(from)?;
            convergent.note(key, mark);
        }
        for _ in 0..from.count("ranges' marks")? {
            let (key, range_end) = (bytes(from)?, bytes(from)?);
            let mark = mark(from)?;
            convergent.ranges.push(Swept { key, range_end, mark });
        }
        for _ in 0..from.count("members' marks")? {
            let node = from.number("member")?;
            convergent.members.insert(node, mark(from)?);
        }
        Ok(convergent)
    }
}

pub(crate) fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {what}"))
}

/// Reads a snapshot from front to back, up to its checksum.
struct Source<'a> {
    snapshot: &'a SnapshotRef,
    /// How much of it came into the buffer so far, and its checksum.
    fetched: u64,
    crc: u32,
    /// What was fetched and not taken yet begins at `next`.
    buffer: Vec<u8>,
    next: usize,
}

impl Source<'_> {
    fn here(&self) -> &[u8] {
        &self.buffer[self.next..]
    }

    fn unfetched(&self) -> u64 {
        self.snapshot.bytes - CHECKSUM_BYTES as u64 - self.fetched
    }

    /// The bytes before the checksum that have not been taken yet.
    fn remaining(&self) -> u64 {
        self.unfetched() + self.here().len() as u64
    }

    /// Makes at least `wanted` bytes available, or all that are left.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.here().len() < wanted && self.unfetched() > 0 {
            self.buffer.drain(..self.next);
            self.next = 0;
            // Memory is asked for as the bytes turn out to be there, whatever a length says.
            let old = self.buffer.len();
            let more = READ_BYTES.max(old).min(usize::try_from(self.unfetched()).unwrap_or(usize::MAX));
            self.buffer.resize(old + more, 0);
            self.snapshot.source.read_at(self.fetched, &mut self.buffer[old..])?;
            self.crc = crc32c::crc32c_append(self.crc, &self.buffer[old..]);
            self.fetched += more as u64;
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> io::Result<&[u8]> {
        if self.here().len() < length {
            if length as u64 > self.remaining() {
                return Err(bad("the end comes early"));
            }
            self.fill(length)?;
        }
        self.next += length;
        Ok(&self.buffer[self.next - length..self.next])
    }

    fn number(&mut self, what: &'static str) -> io::Result<u64> {
        if self.here().len() < VARINT_BYTES_MAX {
            self.fill(VARINT_BYTES_MAX)?;
        }
        let mut rest = self.here();
        let number = crate::record::take_varint(&mut rest).ok_or_else(|| bad(what))?;
        self.next = self.buffer.len() - rest.len();
        Ok(number)
    }

    fn signed(&mut self, what: &'static str) -> io::Result<i64> {
        self.number(what).map(|number| number as i64)
    }

    /// A record, header and all.
    fn record(&mut self) -> io::Result<&[u8]> {
        if self.here().len() < Record::HEADER_BYTES_MAX {
            self.fill(Record::HEADER_BYTES_MAX)?;
        }
        let length = Record::length(self.here()).ok_or_else(|| bad("a record without a length"))?;
        self.take(length)
    }

    /// A count of things that take at least a byte each.
    fn count(&mut self, what: &'static str) -> io::Result<usize> {
        let count = self.number(what)?;
        if count > self.remaining() { Err(bad(what)) } else { usize::try_from(count).map_err(|_| bad(what)) }
    }
}

impl State {
    /// Reads a whole snapshot.
    ///
    /// # Errors
    /// When it cannot be read, or is none that a store wrote: nothing that it says is believed unchecked.
    pub fn read(snapshot: &SnapshotRef) -> io::Result<State> {
        if snapshot.bytes < (MAGIC.len() + 1 + CHECKSUM_BYTES) as u64 {
            return Err(bad("too short"));
        }
        let mut from = Source { snapshot, fetched: 0, crc: 0, buffer: Vec::new(), next: 0 };
        if from.take(MAGIC.len())? != MAGIC {
            return Err(bad("not a store's"));
        }
        let format = from.take(1)?[0];
        if ![FORMAT, FORMAT_CONVERGENT, FORMAT_WISHES].contains(&format) {
            return Err(bad("written in a form that this version does not know"));
        }
        let applied = Index(from.number("applied position")?);
        let revision = from.signed("revision")?;
        let compacted = from.signed("compacted revision")?.wrapping_sub(1);
        if !(1..=REVISION_MAX).contains(&revision) || compacted < -1 || compacted > revision {
            return Err(bad("impossible revisions"));
        }
        let quota = from.number("quota")?;
        let convergent = if format == FORMAT_CONVERGENT { Some(Convergent::read(&mut from)?) } else { None };
        let mut clients = Clients::default();
        if format == FORMAT_WISHES {
            let length = from.count("clients")?;
            let bytes = Bytes::copy_from_slice(from.take(length)?);
            clients = Clients::decode_all(bytes).map_err(|_| bad("clients"))?;
            if clients.is_empty() {
                return Err(bad("no clients where some were promised"));
            }
        }
        let mut alarms = BTreeSet::new();
        for _ in 0..from.count("alarms")? {
            let mut bytes = BytesMut::new();
            put_varint(&mut bytes, from.number("alarm")?);
            bytes.extend_from_slice(from.take(1)?);
            alarms.insert(decode_alarm(&mut Reader::new(bytes.freeze())).map_err(|_| bad("alarm"))?);
        }
        let mut members = BTreeMap::new();
        for _ in 0..from.count("members")? {
            let node = from.number("member")?;
            let length = from.count("member attributes")?;
            let attributes = MemberAttributes::decode_all(Bytes::copy_from_slice(from.take(length)?));
            let attributes = attributes.map_err(|_| bad("member attributes"))?;
            members.insert(node, attributes);
        }
        let mut leases = Leases::default();
        for _ in 0..from.count("leases")? {
            let id = from.signed("lease")?;
            if id == 0 || leases.get(id).is_some() {
                return Err(bad("a lease without a name of its own"));
            }
            let (ttl, remaining) = (from.signed("lease length")?, from.signed("lease remaining")?);
            leases.insert(id, Lease { ttl, remaining, ..Lease::default() });
        }
        let mut view = View { revision, compacted, ..View::empty() };
        let (mut found, sum) = read_records(&mut from, &mut view)?;
        if Mutant::RevisionOfPairs.is_on() {
            let pairs = view.arena.history(0).filter(|(_, record)| !record.tombstone);
            view.revision = pairs.map(|(_, record)| record.main()).max().unwrap_or(1);
        }
        read_keys(&mut from, &mut view, &mut found, &mut leases)?;
        drop(found);
        if from.remaining() > 0 {
            return Err(bad("bytes left over"));
        }
        let mut crc = [0; CHECKSUM_BYTES];
        snapshot.source.read_at(snapshot.bytes - CHECKSUM_BYTES as u64, &mut crc)?;
        if u32::from_le_bytes(crc) != from.crc {
            return Err(bad("the checksum differs"));
        }
        Ok(State { mvcc: Mvcc::of(view, sum), leases, alarms, members, quota, applied, clients, convergent })
    }
}

/// A record that was read back: where it is, and what its key must know.
struct Found {
    at: At,
    state: u8,
}

/// Its pair names a lease.
const LEASED: u8 = 1;
/// A key has it.
const TAKEN: u8 = 2;

/// Reads the records into the arena, and sums up what they are while they are at hand.
fn read_records(from: &mut Source<'_>, view: &mut View) -> io::Result<(Vec<Found>, Accounts)> {
    let mut found = Vec::new();
    let mut sum = Accounts::default();
    let mut last = Rev::default();
    for _ in 0..from.count("records")? {
        let raw = from.record()?;
        let (record, pair) = Record::parse_checked(raw).ok_or_else(|| bad("a record that cannot be"))?;
        let main = if record.tombstone { record.main() } else { pair.modified };
        let rev = Rev { main, sub: record.sub };
        if rev.main > view.revision || rev <= last {
            return Err(bad("a record out of order"));
        }
        last = rev;
        let accounts = record.accounts_at(main);
        sum.size += accounts.size;
        sum.digest = sum.digest.wrapping_add(accounts.digest);
        let state = if pair.lease != 0 { LEASED } else { 0 };
        found.push(Found { at: view.arena.append_raw(rev, record.tombstone, raw), state });
    }
    Ok((found, sum))
}

/// Reads the keys into the index, and hangs them on their leases.
///
/// The records of neighbouring keys lie anywhere in memory. So the numbers of some keys are read ahead, and their records
/// touched one right after the other: the processor then waits for many of them at a time instead of one by one.
fn read_keys(
    from: &mut Source<'_>,
    view: &mut View,
    found: &mut [Found],
    leases: &mut Leases,
) -> io::Result<()> {
    let keys = from.count("keys")?;
    let mut left = found.len();
    let View { arena, index, compacted, .. } = view;
    let mut previous: Option<&[u8]> = None;
    let mut numbers: Vec<usize> = Vec::new();
    let mut counts: Vec<usize> = Vec::new();
    let mut read = 0;
    while read < keys {
        numbers.clear();
        counts.clear();
        for _ in 0..KEYS_AHEAD.min(keys - read) {
            let versions = from.count("versions of a key")?;
            if versions == 0 || versions > left {
                return Err(bad("more versions than records"));
            }
            left -= versions;
            counts.push(versions);
            for _ in 0..versions {
                let number = usize::try_from(from.number("number of a record")?).unwrap_or(usize::MAX);
                let it = found.get_mut(number).filter(|it| it.state & TAKEN == 0);
                it.ok_or_else(|| bad("a record that is not there, or twice"))?.state |= TAKEN;
                numbers.push(number);
            }
        }
        arena.touch(numbers.iter().map(|number| found[*number].at));
        let mut rest = &numbers[..];
        for count in &counts {
            let (versions, others) = rest.split_at(*count);
            rest = others;
            let (slot, head, is_leased) =
                read_slot(arena, *compacted, versions.iter().map(|number| &found[*number]))?;
            let key = head.key();
            if previous.is_some_and(|previous| previous >= key) {
                return Err(bad("keys out of order"));
            }
            previous = Some(key);
            index.append(arena, key, head.main(), slot);
            if is_leased {
                leases.attach(key, 0, head.lease());
            }
        }
        read += counts.len();
    }
    if left > 0 { Err(bad("records without a key")) } else { Ok(()) }
}

/// What the index holds of a key with these versions, oldest first; its newest record, and whether that names a lease.
fn read_slot<'a, 'b>(
    arena: &'a Arena,
    compacted: i64,
    versions: impl ExactSizeIterator<Item = &'b Found>,
) -> io::Result<(Slot, Record<'a>, bool)> {
    let mut older: Vec<Version> = Vec::with_capacity(versions.len() - 1);
    let mut head: Option<(&Found, Record<'_>)> = None;
    for it in versions {
        let record = arena.record(it.at);
        if let Some((before, earlier)) = head {
            if earlier.key() != record.key() || earlier.rev() >= record.rev() {
                return Err(bad("versions that do not belong together"));
            }
            older.push(Version { main: earlier.main(), at: before.at });
        }
        head = Some((it, record));
    }
    let Some((head, record)) = head else { return Err(bad("a key without versions")) };
    let slot = Slot { head: head.at, older: (!older.is_empty()).then(|| Arc::new(older)) };
    if slot.doomed(arena, compacted) > 0 {
        return Err(bad("versions that were compacted"));
    }
    Ok((slot, record, head.state & LEASED != 0))
}
