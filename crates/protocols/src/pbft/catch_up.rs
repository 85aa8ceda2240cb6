//! What was lost on the way is sent again, and replicas that lag catch up (5.2; 2002, 5.2).
//!
//! Every replica says now and then how far it is. Whoever sees that another one stands still says again what it said
//! itself about the places that come next; nobody speaks for others. A replica that f + 1 others are ahead of asks all
//! what was decided, and one of them, in turn, for the contents: it believes what f + 1 say alike, and a content fits its
//! digest or is thrown away. What nobody keeps any more comes as a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synod_core::{Index, NodeId, Output, Peer, Time};

use super::keys::Digest;
use super::liveness::Watched;
use super::message::{Content, Message, Progress, Proposal, Record, View};
use super::{Pbft, Phase};

/// So many places are said again at once.
const RESEND_MAX: usize = 32;
/// So many decisions are told at once.
const FETCH_MAX: u64 = 64;
/// And so many bytes of their contents.
const FETCH_BYTES: usize = 1 << 20;
/// So many contents of each giver are kept while they wait to be believed: one answer's worth.
const FETCHED_MAX: usize = FETCH_MAX as usize;

/// What is known of the others' progress, and of what this replica lacks.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    peers: BTreeMap<NodeId, Heard>,
    /// What others say was decided.
    told: BTreeMap<Index, BTreeMap<NodeId, Digest>>,
    /// Contents that nobody vouches for yet, by who gave them: a liar's rubbish takes nobody else's room.
    contents: BTreeMap<NodeId, BTreeMap<(Index, Digest), Arc<Proposal>>>,
    /// What the primary of the view that is waited for must propose and does not hold: asked for, and what came of it.
    missing: BTreeSet<(Index, Digest)>,
    found: BTreeMap<(Index, Digest), Arc<Proposal>>,
    /// Whose turn it is to give contents.
    turn: usize,
    /// How far this replica was at the last heartbeat.
    was_at: Index,
    /// What it waits for.
    pub(super) watched: Option<Watched>,
}

#[derive(Debug, Default)]
struct Heard {
    progress: Progress,
    at: Time,
}

impl CatchUp {
    /// For people.
    pub(super) fn peers(&self, now: Time) -> Vec<Peer> {
        let shown = |(id, heard): (&NodeId, &Heard)| Peer {
            id: *id,
            matched: heard.progress.executed,
            silent: Some(now.since(heard.at)),
            snapshotting: false,
        };
        self.peers.iter().map(shown).collect()
    }

    pub(super) fn begin_view(&mut self) {
        self.watched = None;
    }

    /// What a view waited for to begin is in its slots, or is not waited for any more.
    pub(super) fn forget_found(&mut self) {
        self.missing.clear();
        self.found.clear();
    }

    /// The next view waits for these. What is gathered is what one choice names, so it is as much as a window holds.
    pub(super) fn wait_for(&mut self, missing: BTreeSet<(Index, Digest)>) {
        self.missing = missing;
    }

    /// Everything up to here is known.
    pub(super) fn executed(&mut self, at: Index) {
        self.told = self.told.split_off(&at.next());
        for given in self.contents.values_mut() {
            *given = given.split_off(&(at.next(), Digest::default()));
        }
    }

    pub(super) fn fetched(&self, at: Index, digest: Digest) -> Option<&Arc<Proposal>> {
        let name = (at, digest);
        self.found.get(&name).or_else(|| self.contents.values().find_map(|given| given.get(&name)))
    }

    fn keep(&mut self, from: NodeId, at: Index, proposal: Arc<Proposal>) {
        let given = self.contents.entry(from).or_default();
        given.insert((at, proposal.digest()), proposal);
        while given.len() > FETCHED_MAX {
            given.pop_last();
        }
    }
}

impl Pbft {
    /// Where at least one honest other replica is.
    fn others_are_at(&self) -> Index {
        let mut places: Vec<Index> = self.catch_up.peers.values().map(|it| it.progress.executed).collect();
        places.sort_unstable();
        let place = places.len().checked_sub(self.weak());
        place.and_then(|place| places.get(place)).copied().unwrap_or_default()
    }

    /// Whether this replica is behind what one honest other has executed.
    pub(super) fn lags(&self) -> bool {
        self.others_are_at() > self.head.point.at
    }

    /// Says how far this replica is, and does again what may have been lost.
    pub(super) fn heartbeat(&mut self, out: &mut Output<Self>) {
        let head = self.head.point.at;
        self.catch_up.executed(head);
        let progress = Progress {
            view: self.view,
            executed: head,
            stable: self.stable.point.at,
            proven: self.snapshots.proven(),
        };
        // What was executed is decided, whatever this disk holds.
        self.multicast_early(&Message::Status(progress), out);
        if self.phase == Phase::Changing {
            if let Some(own) = self.view_changes.get(&self.id).filter(|it| it.view == self.view) {
                self.multicast(&Message::ViewChange(own.clone()), out);
            }
            self.consider_new_view(out);
        }
        self.pool.forget_executed(&self.head.executed);
        self.retry_requests(out);
        self.fetch_missing(out);
        if self.state < head {
            self.fetch(self.state.next(), Content::Snapshot, out);
        } else if self.lags() && head == self.catch_up.was_at {
            self.fetch(self.first_unknown(), Content::Proposals, out);
        }
        self.catch_up.was_at = head;
    }

    /// Asks all what was decided from here on, and the next in turn for the contents.
    fn fetch(&mut self, from: Index, content: Content, out: &mut Output<Self>) {
        self.catch_up.turn += 1;
        let others: Vec<NodeId> = self.voters.iter().copied().filter(|it| *it != self.id).collect();
        let Some(giver) = others.get(self.catch_up.turn % others.len().max(1)) else { return };
        for peer in &others {
            let content = if peer == giver { content } else { Content::Digests };
            // A question promises nothing.
            self.say_early(*peer, Message::Fetch { from, content }, out);
        }
    }

    /// A backup asks for what the view selected and it does not hold.
    fn fetch_missing(&mut self, out: &mut Output<Self>) {
        if self.phase != Phase::Active {
            return;
        }
        let lacks = |(at, digest): (&Index, &Digest)| {
            let accepted = self.slots.get(at).is_some_and(|slot| slot.accepted_in(self.view).is_some());
            (!accepted).then_some((*at, *digest))
        };
        let missing: Vec<(Index, Digest)> =
            self.selection.iter().filter_map(lacks).take(RESEND_MAX).collect();
        for (at, digest) in missing {
            match self.proposal_of(at, digest) {
                Some(proposal) => self.accept(at, proposal, out),
                // A question promises nothing.
                None => self.multicast_early(&Message::FetchProposal { at, digest }, out),
            }
        }
    }

    /// The first place of which this replica does not know what was decided.
    fn first_unknown(&self) -> Index {
        let mut at = self.head.point.at.next();
        while self.decided.contains_key(&at) {
            at = at.next();
        }
        at
    }

    pub(super) fn on_status(&mut self, from: NodeId, progress: Progress, out: &mut Output<Self>) {
        let before = self.catch_up.peers.insert(from, Heard { progress, at: self.now });
        let stands_still = before.is_some_and(|it| it.progress.executed == progress.executed);
        if progress.stable < self.stable.point.at {
            self.say(from, Message::Stable(self.stable.clone()), out);
        }
        if let Some(own) = self.own_checkpoint() {
            let is_news = matches!(&own, Message::Checkpoint { point, .. } if point.at > progress.stable);
            if is_news && stands_still {
                self.say(from, own, out);
            }
        }
        if stands_still
            && let Some(Message::Saved { at, state, signature }) = self.own_attestation_above(progress.proven)
        {
            self.say(from, Message::Saved { at, state, signature }, out);
        }
        if let Some(new_view) = self.new_view.as_ref().filter(|it| progress.view < it.view) {
            self.say(from, Message::NewView(new_view.clone()), out);
        } else if progress.view == self.view && stands_still {
            self.say_again(from, progress.executed, out);
        }
    }

    fn own_attestation_above(&self, proven: Index) -> Option<Message> {
        let (at, _) = self.snapshots.covered()?;
        if at > proven { self.own_attestation() } else { None }
    }

    /// Says again what this replica said about the places after `executed`. All of it is in records already; `send`
    /// waits for them.
    fn say_again(&mut self, to: NodeId, executed: Index, out: &mut Output<Self>) {
        let view = self.view;
        let is_primary = self.is_primary();
        for (at, slot) in self.slots.range(executed.next()..).take(RESEND_MAX) {
            if is_primary && let Some(proposal) = slot.accepted_in(view) {
                self.say(to, Message::PrePrepare { view, at: *at, proposal: proposal.clone() }, out);
            }
            let [prepare, commit] = slot.said_by(self.id);
            if let Some((view, digest)) = prepare.filter(|said| said.0 == view) {
                self.say(to, Message::Prepare { view, at: *at, digest }, out);
            }
            if let Some((view, digest)) = commit {
                self.say(to, Message::Commit { view, at: *at, digest }, out);
            }
        }
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, first: Index, content: Content, out: &mut Output<Self>) {
        let head = self.head.point.at;
        if first == Index::ZERO || first > head {
            return;
        }
        if content == Content::Snapshot || !self.decided.contains_key(&first) {
            if content != Content::Digests {
                self.offer_snapshot(from, first, out);
            }
            return;
        }
        let (mut digests, mut proposals, mut bytes) = (Vec::new(), Vec::new(), 0);
        for at in first.0..=head.0.min(first.0 + FETCH_MAX - 1) {
            let Some(proposal) = self.decided.get(&Index(at)) else { break };
            digests.push(proposal.digest());
            bytes += proposal.bytes();
            if content == Content::Proposals && (bytes <= FETCH_BYTES || proposals.is_empty()) {
                proposals.push(proposal.clone());
            }
        }
        // Facts: what was executed is decided, whatever this disk holds.
        self.say_early(from, Message::Decided { from: first, digests, proposals }, out);
    }

    pub(super) fn on_decided(
        &mut self,
        from: NodeId,
        first: Index,
        digests: Vec<Digest>,
        proposals: Vec<Arc<Proposal>>,
        out: &mut Output<Self>,
    ) {
        let head = self.head.point.at;
        let far = Index(head.0 + FETCH_MAX * 4);
        for (place, digest) in digests.into_iter().enumerate().take(FETCH_MAX as usize) {
            let at = Index(first.0 + place as u64);
            if at > head && at <= far {
                self.catch_up.told.entry(at).or_default().insert(from, digest);
            }
        }
        for (place, proposal) in proposals.into_iter().enumerate().take(FETCH_MAX as usize) {
            let at = Index(first.0 + place as u64);
            if at > head && at <= far {
                self.catch_up.keep(from, at, proposal);
            }
        }
        let before = self.first_unknown();
        let told: Vec<Index> = self.catch_up.told.keys().copied().collect();
        for at in told {
            self.consider_told(at, out);
        }
        let after = self.first_unknown();
        if after > before && self.others_are_at() >= after {
            self.fetch(after, Content::Proposals, out);
        }
    }

    /// Believes what enough say.
    fn consider_told(&mut self, at: Index, out: &mut Output<Self>) {
        if at <= self.head.point.at || self.decided.contains_key(&at) {
            return;
        }
        let Some(told) = self.catch_up.told.get(&at) else { return };
        let mut counts: BTreeMap<Digest, usize> = BTreeMap::new();
        for digest in told.values() {
            *counts.entry(*digest).or_default() += 1;
        }
        let needed = self.weak();
        let Some((digest, _)) = counts.into_iter().find(|(_, count)| *count >= needed) else { return };
        let Some(proposal) = self.proposal_of(at, digest) else { return };
        let held = self.slots.get(&at).is_some_and(|slot| slot.proposal(digest).is_some());
        out.record(if held {
            Record::Decided { at, digest }
        } else {
            Record::Learned { at, proposal: proposal.clone() }
        });
        self.decide(at, proposal);
    }

    pub(super) fn on_fetch_proposal(
        &mut self,
        from: NodeId,
        at: Index,
        digest: Digest,
        out: &mut Output<Self>,
    ) {
        if let Some(proposal) = self.proposal_of(at, digest) {
            // A content says nothing about what became of it.
            self.say_early(from, Message::Fetched { at, proposal }, out);
        }
    }

    pub(super) fn on_fetched(&mut self, at: Index, proposal: Arc<Proposal>, out: &mut Output<Self>) {
        let digest = proposal.digest();
        let wanted = self.selection.get(&at) == Some(&digest);
        if wanted && self.phase == Phase::Active {
            let view: View = self.view;
            if self.slots.get(&at).is_none_or(|slot| slot.accepted_in(view).is_none()) {
                self.accept(at, proposal, out);
            }
        } else if self.catch_up.missing.remove(&(at, digest)) {
            self.catch_up.found.insert((at, digest), proposal);
            // An answer asks for nothing anew: were what is still missing asked for again with each, questions and answers would
            // call forth one another, more each time, without end.
            if self.catch_up.missing.is_empty() {
                self.consider_new_view(out);
            }
        }
    }
}
