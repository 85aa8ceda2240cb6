//! From what the disk held to a replica.
//!
//! Every promise is in a record, so a replica that comes back is the one that went down: same view, same agreements. A
//! primary goes on in its view, because it gave out no number that its disk does not know. What it does not know any more
//! is who else agreed; that is said again.
//!
//! The state's snapshot and the log's records may be apart: a crash can come between a snapshot and the checkpoint of
//! the log that belongs to it, and a damaged snapshot may be lost. A state ahead of the records is reached again
//! by executing without delivering; one behind them waits for a snapshot from others.

use std::collections::BTreeMap;
use std::sync::Arc;

use synod_core::{Awaiting, Config, Index, Lsn, NodeId, Output, Recovered};

use super::catch_up::CatchUp;
use super::client::Own;
use super::message::{Base, Certificate, Record, View};
use super::pool::Pool;
use super::quorum::Quorums;
use super::snapshot::Snapshots;
use super::{Options, Pbft, Phase, Time};

impl Pbft {
    pub(super) fn recover(
        config: &Config<Options>,
        recovered: Recovered<Record>,
        now: Time,
        out: &mut Output<Self>,
    ) -> Pbft {
        if let Err(error) = config.options.check() {
            panic!("the caller checks options before it opens a replica: {error}");
        }
        let voters: Vec<NodeId> = config.members.voters.iter().copied().collect();
        let state = recovered.snapshot.as_ref().map_or(Index::ZERO, |snapshot| snapshot.at);
        let base = recovered.records.iter().find_map(|record| match record {
            Record::Base(base) => Some((**base).clone()),
            _ => None,
        });
        let mut base: Base = base.unwrap_or_default();
        if state == Index::ZERO {
            // Without a snapshot the past must be learned anew, from its beginning.
            base = Base::default();
        }
        let life = 1 + recovered.records.iter().fold(0, |life, record| match record {
            Record::Life(said) => *said,
            _ => life,
        });
        let life = (life, out.record(Record::Life(life)));
        let mut pbft = Pbft {
            id: config.id,
            keys: config.options.keys.of(config.id),
            quorums: Quorums::of(voters.len()),
            voters,
            members: config.members.clone(),
            now,
            life,
            durable: Lsn::ZERO,
            view: View::default(),
            phase: Phase::Active,
            new_view: None,
            selection: BTreeMap::new(),
            view_changes: BTreeMap::new(),
            slots: BTreeMap::new(),
            next: Index(1),
            own_commits: Awaiting::default(),
            stable: Arc::new(Certificate::default()),
            checkpoints: BTreeMap::new(),
            decided: BTreeMap::new(),
            decided_bytes: 0,
            snapshots: Snapshots::found(recovered.snapshot, &base),
            head: base,
            state,
            pool: Pool::default(),
            own: Own::default(),
            catch_up: CatchUp::default(),
            view_due: None,
            patience: config.options.view_timeout,
            heartbeat_due: now + config.options.heartbeat,
            options: config.options.clone(),
        };
        for record in recovered.records {
            pbft.replay(record);
        }
        pbft.resume(out);
        pbft
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Life(_) | Record::Base(_) => {}
            Record::View(view) => {
                (self.view, self.phase, self.new_view) = (view, Phase::Changing, None);
                self.selection.clear();
            }
            Record::NewView(new_view) => {
                (self.view, self.phase) = (new_view.view, Phase::Active);
                self.new_view = Some(new_view);
            }
            Record::PrePrepare { view, at, proposal } => {
                self.slots.entry(at).or_default().accept(view, proposal);
            }
            Record::Prepared { view, at, digest } => {
                let slot = self.slots.entry(at).or_default();
                slot.prepared = Some((view, digest));
                slot.commit(self.id, view, digest);
            }
            Record::Decided { at, digest } => {
                let held = self.slots.get(&at).and_then(|slot| slot.proposal(digest)).cloned();
                if let Some(proposal) = held.filter(|_| self.is_unknown(at)) {
                    self.decide(at, proposal);
                }
            }
            Record::Learned { at, proposal } => {
                if self.is_unknown(at) {
                    self.decide(at, proposal);
                }
            }
            Record::Stable(certificate) => {
                if certificate.point.at > self.stable.point.at {
                    self.adopt_stable(certificate);
                }
            }
        }
    }

    fn is_unknown(&self, at: Index) -> bool {
        at > self.head.point.at && !self.decided.contains_key(&at)
    }

    /// Goes on where the records end.
    fn resume(&mut self, out: &mut Output<Self>) {
        // The first view begins without a word.
        if self.view == View::default() {
            self.phase = Phase::Active;
        }
        if let Some(new_view) = self.new_view.clone() {
            self.recall_beginning(&new_view);
        }
        if !self.is_member() {
            return;
        }
        let (id, view, primary) = (self.id, self.view, self.primary_of(self.view));
        for (at, slot) in &mut self.slots {
            let Some((accepted, proposal)) = slot.accepted() else { continue };
            let digest = proposal.digest();
            if primary != id || accepted != view {
                slot.prepare(id, accepted, digest);
            }
            if accepted == view {
                self.next = self.next.max(at.next());
            }
        }
        let known = self.decided.keys().next_back().copied().unwrap_or_default();
        self.next = self.next.max(self.head.point.at.next()).max(known.next());
        if self.phase == Phase::Changing {
            let own = Arc::new(self.own_view_change());
            self.view_changes.insert(id, own.clone());
            self.multicast(&super::Message::ViewChange(own), out);
        }
        self.attest(out);
        self.take_checkpoint(out);
    }
}
