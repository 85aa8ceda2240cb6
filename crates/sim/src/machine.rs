//! The state machine under test, with an auditor inside.
//!
//! [`Audited`] wraps the store that ships. Beside applying, it keeps a *chain*: a digest over every command
//! applied since the beginning of time, in order, together with the revision that the store answered with. Two replicas
//! with the same chain after the same number of commands went the same way, at every index. The chain
//! travels in snapshots, so that a restored replica goes on where its snapshot was taken.

use std::collections::BTreeMap;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{Audience, Command, CommandId, Frozen, Index, Machine, SnapshotRef};

/// What a client asks of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Reads a key; never goes through the log.
    Get { key: u64 },
    /// Writes a value that nobody else ever writes.
    Put { key: u64, value: u64 },
    /// Removes a key.
    Delete { key: u64 },
    /// Writes if the key has the expected value.
    Swap { key: u64, expected: u64, value: u64 },
}

impl Ask {
    /// Which key it is about.
    #[must_use]
    pub fn key(self) -> u64 {
        match self {
            Ask::Get { key } | Ask::Put { key, .. } | Ask::Delete { key } | Ask::Swap { key, .. } => key,
        }
    }

    /// The command's payload.
    #[must_use]
    pub fn payload(self) -> Bytes {
        let mut out = BytesMut::with_capacity(25);
        let (tag, numbers) = match self {
            Ask::Get { key } => (0, [key, 0, 0]),
            Ask::Put { key, value } => (1, [key, value, 0]),
            Ask::Delete { key } => (2, [key, 0, 0]),
            Ask::Swap { key, expected, value } => (3, [key, expected, value]),
        };
        out.put_u8(tag);
        numbers.into_iter().for_each(|number| out.put_u64_le(number));
        out.freeze()
    }
}

/// What the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The store's revision.
    pub revision: u64,
    /// Whether it was done (a swap whose expectation failed was not).
    pub done: bool,
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
    pub revision: u64,
}

/// A store with an auditor.
#[derive(Clone, Default)]
pub struct Audited {
    store: BTreeMap<u64, u64>,
    revision: u64,
    /// Commands applied since the beginning of time.
    pub count: u64,
    /// The digest over all of them.
    pub chain: u64,
    /// What was applied since somebody looked; taken by the oracles.
    pub trail: Vec<Applied>,
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
    /// The value of a key, and the store's revision.
    #[must_use]
    pub fn get(&self, key: u64) -> (Option<u64>, u64) {
        (self.store.get(&key).copied(), self.revision)
    }

    /// A digest of the whole state, however it came about.
    #[must_use]
    pub fn state(&self) -> u64 {
        self.store.iter().fold(self.revision, |digest, (key, value)| mix(mix(digest, *key), *value))
    }
}

impl Machine for Audited {
    type Reply = Said;
    type Frozen = Audited;

    fn apply(&mut self, at: Index, command: &Command, _audience: Audience) -> Said {
        let mut numbers = [0u64; 3];
        for (number, bytes) in numbers.iter_mut().zip(command.payload[1..].chunks(8)) {
            *number = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        let [key, first, second] = numbers;
        let done = match command.payload[0] {
            1 => {
                self.store.insert(key, first);
                true
            }
            2 => self.store.remove(&key).is_some(),
            3 if self.store.get(&key) == Some(&first) => {
                self.store.insert(key, second);
                true
            }
            _ => false,
        };
        self.revision += u64::from(done);
        let payload = digest(&command.payload);
        self.count += 1;
        for number in [at.0, command.id.origin.0, command.id.number, payload, self.revision] {
            self.chain = mix(self.chain, number);
        }
        let (count, id, chain, revision) = (self.count, command.id, self.chain, self.revision);
        self.trail.push(Applied { at, count, id, payload, chain, revision });
        Said { revision: self.revision, done }
    }

    fn freeze(&self) -> Audited {
        Audited { trail: Vec::new(), ..self.clone() }
    }

    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()> {
        let bytes = source.read(0, usize::try_from(source.bytes).map_err(|_| io::ErrorKind::InvalidData)?)?;
        let mut numbers = bytes.chunks(8).map(|part| part.try_into().map(u64::from_le_bytes));
        let mut next = || numbers.next().and_then(Result::ok).ok_or(io::ErrorKind::UnexpectedEof);
        let (revision, count, chain, keys) = (next()?, next()?, next()?, next()?);
        let mut store = BTreeMap::new();
        for _ in 0..keys {
            store.insert(next()?, next()?);
        }
        *self = Audited { store, revision, count, chain, trail: std::mem::take(&mut self.trail) };
        Ok(())
    }
}

impl Frozen for Audited {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        let header = [self.revision, self.count, self.chain, self.store.len() as u64];
        let pairs = self.store.iter().flat_map(|(key, value)| [*key, *value]);
        for number in header.into_iter().chain(pairs) {
            out.write_all(&number.to_le_bytes())?;
        }
        Ok(())
    }
}
