//! States that can be given to others (4.3; 2002, 5.3): a snapshot is worth what f + 1 replicas say of it.
//!
//! Snapshots are taken at places that follow from the history alone, so that all honest replicas take theirs at the same
//! places; a machine writes the same state in the same bytes. Each replica signs the sum of what it saved. Whoever gets a
//! snapshot from one peer, which may lie, gets with it f + 1 such signatures, and computes the sum itself.
//!
//! The paper transfers states piece by piece along a tree of digests; here it is whole or not at all.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use synod_core::{Index, NodeId, Output, SnapshotRef};

use super::keys::{Digest, Signature, Subject};
use super::message::{Base, Message, Record, Sealed};
use super::{Mutant, Options, Pbft};

/// How much of a snapshot is read at a time to compute its sum.
const READ_BYTES: usize = 1 << 20;

/// Places at which a snapshot may still begin, remembered at once.
const POINTS_MAX: usize = 16;

/// Attestations are kept for so many places.
const PLACES_MAX: usize = 8;

/// A snapshot of this replica.
struct Saved {
    base: Base,
    /// The SHA-256 of the machine's part; none when it could not be read.
    sum: Option<Digest>,
    /// Signatures of those that saved the same, once they are enough.
    proof: Option<Vec<(NodeId, Signature)>>,
}

/// The snapshots of this replica, and what others say of theirs.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Deliveries and bytes since the last place.
    deliveries: u64,
    bytes: u64,
    /// What belongs to the places passed of late.
    points: BTreeMap<Index, Base>,
    /// What belongs to the one that is being written.
    freezing: Option<Base>,
    saved: Option<Saved>,
    /// The snapshot that was found at the start, while what belongs to it is not known yet.
    found: Option<SnapshotRef>,
    attested: BTreeMap<Index, BTreeMap<NodeId, (Digest, Signature)>>,
}

impl Snapshots {
    /// A replica that starts on this snapshot, with what its records know of it.
    pub(super) fn found(snapshot: Option<SnapshotRef>, base: &Base) -> Snapshots {
        let mut snapshots = Snapshots::default();
        match snapshot {
            Some(snapshot) if snapshot.at == base.point.at => {
                let sum = sum_of(&snapshot);
                snapshots.saved = Some(Saved { base: base.clone(), sum, proof: None });
            }
            other => snapshots.found = other,
        }
        snapshots
    }

    /// Something was executed.
    pub(super) fn executed(&mut self, bytes: usize) {
        self.deliveries += 1;
        self.bytes += bytes as u64;
    }

    /// Whether this is a place for a snapshot.
    pub(super) fn is_due(&self, options: &Options) -> bool {
        self.deliveries >= options.snapshot_every && self.bytes >= options.snapshot_bytes
    }

    /// A snapshot is being written.
    pub(super) fn freezing(&mut self, at: Index) {
        self.freezing = self.points.get(&at).cloned();
        self.points = self.points.split_off(&at.next());
    }

    /// Up to where a saved snapshot covers everything, and whether it could be given to others.
    pub(super) fn covered(&self) -> Option<(Index, bool)> {
        self.saved.as_ref().map(|saved| (saved.base.point.at, saved.proof.is_some()))
    }

    /// Up to where a snapshot could be given to others.
    pub(super) fn proven(&self) -> Index {
        match self.covered() {
            Some((at, true)) => at,
            _ => Index::ZERO,
        }
    }

    /// What the log's records stand on.
    pub(super) fn base(&self) -> Base {
        self.saved.as_ref().map(|saved| saved.base.clone()).unwrap_or_default()
    }
}

impl Pbft {
    /// Here all honest replicas take a snapshot.
    pub(super) fn snapshot_point(&mut self, at: Index, delivers: bool, out: &mut Output<Self>) {
        let snapshots = &mut self.snapshots;
        (snapshots.deliveries, snapshots.bytes) = (0, 0);
        if delivers {
            snapshots.points.insert(at, self.head.clone());
            while snapshots.points.len() > POINTS_MAX {
                snapshots.points.pop_first();
            }
            out.freeze(at);
        } else if let Some(found) = snapshots.found.take_if(|found| found.at == at) {
            // After a restart, what was executed again has come to where the machine's snapshot was taken.
            let sum = sum_of(&found);
            snapshots.saved = Some(Saved { base: self.head.clone(), sum, proof: None });
            self.attest(out);
        }
    }

    /// This replica's own snapshot is saved.
    pub(super) fn snapshot_saved(&mut self, snapshot: &SnapshotRef, out: &mut Output<Self>) {
        let Some(base) = self.snapshots.freezing.take_if(|base| base.point.at == snapshot.at) else { return };
        self.snapshots.saved = Some(Saved { base, sum: sum_of(snapshot), proof: None });
        self.attest(out);
    }

    /// Says what this replica has saved.
    pub(super) fn attest(&mut self, out: &mut Output<Self>) {
        let Some(Message::Saved { at, state, signature }) = self.own_attestation() else { return };
        self.note_attested(self.id, at, state, signature);
        self.multicast(&Message::Saved { at, state, signature }, out);
    }

    /// What this replica says of its newest snapshot.
    pub(super) fn own_attestation(&self) -> Option<Message> {
        let saved = self.snapshots.saved.as_ref()?;
        let (at, state) = (saved.base.point.at, saved.base.attested(saved.sum?));
        Some(Message::Saved { at, state, signature: self.keys.sign(Subject::Saved, state) })
    }

    pub(super) fn on_saved(&mut self, from: NodeId, at: Index, state: Digest, signature: Signature) {
        let newest = self.snapshots.covered().map_or(Index::ZERO, |(at, _)| at);
        if at >= newest && self.keys.verify(from, Subject::Saved, state, &signature) {
            self.note_attested(from, at, state, signature);
        }
    }

    fn note_attested(&mut self, from: NodeId, at: Index, state: Digest, signature: Signature) {
        let needed = self.quorums.weak();
        let snapshots = &mut self.snapshots;
        // One place for each replica, its newest: nobody fills the table.
        if snapshots.attested.values().filter(|said| said.contains_key(&from)).count() >= PLACES_MAX {
            let oldest = snapshots.attested.values_mut().find(|said| said.contains_key(&from));
            oldest.and_then(|said| said.remove(&from));
        }
        snapshots.attested.entry(at).or_default().insert(from, (state, signature));
        let covered = snapshots.covered().map_or(Index::ZERO, |(at, _)| at);
        snapshots.attested.retain(|at, said| *at >= covered && !said.is_empty());
        let Some(saved) = snapshots.saved.as_mut() else { return };
        let (Some(sum), Some(said)) = (saved.sum, snapshots.attested.get(&saved.base.point.at)) else {
            return;
        };
        let own = saved.base.attested(sum);
        let same = said.iter().filter(|(_, (state, _))| *state == own);
        let proof: Vec<(NodeId, Signature)> =
            same.map(|(node, (_, signature))| (*node, *signature)).take(needed).collect();
        if proof.len() >= needed {
            saved.proof = Some(proof);
        }
    }

    /// Sends the newest snapshot to a replica that needs what comes at `first`, if that helps and can be proven.
    pub(super) fn offer_snapshot(&self, to: NodeId, first: Index, out: &mut Output<Self>) {
        let Some(Saved { base, sum: Some(sum), proof: Some(proof) }) = &self.snapshots.saved else { return };
        if base.point.at >= first {
            let message = Message::InstallSnapshot {
                base: std::sync::Arc::new(base.clone()),
                sum: *sum,
                proof: proof.clone(),
            };
            out.send_snapshot(to, Sealed::new(message, to, &self.keys));
        }
    }

    /// A snapshot has come: it becomes this replica's state if enough say that it is one.
    pub(super) fn on_installed(
        &mut self,
        from: NodeId,
        sealed: Sealed,
        snapshot: SnapshotRef,
        out: &mut Output<Self>,
    ) {
        if !self.believes(from, &sealed) {
            return;
        }
        let Message::InstallSnapshot { base, sum, proof } = sealed.message else { return };
        let at = base.point.at;
        let needed = at > self.head.point.at || self.state < self.head.point.at;
        if at != snapshot.at || at <= self.state || !needed {
            return;
        }
        let state = base.attested(sum);
        let mut signers: Vec<NodeId> = proof.iter().map(|(signer, _)| *signer).collect();
        signers.sort_unstable();
        signers.dedup();
        let signed = proof.iter().all(|(signer, signature)| {
            self.voters.contains(signer) && self.keys.verify(*signer, Subject::Saved, state, signature)
        });
        let was_primary = self.is_primary();
        let proven = signed
            && signers.len() == proof.len()
            && signers.len() >= self.quorums.weak()
            && sum_of(&snapshot) == Some(sum);
        if !proven && !self.has(Mutant::UnprovenSnapshot) {
            return;
        }
        self.head = (*base).clone();
        self.state = at;
        self.snapshots = Snapshots {
            saved: Some(Saved { base: (*base).clone(), sum: Some(sum), proof: Some(proof) }),
            attested: std::mem::take(&mut self.snapshots.attested),
            ..Snapshots::default()
        };
        out.restore(snapshot);
        self.pool.forget_executed(&self.head.executed);
        self.settle_own(at, was_primary, out);
        self.next = self.next.max(at.next());
        self.catch_up.executed(at);
        self.attest(out);
        self.take_checkpoint(out);
        if was_primary {
            // The machine is another's from here on, and what was kept beside it is gone: of which leases it had said that they are
            // over, while that is under way to be decided, and could renew now. In the next view it is void, or comes first.
            self.leave_for(self.view.next(), out);
        }
    }

    /// The fewest records that rebuild this replica above its saved snapshot.
    pub(super) fn write_checkpoint(&self, records: &mut Vec<Record>) {
        records.push(Record::Life(self.life.0));
        let base = self.snapshots.base();
        let from = base.point.at;
        records.push(Record::Base(std::sync::Arc::new(base)));
        records.push(Record::Stable(self.stable.clone()));
        // A slot's proposals come in the order of their views; the one accepted last stays the last.
        for (at, slot) in &self.slots {
            for (view, proposal) in &slot.seen {
                records.push(Record::PrePrepare { view: *view, at: *at, proposal: proposal.clone() });
            }
            if let Some((view, digest)) = slot.prepared {
                records.push(Record::Prepared { view, at: *at, digest });
            }
        }
        for (at, proposal) in self.decided.range(from.next()..) {
            let held = self.slots.get(at).is_some_and(|slot| slot.proposal(proposal.digest()).is_some());
            records.push(if held {
                Record::Decided { at: *at, digest: proposal.digest() }
            } else {
                Record::Learned { at: *at, proposal: proposal.clone() }
            });
        }
        match &self.new_view {
            Some(new_view) if new_view.view == self.view => records.push(Record::NewView(new_view.clone())),
            _ => records.push(Record::View(self.view)),
        }
    }
}

/// The SHA-256 of a snapshot's bytes; none when they cannot be read.
fn sum_of(snapshot: &SnapshotRef) -> Option<Digest> {
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < snapshot.bytes {
        let part = snapshot.read(offset, READ_BYTES).ok()?;
        hash.update(&part);
        offset += part.len() as u64;
    }
    Some(Digest(hash.finalize().into()))
}
