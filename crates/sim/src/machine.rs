//! The state machine under test: the store that ships, with an auditor beside it.
//!
//! [`Audited`] keeps a *chain*: a digest over every command applied since the beginning of time, in order, and over the
//! store's own digest behind each ([`Store::digest`] stands for the whole replicated state). Two replicas with the same
//! chain after the same number of commands went the same way, at every index. The chain travels in snapshots, so
//! that a restored replica goes on where its snapshot was taken.
//!
//! Clients speak a small language ([`Ask`]), which becomes the store's own operations; values are numbers that nobody writes twice.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use synod_core::{
    Audience, Command, CommandId, Frozen, Index, Machine, NodeId, SnapshotRef, SnapshotSource, Stamp, Vector,
    Wire,
};
use synod_kv::op::{
    Compare, CompareResult, CompareTarget, DeleteRange, Op, OpReply, Put, RangeReply, RangeRequest, Reply,
    Txn, TxnOp, TxnOpReply,
};
use synod_kv::record::KeyValue;
use synod_kv::snapshot::FrozenStore;
use synod_kv::{OpError, Store};

/// What a client asks of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Reads a key; never goes through the log.
    Get {
        /// Which.
        key: u64,
    },
    /// Writes a value that nobody else ever writes.
    Put {
        /// Which key.
        key: u64,
        /// What.
        value: u64,
        /// Under which lease; 0: none.
        lease: i64,
    },
    /// Removes a key.
    Delete {
        /// Which.
        key: u64,
    },
    /// Writes if the key has the expected value; else reads it.
    Swap {
        /// Which key.
        key: u64,
        /// What it must hold.
        expected: u64,
        /// What it will hold.
        value: u64,
    },
    /// Writes two keys at once.
    Both {
        /// The first.
        first: u64,
        /// The second.
        second: u64,
        /// What the first will hold; the second holds the next number.
        value: u64,
    },
    /// Reads a key as of a revision, and writes it, in one transaction: if the revision is compacted, nothing happens at all.
    Look {
        /// Which key.
        key: u64,
        /// As of when.
        revision: i64,
        /// What it will hold.
        value: u64,
    },
    /// Gives up the history before a revision.
    Compact {
        /// The lowest that stays.
        revision: i64,
    },
    /// Makes a lease.
    Grant {
        /// Its name.
        id: i64,
        /// Its length in seconds.
        ttl: i64,
    },
    /// Ends a lease.
    Revoke {
        /// Which.
        id: i64,
    },
    /// Removes the keys between two.
    Sweep {
        /// The first.
        first: u64,
        /// The first that stays.
        end: u64,
    },
    /// Renews a lease: the leader's business alone, never in the log.
    KeepAlive {
        /// Which.
        id: i64,
    },
}

/// Keys from this one on are written and removed, and never read.
pub const SCRAP_KEYS: u64 = 1000;

/// The key as the store knows it.
#[must_use]
pub fn key_name(key: u64) -> Bytes {
    Bytes::from(format!("k{key}"))
}

fn value_name(value: u64) -> Bytes {
    Bytes::from(value.to_string())
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The number of a key's name.
#[must_use]
pub fn key_number(name: &[u8]) -> Option<u64> {
    number(name.strip_prefix(b"k")?)
}

/// Whether the answer comes out of the log, or from a replica that may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a command.
    Log,
    /// Behind a read's fence.
    Fence,
}

impl Ask {
    /// Which way it goes.
    #[must_use]
    pub fn way(self) -> Way {
        match self {
            Ask::Get { .. } | Ask::KeepAlive { .. } => Way::Fence,
            _ => Way::Log,
        }
    }

    /// The store's operation; none for what never goes through the log.
    #[must_use]
    pub fn op(self) -> Option<Op> {
        let put =
            |key, value, lease| Put { key: key_name(key), value: value_name(value), lease, ..Put::default() };
        Some(match self {
            Ask::Get { .. } | Ask::KeepAlive { .. } => return None,
            Ask::Put { key, value, lease } => Op::Put(put(key, value, lease)),
            Ask::Delete { key } => {
                Op::DeleteRange(DeleteRange { key: key_name(key), ..DeleteRange::default() })
            }
            Ask::Swap { key, expected, value } => Op::Txn(Txn {
                compare: vec![Compare {
                    key: key_name(key),
                    range_end: Bytes::new(),
                    result: CompareResult::Equal,
                    target: CompareTarget::Value(value_name(expected)),
                }],
                success: vec![TxnOp::Put(put(key, value, 0))],
                failure: vec![TxnOp::Range(RangeRequest { key: key_name(key), ..RangeRequest::default() })],
            }),
            Ask::Both { first, second, value } => Op::Txn(Txn {
                compare: Vec::new(),
                success: vec![TxnOp::Put(put(first, value, 0)), TxnOp::Put(put(second, value + 1, 0))],
                failure: Vec::new(),
            }),
            Ask::Look { key, revision, value } => Op::Txn(Txn {
                compare: Vec::new(),
                success: vec![
                    TxnOp::Range(RangeRequest { key: key_name(key), revision, ..RangeRequest::default() }),
                    TxnOp::Put(put(key, value, 0)),
                ],
                failure: Vec::new(),
            }),
            Ask::Sweep { first, end } => Op::DeleteRange(DeleteRange {
                key: key_name(first),
                range_end: key_name(end),
                ..DeleteRange::default()
            }),
            Ask::Compact { revision } => Op::Compact { revision },
            Ask::Grant { id, ttl } => Op::LeaseGrant { id, ttl },
            Ask::Revoke { id } => Op::LeaseRevoke { id },
        })
    }

    /// What a client asks instead where keys are mere registers.
    #[must_use]
    pub fn as_register(self, value: u64) -> Ask {
        match self {
            Ask::Get { .. } | Ask::Delete { .. } => self,
            Ask::Put { key, value, .. } => Ask::Put { key, value, lease: 0 },
            Ask::Swap { key, .. } | Ask::Both { first: key, .. } | Ask::Look { key, .. } => {
                Ask::Put { key, value, lease: 0 }
            }
            Ask::Sweep { first: key, .. } => Ask::Delete { key },
            Ask::Compact { .. } | Ask::Grant { .. } | Ask::Revoke { .. } | Ask::KeepAlive { .. } => {
                Ask::Get { key: 0 }
            }
        }
    }

    /// What a client asks instead where there is no single order. The checker tells who read what from whom by the values, which a
    /// removal has none of: so keys are removed only among the scrap, which replicas must agree about in the end, and nobody reads before.
    #[must_use]
    pub fn as_causal(self, value: u64) -> Ask {
        let scrap = |key| SCRAP_KEYS + key;
        match self {
            Ask::Get { .. } | Ask::Both { .. } | Ask::Compact { .. } => self,
            Ask::Put { key, value, .. } => Ask::Put { key, value, lease: 0 },
            Ask::Swap { key, .. } | Ask::Look { key, .. } => Ask::Put { key: scrap(key), value, lease: 0 },
            Ask::Delete { key } => Ask::Delete { key: scrap(key) },
            Ask::Grant { .. } | Ask::Sweep { .. } => Ask::Sweep { first: scrap(0), end: scrap(4) },
            Ask::Revoke { .. } | Ask::KeepAlive { .. } => Ask::Delete { key: scrap(0) },
        }
    }

    /// The command's payload.
    #[must_use]
    pub fn payload(self) -> Bytes {
        self.op().map(|op| op.to_bytes()).unwrap_or_default()
    }
}

/// A pair as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What the key holds.
    pub value: u64,
    /// The revision that created it.
    pub create: i64,
    /// The revision that changed it last.
    pub modified: i64,
    /// How often it was put since.
    pub version: i64,
    /// Its lease.
    pub lease: i64,
}

impl Pair {
    /// From the store's encoding.
    #[must_use]
    pub fn parse(encoded: &[u8]) -> Option<(u64, Pair)> {
        let pair = KeyValue::parse(encoded)?;
        let KeyValue { create, modified, version, lease, .. } = pair;
        Some((key_number(pair.key)?, Pair { value: number(pair.value)?, create, modified, version, lease }))
    }
}

/// What the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The store's revision.
    pub revision: i64,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, and there is nothing to say.
    Done,
    /// What a key holds.
    Read(Option<Pair>),
    /// How many keys are gone.
    Deleted(i64),
    /// A swap: done, or what is there instead.
    Swapped(Result<(), Option<Pair>>),
    /// The store refused, and nothing changed.
    Error(OpError),
}

fn first_pair(range: &RangeReply) -> Option<Pair> {
    range.kvs.encoded().next().and_then(Pair::parse).map(|(_, pair)| pair)
}

impl From<Reply> for Said {
    fn from(reply: Reply) -> Said {
        let answer = match &reply.result {
            Err(error) => Answer::Error(*error),
            Ok(OpReply::DeleteRange(reply)) => Answer::Deleted(reply.deleted),
            Ok(OpReply::Txn(txn)) if !txn.succeeded => match txn.responses.first() {
                Some(TxnOpReply::Range(range)) => Answer::Swapped(Err(first_pair(range))),
                _ => Answer::Done,
            },
            Ok(OpReply::Txn(txn)) if txn.responses.len() == 1 => Answer::Swapped(Ok(())),
            Ok(_) => Answer::Done,
        };
        Said { revision: reply.revision, answer }
    }
}

/// One command that a machine applied.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    /// Where it was delivered.
    pub at: Index,
    /// Its place among all commands, counted from 1.
    pub count: u64,
    /// Which command.
    pub id: CommandId,
    /// A digest of its payload.
    pub payload: u64,
    /// The chain behind it.
    pub chain: u64,
    /// The store's revision behind it.
    pub revision: i64,
}

/// A store with an auditor.
#[derive(Default)]
pub struct Audited {
    /// The store.
    pub store: Store,
    /// Commands applied since the beginning of time.
    pub count: u64,
    /// The digest over all of them, and over the store behind each.
    pub chain: u64,
    /// What was applied since somebody looked; taken by the oracles.
    pub trail: Vec<Applied>,
    /// Which commands the state contains: kept where their order is not the same everywhere, or may be taken back.
    pub seen: Option<BTreeSet<CommandId>>,
    /// A command that was applied although the state contained it.
    pub doubled: Option<CommandId>,
    /// For each of the trail, what had been applied before: where there is no single order.
    pub pasts: Vec<Vector>,
    /// What had been applied before the delivery that is being applied.
    past: Vector,
    /// A command that came although nothing so old could come any more: its clock, and that floor.
    pub late: Option<(u64, u64)>,
}

/// Stirs a number into a digest (the finaliser of a 64-bit mixing function).
#[must_use]
pub fn mix(digest: u64, number: u64) -> u64 {
    let mut z = digest.rotate_left(25) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 29)
}

/// A digest of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut digest = bytes.len() as u64;
    for part in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        digest = mix(digest, u64::from_le_bytes(word));
    }
    digest
}

impl Audited {
    /// A machine that remembers which commands its state contains.
    #[must_use]
    pub fn with_memory() -> Audited {
        Audited { seen: Some(BTreeSet::new()), ..Audited::default() }
    }

    /// A machine of this replica for a protocol without a single order.
    #[must_use]
    pub fn convergent(node: NodeId) -> Audited {
        Audited { store: Store::convergent(node), ..Audited::with_memory() }
    }

    /// A digest of what every key holds, without how it came to that: what replicas converge to that apply in orders of their own.
    #[must_use]
    pub fn contents(&self) -> u64 {
        if self.store.vector().is_some() {
            return self.store.contents_digest();
        }
        self.pairs().iter().fold(0, |digest, (key, pair)| mix(mix(digest, *key), pair.value))
    }

    /// Whether some key belongs to this lease.
    #[must_use]
    pub fn holds_keys_of(&self, lease: i64) -> bool {
        self.pairs().iter().any(|(_, pair)| pair.lease == lease)
    }

    /// Every key with what it holds.
    fn pairs(&self) -> Vec<(u64, Pair)> {
        let all = RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            ..RangeRequest::default()
        };
        let Ok(range) = self.store.range(&all) else { return Vec::new() };
        range.kvs.encoded().filter_map(Pair::parse).collect()
    }

    /// Reads a key as it is now.
    #[must_use]
    pub fn get(&self, key: u64) -> Said {
        let request = RangeRequest { key: key_name(key), ..RangeRequest::default() };
        let answer = match self.store.range(&request) {
            Ok(range) => Answer::Read(first_pair(&range)),
            Err(error) => Answer::Error(error),
        };
        Said { revision: self.store.revision(), answer }
    }

    /// A digest of the whole state as it is, computed afresh.
    #[must_use]
    pub fn state(&self) -> u64 {
        self.store.digest_audited()
    }
}

impl Machine for Audited {
    type Reply = Said;
    type Frozen = FrozenAudited;

    fn expect(&self, commands: &[Command]) {
        self.store.expect(commands);
    }

    fn apply(&mut self, at: Index, command: &Command, audience: Audience) -> Said {
        let reply = self.store.apply_command(at, command, audience);
        self.audit(at, command);
        // Answers are made for clients alone; nobody listens to the others.
        reply.into()
    }

    fn stamped(&mut self, stamp: &Stamp) {
        self.past = self.store.vector().cloned().unwrap_or_default();
        self.store.stamped(stamp);
    }

    fn apply_stamped(&mut self, at: Index, stamp: &Stamp, command: &Command, audience: Audience) -> Said {
        let floor = self.store.floor();
        if stamp.clock <= floor {
            self.late = Some((stamp.clock, floor));
        }
        let reply = self.store.apply_stamped(at, stamp, command, audience);
        self.audit(at, command);
        self.pasts.push(self.past.clone());
        reply.into()
    }

    fn merge(&self, other: &SnapshotRef, at: Index) -> io::Result<FrozenAudited> {
        let theirs = Contained::read(other)?;
        let store = self.store.merge(&theirs.store, at)?;
        let mut seen = self.seen.clone().unwrap_or_default();
        seen.extend(theirs.seen);
        // The chain stands for one order, and there is none.
        Ok(FrozenAudited { store, count: seen.len() as u64, chain: mix(self.chain, theirs.chain), seen })
    }

    fn freeze(&self) -> FrozenAudited {
        let seen = self.seen.clone().unwrap_or_default();
        FrozenAudited { store: self.store.freeze(), count: self.count, chain: self.chain, seen }
    }

    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()> {
        let theirs = Contained::read(source)?;
        self.store.restore(&theirs.store)?;
        (self.count, self.chain) = (theirs.count, theirs.chain);
        if let Some(known) = &mut self.seen {
            *known = theirs.seen;
        }
        Ok(())
    }
}

impl Audited {
    fn audit(&mut self, at: Index, command: &Command) {
        let (payload, revision) = (digest(&command.payload), self.store.revision());
        self.count += 1;
        for number in [at.0, command.id.origin.0, command.id.number, payload, self.store.digest()] {
            self.chain = mix(self.chain, number);
        }
        let (count, id, chain) = (self.count, command.id, self.chain);
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(id)) {
            self.doubled = Some(id);
        }
        self.trail.push(Applied { at, count, id, payload, chain, revision });
    }
}

/// What a snapshot contains beside the store, and the store's part of it.
struct Contained {
    count: u64,
    chain: u64,
    seen: BTreeSet<CommandId>,
    store: SnapshotRef,
}

impl Contained {
    fn read(source: &SnapshotRef) -> io::Result<Contained> {
        let numbers = |offset: u64, count: usize| -> io::Result<Vec<u64>> {
            let bytes = source.read(offset, count * 8)?;
            let parts = bytes.chunks_exact(8);
            let numbers: Vec<u64> =
                parts.map(|part| u64::from_le_bytes(part.try_into().unwrap_or_default())).collect();
            if numbers.len() == count { Ok(numbers) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        };
        let header = numbers(0, HEADER_NUMBERS)?;
        let [count, chain, seen] = header[..] else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        if seen > source.bytes / 16 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let seen = seen as usize;
        let header = (HEADER_NUMBERS as u64 + 2 * seen as u64) * 8;
        let rest = source.bytes.checked_sub(header).ok_or(io::ErrorKind::UnexpectedEof)?;
        let names = numbers(HEADER_NUMBERS as u64 * 8, seen * 2)?;
        let name = |pair: &[u64]| CommandId { origin: NodeId(pair[0]), number: pair[1] };
        let seen = names.chunks_exact(2).map(name).collect();
        let behind = Arc::new(Behind { header, whole: source.source.clone() });
        Ok(Contained {
            count,
            chain,
            seen,
            store: SnapshotRef { at: source.at, bytes: rest, source: behind },
        })
    }
}

/// In front of the store's own snapshot: count, chain, and how many commands' names follow.
const HEADER_NUMBERS: usize = 3;

/// A snapshot without its header.
struct Behind {
    header: u64,
    whole: Arc<dyn SnapshotSource>,
}

impl SnapshotSource for Behind {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.whole.read_at(offset + self.header, buffer)
    }
}

/// One moment's state, to be written down.
#[derive(Clone)]
pub struct FrozenAudited {
    store: FrozenStore,
    count: u64,
    chain: u64,
    seen: BTreeSet<CommandId>,
}

impl Frozen for FrozenAudited {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        let header = [self.count, self.chain, self.seen.len() as u64];
        let names = self.seen.iter().flat_map(|id| [id.origin.0, id.number]);
        for number in header.into_iter().chain(names) {
            out.write_all(&number.to_le_bytes())?;
        }
        self.store.write_to(out)
    }
}
