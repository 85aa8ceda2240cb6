//! The proposer (Paxos Made Simple, 2.2 and 2.4): one attempt for each slot that this replica works on.
//!
//! An attempt goes through the two phases of the paper: it asks a majority to promise a ballot, and then asks it to
//! accept the value of the highest-numbered proposal that the promises told of, or, when they told of none, its own.
//!
//! *A value is never chosen twice.* Before its own value was sent in an Accept ("bound"), an attempt that is outbid gives
//! up and takes the value to another slot: nobody has seen it. A bound value stays with its slot until it is known
//! what was chosen there, and goes on only if it was something else. So at any time a value can be chosen in one slot at most,
//! and no table of what was seen before is needed.
//!
//! *Duels.* "It's easy to construct a scenario in which two proposers each keep issuing a sequence of proposals with increasing
//! numbers, none of which are ever chosen" (2.4). An outbid proposer waits, for a random time that doubles with each
//! loss, before it outbids in turn; meanwhile whoever outbid it usually finishes the slot, often with its value. And
//! since only a bound value must wait, most collisions end in phase 1 with the loser moving on to the next slot.
//!
//! The paper elects a distinguished proposer to make progress; this protocol does without (that is Multi-Paxos).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use synod_core::quorum::{Outcome, majority_vote};
use synod_core::{Batch, Command, Index, NodeId, Output, ReadId, Time, batch_bytes, empty_batch};

use super::message::{Ballot, Message, NUMBER_MAX, Proposal, Value};
use super::{ALPHA, Mutant, Paxos};

/// What this replica does about one slot.
pub(super) struct Attempt {
    /// The proposal number; this life's own.
    pub(super) ballot: Ballot,
    pub(super) phase: Phase,
    /// What it would propose if it may choose; none: a no-op.
    pub(super) own: Option<Value>,
    /// Whether `own` was proposed in this slot: then it must not go elsewhere before the slot is decided.
    binding: Binding,
    /// Reads that came before this ballot began.
    reads: Vec<(ReadId, Time)>,
    /// Whoever has not answered is asked again.
    retry_at: Time,
    /// How often it was outbid.
    losses: u32,
}

/// Whether the own value of an attempt may have been accepted by anybody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binding {
    Free,
    Bound,
}

/// How far an attempt has come.
pub(super) enum Phase {
    /// Phase 1: who has promised, and the highest-numbered proposal that they have accepted.
    Preparing { promised: BTreeSet<NodeId>, best: Option<Proposal> },
    /// Phase 2: who has accepted.
    Accepting { value: Value, accepted: BTreeSet<NodeId> },
    /// Outbid with a bound value; outbids in turn at this moment, if nothing was chosen by then.
    Waiting { until: Time },
}

/// What waits for a slot.
#[derive(Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Reads without a fence, and since when they wait.
    pub(super) reads: Vec<(ReadId, Time)>,
}

/// More commands than this are not gathered into one value.
const BATCH_COMMANDS_MAX: usize = 8192;

impl Queue {
    /// What waits weighs this much.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, batch: Batch) {
        self.bytes += batch_bytes(&batch);
        self.batches.push_back(batch);
    }

    /// It has waited before: it goes first.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.bytes += batch_bytes(&batch);
        self.batches.push_front(batch);
    }

    /// The next value: several batches as one, if they are small.
    fn take(&mut self, bytes_max: usize) -> Option<Batch> {
        let first = self.batches.pop_front()?;
        let mut bytes = batch_bytes(&first);
        self.bytes -= bytes;
        let mut commands: Vec<Command> = Vec::new();
        while let Some(next) = self.batches.front() {
            let (more, count) = (batch_bytes(next), commands.len().max(first.len()) + next.len());
            if bytes + more > bytes_max || count > BATCH_COMMANDS_MAX {
                break;
            }
            if commands.is_empty() {
                commands.extend_from_slice(&first);
            }
            commands.extend_from_slice(next);
            bytes += more;
            self.bytes -= more;
            self.batches.pop_front();
        }
        Some(if commands.is_empty() { first } else { Batch::from(commands) })
    }

    /// Everything, for refusing it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Batch> + '_ {
        self.bytes = 0;
        self.batches.drain(..)
    }

    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.reads.is_empty()
    }
}

impl Paxos {
    /// Begins attempts for what waits, as many as may be under way.
    pub(super) fn begin_what_waits(&mut self, out: &mut Output<Self>) {
        if self.has(Mutant::ReadJoinsLate)
            && let Some(attempt) =
                self.attempts.values_mut().find(|attempt| matches!(attempt.phase, Phase::Preparing { .. }))
        {
            attempt.reads.append(&mut self.queue.reads);
        }
        loop {
            let own = self.attempts.values().filter(|attempt| attempt.own.is_some()).count();
            let change = self.next_change(out);
            if self.queue.is_empty() && change.is_none() {
                return;
            }
            // A read needs no place of its own: it joins what begins next. With nothing else waiting it begins a no-op.
            let full = own >= self.options.inflight_max;
            let only_reads = self.queue.batches.is_empty() && change.is_none();
            let fencing = || self.attempts.values().any(|attempt| !attempt.reads.is_empty());
            if (full || only_reads) && (self.queue.reads.is_empty() || fencing()) {
                return;
            }
            let Some(slot) = self.free_slot() else { return };
            let own = match change {
                Some(change) => Some(change),
                None if full => None,
                None => self.queue.take(self.options.batch_bytes_max).map(Value::Batch),
            };
            self.begin(slot, own, out);
        }
    }

    /// The first open slot in which nobody is known to have begun anything.
    pub(super) fn free_slot(&self) -> Option<Index> {
        let first = self.decided.next().0.max(self.floor().next().0);
        let mut slots = (first..=self.decided.0 + ALPHA).map(Index);
        let slot = slots.find(|slot| self.slots.is_untouched(*slot) && !self.attempts.contains_key(slot))?;
        self.may_propose_in(slot).then_some(slot)
    }

    /// Only who belongs to a slot's configuration proposes in it; and a slot without acceptors is not known.
    pub(super) fn may_propose_in(&self, slot: Index) -> bool {
        let members = self.members_at(slot);
        members.contains(self.id) && !members.voters.is_empty()
    }

    /// Phase 1a in a slot of the window, with a ballot above all that were seen there.
    pub(super) fn begin(&mut self, slot: Index, own: Option<Value>, out: &mut Output<Self>) {
        let attempt = Attempt {
            ballot: Ballot::ZERO,
            phase: Phase::Waiting { until: self.now },
            own,
            binding: Binding::Free,
            reads: std::mem::take(&mut self.queue.reads),
            retry_at: self.now,
            losses: 0,
        };
        self.attempts.insert(slot, attempt);
        self.prepare(slot, out);
    }

    /// "A proposer chooses a new proposal number n and sends a request to each member of some set of acceptors."
    fn prepare(&mut self, slot: Index, out: &mut Output<Self>) {
        let seen = self.slots.get(slot).map_or(Ballot::ZERO, |slot| slot.seen);
        let ballot = self.ballot_above(slot, seen);
        let Some(attempt) = self.attempts.get_mut(&slot) else { return };
        attempt.retry_at = self.now + self.options.retry;
        if ballot.round > NUMBER_MAX {
            // Nobody can outbid that; some peer is mad.
            attempt.phase = Phase::Waiting { until: self.now + self.options.patience };
            return;
        }
        attempt.ballot = ballot;
        attempt.phase = Phase::Preparing { promised: BTreeSet::new(), best: None };
        self.top_round = self.top_round.max(ballot.round);
        for acceptor in self.other_voters(slot) {
            self.send_in_this_life(acceptor, Message::Prepare { slot, ballot }, out);
        }
        if self.members_at(slot).is_voter(self.id) {
            self.promise_myself(slot, ballot, out);
        } else {
            self.slots.change(slot, |slot| slot.seen = ballot);
        }
    }

    /// A number of this proposer's own set. In a fresh slot the round rotates among the acceptors, so that where several begin
    /// at once it is not always the same one whose ballot is higher.
    fn ballot_above(&self, slot: Index, seen: Ballot) -> Ballot {
        let round = if seen == Ballot::ZERO {
            let voters = &self.members_at(slot).voters;
            let place = voters.iter().position(|voter| *voter == self.id).unwrap_or(0) as u64;
            1 + (slot.0 + place) % voters.len().max(1) as u64
        } else {
            seen.round + 1
        };
        Ballot { round, node: self.id, life: self.life_of_ballots() }
    }

    /// What tells this life's ballots from earlier ones'.
    pub(super) fn life_of_ballots(&self) -> u64 {
        if self.has(Mutant::ReusesBallots) { 1 } else { self.life.0 }
    }

    fn other_voters(&self, slot: Index) -> Vec<NodeId> {
        self.members_at(slot).voters.iter().copied().filter(|voter| *voter != self.id).collect()
    }

    /// Requests go out at once: they promise nothing. But what carries this life's number waits until the number is on disk.
    fn send_in_this_life(&self, to: NodeId, message: Message, out: &mut Output<Self>) {
        if self.life.1 <= self.durable || self.has(Mutant::ReusesBallots) {
            out.send_early(to, message);
        } else {
            out.send(to, message);
        }
    }

    /// A promise came, from another acceptor or, through the disk, from the own one.
    pub(super) fn on_promise(
        &mut self,
        from: NodeId,
        slot: Index,
        ballot: Ballot,
        accepted: Option<Proposal>,
        out: &mut Output<Self>,
    ) {
        let (any, lowest) = (self.has(Mutant::CountsOldAnswers), self.has(Mutant::PicksLowestBallot));
        let Some(attempt) = self.attempts.get_mut(&slot).filter(|it| any || it.ballot == ballot) else {
            return;
        };
        let Phase::Preparing { promised, best } = &mut attempt.phase else { return };
        promised.insert(from);
        if let Some(accepted) = accepted {
            let is_better = |best: &Proposal| (accepted.ballot > best.ballot) != lowest;
            if best.as_ref().is_none_or(is_better) {
                *best = Some(accepted);
            }
        }
        let promised = promised.clone();
        if self.is_majority(slot, &promised, Mutant::MinorityPromises) {
            self.propose_in(slot, out);
        }
    }

    /// Whether these are a majority of the slot's acceptors.
    fn is_majority(&self, slot: Index, those: &BTreeSet<NodeId>, careless: Mutant) -> bool {
        let voters = &self.members_at(slot).voters;
        if self.has(careless) {
            return voters.len() > 1 && those.len() >= voters.len() / 2;
        }
        // Nobody votes where the acceptors are not known.
        !voters.is_empty()
            && majority_vote(voters, |voter| those.contains(&voter).then_some(true)) == Outcome::Won
    }

    /// Phase 2a: "v is the value of the highest-numbered proposal among the responses, or is any value if the responses
    /// reported no proposals."
    fn propose_in(&mut self, slot: Index, out: &mut Output<Self>) {
        let ignores = self.has(Mutant::IgnoresAccepted);
        let read_ignores = self.has(Mutant::ReadIgnoresAccepted);
        let Some(attempt) = self.attempts.get_mut(&slot) else { return };
        let Phase::Preparing { best, .. } = &mut attempt.phase else { return };
        let best = best.take().filter(|_| !ignores);
        // Nothing had been accepted by a majority that promised after the reads came: so nothing was chosen here when they
        // came, and whatever had been answered by then lies in the slots before.
        let reads = std::mem::take(&mut attempt.reads);
        if best.is_none() || read_ignores {
            for (read, _) in reads {
                out.serve(read, slot.previous());
            }
        } else {
            self.queue.reads.extend(reads);
        }
        let value = match (best, &attempt.own) {
            (Some(best), _) => best.value,
            (None, Some(own)) => {
                attempt.binding = Binding::Bound;
                own.clone()
            }
            (None, None) => Value::Batch(empty_batch()),
        };
        let is_own = attempt.own.as_ref().is_some_and(|own| own.is(&value));
        attempt.retry_at = self.now + self.options.retry;
        attempt.phase = Phase::Accepting { value: value.clone(), accepted: BTreeSet::new() };
        let ballot = attempt.ballot;
        // Another's value will be chosen here: an unbound one of our own need not wait for that.
        if !is_own && attempt.binding == Binding::Free {
            let own = attempt.own.take();
            self.release(own);
        }
        for acceptor in self.other_voters(slot) {
            // Under way to the others while our own acceptor writes: the ballot has no other value, in any life.
            self.send_in_this_life(acceptor, Message::Accept { slot, ballot, value: value.clone() }, out);
        }
        let outbid = self.slots.get(slot).is_some_and(|slot| slot.promised > ballot);
        if self.members_at(slot).is_voter(self.id) && !outbid {
            self.accept_myself(slot, ballot, value, out);
        }
    }

    /// An acceptance came, from another acceptor or, through the disk, from the own one.
    pub(super) fn on_accepted(&mut self, from: NodeId, slot: Index, ballot: Ballot, out: &mut Output<Self>) {
        let any = self.has(Mutant::CountsOldAnswers);
        let Some(attempt) = self.attempts.get_mut(&slot).filter(|it| any || it.ballot == ballot) else {
            return;
        };
        let ballot = attempt.ballot;
        let Phase::Accepting { value, accepted } = &mut attempt.phase else { return };
        accepted.insert(from);
        let (value, accepted) = (value.clone(), accepted.clone());
        if self.is_majority(slot, &accepted, Mutant::MinorityChooses) {
            for learner in self.everybody_else() {
                // What was chosen stays so: a fact, not a promise.
                out.send_early(learner, Message::Chosen { slot, ballot });
            }
            self.learn(slot, value, out);
        }
    }

    /// An acceptor has promised a higher ballot.
    pub(super) fn on_refused(&mut self, slot: Index, ballot: Ballot, promised: Ballot) {
        let is_current = self.attempts.get(&slot).is_some_and(|attempt| attempt.ballot == ballot);
        if is_current && promised > ballot {
            self.slots.change(slot, |slot| slot.seen = slot.seen.max(promised));
            self.outbid(slot, promised);
        }
    }

    /// Somebody works on this slot with another ballot. "If the acceptor ignores a request because it has already received a
    /// prepare request with a higher number, then it should probably inform the proposer, who should then abandon its
    /// proposal" (2.3).
    pub(super) fn outbid(&mut self, slot: Index, by: Ballot) {
        let Some(attempt) = self.attempts.get_mut(&slot).filter(|attempt| by > attempt.ballot) else {
            return;
        };
        if matches!(attempt.phase, Phase::Waiting { .. }) {
            return;
        }
        let goes_on = self.options.has(Mutant::GoesOnEarly);
        if attempt.binding == Binding::Free || goes_on {
            // Whoever outbid us drives the slot, and we need not.
            if let Some(attempt) = self.attempts.remove(&slot) {
                self.release(attempt.own);
                self.queue.reads.extend(attempt.reads);
            }
            return;
        }
        attempt.losses += 1;
        let longest = self.options.backoff_min * 2u32.saturating_pow(attempt.losses.min(16));
        let longest = longest.min(self.options.backoff_max);
        let wait = if self.options.jitter { self.rng.span(longest / 8, longest) } else { Duration::ZERO };
        attempt.phase = Phase::Waiting { until: self.now + wait };
        self.queue.reads.append(&mut attempt.reads);
    }

    /// A value that is certainly not chosen where it was meant to be looks for another slot.
    pub(super) fn release(&mut self, own: Option<Value>) {
        if let Some(Value::Batch(batch)) = own {
            self.queue.put_back(batch);
        }
        // A change of the configuration is derived anew from what is newest by then.
    }

    /// Outbids in turn where the wait is over; asks again where answers are missing.
    pub(super) fn continue_attempts(&mut self, out: &mut Output<Self>) {
        let now = self.now;
        let due: Vec<Index> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| match attempt.phase {
                Phase::Waiting { until } => until <= now,
                _ => attempt.retry_at <= now,
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in due {
            let Some(attempt) = self.attempts.get_mut(&slot) else { continue };
            attempt.retry_at = now + self.options.retry;
            let ballot = attempt.ballot;
            let (message, answered) = match &attempt.phase {
                Phase::Waiting { .. } => {
                    self.prepare(slot, out);
                    continue;
                }
                Phase::Preparing { promised, .. } => (Message::Prepare { slot, ballot }, promised.clone()),
                Phase::Accepting { value, accepted } => {
                    (Message::Accept { slot, ballot, value: value.clone() }, accepted.clone())
                }
            };
            for acceptor in self.other_voters(slot) {
                if !answered.contains(&acceptor) {
                    self.send_in_this_life(acceptor, message.clone(), out);
                }
            }
        }
    }

    /// The slot is decided: what becomes of the attempt there.
    pub(super) fn end_attempt(&mut self, slot: Index, chosen: &Value) {
        let Some(attempt) = self.attempts.remove(&slot) else { return };
        self.queue.reads.extend(attempt.reads);
        match attempt.own {
            Some(own) if own.is(chosen) => {
                if let (Value::Members { .. }, Some(change)) = (own, &mut self.change) {
                    change.chosen_in = Some(slot);
                }
            }
            own => self.release(own),
        }
    }

    /// A snapshot covers these slots: what became of our proposals there is not known, so bound values are dropped, and their
    /// clients are left to their patience.
    pub(super) fn give_up_through(&mut self, at: Index) {
        while let Some(entry) = self.attempts.first_entry() {
            if *entry.key() > at {
                break;
            }
            let attempt = entry.remove();
            self.queue.reads.extend(attempt.reads);
            match (attempt.binding, attempt.own) {
                (Binding::Free, own) => self.release(own),
                (Binding::Bound, Some(Value::Members { .. })) => self.change = None,
                (Binding::Bound, _) => {}
            }
        }
        self.change.take_if(|change| change.chosen_in.is_some_and(|slot| slot <= at));
    }

    /// When an attempt is due.
    pub(super) fn attempts_deadline(&self) -> Option<Time> {
        let due = |attempt: &Attempt| match attempt.phase {
            Phase::Waiting { until } => until,
            _ => attempt.retry_at,
        };
        self.attempts.values().map(due).min()
    }

    /// All reads that have waited since `since` or longer, to be refused.
    pub(super) fn old_reads(&mut self, since: Time) -> Vec<ReadId> {
        let mut old = Vec::new();
        let lists = self.attempts.values_mut().map(|attempt| &mut attempt.reads);
        for list in lists.chain(std::iter::once(&mut self.queue.reads)) {
            old.extend(list.extract_if(.., |(_, at)| *at <= since).map(|(read, _)| read));
        }
        old
    }
}
