//! Carrying snapshots to peers: chunks in order, a window of them under way, resumed after loss.
//!
//! The sender knows only the first byte that the receiver is missing. Silence is answered by sending again
//! from there; too much silence gives the transfer up, and the protocol hears of it. The receiver takes
//! chunks strictly in order, so that its disk writes one file from front to back.

use std::collections::BTreeMap;
use std::time::Duration;

use synod_core::{Index, NodeId, SnapshotRef, Time};

use crate::world::{Chunk, Packet, Piece, TransferId};

/// How much of a snapshot one chunk carries.
const CHUNK_BYTES: usize = 256 << 10;
/// How many bytes may be under way to one peer.
const WINDOW_BYTES: u64 = 1 << 20;
/// How long a transfer waits for a sign of progress before it sends again.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it sends again without any progress before it gives up.
const RETRIES_MAX: u32 = 10;

/// The snapshots on their way out, at most one for each peer.
#[derive(Debug)]
pub(crate) struct Transfers<M> {
    outgoing: BTreeMap<NodeId, Outgoing<M>>,
    next_id: TransferId,
}

#[derive(Debug)]
struct Outgoing<M> {
    id: TransferId,
    snapshot: SnapshotRef,
    message: M,
    /// The receiver holds everything before this.
    held: u64,
    /// Everything before this has been sent at least once since the last retry.
    sent: u64,
    /// The CRC-32C of everything before `summed`.
    sum: u32,
    summed: u64,
    retry_at: Time,
    retries: u32,
}

impl<M: Clone> Transfers<M> {
    /// `first_id` keeps the transfers of two incarnations apart.
    pub(crate) fn new(first_id: TransferId) -> Self {
        Transfers { outgoing: BTreeMap::new(), next_id: first_id }
    }

    /// Starts a transfer, unless one to this peer is under way.
    pub(crate) fn start(&mut self, now: Time, to: NodeId, snapshot: SnapshotRef, message: M) {
        if self.outgoing.contains_key(&to) {
            return;
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let (held, sent, sum, summed) = (0, 0, 0, 0);
        let retry_at = now + PATIENCE;
        self.outgoing
            .insert(to, Outgoing { id, snapshot, message, held, sent, sum, summed, retry_at, retries: 0 });
    }

    /// The peer holds everything before `upto`.
    pub(crate) fn on_held(&mut self, now: Time, from: NodeId, transfer: TransferId, upto: u64) {
        let Some(outgoing) = self.outgoing.get_mut(&from).filter(|outgoing| outgoing.id == transfer) else {
            return;
        };
        if upto > outgoing.snapshot.bytes {
            return;
        }
        if upto > outgoing.held {
            outgoing.retries = 0;
            outgoing.retry_at = now + PATIENCE;
        }
        // A receiver that restarted holds less than it did: go back to where it is.
        outgoing.held = upto;
        outgoing.sent = outgoing.sent.max(upto);
        if upto < outgoing.sent.saturating_sub(WINDOW_BYTES) {
            outgoing.sent = upto;
        }
    }

    /// The peer has the whole snapshot, or will not have it: whether a transfer ended by this.
    pub(crate) fn end(&mut self, from: NodeId, transfer: TransferId) -> bool {
        let known = self.outgoing.get(&from).is_some_and(|outgoing| outgoing.id == transfer);
        if known {
            self.outgoing.remove(&from);
        }
        known
    }

    /// Sends what the windows allow; gives back the peers whose transfers were given up.
    pub(crate) fn pump(&mut self, now: Time, mut send: impl FnMut(NodeId, Packet<M>)) -> Vec<NodeId> {
        let mut given_up = Vec::new();
        for (to, outgoing) in &mut self.outgoing {
            if outgoing.pump(now, *to, &mut send).is_err() {
                given_up.push(*to);
            }
        }
        for to in &given_up {
            self.outgoing.remove(to);
        }
        given_up
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.outgoing.values().map(|outgoing| outgoing.retry_at).min()
    }
}

/// The transfer cannot go on: the snapshot cannot be read any more, or the peer is silent.
struct GivenUp;

impl<M: Clone> Outgoing<M> {
    fn pump(
        &mut self,
        now: Time,
        to: NodeId,
        send: &mut impl FnMut(NodeId, Packet<M>),
    ) -> Result<(), GivenUp> {
        if now >= self.retry_at {
            self.retries += 1;
            if self.retries > RETRIES_MAX {
                return Err(GivenUp);
            }
            self.retry_at = now + PATIENCE;
            self.sent = self.held;
            if self.sent == self.snapshot.bytes && self.sent > 0 {
                // Everything is held but "arrived" was lost: the last chunk, said again, brings it back.
                self.sent = (self.snapshot.bytes - 1) / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
            }
        }
        let first = self.sent == 0 && self.held == 0;
        while self.sent < self.snapshot.bytes && self.sent < self.held + WINDOW_BYTES
            || first && self.snapshot.bytes == 0 && self.summed == 0
        {
            let data = self.snapshot.read(self.sent, CHUNK_BYTES).map_err(|_| GivenUp)?;
            let after = self.sent + data.len() as u64;
            if self.summed == self.sent {
                self.sum = crc32c::crc32c_append(self.sum, &data);
                self.summed = after;
            }
            let end = (after == self.snapshot.bytes).then(|| (self.sum, self.message.clone()));
            let (transfer, at, total) = (self.id, self.snapshot.at, self.snapshot.bytes);
            send(to, Packet::Chunk(Chunk { transfer, at, total, offset: self.sent, data, end }));
            self.sent = after;
            if self.snapshot.bytes == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// The one snapshot on its way in.
#[derive(Debug)]
pub(crate) struct Incoming<M> {
    current: Option<Arriving<M>>,
}

#[derive(Debug)]
struct Arriving<M> {
    from: NodeId,
    transfer: TransferId,
    at: Index,
    total: u64,
    /// Everything before this was given to the disk.
    given: u64,
    heard_at: Time,
    message: Option<M>,
}

/// What a chunk asks of the replica.
pub(crate) enum Taken {
    /// Write this.
    Stage(Piece),
    /// Tell the sender what is held; the chunk was not the next one.
    Tell { upto: u64 },
    /// Nothing: another transfer is under way, or the chunk makes no sense.
    Ignored,
}

impl<M> Incoming<M> {
    pub(crate) fn new() -> Self {
        Incoming { current: None }
    }

    /// The position of the snapshot that is on its way in.
    pub(crate) fn position(&self) -> Option<Index> {
        self.current.as_ref().map(|current| current.at)
    }

    /// Takes a chunk. A transfer that is silent for long gives way to another one.
    pub(crate) fn on_chunk(&mut self, now: Time, from: NodeId, chunk: Chunk<M>) -> Taken {
        let fits = chunk.offset.checked_add(chunk.data.len() as u64);
        let fits =
            fits.filter(|after| *after <= chunk.total && (*after == chunk.total) == chunk.end.is_some());
        let Some(after) = fits else { return Taken::Ignored };
        let is_current = |current: &Arriving<M>| current.from == from && current.transfer == chunk.transfer;
        let stale =
            |current: &Arriving<M>| current.heard_at + PATIENCE * RETRIES_MAX < now || current.from == from;
        match &mut self.current {
            Some(current) if is_current(current) => current.heard_at = now,
            Some(current) if !stale(current) => return Taken::Ignored,
            _ => {
                let (transfer, at, total) = (chunk.transfer, chunk.at, chunk.total);
                self.current =
                    Some(Arriving { from, transfer, at, total, given: 0, heard_at: now, message: None });
            }
        }
        let Some(current) = &mut self.current else { return Taken::Ignored };
        if chunk.at != current.at || chunk.total != current.total {
            return Taken::Ignored;
        }
        if chunk.offset != current.given || current.message.is_some() {
            return Taken::Tell { upto: current.given };
        }
        current.given = after;
        let sum = chunk.end.as_ref().map(|(sum, _)| *sum);
        current.message = chunk.end.map(|(_, message)| message);
        let (transfer, at, total, offset, data) =
            (chunk.transfer, chunk.at, chunk.total, chunk.offset, chunk.data);
        Taken::Stage(Piece { from, transfer, at, total, offset, data, sum })
    }

    /// The whole snapshot is on disk: what its sender said behind it.
    pub(crate) fn finish(&mut self, from: NodeId, transfer: TransferId) -> Option<M> {
        let current = self.current.take_if(|current| current.from == from && current.transfer == transfer)?;
        current.message
    }

    /// Breaks off the snapshot on its way in, if it is the one at `at`: who sent it, under which number.
    pub(crate) fn abandon_at(&mut self, at: Index) -> Option<(NodeId, TransferId)> {
        let current = self.current.take_if(|current| current.at == at)?;
        Some((current.from, current.transfer))
    }

    /// The disk cannot take it.
    pub(crate) fn abandon(&mut self, from: NodeId, transfer: TransferId) {
        self.current.take_if(|current| current.from == from && current.transfer == transfer);
    }
}
