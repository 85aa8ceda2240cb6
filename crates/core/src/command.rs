//! What clients want ordered: commands, and batches of them.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::types::NodeId;
use crate::wire::{Reader, Wire, WireError, put_bytes, put_u64};

/// Names a command: the replica that took it from its client, and a number which that replica never reuses.
///
/// The reply goes back to `origin`; everybody else applies in silence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// The replica that a client is waiting at.
    pub origin: NodeId,
    /// Unique at `origin`, also across its restarts.
    pub number: u64,
}

/// One request to the replicated state machine; only the machine understands the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// Who waits for the reply.
    pub id: CommandId,
    /// The machine's own encoding of what is to be done.
    pub payload: Bytes,
}

/// The unit of agreement: a Paxos value, a Raft entry, a PBFT request, a block's body, a causal message.
///
/// Allocated once by the proposer, then shared by log, record, message and delivery. An empty batch is a
/// no-op: a fence, or the filling of a gap.
pub type Batch = Arc<[Command]>;

/// The no-op.
#[must_use]
pub fn empty_batch() -> Batch {
    Arc::from([])
}

/// The payload bytes of a batch plus a fixed overhead for each command: what budgets count.
#[must_use]
pub fn batch_bytes(batch: &Batch) -> usize {
    batch.iter().map(|command| command.payload.len() + COMMAND_OVERHEAD).sum::<usize>() + COMMAND_OVERHEAD
}

/// What a command costs beside its payload, in memory and roughly on the wire.
const COMMAND_OVERHEAD: usize = 48;

/// More commands than this in one batch is malformed input.
const BATCH_COMMANDS_MAX: u64 = 1 << 20;

impl Wire for Command {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.id.origin.0);
        put_u64(out, self.id.number);
        put_bytes(out, &self.payload);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let origin = NodeId(from.u64("command origin")?);
        let number = from.u64("command number")?;
        Ok(Command { id: CommandId { origin, number }, payload: from.bytes("command payload")? })
    }
}

impl Wire for Batch {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.len() as u64);
        for command in self.iter() {
            command.encode(out);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let count = from.count("batch", BATCH_COMMANDS_MAX)?;
        let mut commands = Vec::with_capacity(count.min(from.remaining()));
        for _ in 0..count {
            commands.push(Command::decode(from)?);
        }
        Ok(Arc::from(commands))
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin, self.number)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.id)?;
        // Short printable payloads are the ones that people write in scripts: show them.
        match std::str::from_utf8(&self.payload) {
            Ok(text) if text.len() <= 24 && !text.chars().any(char::is_control) => write!(f, "={text}"),
            _ => write!(f, "={}B", self.payload.len()),
        }
    }
}
