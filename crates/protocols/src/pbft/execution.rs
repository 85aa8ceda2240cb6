//! From decisions to deliveries (4.2): in order, each request once.
//!
//! What is executed, the history's digest and the table of executed requests depend on the decided proposals alone, so
//! all honest replicas agree about them, and about where checkpoints and snapshots are due.

use std::sync::Arc;

use synod_core::{Batch, Index, Output, Refusal, empty_batch};

use super::message::{Proposal, Request};
use super::{Mutant, Pbft};

impl Pbft {
    /// A proposal is decided; it is executed when everything before it was.
    pub(super) fn decide(&mut self, at: Index, proposal: Arc<Proposal>) {
        debug_assert!(at > self.head.point.at, "what was executed is decided already");
        self.decided_bytes += proposal.bytes();
        let before = self.decided.insert(at, proposal);
        assert!(before.is_none(), "two proposals are decided at {at:?}: more than f replicas lie");
    }

    /// Executes what is decided without a gap.
    pub(super) fn execute_decided(&mut self, out: &mut Output<Self>) {
        // The machine is older than what this replica can execute: a snapshot must come first.
        while self.state >= self.head.point.at {
            let at = self.head.point.at.next();
            let Some(proposal) = self.decided.get(&at).cloned() else { break };
            self.execute(at, &proposal, out);
        }
    }

    fn execute(&mut self, at: Index, proposal: &Proposal, out: &mut Output<Self>) {
        let mut fresh: Vec<&Arc<Request>> = Vec::new();
        for request in &proposal.requests {
            let is_first = self.head.executed.execute(request.name());
            if is_first || self.has(Mutant::ExecutesTwice) {
                fresh.push(request);
            }
        }
        self.head.point = self.head.point.after(proposal.digest());
        self.snapshots.executed(proposal.bytes());
        let delivers = at > self.state;
        if delivers {
            self.state = at;
            out.deliver(at, batch_of(&fresh));
        }
        for request in &proposal.requests {
            self.pool.remove(request.name());
            if request.origin == self.id {
                self.serve_fenced(at, request.number, proposal, out);
            }
        }
        // The view does its work.
        self.patience = self.options.view_timeout;
        self.take_checkpoint(out);
        if self.snapshots.is_due(&self.options) {
            self.snapshot_point(at, delivers, out);
        }
    }

    /// The reads behind an executed request may be served. A primary that learned of it otherwise than by its own view's
    /// commits may be primary no longer, which what it does beside the log (leases) must not survive.
    fn serve_fenced(&mut self, at: Index, number: u64, proposal: &Proposal, out: &mut Output<Self>) {
        let reads = self.own.executed(number);
        if reads.is_empty() {
            return;
        }
        let in_this_view = self
            .slots
            .get(&at)
            .is_some_and(|slot| slot.commits(self.view, proposal.digest()) >= self.quorums.strong());
        for read in reads {
            if self.is_primary() && !in_this_view {
                out.refuse_read(read, Refusal::LeaderChanged);
            } else {
                out.serve(read, at);
            }
        }
    }

    /// Forgets executed proposals that a snapshot covers, beyond what is kept for replicas that lag.
    pub(super) fn trim_memory(&mut self) {
        let Some((covered, proven)) = self.snapshots.covered() else { return };
        // While nobody could be sent the snapshot, its past is dearer.
        let budget = self.options.log_bytes_max.saturating_mul(if proven { 1 } else { 4 });
        while self.decided_bytes > budget
            && let Some(entry) = self.decided.first_entry()
            && *entry.key() <= covered.min(self.head.point.at)
        {
            self.decided_bytes -= entry.remove().bytes();
        }
    }
}

/// The commands of these requests, in order.
fn batch_of(requests: &[&Arc<Request>]) -> Batch {
    match requests {
        [] => empty_batch(),
        [one] => one.batch.clone(),
        many => many.iter().flat_map(|request| request.batch.iter()).cloned().collect(),
    }
}
