//! One sequence number above the last stable checkpoint: what was proposed there, and who agreed to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use synod_core::NodeId;

use super::keys::Digest;
use super::message::{Proposal, View};

/// Different proposals of different views that are remembered at one place. Beyond it the oldest are forgotten, which
/// can only delay a view change (2002, 4.5.2).
const SEEN_MAX: usize = 8;

/// What a replica can say of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Prepare,
    Commit,
}

/// What is known of one sequence number.
///
/// Invariant: `seen` ascends by view, and no proposal is in it twice; the last is the one accepted last.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// The proposals that this replica accepted here, each with the last view in which it did (the paper's Q).
    pub(super) seen: Vec<(View, Arc<Proposal>)>,
    /// The last that prepared (P).
    pub(super) prepared: Option<(View, Digest)>,
    /// The newest agreement of each.
    prepares: BTreeMap<NodeId, (View, Digest)>,
    /// The newest commit of each.
    commits: BTreeMap<NodeId, (View, Digest)>,
}

impl Slot {
    /// What was accepted last, in which view.
    pub(super) fn accepted(&self) -> Option<(View, &Arc<Proposal>)> {
        self.seen.last().map(|(view, proposal)| (*view, proposal))
    }

    /// What was accepted in this view.
    pub(super) fn accepted_in(&self, view: View) -> Option<&Arc<Proposal>> {
        self.accepted().filter(|(accepted, _)| *accepted == view).map(|(_, proposal)| proposal)
    }

    /// A proposal is accepted.
    pub(super) fn accept(&mut self, view: View, proposal: Arc<Proposal>) {
        self.seen.retain(|(_, seen)| seen.digest() != proposal.digest());
        self.seen.push((view, proposal));
        if self.seen.len() > SEEN_MAX {
            self.seen.remove(0);
        }
    }

    /// The proposal of this name, if it was ever accepted here.
    pub(super) fn proposal(&self, digest: Digest) -> Option<&Arc<Proposal>> {
        self.seen.iter().map(|(_, proposal)| proposal).find(|proposal| proposal.digest() == digest)
    }

    pub(super) fn prepare(&mut self, from: NodeId, view: View, digest: Digest) {
        note(&mut self.prepares, from, view, digest);
    }

    pub(super) fn commit(&mut self, from: NodeId, view: View, digest: Digest) {
        note(&mut self.commits, from, view, digest);
    }

    /// A replica's later word in a view takes the place of the earlier one: for a mutant.
    pub(super) fn take_back(&mut self, from: NodeId, view: View, which: Word) {
        let said = if which == Word::Prepare { &mut self.prepares } else { &mut self.commits };
        said.retain(|node, (said_in, _)| (*node, *said_in) != (from, view));
    }

    /// How many agreed to this in this view, the primary apart.
    pub(super) fn prepares(&self, view: View, digest: Digest, primary: NodeId) -> usize {
        let counts =
            |(from, said): &(&NodeId, &(View, Digest))| **from != primary && **said == (view, digest);
        self.prepares.iter().filter(counts).count()
    }

    /// How many agreed to this in whatever view: for a mutant.
    pub(super) fn prepares_ever(&self, digest: Digest, primary: NodeId) -> usize {
        self.prepares.iter().filter(|(from, said)| **from != primary && said.1 == digest).count()
    }

    /// How many committed to this in this view.
    pub(super) fn commits(&self, view: View, digest: Digest) -> usize {
        self.commits.values().filter(|said| **said == (view, digest)).count()
    }

    /// The proposal that so many committed to in one view, if there is one.
    pub(super) fn committed(&self, needed: usize) -> Option<Digest> {
        let mut counts: BTreeMap<(View, Digest), usize> = BTreeMap::new();
        for said in self.commits.values() {
            *counts.entry(*said).or_default() += 1;
        }
        counts.into_iter().find(|(_, count)| *count >= needed).map(|((_, digest), _)| digest)
    }

    /// The proposal that so many committed to, in whatever views: for a mutant.
    pub(super) fn committed_ever(&self, needed: usize) -> Option<Digest> {
        let mut counts: BTreeMap<Digest, usize> = BTreeMap::new();
        for (_, digest) in self.commits.values() {
            *counts.entry(*digest).or_default() += 1;
        }
        counts.into_iter().find(|(_, count)| *count >= needed).map(|(digest, _)| digest)
    }

    /// What this replica itself said here, to be said again.
    pub(super) fn said_by(&self, id: NodeId) -> [Option<(View, Digest)>; 2] {
        [self.prepares.get(&id).copied(), self.commits.get(&id).copied()]
    }
}

/// The first word of each replica in each view counts, and its newest view.
fn note(said: &mut BTreeMap<NodeId, (View, Digest)>, from: NodeId, view: View, digest: Digest) {
    let known = said.entry(from).or_insert((view, digest));
    if view > known.0 {
        *known = (view, digest);
    }
}
