//! From what the disk held to a replica (Raft 5.5 and 7).
//!
//! Records are the log's own; the snapshot is the state's. A crash can leave them apart, in two ways, and
//! neither is repaired here: the log takes part as it stands on disk, because that is what was promised.
//!
//! - The state is ahead of what the log has committed: always after a restart, because the commit index is not
//!   recorded; and by more when the crash came right after a snapshot, before the log knew of it. Deliveries
//!   go on once the commit index has passed the state.
//! - The state is behind the log's base: its snapshot was damaged or lost. Deliveries wait for a snapshot
//!   from the leader, and until then this replica does not seek election.

use std::sync::Arc;

use synod_core::{Config, Index, Lsn, NodeId, Output, Recovered, Rng, Time};

use super::compaction::Compaction;
use super::log::Log;
use super::message::{Position, Term};
use super::reads::Reads;
use super::{Options, Part, Raft, Record};
use crate::flow::Disk;

/// What the records tell.
struct Found {
    term: Term,
    voted_for: Option<NodeId>,
    log: Log,
    life: u64,
}

impl Found {
    fn replay(&mut self, record: Record) {
        match record {
            Record::Vote { term, voted_for } => {
                (self.term, self.voted_for) = (term, voted_for);
            }
            Record::Entry { at, entry } => {
                if at <= self.log.base().index {
                    return; // From before a snapshot that came to cover it.
                }
                assert!(
                    at <= self.log.last().index.next(),
                    "the log on disk has a gap before {at:?}: records must come back in order and complete"
                );
                self.log.truncate(at);
                self.log.append(entry);
            }
            Record::SnapshotBase { last, members } => {
                self.log.rebase(last, members);
            }
            Record::Life(life) => self.life = life,
        }
    }
}

impl Raft {
    pub(super) fn recover(
        config: &Config<Options>,
        recovered: Recovered<Record>,
        now: Time,
        out: &mut Output<Self>,
    ) -> Raft {
        if let Err(error) = config.options.check() {
            panic!("the caller checks options before it opens a replica: {error}");
        }
        let is_restart = !recovered.records.is_empty();
        let members = Arc::new(config.members.clone());
        let mut found = Found {
            term: Term::default(),
            voted_for: None,
            log: Log::new(Position::default(), members),
            life: 0,
        };
        for record in recovered.records {
            found.replay(record);
        }
        let state = recovered.snapshot.map_or(Index::ZERO, |snapshot| snapshot.at);
        let base = found.log.base().index;
        let life = found.life + 1;
        let life_lsn = out.record(Record::Life(life));
        let mut raft = Raft {
            id: config.id,
            options: config.options.clone(),
            rng: Rng::new(config.seed ^ config.id.0.rotate_left(32) ^ life.rotate_left(48)),
            now,
            term: found.term,
            voted_for: found.voted_for,
            vote_lsn: Lsn::ZERO,
            part: Part::Follower,
            leader: None,
            // A lease may count on what this replica promised before it was restarted.
            heard_leader: (is_restart && config.options.lease_reads).then_some(now),
            election_due: now,
            eager_until: now,
            disk: Disk::new(found.log.last().index),
            commit: base,
            delivered: state,
            verified: base,
            owes_appended: false,
            reads: Reads::default(),
            compaction: Compaction::new(state),
            life: (life, life_lsn),
            forwarded: 0,
            log: found.log,
        };
        raft.wait_for_leader();
        // Under leases it must not even vote for itself before what it promised in its last life is over.
        if raft.options.eager_start && raft.options.pre_vote && !raft.options.lease_reads {
            raft.eager_until = now + raft.options.election_timeout;
            let soon = raft.rng.span(std::time::Duration::ZERO, raft.options.heartbeat);
            raft.election_due = raft.election_due.min(now + soon);
        }
        raft.settle_snapshot();
        raft
    }
}
