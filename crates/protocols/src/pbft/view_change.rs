//! View changes and new views (4.4): replacing a primary without losing what it may have got decided.
//!
//! A replica that leaves a view says, under its signature, what it knows: its last stable checkpoint with the proof, and
//! above it what it agreed to and what it saw prepared. From then on it takes no part in earlier views, so what it said
//! stays true. The primary of the next view shows a quorum of such words and what follows from them ([`super::selection`]);
//! everybody else computes the same and so needs not believe it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synod_core::{Index, NodeId, Output, Refusal};

use super::keys::{Digest, Signature, Subject};
use super::message::{Claim, Message, NewView, Proposal, Record, View, ViewChange};
use super::options::WINDOW_MAX;
use super::selection::{Beginning, Rules, choose};
use super::{Mutant, Pbft, Phase};

/// Different proposals at one place that a view change may claim to have pre-prepared.
const CLAIMS_AT_ONE_PLACE_MAX: usize = 8;

impl Pbft {
    /// This replica leaves its view for a later one.
    pub(super) fn leave_for(&mut self, view: View, out: &mut Output<Self>) {
        debug_assert!(view > self.view, "views only rise");
        if self.phase == Phase::Changing {
            // The last one brought nothing: give the next more time (4.5.2).
            self.patience = (self.patience * 2).min(self.options.view_timeout * 4);
        }
        self.view = view;
        self.phase = Phase::Changing;
        self.new_view = None;
        self.selection.clear();
        self.view_due = None;
        self.catch_up.begin_view();
        self.catch_up.forget_found();
        self.pool.begin_view(view);
        out.record(Record::View(view));
        let view_change = Arc::new(self.own_view_change());
        self.view_changes.insert(self.id, view_change.clone());
        self.multicast(&Message::ViewChange(view_change), out);
        self.await_beginning();
        self.consider_new_view(out);
    }

    /// What this replica knows, as it leaves.
    pub(super) fn own_view_change(&self) -> ViewChange {
        let (mut prepared, mut pre_prepared) = (Vec::new(), Vec::new());
        for (at, slot) in &self.slots {
            let claim = |(view, digest)| Claim { at: *at, view, digest };
            if !self.has(Mutant::DropsPrepared) {
                prepared.extend(slot.prepared.map(claim));
            }
            pre_prepared.extend(slot.seen.iter().map(|(view, proposal)| claim((*view, proposal.digest()))));
        }
        let stable = (*self.stable).clone();
        let (view, replica, signature) = (self.view, self.id, Signature([0; 64]));
        let mut own = ViewChange { view, replica, stable, prepared, pre_prepared, signature };
        own.signature = self.keys.sign(Subject::ViewChange, own.digest());
        own
    }

    pub(super) fn on_view_change(&mut self, from: NodeId, said: Arc<ViewChange>, out: &mut Output<Self>) {
        if said.replica != from {
            return;
        }
        if let Some(new_view) = self.new_view.as_ref().filter(|it| said.view <= it.view) {
            // It waits for what has begun already.
            return self.say(from, Message::NewView(new_view.clone()), out);
        }
        let is_news = self.view_changes.get(&from).is_none_or(|known| known.view < said.view);
        if !is_news || said.view < self.view || !self.is_well_formed(&said) {
            return;
        }
        let view = said.view;
        self.view_changes.insert(from, said);
        if self.phase == Phase::Active && view == self.view.next() && from == self.primary_of(self.view) {
            // The primary itself wants to be replaced, and nobody else can be harmed by that.
            return self.leave_for(view, out);
        }
        let beyond: BTreeSet<View> =
            self.view_changes.values().map(|it| it.view).filter(|view| *view > self.view).collect();
        let voices = self.view_changes.values().filter(|it| it.view > self.view).count();
        if voices >= self.quorums.weak()
            && let Some(first) = beyond.first()
        {
            // One of them is honest: do not start too late (4.5.2).
            return self.leave_for(*first, out);
        }
        self.await_beginning();
        self.consider_new_view(out);
    }

    /// Whether a replica could honestly say this.
    fn is_well_formed(&self, said: &ViewChange) -> bool {
        let low = said.stable.point.at;
        let in_window = |claim: &Claim| claim.at > low && claim.at.0 <= low.0 + self.options.window;
        let fits = |claims: &[Claim]| claims.iter().all(|claim| in_window(claim) && claim.view < said.view);
        let ascending = said.prepared.is_sorted_by(|a, b| a.at < b.at)
            && said.pre_prepared.is_sorted_by(|a, b| a.at <= b.at);
        let few = said.prepared.len() as u64 <= WINDOW_MAX
            && said.pre_prepared.len() <= WINDOW_MAX as usize * CLAIMS_AT_ONE_PLACE_MAX;
        self.voters.contains(&said.replica)
            && few
            && ascending
            && fits(&said.prepared)
            && fits(&said.pre_prepared)
            && self.keys.verify(said.replica, Subject::ViewChange, said.digest(), &said.signature)
            && self.proves(&said.stable)
    }

    /// Once a quorum has left for this view, or for one beyond it, its time begins to run (4.5.2). Those beyond count, because
    /// what they said of this view may be lost, and is not said again: without them two views could wait for one another.
    fn await_beginning(&mut self) {
        if self.phase != Phase::Changing || self.view_due.is_some() {
            return;
        }
        let left = self.view_changes.values().filter(|it| it.view >= self.view).count();
        if left >= self.quorums.strong() {
            self.view_due = Some(self.now + self.patience);
        }
    }

    fn rules(&self) -> Rules {
        if self.has(Mutant::ClaimsUnchecked) { Rules::AnyClaim } else { Rules::All }
    }

    /// The primary of the view that is waited for begins it, when the view changes leave one choice alone.
    pub(super) fn consider_new_view(&mut self, out: &mut Output<Self>) {
        let view = self.view;
        if self.phase != Phase::Changing || self.primary_of(view) != self.id {
            return;
        }
        let view_changes: Vec<Arc<ViewChange>> =
            self.view_changes.values().filter(|it| it.view == view).cloned().collect();
        let said: Vec<&ViewChange> = view_changes.iter().map(AsRef::as_ref).collect();
        let Some(beginning) = choose(&said, self.quorums, self.rules()) else { return };
        // A3: it must be able to propose what it chose.
        let is_missing = |(at, digest): &(Index, Digest)| self.proposal_of(*at, *digest).is_none();
        let missing: BTreeSet<(Index, Digest)> = places(&beginning).filter(is_missing).collect();
        if !missing.is_empty() {
            for (at, digest) in &missing {
                // Asks, and promises nothing.
                self.multicast_early(&Message::FetchProposal { at: *at, digest: *digest }, out);
            }
            return self.catch_up.wait_for(missing);
        }
        let (selection, signature) = (beginning.selection.clone(), Signature([0; 64]));
        let mut new_view = NewView { view, view_changes, selection, signature };
        new_view.signature = self.keys.sign(Subject::NewView, new_view.digest());
        let new_view = Arc::new(new_view);
        out.record(Record::NewView(new_view.clone()));
        self.multicast(&Message::NewView(new_view.clone()), out);
        self.begin(new_view, beginning, out);
    }

    pub(super) fn on_new_view(&mut self, new_view: Arc<NewView>, out: &mut Output<Self>) {
        let view = new_view.view;
        if view < self.view || view == self.view && self.phase == Phase::Active {
            return;
        }
        let Some(beginning) = self.beginning_of(&new_view) else { return };
        if self.phase == Phase::Active || view > self.view {
            // It was not even missed.
            self.catch_up.begin_view();
        }
        out.record(Record::NewView(new_view.clone()));
        self.begin(new_view, beginning, out);
    }

    /// How a view really begins; nothing when its primary is wrong about it.
    fn beginning_of(&self, new_view: &NewView) -> Option<Beginning> {
        let signers: BTreeSet<NodeId> = new_view.view_changes.iter().map(|it| it.replica).collect();
        let primary = self.primary_of(new_view.view);
        let signers =
            if self.has(Mutant::RepeatedSigner) { new_view.view_changes.len() } else { signers.len() };
        if signers != new_view.view_changes.len()
            || signers > self.voters.len()
            || !self.keys.verify(primary, Subject::NewView, new_view.digest(), &new_view.signature)
            || !new_view.view_changes.iter().all(|it| it.view == new_view.view && self.is_well_formed(it))
        {
            return None;
        }
        let said: Vec<&ViewChange> = new_view.view_changes.iter().map(AsRef::as_ref).collect();
        let beginning = choose(&said, self.quorums, self.rules())?;
        if self.has(Mutant::NewViewUnchecked) {
            return Some(Beginning { selection: new_view.selection.clone(), ..beginning });
        }
        (beginning.selection == new_view.selection).then_some(beginning)
    }

    /// A view begins: what it selects is proposed anew, by its primary, and agreed to.
    fn begin(&mut self, new_view: Arc<NewView>, beginning: Beginning, out: &mut Output<Self>) {
        self.view = new_view.view;
        self.phase = Phase::Active;
        self.new_view = Some(new_view);
        self.view_due = None;
        self.catch_up.begin_view();
        self.pool.begin_view(self.view);
        self.view_changes.retain(|_, it| it.view > self.view);
        let end = Index(beginning.stable.point.at.0 + beginning.selection.len() as u64);
        self.next = end.next();
        self.selection = places(&beginning).collect();
        self.stabilise(Arc::new(beginning.stable), out);
        // If this replica is further than all who began the view, it need not agree again to what is stable.
        self.selection = self.selection.split_off(&self.stable.point.at.next());
        self.next = self.next.max(self.stable.point.at.next());
        for (at, digest) in self.selection.clone() {
            // The new view is the pre-prepare; the primary sends the content for those who lack it.
            let Some(proposal) = self.proposal_of(at, digest) else { continue };
            self.accept(at, proposal.clone(), out);
            if self.is_primary() {
                self.multicast(&Message::PrePrepare { view: self.view, at, proposal }, out);
            }
        }
        self.catch_up.forget_found();
    }

    /// What a recovered replica knows of its view's beginning, without proving again what it proved before.
    pub(super) fn recall_beginning(&mut self, new_view: &NewView) {
        let stable = new_view.view_changes.iter().map(|it| it.stable.point.at).max().unwrap_or_default();
        let numbered = (stable.0 + 1..).map(Index);
        let selection: BTreeMap<Index, Digest> = numbered.zip(new_view.selection.iter().copied()).collect();
        let end = Index(stable.0 + selection.len() as u64);
        self.selection = selection.into_iter().filter(|(at, _)| *at > self.stable.point.at).collect();
        self.next = end.next().max(self.stable.point.at.next());
    }

    /// The proposal of this name, wherever it is kept.
    pub(super) fn proposal_of(&self, at: Index, digest: Digest) -> Option<Arc<Proposal>> {
        let null = Proposal::null();
        if digest == null.digest() {
            return Some(Arc::new(null));
        }
        let slot = self.slots.get(&at).and_then(|slot| slot.proposal(digest));
        let decided = || self.decided.get(&at).filter(|it| it.digest() == digest);
        slot.or_else(decided).or_else(|| self.catch_up.fetched(at, digest)).cloned()
    }

    /// A person wants another primary.
    pub(super) fn transfer(&mut self, to: NodeId, out: &mut Output<Self>) {
        let next = self.primary_of(self.view.next());
        if !self.is_primary() {
            out.decline(Refusal::NotLeader { leader: self.known_primary() });
        } else if to != next {
            out.decline(Refusal::Invalid(format!(
                "the next primary is {next}: the order of primaries is fixed, and one view follows another"
            )));
        } else {
            self.leave_for(self.view.next(), out);
        }
    }
}

/// Each place that is selected, with what.
fn places(beginning: &Beginning) -> impl Iterator<Item = (Index, Digest)> {
    let first = beginning.stable.point.at.0 + 1;
    (first..).map(Index).zip(beginning.selection.iter().copied())
}
