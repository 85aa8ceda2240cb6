//! From what the disk held to a replica.
//!
//! Records are the acceptor's own; the snapshot is the state's. A crash can leave them apart, in two ways, and
//! neither is repaired here: the acceptor takes part as it stands on disk, because that is what was promised.
//!
//! - The state is ahead of what the slots know to be decided: always by a little after a restart, because that is recorded
//!   only along with something else; and by more when the crash came right after a snapshot. Deliveries go on once so much is
//!   known to be decided again. A leader need not wait for that: its promises found what the state has seen.
//! - The state is behind the base: its snapshot was damaged or lost. Deliveries wait for a snapshot from the leader, and until
//!   then this replica does not seek to lead.

use std::collections::VecDeque;
use std::sync::Arc;

use synod_core::{Config, Index, Lsn, Output, Recovered, Rng, Time};

use super::compaction::Compaction;
use super::disk::Disk;
use super::message::{Ballot, Pvalue, Record};
use super::reads::Reads;
use super::slots::Slots;
use super::{MultiPaxos, Mutant, Options, Part};

/// What the records tell.
struct Found {
    promised: Ballot,
    slots: Slots,
    decided: Index,
    life: u64,
    forgets_promise: bool,
}

impl Found {
    fn replay(&mut self, record: Record) {
        match record {
            Record::Promised(ballot) => self.promise(ballot),
            Record::Accepted(Pvalue { at, ballot, value }) => {
                self.promise(ballot);
                // What lies before the base comes from before a snapshot that came to cover it.
                if at > self.slots.base() {
                    self.slots.accept(at, ballot, value);
                }
            }
            Record::Decided(upto) => {
                while self.decided < upto {
                    let at = self.decided.next();
                    assert!(
                        self.slots.value(at).is_some(),
                        "{at:?} is recorded as decided and has no value: records must come back in order and complete"
                    );
                    self.slots.decide(at);
                    self.decided = at;
                }
            }
            Record::Base { at, members } => {
                if at >= self.slots.base() {
                    self.slots.rebase(at, members);
                    self.decided = self.decided.max(at);
                }
            }
            Record::Life(life) => self.life = life,
        }
    }

    fn promise(&mut self, ballot: Ballot) {
        if !self.forgets_promise {
            self.promised = self.promised.max(ballot);
        }
    }
}

impl MultiPaxos {
    pub(super) fn recover(
        config: &Config<Options>,
        recovered: Recovered<Record>,
        now: Time,
        out: &mut Output<Self>,
    ) -> MultiPaxos {
        if let Err(error) = config.options.check() {
            panic!("the caller checks options before it opens a replica: {error}");
        }
        let is_restart = !recovered.records.is_empty();
        let mut found = Found {
            promised: Ballot::default(),
            slots: Slots::new(Index::ZERO, Arc::new(config.members.clone())),
            decided: Index::ZERO,
            life: 0,
            forgets_promise: config.options.has(Mutant::ForgetsPromise),
        };
        for record in recovered.records {
            found.replay(record);
        }
        let state = recovered.snapshot.map_or(Index::ZERO, |snapshot| snapshot.at);
        let Found { promised, slots, decided, life, .. } = found;
        let life = life + 1;
        let life_lsn = out.record(Record::Life(life));
        let mut paxos = MultiPaxos {
            id: config.id,
            options: config.options.clone(),
            rng: Rng::new(config.seed ^ config.id.0.rotate_left(32) ^ life.rotate_left(48)),
            now,
            promised,
            promised_lsn: Lsn::ZERO,
            round_seen: promised.round,
            part: Part::Follower,
            leader: None,
            // A lease may count on what this replica answered before it was restarted, whatever its own options say.
            heard_leader: is_restart.then_some(now),
            election_due: now,
            disk: Disk::new(decided),
            slots,
            decided,
            delivered: state,
            prefix: decided,
            told: Index::ZERO,
            owes_accepted: false,
            recorded: decided,
            recording: VecDeque::new(),
            knows: decided,
            reads: Reads::default(),
            compaction: Compaction::new(state),
            life: (life, life_lsn),
            forwarded: 0,
        };
        paxos.extend_prefix();
        // Whatever was recovered is on disk.
        paxos.disk = Disk::new(paxos.prefix);
        paxos.wait_for_leader();
        paxos.settle_snapshot();
        paxos
    }
}
