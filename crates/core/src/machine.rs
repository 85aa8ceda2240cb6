//! The replicated state machine, and the snapshots that stand for its past.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::command::Command;
use crate::stamp::Stamp;
use crate::types::Index;

/// The replicated state machine: deterministic and infallible.
///
/// The same commands in the same order give the same state on every replica, whatever the audience. A
/// command that cannot be carried out has an error as its reply, and leaves the same (unchanged) state everywhere.
pub trait Machine {
    /// What a client gets to hear.
    type Reply;
    /// A cheap view of one moment's state, to be serialised elsewhere: a snapshot never stalls applying.
    type Frozen: Frozen;

    /// These commands are applied next, if none of them is taken back before. A machine may look where they lead, all
    /// together: memory answers many questions at once nearly as fast as one. Nothing that can be seen comes of it.
    fn expect(&self, _commands: &[Command]) {}

    /// Applies one command, delivered at `at`. The reply matters only to [`Audience::Client`]; for
    /// [`Audience::Nobody`] the machine may skip whatever does not change its state.
    fn apply(&mut self, at: Index, command: &Command, audience: Audience) -> Self::Reply;

    /// A delivery with this stamp has come; what it holds is applied next ([`Machine::apply_stamped`]), if it holds anything.
    fn stamped(&mut self, _stamp: &Stamp) {}

    /// Applies one command of a protocol that promises no single order. A machine that shall end up in the same state
    /// everywhere decides by the stamp, which is the command's own and differs from that of every other.
    fn apply_stamped(
        &mut self,
        at: Index,
        _stamp: &Stamp,
        command: &Command,
        audience: Audience,
    ) -> Self::Reply {
        self.apply(at, command, audience)
    }

    /// The state that holds whatever this one and `other` hold, as of the delivery at `at`.
    ///
    /// # Errors
    /// When the snapshot cannot be read or decoded; or always, for a machine that cannot merge: only a protocol without
    /// a single order asks for it.
    fn merge(&self, _other: &SnapshotRef, _at: Index) -> io::Result<Self::Frozen> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The state after everything applied so far.
    fn freeze(&self) -> Self::Frozen;

    /// Becomes the state that `source` holds.
    ///
    /// # Errors
    /// When the snapshot cannot be read or decoded; the machine is then unusable and the replica stops.
    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()>;

    /// Becomes its own state of an earlier moment.
    ///
    /// # Errors
    /// As [`Machine::restore`].
    fn rewind(&mut self, at: Index, to: Self::Frozen) -> io::Result<()> {
        let mut bytes = Vec::new();
        to.write_to(&mut bytes)?;
        self.restore(&SnapshotRef::in_memory(at, Bytes::from(bytes)))
    }

    /// Some of what was applied has been taken back: whoever was told of changes was told of some that are void. Called
    /// behind the restoring or rewinding that did it.
    fn taken_back(&mut self) {}
}

/// Who listens to a command's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A client of this replica waits for it.
    Client,
    /// Nobody here: another replica's client, or a replay.
    Nobody,
}

/// A moment's state that can write itself down, on another thread if need be. Copies share what they hold.
pub trait Frozen: Clone + Send + 'static {
    /// Writes the whole state.
    ///
    /// # Errors
    /// Those of `out`.
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()>;
}

/// A saved snapshot: the state after the delivery at `at`, readable by offset.
#[derive(Clone)]
pub struct SnapshotRef {
    /// The last delivery that the state contains.
    pub at: Index,
    /// The length of the state, in bytes.
    pub bytes: u64,
    /// Where the bytes are.
    pub source: Arc<dyn SnapshotSource>,
}

/// The bytes of a snapshot, wherever they are.
pub trait SnapshotSource: Send + Sync {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// When the bytes cannot be read or are fewer than asked for.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl SnapshotRef {
    /// A snapshot that lives in memory: for tests and simulations.
    #[must_use]
    pub fn in_memory(at: Index, bytes: Bytes) -> SnapshotRef {
        SnapshotRef { at, bytes: bytes.len() as u64, source: Arc::new(MemorySnapshot(bytes)) }
    }

    /// The bytes from `offset` on, at most `length` of them.
    ///
    /// # Errors
    /// Those of the source.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let length = length.min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut buffer = vec![0; length];
        self.source.read_at(offset, &mut buffer)?;
        Ok(Bytes::from(buffer))
    }
}

impl fmt::Debug for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot{:?}({}B)", self.at, self.bytes)
    }
}

/// The source behind [`SnapshotRef::in_memory`].
pub struct MemorySnapshot(pub Bytes);

impl SnapshotSource for MemorySnapshot {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = from.checked_add(buffer.len()).filter(|end| *end <= self.0.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(&self.0[from..end]);
        Ok(())
    }
}
