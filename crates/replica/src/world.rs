//! The outside of a replica: what it asks for, and what replicas say to one another.

use bytes::{Bytes, BytesMut};
use synod_core::wire::Reader;
use synod_core::{
    CommandId, Index, Lsn, Machine, Members, NodeId, Protocol, ReadId, Refusal, SnapshotRef, Wire, WireError,
};

/// The outside of a replica. Two implementors: the server and the simulator.
///
/// No call blocks or fails: what takes time is reported back to the replica later, and what cannot be done
/// at all (a failed write, a failed sync) ends the replica.
pub trait World<P: Protocol, M: Machine> {
    /// Appends records to the log, in order; takes them out of `records`. Once all up to `upto` are
    /// durable, [`Replica::durable`](crate::Replica::durable) is called with it.
    fn persist(&mut self, records: &mut Vec<P::Record>, upto: Lsn);

    /// Starts the log anew: `records` stand for everything persisted so far, above `snapshot`. Once they
    /// are durable, everything up to `upto` is durable too, and older segments and snapshots may go:
    /// [`Replica::checkpointed`](crate::Replica::checkpointed) is called, in the order in which the log was given checkpoints and records.
    fn checkpoint(&mut self, snapshot: &SnapshotRef, records: Vec<P::Record>, upto: Lsn);

    /// Gives a packet to the transport, which may lose it, double it or be late with it.
    fn send(&mut self, to: NodeId, packet: Packet<P::Message>);

    /// As [`World::send`], for what may wait until something else goes to the same peer, or until nobody waits for this
    /// replica.
    fn send_at_leisure(&mut self, to: NodeId, packet: Packet<P::Message>) {
        self.send(to, packet);
    }

    /// As [`World::send`], once everything that was persisted so far is durable. A world whose disk cannot do that by itself
    /// gives the message back, and it is sent when the disk has reported.
    ///
    /// # Errors
    /// The message.
    fn send_when_durable(&mut self, _to: NodeId, message: P::Message) -> Result<(), P::Message> {
        Err(message)
    }

    /// All that this flush persists and sends has been given; what follows takes its time.
    fn dispatch(&mut self) {}

    /// A command that this replica took from a client has been applied.
    fn reply(&mut self, id: CommandId, reply: M::Reply);

    /// A command of this replica was certainly not decided, and never will be.
    fn refuse(&mut self, id: CommandId, reason: Refusal);

    /// Everything that the read must see has been applied: serve it now.
    fn readable(&mut self, read: ReadId);

    /// The read cannot be fenced.
    fn unreadable(&mut self, read: ReadId, reason: Refusal);

    /// The last reconfiguration or transfer of leadership was not started.
    fn declined(&mut self, reason: Refusal);

    /// The protocol tells people something: into the log with it.
    fn note(&mut self, _text: String) {}

    /// This configuration has been decided at `at`.
    fn members(&mut self, at: Index, members: &Members);

    /// Writes a snapshot elsewhere, without stalling the replica; then
    /// [`Replica::saved`](crate::Replica::saved) or [`Replica::save_failed`](crate::Replica::save_failed).
    fn save(&mut self, at: Index, frozen: M::Frozen);

    /// Writes a piece of a peer's snapshot; then [`Replica::staged`](crate::Replica::staged), and behind the last
    /// piece, when the whole is verified, [`Replica::installed`](crate::Replica::installed). On trouble
    /// [`Replica::stage_failed`](crate::Replica::stage_failed). A piece at offset 0 starts anew.
    fn stage(&mut self, piece: Piece);
}

/// Names one transfer of a snapshot at its sender.
pub type TransferId = u64;

/// What replicas send one another: the protocol's messages, and snapshots in chunks.
#[derive(Clone, Debug)]
pub enum Packet<M> {
    /// The protocol speaks.
    Protocol(M),
    /// A part of a snapshot.
    Chunk(Chunk<M>),
    /// The receiver holds everything of this transfer before `upto`; the sender goes on from there.
    Held {
        /// Which transfer.
        transfer: TransferId,
        /// The first byte that is missing.
        upto: u64,
    },
    /// The whole snapshot has arrived and was handed to the receiver's protocol.
    Arrived {
        /// Which transfer.
        transfer: TransferId,
    },
    /// The receiver cannot take this snapshot (no room, or a sum that does not match).
    Rejected {
        /// Which transfer.
        transfer: TransferId,
    },
}

/// A part of a snapshot on its way to a peer.
#[derive(Clone, Debug)]
pub struct Chunk<M> {
    /// Which transfer of the sender.
    pub transfer: TransferId,
    /// The last delivery that the snapshot contains.
    pub at: Index,
    /// The length of the whole snapshot, in bytes.
    pub total: u64,
    /// Where these bytes belong.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// With the last chunk: the sum over the whole snapshot (CRC-32C), and what the sender's protocol says behind it.
    pub end: Option<(u32, M)>,
}

/// A piece of an incoming snapshot, for the disk.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The sender.
    pub from: NodeId,
    /// The sender's name for the transfer.
    pub transfer: TransferId,
    /// The last delivery that the snapshot contains.
    pub at: Index,
    /// The length of the whole snapshot, in bytes.
    pub total: u64,
    /// Where these bytes belong: pieces come in order, without gaps.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// With the last piece: the CRC-32C that the whole must have.
    pub sum: Option<u32>,
}

impl<M: Wire> Wire for Chunk<M> {
    fn encode(&self, out: &mut BytesMut) {
        self.transfer.encode(out);
        self.at.encode(out);
        self.total.encode(out);
        self.offset.encode(out);
        self.data.encode(out);
        out.extend_from_slice(&[u8::from(self.end.is_some())]);
        if let Some((sum, message)) = &self.end {
            u64::from(*sum).encode(out);
            message.encode(out);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let transfer = from.u64("transfer")?;
        let at = Index::decode(from)?;
        let total = from.u64("snapshot length")?;
        let offset = from.u64("chunk offset")?;
        let data = from.bytes("chunk")?;
        let end = if from.flag("last chunk")? {
            let sum = from.u64("snapshot sum")?;
            let allowed = "a sum of 32 bits";
            let sum = u32::try_from(sum).map_err(|_| WireError::Invalid {
                what: "snapshot sum",
                value: sum,
                allowed,
            })?;
            Some((sum, M::decode(from)?))
        } else {
            None
        };
        Ok(Chunk { transfer, at, total, offset, data, end })
    }
}

impl<M: Wire> Wire for Packet<M> {
    fn encode(&self, out: &mut BytesMut) {
        let (tag, transfer) = match self {
            Packet::Protocol(message) => {
                out.extend_from_slice(&[0]);
                return message.encode(out);
            }
            Packet::Chunk(chunk) => {
                out.extend_from_slice(&[1]);
                return chunk.encode(out);
            }
            Packet::Held { transfer, .. } => (2, transfer),
            Packet::Arrived { transfer } => (3, transfer),
            Packet::Rejected { transfer } => (4, transfer),
        };
        out.extend_from_slice(&[tag]);
        transfer.encode(out);
        if let Packet::Held { upto, .. } = self {
            upto.encode(out);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("packet kind")? {
            0 => Packet::Protocol(M::decode(from)?),
            1 => Packet::Chunk(Chunk::decode(from)?),
            2 => Packet::Held { transfer: from.u64("transfer")?, upto: from.u64("held bytes")? },
            3 => Packet::Arrived { transfer: from.u64("transfer")? },
            4 => Packet::Rejected { transfer: from.u64("transfer")? },
            other => {
                return Err(WireError::Invalid {
                    what: "packet kind",
                    value: other.into(),
                    allowed: "0 to 4",
                });
            }
        })
    }
}
