//! Which acceptors a slot has, and how that changes (Paxos Made Simple, section 3).
//!
//! "Allow a leader to get α commands ahead by letting the set of servers that execute instance i+α of the consensus
//! algorithm be specified by the state after execution of the ith state machine command." So a configuration is
//! a value like any other; decided in slot i, it is in force from slot i+[`ALPHA`] on. Nobody works on a slot before it knows
//! all values up to [`ALPHA`] before it, so all agree on the slot's acceptors: any set may follow any other, without a
//! joint configuration.
//!
//! A configuration names the one it was derived from. When another was decided in between it is void, and its proposer
//! derives it anew: so two changes made side by side both happen.
//!
//! Until enough slots have followed, the change is not in force. Whoever sees it waiting fills them with no-ops.

use std::collections::VecDeque;
use std::sync::Arc;

use synod_core::{Change, ChangeError, Index, Members, NodeId, Output, Refusal};

use super::message::{Configurations, Value};
use super::{Mutant, Paxos};

/// How far apart a configuration's decision and its effect are, and so how many slots may be open at once. A constant and
/// no option: replicas that differ in it would not agree on who the acceptors are.
pub const ALPHA: u64 = 16;

/// The configurations that matter, each with the slot in which it was decided.
///
/// Invariants: never empty; ascending; the first is in force at `start.next()`.
pub(super) struct Settings {
    /// Everything decided up to here is in the list.
    start: Index,
    decided: VecDeque<(Index, Arc<Members>)>,
}

/// The first slot in which a configuration is in force.
fn from(decided: Index) -> Index {
    if decided == Index::ZERO { Index::ZERO } else { Index(decided.0 + ALPHA) }
}

impl Settings {
    /// The configuration that a cluster starts with.
    pub(super) fn new(members: Arc<Members>) -> Settings {
        Settings { start: Index::ZERO, decided: VecDeque::from([(Index::ZERO, members)]) }
    }

    /// What a snapshot or a checkpoint knew as of `start`; none if it makes no sense.
    pub(super) fn restored(start: Index, list: &Configurations) -> Option<Settings> {
        let ascends = list.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let fits = list.iter().all(|(at, members)| *at <= start && members.is_sound() && !members.is_joint());
        let decided: VecDeque<_> = list.iter().cloned().collect();
        (!decided.is_empty() && ascends && fits).then_some(Settings { start, decided })
    }

    /// Everything decided up to here has had its effect on the list.
    pub(super) fn start(&self) -> Index {
        self.start
    }

    /// Who the acceptors of a slot are. The slot must be within [`ALPHA`] of what is decided, and above `start`.
    pub(super) fn at(&self, slot: Index) -> &Arc<Members> {
        let found = self.decided.iter().rev().find(|(decided, _)| from(*decided) <= slot);
        &found.or(self.decided.front()).expect("there is always a configuration").1
    }

    /// The newest, whether in force or not, and where it was decided.
    pub(super) fn newest(&self) -> &(Index, Arc<Members>) {
        self.decided.back().expect("there is always a configuration")
    }

    /// Takes note of what was decided in a slot; whether it is a configuration that counts.
    pub(super) fn decide(&mut self, slot: Index, value: &Value) {
        if let Value::Members { after, members } = value
            && slot > self.newest().0
            && slot > self.start
            && *after == self.newest().0
        {
            self.decided.push_back((slot, members.clone()));
        }
    }

    /// The configuration that was decided in this slot, unless it was void.
    pub(super) fn decided_in(&self, slot: Index) -> Option<&Arc<Members>> {
        self.decided.iter().find(|(at, _)| *at == slot).map(|(_, members)| members)
    }

    /// The list as of a slot that lies at `start` or after it, and is decided.
    pub(super) fn as_of(&self, slot: Index) -> Option<Configurations> {
        if slot < self.start {
            return None;
        }
        let mut list: Configurations = self.decided.iter().filter(|(at, _)| *at <= slot).cloned().collect();
        let in_force = list.iter().rposition(|(at, _)| from(*at) <= slot.next()).unwrap_or(0);
        list.drain(..in_force);
        Some(list)
    }

    /// Forgets what matters only up to a slot.
    pub(super) fn drop_through(&mut self, slot: Index) {
        if slot <= self.start {
            return;
        }
        self.start = slot;
        while self.decided.get(1).is_some_and(|(at, _)| from(*at) <= slot.next()) {
            self.decided.pop_front();
        }
    }

    /// Everybody who takes part now or will, or did not long ago.
    pub(super) fn everybody(&self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> = self.decided.iter().flat_map(|(_, members)| members.all()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A change that this replica was asked for.
pub(super) struct PendingChange {
    changes: Vec<Change>,
    /// Its configuration was chosen here; whether it counts is known when all before it is.
    pub(super) chosen_in: Option<Index>,
}

/// The configuration after `changes`, however many voters they touch: no joint one stands in between.
fn changed(members: &Members, changes: &[Change]) -> Result<Members, ChangeError> {
    members.enter_joint(changes)?.leave_joint()
}

impl Paxos {
    /// Who the acceptors of a slot are.
    pub(super) fn members_at(&self, slot: Index) -> &Arc<Members> {
        if self.has(Mutant::ConfigurationAtOnce) {
            return &self.settings.newest().1;
        }
        self.settings.at(slot)
    }

    /// Whether the newest configuration is not in force yet in the next slot.
    pub(super) fn is_changing(&self) -> bool {
        from(self.settings.newest().0) > self.decided.next()
    }

    /// Whether this replica may propose: in some slot to come it belongs to the cluster.
    pub(super) fn takes_part(&self) -> bool {
        let belongs = |members: &Members| members.contains(self.id) && !members.voters.is_empty();
        belongs(self.members_at(self.decided.next())) || belongs(&self.settings.newest().1)
    }

    /// A slot is decided, and all before it: if it holds the change that was asked for here, that has happened, or it
    /// was void and must be derived anew.
    pub(super) fn settle_change(&mut self, slot: Index) {
        if self.change.as_ref().is_some_and(|change| change.chosen_in == Some(slot)) {
            if self.settings.decided_in(slot).is_some() {
                self.change = None;
            } else if let Some(change) = &mut self.change {
                change.chosen_in = None;
            }
        }
    }

    pub(super) fn reconfigure(&mut self, changes: Vec<Change>, out: &mut Output<Self>) {
        if !self.takes_part() {
            return out.decline(Refusal::Stopped);
        }
        // The next change may be derived from one that is not in force yet; two at a time of one replica may not.
        if self.change.is_some() {
            return out.decline(Refusal::Busy);
        }
        match changed(&self.settings.newest().1, &changes) {
            Ok(_) => self.change = Some(PendingChange { changes, chosen_in: None }),
            Err(error) => out.decline(Refusal::Invalid(error.to_string())),
        }
    }

    /// The configuration to propose next, if this replica was asked for a change and has none under way.
    pub(super) fn next_change(&mut self, out: &mut Output<Self>) -> Option<Value> {
        let PendingChange { changes, chosen_in: None } = self.change.as_ref()? else { return None };
        let own = |value: &Value| matches!(value, Value::Members { .. });
        if self.attempts.values().any(|attempt| attempt.own.as_ref().is_some_and(own)) {
            return None;
        }
        let (after, members) = self.settings.newest();
        match changed(members, changes) {
            Ok(members) => Some(Value::Members { after: *after, members: Arc::new(members) }),
            Err(error) => {
                // Another replica's change came first, and made this one impossible.
                self.change = None;
                out.decline(Refusal::Invalid(error.to_string()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &[u64]) -> Arc<Members> {
        Arc::new(Members::of(nodes.iter().copied().map(NodeId)))
    }

    fn change(after: u64, nodes: &[u64]) -> Value {
        Value::Members { after: Index(after), members: of(nodes) }
    }

    /// A configuration is in force ALPHA slots after its decision, and void when another came in between.
    #[test]
    fn a_configuration_waits_for_its_slot() {
        let mut settings = Settings::new(of(&[1, 2, 3]));
        settings.decide(Index(5), &change(0, &[1, 2]));
        settings.decide(Index(6), &change(0, &[1, 2, 3, 4]));
        settings.decide(Index(7), &change(5, &[1, 2, 4]));
        assert_eq!(settings.at(Index(4 + ALPHA)), &of(&[1, 2, 3]));
        assert_eq!(settings.at(Index(5 + ALPHA)), &of(&[1, 2]));
        assert_eq!(settings.at(Index(6 + ALPHA)), &of(&[1, 2]));
        assert_eq!(settings.at(Index(7 + ALPHA)), &of(&[1, 2, 4]));
        assert_eq!(settings.decided_in(Index(6)), None);
    }

    /// What a snapshot carries is what a replica that was there knows.
    #[test]
    fn a_snapshot_carries_what_is_to_come() {
        let mut settings = Settings::new(of(&[1, 2, 3]));
        settings.decide(Index(5), &change(0, &[1, 2]));
        let list = settings.as_of(Index(8)).expect("it is known");
        assert_eq!(list.len(), 2);
        let mut other = Settings::restored(Index(8), &list).expect("it makes sense");
        for slot in 9..40 {
            assert_eq!(other.at(Index(slot)), settings.at(Index(slot)), "slot {slot}");
        }
        other.drop_through(Index(30));
        assert_eq!(other.as_of(Index(30)).map(|list| list.len()), Some(1));
        assert_eq!(other.as_of(Index(29)), None);
    }
}
