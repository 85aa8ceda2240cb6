//! What was delivered and may be taken back: for protocols whose deliveries are probable and not certain.
//!
//! The past is a few frozen views of the machine, and the batches behind the oldest of them. A view costs what changes
//! after it was taken, because views share what stays; so views lie close together near the present, where a rewind is
//! likely, and ever further apart behind. To come back to a moment, the machine becomes the newest view that is
//! not after it, and applies the batches in between once more, in silence.

use std::collections::{BTreeSet, VecDeque};

use synod_core::{Batch, CommandId, Index, NodeId};

/// Views and batches since the oldest view.
///
/// Invariants: views ascend; there is at least one; the batches are those right behind the oldest view, without gaps.
#[derive(Debug)]
pub(crate) struct Past<F> {
    views: Vec<(Index, F)>,
    batches: VecDeque<Batch>,
    /// Commands of this replica's clients that were answered, and whose delivery was taken back since.
    answered: BTreeSet<CommandId>,
}

/// More commands than this, answered and taken back, are not remembered: the oldest may then be answered twice.
const ANSWERED_MAX: usize = 100_000;

impl<F: Clone> Past<F> {
    /// A past that begins at `at`.
    pub(crate) fn new(at: Index, view: F) -> Past<F> {
        Past { views: vec![(at, view)], batches: VecDeque::new(), answered: BTreeSet::new() }
    }

    fn oldest(&self) -> Index {
        self.views[0].0
    }

    fn newest(&self) -> Index {
        Index(self.oldest().0 + self.batches.len() as u64)
    }

    /// `batch` was applied at `at`, which led to this view.
    pub(crate) fn push(&mut self, at: Index, batch: Batch, view: F) {
        assert_eq!(at, self.newest().next(), "the past has no gaps");
        self.batches.push_back(batch);
        self.views.push((at, view));
        self.thin(at);
    }

    /// Lets go of views that lie closer together than their age deserves; the oldest stays.
    fn thin(&mut self, now: Index) {
        let mut place = self.views.len().saturating_sub(2);
        while place >= 1 {
            let (before, after) = (self.views[place - 1].0, self.views[place + 1].0);
            if after.0 - before.0 <= (now.0 - after.0) / 2 {
                self.views.remove(place);
            }
            place -= 1;
        }
    }

    /// The newest view that is not after `at`, with its place.
    pub(crate) fn view(&self, at: Index) -> Option<&(Index, F)> {
        self.views.iter().rfind(|(place, _)| *place <= at)
    }

    /// Takes back everything after `at`: gives the view to start from, and what is to be applied again behind it.
    pub(crate) fn rewind(&mut self, at: Index, me: NodeId) -> (Index, F, Vec<Batch>) {
        assert!(
            self.oldest() <= at && at <= self.newest(),
            "a rewind goes back to a moment between what is settled and the present: {at:?} is not between {:?} and {:?}",
            self.oldest(),
            self.newest()
        );
        let keep = (at.0 - self.oldest().0) as usize;
        let void = self.batches.split_off(keep);
        self.note_void(&void, me);
        self.views.retain(|(place, _)| *place <= at);
        let (from, view) = self.views.last().cloned().expect("the oldest view is not after what is settled");
        let again = self.batches.iter().skip((from.0 - self.oldest().0) as usize).cloned().collect();
        (from, view, again)
    }

    /// The machine became another state, whose past is not known here.
    pub(crate) fn restart(&mut self, at: Index, view: F, me: NodeId) {
        let void = std::mem::take(&mut self.batches);
        self.note_void(&void, me);
        self.views = vec![(at, view)];
    }

    fn note_void(&mut self, void: &VecDeque<Batch>, me: NodeId) {
        let own = void.iter().flat_map(|batch| batch.iter()).filter(|command| command.id.origin == me);
        self.answered.extend(own.map(|command| command.id));
        while self.answered.len() > ANSWERED_MAX {
            self.answered.pop_first();
        }
    }

    /// Whether a command's client was answered already, at a delivery that was taken back; asked once for each.
    pub(crate) fn was_answered(&mut self, id: CommandId) -> bool {
        self.answered.remove(&id)
    }

    /// Nothing before the view at `at` will be needed any more; gives that view.
    pub(crate) fn forget_before(&mut self, at: Index) -> F {
        let place =
            self.views.iter().position(|(place, _)| *place == at).expect("there is a view at this index");
        self.batches.drain(..(at.0 - self.oldest().0) as usize);
        self.views.drain(..place);
        self.views[0].1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_core::{Command, empty_batch};

    fn batch(number: u64) -> Batch {
        let id = CommandId { origin: NodeId(1), number };
        Batch::from([Command { id, payload: bytes::Bytes::new() }])
    }

    /// Views grow sparse with age and stay few, and from each moment there is a way back to every other.
    #[test]
    fn a_long_past_needs_few_views() {
        let mut past = Past::new(Index(0), 0u64);
        for at in 1..=10_000 {
            past.push(Index(at), batch(at), at);
        }
        assert!(past.views.len() < 60, "{} views", past.views.len());
        assert_eq!(
            past.views.iter().rev().take(3).map(|(at, _)| at.0).collect::<Vec<_>>(),
            [10_000, 9_999, 9_998]
        );
        for back in [0, 1, 7, 100, 2_500, 10_000] {
            let mut copy =
                Past { views: past.views.clone(), batches: past.batches.clone(), answered: BTreeSet::new() };
            let at = Index(10_000 - back);
            let (from, view, again) = copy.rewind(at, NodeId(1));
            assert_eq!((from.0, from.0 + again.len() as u64), (view, at.0));
            assert_eq!(copy.answered.len() as u64, back);
            copy.push(at.next(), empty_batch(), at.0 + 1);
        }
    }

    /// A command whose delivery was taken back is known as answered, once; another replica's never.
    #[test]
    fn answers_are_given_once() {
        let mut past = Past::new(Index(0), ());
        past.push(Index(1), batch(1), ());
        past.rewind(Index(0), NodeId(1));
        let id = CommandId { origin: NodeId(1), number: 1 };
        assert!(past.was_answered(id) && !past.was_answered(id));
    }

    /// What is forgotten is what lies before a view; the rest can still be rewound to.
    #[test]
    fn forgetting_keeps_the_rest() {
        let mut past = Past::new(Index(0), 0u64);
        for at in 1..=20 {
            past.push(Index(at), empty_batch(), at);
        }
        let (at, _) = *past.view(Index(15)).expect("there is a view before 15");
        past.forget_before(at);
        assert_eq!(past.oldest(), at);
        let (from, _, again) = past.rewind(Index(18), NodeId(1));
        assert_eq!(from.0 + again.len() as u64, 18);
    }
}
