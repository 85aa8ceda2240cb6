//! The simulated outside of a replica for one flush: everything that it wants done is noted down, and carried out by
//! the world when the flush is over.

use synod_core::{CommandId, Index, Lsn, Members, NodeId, Protocol, ReadId, Refusal, SnapshotRef};
use synod_replica::{Packet, Piece, World as Outside};

use super::storage::{LogJob, SnapshotJob};
use crate::machine::{Audited, FrozenAudited, Said};

/// What a replica wants done, lane by lane.
pub(crate) struct Effects<P: Protocol> {
    pub(crate) log: Vec<LogJob<P>>,
    pub(crate) snapshots: Vec<SnapshotJob>,
    pub(crate) packets: Vec<(NodeId, Packet<P::Message>)>,
    pub(crate) replies: Vec<(CommandId, Said)>,
    pub(crate) refusals: Vec<(CommandId, Refusal)>,
    pub(crate) readable: Vec<ReadId>,
    pub(crate) unreadable: Vec<(ReadId, Refusal)>,
    pub(crate) declined: Vec<Refusal>,
    pub(crate) members: Vec<(Index, Members)>,
    pub(crate) notes: Vec<String>,
}

impl<P: Protocol> Effects<P> {
    /// Whether anything leaves: a record, a word to a peer, an answer.
    pub(super) fn is_something(&self) -> bool {
        let Effects { log, packets, replies, refusals, readable, unreadable, .. } = self;
        let answers = replies.len() + refusals.len() + readable.len() + unreadable.len();
        log.len() + packets.len() + answers > 0
    }
}

impl<P: Protocol> Default for Effects<P> {
    fn default() -> Self {
        Effects {
            log: Vec::new(),
            snapshots: Vec::new(),
            packets: Vec::new(),
            replies: Vec::new(),
            refusals: Vec::new(),
            readable: Vec::new(),
            unreadable: Vec::new(),
            declined: Vec::new(),
            members: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl<P: Protocol> Outside<P, Audited> for Effects<P> {
    fn persist(&mut self, records: &mut Vec<P::Record>, upto: Lsn) {
        self.log.push(LogJob::Records(std::mem::take(records), upto));
    }

    fn checkpoint(&mut self, snapshot: &SnapshotRef, records: Vec<P::Record>, upto: Lsn) {
        self.log.push(LogJob::Checkpoint(snapshot.clone(), records, upto));
    }

    fn send(&mut self, to: NodeId, packet: Packet<P::Message>) {
        self.packets.push((to, packet));
    }

    fn reply(&mut self, id: CommandId, reply: Said) {
        self.replies.push((id, reply));
    }

    fn refuse(&mut self, id: CommandId, reason: Refusal) {
        self.refusals.push((id, reason));
    }

    fn readable(&mut self, read: ReadId) {
        self.readable.push(read);
    }

    fn unreadable(&mut self, read: ReadId, reason: Refusal) {
        self.unreadable.push((read, reason));
    }

    fn declined(&mut self, reason: Refusal) {
        self.declined.push(reason);
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    fn members(&mut self, at: Index, members: &Members) {
        self.members.push((at, members.clone()));
    }

    fn save(&mut self, at: Index, frozen: FrozenAudited) {
        self.snapshots.push(SnapshotJob::Save(at, frozen));
    }

    fn stage(&mut self, piece: Piece) {
        self.snapshots.push(SnapshotJob::Stage(piece));
    }
}
